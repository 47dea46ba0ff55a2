"""The memory of a step, by part and by what is alive together. Pure arithmetic.

What is counted is what PyTorch allocates for the worst step: the longest prompts, every response at
its limit, the microbatch full. Of several ranks it is that of one: FSDP2 deals weights, gradients
and moments out evenly. Not counted: CUDA's own (about half a GB) and fragments, for which `USABLE`
leaves room, and what a batch itself takes (a few MB).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from opo_cli.config import Config, changed, value_at
from opo_cli.data.benchmarks import benchmark_row, longest_response
from opo_cli.evaluate.settings import num_samples, takes_kl
from opo_cli.model.device import Device
from opo_cli.model.footprint import FP32, Microbatch, Moment, ShardedMicrobatch
from opo_cli.model.shape import BYTES, PROMPT_ROOM, Shape
from opo_cli.ranks import is_launched, world_size
from opo_cli.rollout.engine import engine_settings
from opo_cli.rollout.sizes import (
    SLOT_BLOCK,
    USABLE,
    VLLM_CPU_SHARE,
    VLLM_GRAPHS,
    VLLM_RESERVE,
    longest_request,
    part_of,
    vllm_cache,
)

STEP_PHASES = ("rollout", "score", "head", "layers", "AdamW")
"""The update is three of them: the backward pass of the head, of the layers, the optimizer."""
PHASES = (*STEP_PHASES, "eval")
"""Evaluated responses are scored beside an engine that is awake."""
SAMPLING_BYTES = 24  # Per row and word: logits and logprobs in fp32, two steps of a sum in fp64.

Bytes = tuple[int, int, int, int, int, int]
"""In each of `PHASES`."""


def planned_ranks(config: Config) -> int:
    """Of this run, or of the one that the config was sized for."""
    return world_size() if is_launched() else config.runtime.num_gpus


def is_sharded(config: Config) -> bool:
    return is_launched() or planned_ranks(config) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The worst step's tokens, those of one rank."""

    num_rows: int
    """Responses of the step."""
    prompt: int
    """Tokens of the longest prompt."""
    response: int
    """Tokens of every response."""
    microbatch: int
    """Padded tokens of a microbatch."""

    @property
    def length(self) -> int:
        return self.prompt + self.response

    @property
    def scored(self) -> int:
        """Response tokens of a microbatch."""
        return self.microbatch // self.length * self.response


def load_of(config: Config, shape: Shape, longest_prompt: int | None = None) -> Load:
    """`longest_prompt`: None takes the longest that the config allows."""
    response = config.rollout.max_new_tokens
    prompt = longest_prompt or config.data.max_prompt_tokens
    if shape.max_positions is not None:
        prompt = max(1, min(prompt, shape.max_positions - response))
    groups = -(-config.rollout.prompts_per_step // planned_ranks(config))
    return _load(config, groups * config.rollout.group_size, prompt, response)


def evaluation_load(config: Config, shape: Shape) -> Load | None:
    """Of what is scored after one call of the engine; None where nothing is evaluated."""
    settings = config.eval
    rows = [benchmark_row(name) for name in settings.every_benchmark]
    if not rows:
        return None
    response = longest_response(settings)
    prompt, context = PROMPT_ROOM, shape.max_positions
    if context is not None:
        if not settings.max_new_tokens:  # As `room_for_response`.
            response = max(1, min(response, context - min(PROMPT_ROOM, context // 4)))
        prompt = max(1, min(prompt, context - response))
    count = max(config.rollout.max_rows, *(num_samples(settings, row) for row in rows))
    return _load(config, count, prompt, response)


def _load(config: Config, num_rows: int, prompt: int, response: int) -> Load:
    length = prompt + response
    rows = min(max(1, config.train.microbatch_tokens // length), num_rows)
    return Load(num_rows=num_rows, prompt=prompt, response=response, microbatch=rows * length)


# --- all parts ----------------------------------------------------------------------------------


def memory_parts(
    config: Config, shape: Shape, device: Device, engine: str, load: Load | None = None
) -> dict[str, Bytes]:
    """Bytes of each part in each of `PHASES`; a part that the run does not have is left out."""
    load = load or load_of(config, shape)
    parts = {
        **learner_parts(config, shape, device),
        **microbatch_parts(config, shape, device, load),
    }
    is_evaluated = evaluation_load(config, shape) is not None
    others = max(totals(parts)[0], totals(parts)[-1] if is_evaluated else 0)
    parts |= ENGINE_PARTS[engine](config, shape, device, load, others)
    if not is_evaluated:
        parts = {name: (*part[:-1], 0) for name, part in parts.items()}
    return {name: part for name, part in parts.items() if any(part)}


def evaluation_bytes(config: Config, shape: Shape, device: Device) -> int:
    """What an evaluation takes beside an awake engine and what is always on the device: one
    microbatch, and a reference policy that comes for its KL."""
    load = evaluation_load(config, shape)
    if load is None:
        return 0
    reference = learner_parts(config, shape, device)["reference policy"]
    visiting = reference[-1] if config.train.use_reference_offload else 0
    return visiting + _evaluated(config, shape, device, load).total


def learner_parts(config: Config, shape: Shape, device: Device) -> dict[str, Bytes]:
    from opo_cli.train.learner import needs_reference

    numbers, count = shape.num_parameters, planned_ranks(config)
    number = sum(numbers.values())
    is_noise_measured = bool(config.measure.every)
    reference = _shard(number, count) if needs_reference(config) else 0
    is_offloaded = config.train.use_reference_offload
    is_elsewhere = device.is_gpu and is_sharded(config) and config.train.use_cpu_offload
    whole = 0 if is_elsewhere else _shard(number, count)
    critic = _shard(number - numbers["head"] + shape.hidden_size + 1, count)
    if is_elsewhere or not config.algorithm.estimator.needs_critic:
        critic = 0
    # On a GPU AdamW takes all tensors at once, and the root of all second moments with them.
    roots = whole if device.is_gpu else _shard(numbers["embedding"], count)
    return {
        "weights, fp32": (whole,) * 6,
        "AdamW's moments": (2 * whole,) * 6,
        "gradients": (0, 0, whole, whole, whole, 0),
        "gradients, first half": (0, 0, *(is_noise_measured * whole,) * 3, 0),
        "AdamW's scratch": (0, 0, 0, 0, roots, 0),
        "reference policy": (
            (0, reference, 0, 0, 0, takes_kl(config.eval) * reference)
            if is_offloaded
            else (reference,) * 6
        ),
        "critic": (*(3 * critic,) * 2, *(4 * critic,) * 3, 3 * critic),
    }


def _shard(number: int, count: int) -> int:
    """Bytes in fp32 of a rank's share, one of `count`."""
    return FP32 * -(-number // count)


def microbatch_parts(config: Config, shape: Shape, device: Device, load: Load) -> dict[str, Bytes]:
    part, nothing = microbatch_of(config, shape, device, load), Moment(0)
    evaluation = evaluation_load(config, shape)
    moments = (
        *(nothing, part.score(), part.at_the_head(), part.in_layers(), nothing),
        _evaluated(config, shape, device, evaluation) if evaluation else nothing,
    )
    return {
        f"{part.dtype} weights": tuple(each.copies for each in moments),
        "activations": tuple(each.activations for each in moments),
        "logits, head gradient": tuple(each.logits for each in moments),
        "gathered: layers": tuple(each.layers for each in moments),
        "gathered: the rest": tuple(each.root for each in moments),
    }


def _evaluated(config: Config, shape: Shape, device: Device, load: Load) -> Moment:
    part = microbatch_of(config, shape, device, load)
    return replace(part, compares_policies=takes_kl(config.eval)).score()


def microbatch_of(
    config: Config, shape: Shape, device: Device, load: Load, *, is_engines: bool = False
) -> Microbatch:
    """`is_engines`: of a model that is never in shards."""
    dtype, head = config.model.compute_dtype, config.model.head_dtype
    kind = ShardedMicrobatch if is_sharded(config) and not is_engines else Microbatch
    return kind(
        shape=shape,
        num_tokens=load.microbatch,
        num_scored=load.scored,
        dtype=dtype,
        head_dtype=dtype if head == "compute" else head,
        is_gpu=device.is_gpu,
        use_checkpointing=config.train.use_activation_checkpointing,
        has_entropy_gradient=config.algorithm.entropy_coefficient > 0,
        compares_policies=bool(config.measure.every or config.measure.probe_every),
    )


def transformers_parts(
    config: Config, shape: Shape, device: Device, load: Load, others: int
) -> dict[str, Bytes]:
    """It shares the policy's weights, and holds nothing between batches. Where they are sharded it
    has a copy, which sleeps as vLLM's does."""
    dtype, group = config.model.compute_dtype, config.rollout.group_size
    rows = min(load.num_rows, max(1, config.rollout.max_rows // group) * group)
    slots = load.prompt + -(-load.response // SLOT_BLOCK) * SLOT_BLOCK
    cache = shape.cache_bytes(rows, slots, dtype)
    moved = cache // (2 * shape.num_layers)  # One layer's keys at a time, where slots are added.
    prompts = replace(load, microbatch=rows // group * load.prompt)
    prefill = microbatch_of(config, shape, device, prompts, is_engines=True).forward()
    sampling = max(rows * shape.vocab_size * SAMPLING_BYTES, prefill.activations - cache)
    own = is_sharded(config) * FP32 * sum(shape.num_parameters.values())
    asleep = 0 if device.is_gpu else own
    return {
        "sampler: weights": (own + prefill.copies, *(asleep,) * 4, own),
        "sampler: keys, values": (cache + moved, 0, 0, 0, 0, 0),
        "sampler: next token": (sampling, 0, 0, 0, 0, 0),
    }


def vllm_parts(
    config: Config, shape: Shape, device: Device, load: Load, others: int
) -> dict[str, Bytes]:
    """Weights of its own. It sleeps from the rollout's end to the sync on a GPU, and not on a CPU.
    Where no budget is stated, the cache takes what `others`, alive while it is awake, leave, up to
    what `max_rows` need. Ranks that share an engine have a part of each matrix and of the heads."""
    settings, sharers = engine_settings(config), config.rollout.tensor_parallel
    weights = sum(shape.num_parameters.values()) * BYTES[settings.dtype] // sharers
    shape = part_of(shape, sharers)
    reserve = VLLM_RESERVE if device.is_gpu else 0
    longest = longest_request(shape, settings)
    left = (
        int(USABLE * device.num_bytes) - others - weights - reserve
        if device.is_gpu
        else int(VLLM_CPU_SHARE * device.num_bytes)
    )
    size = vllm_cache(shape, settings, longest, left)
    cache = size.budget if settings.cache_gigabytes else max(size.budget, size.group)

    def in_phases(num_bytes: int, asleep: int = 0) -> Bytes:
        return (num_bytes, *(asleep if device.is_gpu else num_bytes,) * 4, num_bytes)

    return {
        f"vLLM: {settings.dtype}": in_phases(weights),
        "vLLM: keys, values": in_phases(cache),
        "vLLM: graphs, scratch": in_phases(reserve, VLLM_GRAPHS),
    }


ENGINE_PARTS = {"transformers": transformers_parts, "vllm": vllm_parts}


# --- does it fit --------------------------------------------------------------------------------


def totals(parts: dict[str, Bytes]) -> Bytes:
    return tuple(sum(part[i] for part in parts.values()) for i in range(len(PHASES)))


def peak(parts: dict[str, Bytes]) -> tuple[int, str]:
    """(bytes, phase)."""
    return max(zip(totals(parts), PHASES, strict=True))


def fits(parts: dict[str, Bytes], device: Device) -> bool:
    return peak(parts)[0] <= USABLE * device.num_bytes


# What may be changed, the cheapest first; each with all before it.
LEVERS: tuple[dict[str, Any], ...] = (
    {},
    {"train.use_activation_checkpointing": True},
    {"train.use_reference_offload": True},
    {"measure.every": 0},
)
OF_SEVERAL_RANKS: tuple[dict[str, Any], ...] = ({"train.use_cpu_offload": True},)


def levers(config: Config) -> tuple[dict[str, Any], ...]:
    return LEVERS + OF_SEVERAL_RANKS * is_sharded(config)


def what_to_lower(
    config: Config, shape: Shape, device: Device, engine: str
) -> dict[str, Any] | None:
    """Settings with which it fits, the dearest left alone as far as possible; None: none does."""
    settings: dict[str, Any] = {}
    for lever in levers(config):
        settings = {**settings, **{k: v for k, v in lever.items() if value_at(config, k) != v}}
        for more in _smaller(changed(config, settings), shape, engine):
            candidate = {**settings, **more}
            if fits(memory_parts(changed(config, candidate), shape, device, engine), device):
                return candidate
    return None


def _smaller(config: Config, shape: Shape, engine: str) -> Iterator[dict[str, Any]]:
    """Ever smaller batches: of the microbatch, of the rows that are sampled together."""
    length, group = load_of(config, shape).length, config.rollout.group_size
    budgets = _halvings(config.train.microbatch_tokens, length)
    rows = _halvings(min(config.rollout.max_rows, config.num_rows), group)
    caches = [{}]
    if engine == "vllm" and config.rollout.cache_gigabytes:
        caches = [{}, {"rollout.cache_gigabytes": 0}]
    elif engine == "transformers":
        caches = [{}] + [{"rollout.max_rows": count} for count in rows]
    for cache in caches:
        for budget in [{}] + [{"train.microbatch_tokens": count} for count in budgets]:
            yield {**budget, **cache}


def _halvings(start: int, least: int) -> list[int]:
    values = []
    while start // 2 > least:
        start //= 2
        values.append(start)
    return [*values, least] if start > least else values
