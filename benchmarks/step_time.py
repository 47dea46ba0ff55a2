"""How long a step takes on how many ranks: a simulation, and what it is worth.

    python benchmarks/step_time.py --preset qwen-math-7b --ranks 8 16 32 64 [--mean 900]
    python benchmarks/step_time.py --shape 70B --ranks 64 128 --set rollout.tensor_parallel=8
    python benchmarks/step_time.py --shape 32B --ranks 16 --memory
    python benchmarks/step_time.py --measured RUN RUN ...

Lengths of responses are drawn (lognormal, cut at `rollout.max_new_tokens`), or those of a run
(`--lengths RUN`). Each rank samples its groups: a token takes as long as reading the weights and
the rows' keys and values, or as the products; rows leave as they end, and all wait for the slowest
engine. Groups are dealt anew by tokens, cut into microbatches, and trained in as many rounds as the
fullest rank has. In a round the layers pass one by one: gathered while the layer before them is
computed, their gradients scattered while the next is; the slowest rank and the link both hold up
everyone. Then AdamW, and the weights' way to the engines, tensor by tensor.

    link        what of the update its collectives add to its compute
    idle        share of the ranks' time in rollout and update in which they wait for slower ones
    bound by    of the update: compute, or link where that adds more than a tenth

`--memory` prints what a rank holds, as `opo train --dry-run` does, with vLLM.

`--measured` takes what it needs to know of the machine from the first run (FLOP/s of sampler and
trainer, seconds of a decoded token and of a layer in themselves), links from the first run of
several ranks, and predicts the others: seconds of all steps but the first, predicted / measured,
and their ratio; behind it the highest of a single step: other work on the machine makes steps
slower, and none faster.
"""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from scipy.optimize import nnls

from opo_cli.config import Config, changed
from opo_cli.model.device import GIGABYTE, Device
from opo_cli.model.lookup import KNOWN, find_shape
from opo_cli.model.parallel import balanced, share_of
from opo_cli.model.sequences import Sequences
from opo_cli.model.shape import BYTES, Shape, shape_of
from opo_cli.presets import resolve
from opo_cli.records import RunFolder
from opo_cli.report.tables import print_tables
from opo_cli.rollout.engine import engine_settings
from opo_cli.rollout.transformers_engine import COMPACT_BELOW
from opo_cli.train.budget import load_of, memory_parts
from opo_cli.train.forecast import Forecast, fit_line, memory_table
from opo_cli.train.outputs import stored_config
from opo_cli.train.speed import BANDWIDTH_SHARE, COMPUTE_SHARE, PEAKS

OPTIMIZER_BYTES = 40  # Per weight: norm, clipping, and AdamW's reads and writes in fp32.
LINK_SHARE = 0.7  # Our assumption: what collectives get of a link.
TOKEN_SECONDS = 3e-3  # Our assumption: vLLM's scheduler and sampler, beside the GPU's work.
INSIDE = 450e9  # NVLink 4, each direction of a GPU (H100 data sheet: 900 GB/s both ways).
BETWEEN = 400e9  # Of a machine: eight ConnectX-7 of 400 Gbit/s (DGX H100 data sheet).
LATENCY_INSIDE, LATENCY_BETWEEN = 2e-6, 1e-5  # Of a hop; our assumption.
SHAPES = {  # As in their config.json, written down from memory; sums as the hub counts them.
    "7B": KNOWN["Qwen/Qwen2.5-Math-7B"],
    "32B": {
        "model_type": "qwen2",
        "hidden_size": 5120,
        "intermediate_size": 27648,
        "num_hidden_layers": 64,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
    },
    "70B": {
        "model_type": "llama",
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
}
PHASES = ("rollout", "score", "update", "sync")
SHORTEST = 0.01  # Seconds of a phase that are worth a comparison.


# --- the machine ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Link:
    per_byte: float
    """Seconds."""
    latency: float
    """Seconds of a hop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What things take, in seconds: linear in each, so that a run can tell them."""

    sampled_flop: float = 0.0
    """A floating point operation of the sampler."""
    flop: float = 0.0
    """Of the trainer."""
    byte: float = 0.0
    """Read from memory by the sampler."""
    moved: float = 0.0
    """A byte of weights and the like, by optimizer and sync."""
    token: float = 0.0
    """Of a decoded token of all rows, beside its work."""
    layer: float = 0.0
    """Of a layer's forward pass, beside its work."""
    inside: Link = Link(0.0, 0.0)
    """Of each rank, one direction."""
    between: Link = Link(0.0, 0.0)
    """Of each machine, one direction."""
    per_machine: int = 8
    """Ranks."""
    overlaps: bool = True
    """Whether collectives go on beside compute: on a CPU they do not."""

    def collective(self, num_bytes: float, num_ranks: int) -> float:
        """All-gather or reduce-scatter, by rings: everyone gets what the others have."""
        machines = -(-num_ranks // self.per_machine)
        inside = self.inside.per_byte * num_bytes * (num_ranks - 1) / num_ranks
        between = self.between.per_byte * num_bytes * (machines - 1) / machines
        latency = self.between.latency if machines > 1 else self.inside.latency
        return max(inside, between) + latency * (num_ranks - 1)


# --- a step's responses ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Responses:
    """Of a step, by group."""

    prompts: list[int]
    """Tokens of each group's prompt."""
    lengths: list[list[int]]
    """Tokens of its responses."""

    @property
    def num_tokens(self) -> int:
        return sum(map(sum, self.lengths))

    def of(self, groups: Sequence[int]) -> Responses:
        return Responses([self.prompts[g] for g in groups], [self.lengths[g] for g in groups])

    @property
    def sequences(self) -> Sequences:
        """Their lengths alone."""
        rows = [(p, n) for p, group in zip(self.prompts, self.lengths, strict=True) for n in group]
        prompts, lengths = (torch.tensor(column) for column in zip(*rows, strict=True))
        return Sequences(
            input_ids=torch.empty(len(rows), 0), prompt_lengths=prompts, lengths=lengths
        )


def drawn(config: Config, mean: float, spread: float, prompt: int, rng) -> Responses:
    """Lognormal lengths; `spread`: the standard deviation of their logarithm. Half of the variance
    is the prompt's, as long solutions belong to hard problems."""
    groups, size = config.rollout.prompts_per_step, config.rollout.group_size
    scale = spread / np.sqrt(2)
    logs = rng.normal(0, scale, (groups, 1)) + rng.normal(0, scale, (groups, size))
    lengths = np.exp(np.log(mean) - spread**2 / 2 + logs).round()
    lengths = lengths.clip(1, config.rollout.max_new_tokens).astype(int)
    return Responses([prompt] * groups, lengths.tolist())


def read(run: RunFolder, tokenizer) -> dict[int, Responses]:
    """Step -> what the ledger kept of it."""
    found = {}
    for step in run.ledger.steps():
        groups: dict[int, list[dict[str, Any]]] = {}
        for line in run.ledger.read(step, ["group", "prompt", "length"]):
            groups.setdefault(line["group"], []).append(line)
        rows = [groups[group] for group in sorted(groups)]
        prompts = [len(tokenizer(group[0]["prompt"]).input_ids) for group in rows]
        found[step] = Responses(prompts, [[line["length"] for line in group] for group in rows])
    return found


# --- rollout --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Model:
    """What is trained, and how."""

    config: Config
    shape: Shape
    machine: Machine
    num_ranks: int
    is_vllm: bool = True
    is_sharded: bool = True

    @property
    def num_layers(self) -> int:
        return self.shape.num_layers

    @property
    def sharers(self) -> int:
        return self.config.rollout.tensor_parallel

    # Of the sampler.

    def decode_seconds(self, rows: float, cached: float) -> float:
        """A token of `rows` rows, which have `cached` tokens of keys and values together."""
        shape, machine, dtype = self.shape, self.machine, engine_settings(self.config).dtype
        width = 4 * shape.num_layers * shape.query_width
        flops = rows * (2 * shape.num_multiplied + shape.head_flops(1)) + width * cached
        num_bytes = sum(shape.num_parameters.values()) * BYTES[dtype]
        num_bytes += cached * shape.cache_bytes_per_token(dtype)
        work = max(flops * machine.sampled_flop, num_bytes * machine.byte) / self.sharers
        told = 2 * shape.num_layers * self._told(rows * shape.hidden_size * BYTES[dtype])
        return machine.token + work + told

    def _told(self, num_bytes: float) -> float:
        """An all-reduce among the ranks of an engine."""
        return 2 * self.machine.collective(num_bytes, self.sharers) if self.sharers > 1 else 0.0

    def prefill_seconds(self, prompts: Sequence[int]) -> float:
        flops = sum(map(self.shape.layer_flops, prompts)) + self.shape.head_flops(len(prompts))
        return (
            (self.machine.token + flops * self.machine.sampled_flop / self.sharers)
            if (prompts)
            else 0.0
        )

    # Of the trainer.

    def microbatches(self, responses: Responses) -> list[tuple[float, float]]:
        """(forward FLOPs of the layers, of the head) of each of a rank's."""
        if not responses.prompts:
            return []
        sequences, found = responses.sequences, []
        for rows in sequences.microbatches(self.config.train.microbatch_tokens):
            longest = int((sequences.prompt_lengths + sequences.lengths)[rows].max())
            scored = int(sequences.lengths[rows].sum())
            layers = len(rows) * self.shape.layer_flops(longest)
            found.append((layers, self.shape.head_flops(scored)))
        return found

    @property
    def weights(self) -> int:
        return sum(self.shape.num_parameters.values())

    @property
    def root(self) -> int:
        """Weights outside of the layers."""
        numbers = self.shape.num_parameters
        return numbers["embedding"] + numbers["head"] + self.shape.hidden_size


def rollout(model: Model, responses: Responses) -> list[float]:
    """Seconds of each engine: neighbouring groups each."""
    engines, count = model.num_ranks // model.sharers, len(responses.prompts)
    shares = [share_of(count, engine, engines) for engine in range(engines)]
    return [engine_seconds(model, responses.of(share)) for share in shares]


def engine_seconds(model: Model, responses: Responses) -> float:
    """Rows come as others end (vLLM), or when all have (ours); a prompt is read once per group."""
    waiting = [
        (group, prompt, length)
        for group, prompt in enumerate(responses.prompts)
        for length in responses.lengths[group]
    ][::-1]
    size = model.config.rollout.group_size
    most = max(size, model.config.rollout.max_rows // size * size)
    ends: list[tuple[int, int]] = []  # (token at which it ends, all of its tokens)
    now = cached = held = 0
    seconds, last = 0.0, -1
    while waiting or ends:
        if model.is_vllm or not ends:
            prompts = []
            while waiting and len(ends) < most:
                group, prompt, length = waiting.pop()
                prompts += [prompt] if group != last else []
                last, cached = group, cached + prompt
                heapq.heappush(ends, (now + length, prompt + length))
            seconds += model.prefill_seconds(prompts)
        rows = len(ends)
        if model.is_vllm or rows < COMPACT_BELOW * held or rows > held:
            held = rows
        steps = ends[0][0] - now
        seconds += steps * model.decode_seconds(held, (cached + rows * steps / 2) * held / rows)
        now, cached = now + steps, cached + rows * steps
        while ends and ends[0][0] == now:
            cached -= heapq.heappop(ends)[1]
        held = held if ends else 0
    return seconds


# --- forward and backward passes ------------------------------------------------------------------


def round_seconds(
    model: Model, layers: float, head: float, *, has_gradient: bool, has_head: bool = True
) -> tuple[float, float]:
    """(all, without collectives) of a microbatch.

    Args:
        layers, head: forward FLOPs of the rank that has most.
    """
    machine, count = model.machine, model.num_layers
    forward = layers / count * machine.flop + machine.layer
    again = model.config.train.use_activation_checkpointing
    backward = (2 + again) * forward
    tail = head * machine.flop * has_head
    compute = count * (forward + has_gradient * backward) + (1 + 2 * has_gradient) * tail
    if not model.is_sharded or model.num_ranks == 1:
        return compute, compute
    layer = (model.weights - model.root) / count
    gather = machine.collective(layer * BYTES[model.config.model.compute_dtype], model.num_ranks)
    reduce = machine.collective(4 * layer, model.num_ranks)
    root = machine.collective(4 * model.root, model.num_ranks)
    if not machine.overlaps:
        number = count * (1 + has_gradient)
        return compute + number * gather + root + has_gradient * (count * reduce + root), compute
    now = root + _pass([forward] * count, gather, 0.0) + tail
    if has_gradient:
        now += max(0.0, _pass([backward] * count, gather, reduce, head_start=2 * tail)) + root
    return now, compute


def _pass(layers: Sequence[float], gather: float, reduce: float, head_start: float = 0.0) -> float:
    """Seconds of layers one after the other on one stream, their collectives on the link: the next
    layer's weights are asked for when a layer begins, its gradients leave when it ends, and at
    most one layer's are under way.

    Args:
        head_start: seconds of compute before them, from whose begin the first is asked for.
    """
    now, ready, link, left = head_start, gather, gather, 0.0
    for seconds in layers:
        begin = max(now, ready)
        ready = link = max(link, begin) + gather  # The next layer's.
        now = max(begin + seconds, left)
        if reduce:
            link = left = max(link, now) + reduce
    return max(now, left)


@dataclass(slots=True)
class Passes:
    """Rounds of all ranks together."""

    seconds: float = 0.0
    compute: float = 0.0
    """Of the slowest rank of each round."""
    own: float = 0.0
    """Of a rank on average."""

    def add(self, model: Model, of_ranks: Sequence[tuple[float, float]], **settings: bool) -> None:
        most = [max(column) for column in zip(*of_ranks, strict=True)]
        mean = [sum(column) / model.num_ranks for column in zip(*of_ranks, strict=True)]
        seconds, compute = round_seconds(model, *most, **settings)
        self.seconds += seconds
        self.compute += compute
        self.own += round_seconds(replace(model, is_sharded=False), *mean, **settings)[1]


def rounds(model: Model, responses: Responses, num_parts: int) -> Iterator[list]:
    """The FLOPs of every rank that has another microbatch, round by round.

    Args:
        num_parts: halves of the groups are trained one after the other, or all at once.
    """
    shares = balanced([sum(group) for group in responses.lengths], model.num_ranks)
    for part in range(num_parts):
        places = [[g for g in share if g % num_parts == part] for share in shares]
        each = [model.microbatches(responses.of(groups)) for groups in places if groups]
        for place in range(max(map(len, each), default=0)):
            yield [found[place] for found in each if place < len(found)]


def score(model: Model, responses: Responses) -> Passes:
    """Forward passes before the update, as `speed.score_flops` counts them."""
    found, algorithm = Passes(), model.config.algorithm
    number = (algorithm.kl_in != "none") + model.config.scores_before_update
    for of_ranks in rounds(model, responses, 1):
        for _ in range(number):
            found.add(model, of_ranks, has_gradient=False)
        if model.config.algorithm.estimator.needs_critic:
            found.add(model, of_ranks, has_gradient=False, has_head=False)
    return found


def update(model: Model, responses: Responses, num_parts: int) -> Passes:
    found, minibatches = Passes(), model.config.algorithm.minibatches_per_step
    count = len(responses.prompts)
    for place in range(minibatches):
        groups = share_of(count, place, minibatches)
        for of_ranks in rounds(model, responses.of(groups), num_parts):
            found.add(model, of_ranks, has_gradient=True)
            if model.config.algorithm.estimator.needs_critic:
                found.add(model, of_ranks, has_gradient=True, has_head=False)
    shard = model.weights / (model.num_ranks if model.is_sharded else 1)
    steps = minibatches * (1 + model.config.algorithm.estimator.needs_critic)
    optimizer = steps * shard * OPTIMIZER_BYTES * model.machine.moved
    for name in ("seconds", "compute", "own"):
        setattr(found, name, getattr(found, name) + optimizer)
    return found


def sync(model: Model) -> float:
    """Every tensor gathered in fp32, written to the engine, and its checksum taken."""
    if not model.is_sharded and not model.is_vllm:
        return 0.0
    tensors = (12 if model.shape.has_qkv_bias else 9) * model.num_layers + 3
    told = model.machine.collective(4 * model.weights / tensors, model.num_ranks)
    dtype = engine_settings(model.config).dtype if model.is_vllm else "float32"
    moved = 4 / model.num_ranks + 4 + 4 + BYTES[dtype] / model.sharers
    return tensors * told + moved * model.weights * model.machine.moved


# --- a whole step ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """Of a step, by phase."""

    rollout: float
    score: float
    update: float
    sync: float
    link: float
    """Of the update, what collectives add."""
    idle: float
    """Mean over ranks, of rollout and update."""

    @property
    def step(self) -> float:
        return self.rollout + self.score + self.update + self.sync


def simulate(model: Model, responses: Responses) -> Seconds:
    engines = rollout(model, responses)
    scored, updated = score(model, responses), update(model, responses, 1)
    return Seconds(
        rollout=max(engines),
        score=scored.seconds,
        update=updated.seconds,
        sync=sync(model),
        link=updated.seconds - updated.compute,
        idle=max(engines) - sum(engines) / len(engines) + updated.compute - updated.own,
    )


def num_parts(config: Config, step: int) -> int:
    """Two where step `step` (from 1) measures gradient noise."""
    return 2 if config.measure.every and (step - 1) % config.measure.every == 0 else 1


# --- against what was measured --------------------------------------------------------------------


@dataclass(slots=True)
class Measured:
    name: str
    model: Model
    steps: list[tuple[dict[str, Any], Responses]]
    """(record, responses), without the first step, which warms up."""

    @classmethod
    def of(cls, path: str) -> Measured:
        from opo_cli.model.policy import load_tokenizer

        run = RunFolder(Path(path))
        config = stored_config(run, {})
        shape, why = find_shape(config.model)
        if shape is None:
            raise SystemExit(f"{path}: {why}")
        environment = run.environment()
        count = environment.get("num_ranks", 1)
        model = Model(
            config,
            shape,
            Machine(overlaps=False, per_machine=count),
            count,
            is_vllm=environment["engine"] == "vllm",
        )
        responses = read(run, load_tokenizer(str(run.model)))
        steps = [(r, responses[r["step"]]) for r in run.steps()[1:] if r["step"] in responses]
        return cls(run.name, model, steps)

    def seconds(self, machine: Machine, phase: str) -> np.ndarray:
        """(steps,) that `machine` would take."""
        model = replace(self.model, machine=machine)
        work: dict[str, Callable[[dict, Responses], float]] = {
            "rollout": lambda record, found: max(rollout(model, found)),
            "score": lambda record, found: score(model, found).seconds,
            "update": lambda record, found: (
                update(model, found, num_parts(model.config, record["step"])).seconds
            ),
            "sync": lambda record, found: sync(model),
        }
        return np.array([work[phase](record, found) for record, found in self.steps])

    def measured(self, phase: str) -> np.ndarray:
        return np.array([record[f"{phase}_seconds"] for record, _ in self.steps])

    def unit(self, **costs: float) -> Machine:
        return Machine(overlaps=False, per_machine=self.model.num_ranks, **costs)

    def solve(self, phases: Sequence[str], known: Machine, names: Sequence[str]) -> dict[str, Any]:
        """What each of `names` costs, by least squares of relative errors, none below 0."""
        parts = {"latency": Link(0.0, 1.0), "per_byte": Link(1.0, 0.0)}
        units = [
            self.unit(inside=parts[name]) if name in parts else self.unit(**{name: 1.0})
            for name in names
        ]
        columns, targets = [], []
        for phase in phases:
            taken = self.measured(phase)
            rest = taken - self.seconds(known, phase)
            columns.append(np.stack([self.seconds(u, phase) for u in units], -1) / taken[:, None])
            targets.append(rest / taken)
        scale = np.concatenate(columns).max(0)
        scale[scale == 0] = 1
        found, _ = nnls(np.concatenate(columns) / scale, np.concatenate(targets))
        return dict(zip(names, found / scale, strict=True))


def calibrated(runs: Sequence[Measured]) -> Machine:
    first = runs[0]
    nothing = first.unit()
    costs = first.solve(["rollout"], nothing, ["sampled_flop", "token"])
    costs |= first.solve(["update"], nothing, ["flop", "layer", "moved"])
    machine = Machine(overlaps=False, **costs)
    several = next((run for run in runs if run.model.num_ranks > 1), None)
    if several is not None:
        known = replace(machine, per_machine=several.model.num_ranks)
        link = several.solve(["update", "sync"], known, ["latency", "per_byte"])
        machine = replace(machine, inside=Link(link["per_byte"], link["latency"]))
    return machine


def check(paths: Sequence[str]) -> None:
    runs = [Measured.of(path) for path in paths]
    machine = calibrated(runs)
    print(
        f"from {runs[0].name}: sampler {_rate(machine.sampled_flop)}, {machine.token * 1e3:.2f} ms "
        f"a token; trainer {_rate(machine.flop)}, {machine.layer * 1e3:.2f} ms a layer"
    )
    if machine.inside != Link(0.0, 0.0):
        link = machine.inside
        speed = f"{1e-9 / link.per_byte:.2f} GB/s" if link.per_byte else "no cost per byte"
        print(f"links: {link.latency * 1e3:.2f} ms a hop, {speed}")
    print(f"\n{'predicted / measured':<28}{'ranks':>6}" + "".join(f"{p:>22}" for p in PHASES))
    for run in runs:
        here = replace(machine, per_machine=run.model.num_ranks)
        cells = [_compared(run.seconds(here, phase), run.measured(phase)) for phase in PHASES]
        print(f"{run.name:<28}{run.model.num_ranks:>6}" + "".join(cells))


def _compared(told: np.ndarray, taken: np.ndarray) -> str:
    if taken.mean() < SHORTEST:
        return f"{'-':>22}"
    whole, best = told.sum() / taken.sum(), (told / taken).max()
    return f"{told.sum():>7.1f}/{taken.sum():<5.1f}{whole:>5.2f} {best:<4.2f}"


def _rate(cost: float) -> str:
    return f"{1e-9 / cost:.1f} GFLOP/s" if cost else "no cost per FLOP"


# --- the table ------------------------------------------------------------------------------------


def of_gpus(arguments) -> Machine:
    peak = PEAKS[arguments.gpu]
    compute = 1 / (COMPUTE_SHARE * peak.bfloat16)
    return Machine(
        sampled_flop=compute,
        flop=compute,
        byte=1 / (BANDWIDTH_SHARE * peak.bandwidth),
        moved=1 / (BANDWIDTH_SHARE * peak.bandwidth),
        token=TOKEN_SECONDS,
        inside=Link(1 / (LINK_SHARE * arguments.inside * 1e9), LATENCY_INSIDE),
        between=Link(1 / (LINK_SHARE * arguments.between * 1e9), LATENCY_BETWEEN),
        per_machine=arguments.per_machine,
    )


def memory(arguments, config: Config, shape: Shape) -> None:
    size = int(config.runtime.gpu_gigabytes * GIGABYTE)
    device = Device(name=arguments.gpu, num_bytes=size, is_gpu=True)
    for count in arguments.ranks:
        sized = changed(config, {"runtime.num_gpus": count})
        load = load_of(sized, shape)
        found = Forecast(
            config=sized,
            engine="vllm",
            device=device,
            shape=shape,
            shape_source="",
            load=load,
            parts=memory_parts(sized, shape, device, "vllm", load),
        )
        print_tables(Console(), [memory_table(found)], "rich")
        print(fit_line(found))


def table(arguments, config: Config, shape: Shape) -> None:
    rng, machine = np.random.default_rng(arguments.seed), of_gpus(arguments)
    if arguments.lengths:
        from opo_cli.model.policy import load_tokenizer

        run = RunFolder(Path(arguments.lengths))
        steps = list(read(run, load_tokenizer(str(run.model))).values())[-arguments.steps :]
    else:
        steps = [
            drawn(config, arguments.mean, arguments.spread, arguments.prompt, rng)
            for _ in range(arguments.steps)
        ]
    lengths = np.array([n for step in steps for group in step.lengths for n in group])
    rows = len(lengths) // len(steps)
    print(
        f"{sum(shape.num_parameters.values()) / 1e9:.1f}B parameters; {rows} responses of "
        f"{lengths.mean():.0f} tokens on average, longest {lengths.max()}; {arguments.gpu}, "
        f"{arguments.per_machine} a machine, {arguments.inside:g} and {arguments.between:g} GB/s"
    )
    heads = ("ranks", *PHASES, "step", "link", "idle", "tok/s", "per rank")
    print("".join(f"{head:>9}" for head in heads) + "   bound by")
    for count in arguments.ranks:
        model = Model(config, shape, machine, count)
        found = [simulate(model, step) for step in steps]
        mean = {name: np.mean([getattr(f, name) for f in found]) for name in (*PHASES, "step")}
        link, idle = (np.mean([getattr(f, name) for f in found]) for name in ("link", "idle"))
        rate = sum(step.num_tokens for step in steps) / len(steps) / mean["step"]
        share = idle / (mean["rollout"] + mean["update"])
        bound = "link" if link > 0.1 * mean["update"] else "compute"
        print(
            f"{count:>9}"
            + "".join(f"{value:>9.1f}" for value in (*mean.values(), link))
            + f"{share:>9.0%}{rate:>9.0f}{rate / count:>9.0f}   {bound}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measured", nargs="+", metavar="RUN", help="finished runs, instead")
    parser.add_argument("--memory", action="store_true", help="of a rank, instead")
    parser.add_argument("--preset", default="qwen-math-7b")
    parser.add_argument("--algorithm")
    parser.add_argument("--shape", choices=SHAPES, help="instead of the preset's model")
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--per-machine", type=int, default=8)
    parser.add_argument("--gpu", choices=PEAKS, default="H100")
    parser.add_argument("--inside", type=float, default=INSIDE / 1e9, help="GB/s of a rank")
    parser.add_argument("--between", type=float, default=BETWEEN / 1e9, help="GB/s of a machine")
    parser.add_argument("--mean", type=float, default=900, help="tokens of a response")
    parser.add_argument("--spread", type=float, default=0.6, help="of their logarithm")
    parser.add_argument("--prompt", type=int, default=150, help="tokens of a prompt")
    parser.add_argument("--lengths", metavar="RUN", help="take the responses of a run")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    arguments = parser.parse_args()
    if arguments.measured:
        check(arguments.measured)
        return
    config = resolve(arguments.preset, algorithm=arguments.algorithm, overrides=arguments.set)
    shape = shape_of(SHAPES[arguments.shape]) if arguments.shape else find_shape(config.model)[0]
    (memory if arguments.memory else table)(arguments, config, shape)


if __name__ == "__main__":
    main()
