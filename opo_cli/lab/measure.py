"""From policies to lab folders: prompts are drawn once, and for every policy sampled, graded, and
measured, a prompt at a time. What is measured of a prompt is a function of (seed, row).

Where ranks share the work, each holds the whole policy and has an engine of its own (see `turns`);
rank 0 alone tells and writes.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from opo_cli.config import Config, changed
from opo_cli.console import progress, warn
from opo_cli.data.sources import LAB_STREAM
from opo_cli.errors import NotFiniteError, OpoError
from opo_cli.grading.pool import Grader
from opo_cli.lab.foreseen import PILOT, Foreseen, Tokens
from opo_cli.lab.gradients import (
    TOGETHER,
    Layout,
    Vectors,
    response_gradients,
    takes_together,
    token_gradients,
    vector_bytes,
)
from opo_cli.lab.parameters import adam_scales, measured_parameters
from opo_cli.lab.plan import LabPlan
from opo_cli.lab.prompts import draw_prompts, load_prompts
from opo_cli.lab.settings import CODE, PolicySource, Request
from opo_cli.lab.store import LabFolder, PromptData
from opo_cli.lab.turns import most_of_a_rank, own_of, rounds, to_main, turns
from opo_cli.model.device import GIGABYTE, training_device
from opo_cli.model.footprint import FP32, Microbatch
from opo_cli.model.memory import out_of_memory
from opo_cli.model.parallel import from_main, num_ranks, on_all_ranks
from opo_cli.model.policy import check_context, choose_device, load_policy
from opo_cli.model.precision import Precision
from opo_cli.model.recompute import recompute_layers
from opo_cli.model.shape import shape_of
from opo_cli.records import source_digest
from opo_cli.rollout.engine import choose_engine, engine_settings
from opo_cli.rollout.revival import start_engine
from opo_cli.train.batch import collate
from opo_cli.train.budget import ENGINE_PARTS, is_sharded, load_of, totals
from opo_cli.train.checkpoint import read_policy, read_second_moments
from opo_cli.train.rollouts import shaped
from opo_cli.train.snapshots import MOMENTS
from opo_cli.types import GRADER_FAILURES, GradedGroup, Group, Sampling

EPSILON = 1e-8  # AdamW's.
WARM_SECONDS = 10
FUNC_COPIES, ATTENTION_COPIES = 2.8, 3
"""Of activations, and of attention's matrices, that `torch.func` keeps; measured."""


class Lab:
    """The policies of one command, one after the other in the same model, engine and prompts."""

    def __init__(self, config: Config, asked: Request, source: PolicySource, training: Path | None):
        """Loads `source`, the first to be measured; `training`: see `load_prompts`.

        Raises:
            OpoError: model, problems or engine cannot be had, or do not fit together.
        """
        if config.runtime.num_threads:
            torch.set_num_threads(config.runtime.num_threads)
        self.config, self.asked = config, asked
        device, _ = choose_device(config.runtime.device)
        on_all_ranks(lambda: self._begin(device, source, training))
        name, _ = choose_engine(config.runtime.engine, shape_of(self.model.config), device.type)
        self.engine = start_engine(  # In which ranks may meet.
            name,
            config.runtime.engine,
            self.model,
            self.tokenizer,
            lambda: engine_settings(
                config, is_training=False, bytes_to_come=self._gradient_bytes()
            ),
        )
        self.failures = 0

    def _begin(self, device: torch.device, source: PolicySource, training: Path | None) -> None:
        config, asked = self.config, self.asked
        self.model, self.tokenizer = load_policy(source.path, device, Precision.of(config.model))
        prompts = load_prompts(config, asked, training, self.tokenizer)
        self.prompts = draw_prompts(prompts, asked)
        check_context(self.model, self.prompts, config.rollout.max_new_tokens, "rollout")
        self._moments = self._take(source)
        with measured_parameters(self.model, asked.parameters, asked.seed) as parameters:
            self._num_coordinates = sum(each.numel() for each in parameters.values())
        if config.train.use_activation_checkpointing:
            recompute_layers(self.model.base_model)
        self._layout = self._make_layout()

    def _take(self, source: PolicySource) -> Mapping[str, torch.Tensor] | None:
        """The checkpoint's weights; returns the moments that are asked for."""
        uses_moments = self.asked.precondition == "adam"
        if source.checkpoint is None:
            return _load(Path(source.path) / MOMENTS) if uses_moments else None
        weights = read_policy(source.checkpoint)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(weights[name])
        beta2 = self.config.optim.beta2
        return read_second_moments(source.checkpoint, beta2) if uses_moments else None

    def load(self, source: PolicySource) -> None:
        """Takes another policy's weights, of the same shape."""
        on_all_ranks(lambda: self._load(source))
        self.engine.load_weights(self.model, source.step or 0)

    def _load(self, source: PolicySource) -> None:
        if source.checkpoint is None:
            # In host memory: beside the model and its engine a GPU may have no room.
            other, _ = load_policy(source.path, torch.device("cpu"))
            self.model.load_state_dict(other.state_dict())
        self._moments = self._take(source)
        self._layout = self._make_layout()

    # --- memory ---

    @property
    def whole_gigabytes(self) -> float:
        """The least --memory that keeps gradients whole."""
        count = self.asked.responses
        if self.asked.token_gradients:
            count *= self.config.rollout.max_new_tokens
        return vector_bytes(self._num_coordinates, count, is_whole=True) / GIGABYTE

    @property
    def is_whole(self) -> bool:
        return self.asked.memory_gigabytes >= self.whole_gigabytes

    def _make_layout(self) -> Layout:
        asked = self.asked
        with measured_parameters(self.model, asked.parameters, asked.seed) as parameters:
            scales = None
            if self._moments is not None:
                scales = adam_scales(self._moments, parameters, EPSILON)
            return Layout.of(parameters, seed=asked.seed, is_whole=self.is_whole, scales=scales)

    @property
    def _weight_bytes(self) -> int:
        return sum(each.numel() for each in self.model.parameters()) * FP32

    def _sampling_bytes(self) -> int:
        """The engine's, while it samples."""
        count, shape = self.asked.responses, shape_of(self.model.config)
        config = changed(self.config, {"rollout.group_size": count})
        longest = max(len(prompt.token_ids) for prompt in self.prompts)
        load = replace(load_of(config, shape, longest), num_rows=count * len(self.prompts))
        others = self._weight_bytes + self._gradient_bytes()
        parts = ENGINE_PARTS[self.engine.name](config, shape, training_device(config), load, others)
        # Ranks that train have a sampler's copy beside their shards; here the policy is whole.
        copy = self._weight_bytes if is_sharded(config) and self.engine.name != "vllm" else 0
        return totals(parts)[0] - copy

    def _gradient_bytes(self) -> int:
        return self._activation_bytes() + self._vector_bytes()

    def _vector_bytes(self) -> int:
        count, most = self.asked.responses, self.config.rollout.max_new_tokens
        found = vector_bytes(self._num_coordinates, count, is_whole=self.is_whole)
        if self.asked.token_gradients:
            found += vector_bytes(self._num_coordinates, count * most, is_whole=self.is_whole)
        together = TOGETHER if takes_together(self.model) else 1
        return found + together * self._num_coordinates * FP32

    def _activation_bytes(self) -> int:
        """Of the longest prompt's longest response, or so many as are taken together."""
        config, most = self.config, self.config.rollout.max_new_tokens
        shape = shape_of(self.model.config)
        together = TOGETHER if takes_together(self.model) else 1
        longest = max(len(prompt.token_ids) for prompt in self.prompts) + most
        one = Microbatch(
            shape=shape,
            num_tokens=together * longest,
            num_scored=together * (longest if together > 1 else most),
            dtype=config.model.compute_dtype,
            head_dtype=config.model.head_dtype.replace("compute", config.model.compute_dtype),
            is_gpu=self.model.device.type == "cuda",
            use_checkpointing=config.train.use_activation_checkpointing,
        )
        found = max(one.in_layers().total, one.at_the_head().total)
        if together == 1:
            return found
        attention = together * shape.num_layers * shape.num_heads * longest**2 * FP32
        return int(FUNC_COPIES * found + ATTENTION_COPIES * attention)

    def foresee(self, num_prompts: int) -> Foreseen:
        """By measuring some responses to the first prompt, which are thrown away; the slowest rank
        counts."""
        share = self.asked.responses / min(PILOT, self.asked.responses)
        tried: list[GradedGroup] = []
        sampled = max(on_all_ranks(lambda: self._try_sampling(tried))) * share
        self.engine.sleep()
        times = on_all_ranks(lambda: self._try_measuring(tried[0]))
        self.engine.load_weights(self.model, 0)
        measured = max(rest * share + products * share**2 for rest, products in times)
        num_sampled, num_measured = most_of_a_rank(num_prompts, self._chunk_size)
        return Foreseen(
            num_coordinates=self._num_coordinates,
            is_whole=self.is_whole,
            weight_bytes=self._weight_bytes,
            sampling_bytes=self._sampling_bytes(),
            activation_bytes=self._activation_bytes(),
            vector_bytes=self._vector_bytes(),
            seconds=sampled * num_sampled + measured * num_measured,
            tokens=Tokens.of(self.config, self.asked),
            num_ranks=num_ranks(),
        )

    def _try_sampling(self, tried: list[GradedGroup]) -> float:
        """Seconds."""
        sampling = self._sampling(min(PILOT, self.asked.responses))
        groups, seconds = _timed(
            lambda: self.engine.generate(self.prompts[:1], sampling, stream=(LAB_STREAM,))
        )
        with Grader(self.config.grading) as grader:
            tried.extend(grader.grade(groups))
        return seconds

    def _try_measuring(self, tried: GradedGroup) -> tuple[float, float]:
        """Seconds without the products of single tokens, and of these."""
        with self._parameters() as parameters:
            _, seconds = _timed(lambda: self._measured(tried, None, parameters))
        products = self._product_seconds(tried.group)
        return seconds - products, products

    def _product_seconds(self, group: Group) -> float:
        """Of the products of single tokens, which grow with the square of their number."""
        if not self.asked.token_gradients:
            return 0.0
        count = sum(len(rollout.token_ids) for rollout in group.rollouts)
        return _timed(Vectors(self._layout, count).gram)[1]

    # --- measuring ---

    def start(self, plan: LabPlan) -> None:
        """Makes the policy's folder where there is none."""
        if plan.folder.exists:
            return
        plan.folder.start(
            plan.settings,
            source_digest(*CODE),
            whole_gigabytes=self.whole_gigabytes,
            is_whole=self.is_whole,
        )

    def measure(self, folder: LabFolder, title: str) -> None:
        """What the folder lacks, of the policy that is loaded.

        Raises:
            OpoError: out of memory, or another process does the same.
        """
        num_prompts = len(self.prompts)
        with ExitStack() as stack:
            from_main(lambda: stack.enter_context(folder.locked()))
            grader = stack.enter_context(Grader(self.config.grading))
            update = stack.enter_context(progress(f"measure {title}", num_prompts))
            missing = set(from_main(folder.missing))
            numbers = itertools.count(num_prompts - len(missing) + 1)
            for chunks in rounds(num_prompts, self._chunk_size, missing):
                sampled = self._sampled_by_all(chunks, grader)
                left = {row: group for row, group in sampled.items() if row in missing}
                self._measure_all(left, folder, lambda: update(next(numbers), ""))

    @property
    def _chunk_size(self) -> int:
        """Prompts that are sampled at once."""
        return max(1, self.config.rollout.max_rows // self.asked.responses)

    def _sampled_by_all(
        self, chunks: Sequence[range], grader: Grader
    ) -> dict[int, tuple[GradedGroup, float]]:
        """See `_sampled`; each chunk by another rank."""
        rows = own_of(chunks)
        shares = on_all_ranks(lambda: {} if rows is None else self._sampled(rows, grader))
        self.engine.sleep()
        return {row: found for share in shares for row, found in share.items()}

    def _measure_all(
        self,
        sampled: Mapping[int, tuple[GradedGroup, float]],
        folder: LabFolder,
        told: Callable[[], None],
    ) -> None:
        """A row on each rank at a time; rank 0 writes them."""
        with self._parameters() as parameters:
            for turn in turns({row: _num_tokens(group) for row, (group, _) in sampled.items()}):
                found = self._measured_here(own_of(turn), sampled, parameters)
                for sender, row in enumerate(turn):
                    from_main(partial(folder.add, row, to_main(found, sender)))
                    told()
        self.engine.load_weights(self.model, 0)

    def _measured_here(
        self,
        row: int | None,
        sampled: Mapping[int, tuple[GradedGroup, float]],
        parameters: Mapping[str, Any],
    ) -> PromptData | None:
        found: list[PromptData] = []  # Not what the ranks tell each other: it may be large.
        on_all_ranks(
            lambda: None if row is None else found.append(self._measured(*sampled[row], parameters))
        )
        return found[0] if found else None

    def _sampling(self, count: int, temperature: float = 1.0) -> Sampling:
        most = self.config.rollout.max_new_tokens
        return Sampling(num_responses=count, max_new_tokens=most, temperature=temperature)

    def _sampled(self, rows: range, grader: Grader) -> dict[int, tuple[GradedGroup, float]]:
        """Row -> (graded group, reward of the greedy response), measured already or not."""
        prompts, count = self.prompts[rows.start : rows.stop], self.asked.responses
        groups = self.engine.generate(
            prompts,
            self._sampling(count),
            stream=(LAB_STREAM, self.asked.seed),
            first_row=rows.start * count,
        )
        greedy = self.engine.generate(prompts, self._sampling(1, 0.0), stream=(0,))
        graded, answers = grader.grade(groups), grader.grade(greedy)
        self.failures += sum(
            grade.reason in GRADER_FAILURES for group in graded for grade in group.grades
        )
        rewards = shaped(collate(answers, torch.device("cpu")), self.config).rewards
        return dict(zip(rows, zip(graded, rewards.tolist(), strict=True), strict=True))

    @contextmanager
    def _parameters(self):
        asked = self.asked
        hint = "--memory of less, --parameters last-block, or train.use_activation_checkpointing"
        with (
            out_of_memory("taking gradients", hint),
            measured_parameters(self.model, asked.parameters, asked.seed) as parameters,
        ):
            yield parameters

    def _measured(
        self, group: GradedGroup, greedy_reward: float | None, parameters: Mapping[str, Any]
    ) -> PromptData:
        batch = shaped(collate([group], self.model.device), self.config)
        vectors, norms = Vectors(self._layout, len(batch)), np.zeros(len(batch))
        for found in response_gradients(self.model, parameters, batch.sequences):
            vectors.add(found.row, found.parts)
            norms[found.row] = found.logit_norms.double().sum().item()
        problem, gram = group.group.prompt.problem.id, vectors.gram()
        if not np.isfinite(gram).all():
            raise NotFiniteError(
                f"problem '{problem}': a gradient of model '{self.model.config.name_or_path}' is "
                "not finite",
                "--set model.compute_dtype=float32 where it is lower, or another model",
            )
        return PromptData(
            problem_id=problem,
            gram=gram,
            rewards=batch.rewards.double().cpu().numpy(),
            lengths=batch.loss_lengths.cpu().numpy(),
            correct=batch.correct.cpu().numpy(),
            truncated=batch.truncated.cpu().numpy(),
            logit_norms=norms,
            greedy_reward=greedy_reward,
            sketch=vectors.sketches(),
            **self._tokens(batch, parameters),
        )

    def _tokens(self, batch, parameters: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Of the tokens that count in the loss."""
        if not self.asked.token_gradients:
            return {}
        vectors = Vectors(self._layout, int(batch.loss_lengths.sum()))
        kept, norms = batch.is_trained.nonzero().squeeze(-1), []
        if len(kept):
            sequences = batch.sequences.select(kept)
            for found in token_gradients(self.model, parameters, sequences):
                vectors.add(found.row, found.parts)
                norms.append(found.logit_norms.item())
        grams = vectors.gram().astype(np.float32)
        return {"token_gram": grams, "token_norms": np.array(norms)}


def _num_tokens(group: GradedGroup) -> int:
    prompt, rollouts = len(group.group.prompt.token_ids), group.group.rollouts
    return sum(prompt + len(rollout.token_ids) for rollout in rollouts)


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """(what it returns, seconds); a short one runs twice, as the first time it warms up."""
    started = time.monotonic()
    found = run()
    seconds = time.monotonic() - started
    if seconds < WARM_SECONDS:
        started = time.monotonic()
        found = run()
        seconds = min(seconds, time.monotonic() - started)
    return found, seconds


def _load(file: Path) -> dict[str, torch.Tensor]:
    """Raises OpoError where it is damaged."""
    try:
        return load_file(file)
    except Exception as error:  # A damaged file surfaces as almost any type.
        raise OpoError(
            f"'{file}' does not load: {type(error).__name__}",
            "opo train --resume --out RUN writes another; or measure a finished run",
        ) from error


def measure(
    config: Config,
    asked: Request,
    plans: Sequence[LabPlan],
    training: Path | None,
    tell: Callable[[list[tuple[str, str]]], None],
    *,
    only_plan: bool,
) -> None:
    """Measures what is missing.

    Args:
        plans: of policies of one shape.
        training: see `load_prompts`.
        tell: takes the rows of `Foreseen`, before anything is written.
        only_plan: stops behind that.

    Raises:
        OpoError: gradients of single tokens that do not fit; see `Lab`, too.
    """
    tokens = Tokens.of(config, asked)
    if tokens:
        tokens.check(asked)
    left = from_main(lambda: [_num_missing(plan, asked) for plan in plans])
    open_plans = [plan for plan, count in zip(plans, left, strict=True) if count] or list(plans)
    lab = Lab(config, asked, open_plans[0].source, training)
    with closing(lab.engine):
        foreseen = lab.foresee(sum(left))
        from_main(lambda: tell(foreseen.rows))
        if only_plan:
            return
        for number, plan in enumerate(open_plans):
            if number:
                lab.load(plan.source)
            from_main(partial(lab.start, plan))
            lab.measure(plan.folder, plan.source.label)
    failures = sum(on_all_ranks(lambda: lab.failures))
    if failures:
        warn(f"the grader failed on {failures} responses, which earned no reward")


def _num_missing(plan: LabPlan, asked: Request) -> int:
    return len(plan.folder.missing()) if plan.folder.exists else asked.prompts
