"""One step at its worst, before any real one is paid for. It leaves weights, optimizer and random
streams as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from opo_cli.config import Config, changed
from opo_cli.data.sources import TrainingPrompts
from opo_cli.grading.pool import Grader
from opo_cli.host import peak_resident_bytes
from opo_cli.model.device import training_device
from opo_cli.model.parallel import num_ranks
from opo_cli.model.shape import shape_of
from opo_cli.model.sharding import device_of
from opo_cli.rollout.engine import Engine
from opo_cli.train.budget import STEP_PHASES, Load, load_of, memory_parts, totals
from opo_cli.train.learner import Learner
from opo_cli.train.speed import flops_per_second, peak_of, update_flops
from opo_cli.train.step import training_step
from opo_cli.types import Group, Prompt, Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What the worst step took."""

    num_ranks: int = 1
    load: Load
    """Of one rank."""
    record: dict[str, Any]
    """The step's, as in steps.jsonl."""
    peak_bytes: int
    """On a GPU what torch had allocated at most; on a CPU the process's largest resident size."""
    predicted_bytes: int
    """Of tensors, by `budget`."""
    utilisation: float | None
    """Model FLOPs of the update as a share of the GPU's peak; None on a CPU."""


@dataclass(slots=True)
class PeakMemory:
    """The most bytes of a step, over stretches in which the engine is awake or asleep.

    While vLLM sleeps torch goes on counting its tensors, of which nothing is left but addresses.
    """

    device: torch.device
    num_bytes: int = 0
    """So far; only on a GPU."""
    _absent: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def cut(self, absent: int = 0) -> None:
        """A stretch ends; of what torch counts in the next, `absent` bytes are not there."""
        if self.device.type == "cuda":
            self.add(torch.cuda.max_memory_allocated(self.device), absent)
            torch.cuda.reset_peak_memory_stats(self.device)

    def add(self, counted: int, absent: int = 0) -> None:
        """Torch counted at most `counted` bytes in the stretch that ends; see `cut`."""
        self.num_bytes = max(self.num_bytes, counted - self._absent)
        self._absent = absent

    def measured(self) -> int:
        """On a CPU, where nobody counts tensors, the process's largest resident size."""
        self.cut()
        if self.device.type == "cuda":
            return self.num_bytes
        return peak_resident_bytes()


class Unending:
    """An engine whose every response goes on to the limit; `peak` is told when it sleeps."""

    def __init__(self, engine: Engine, peak: PeakMemory):
        self._engine, self._peak, self.name = engine, peak, engine.name

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, **keys) -> list[Group]:
        return self._engine.generate(prompts, replace(sampling, ignores_end=True), **keys)

    def sleep(self) -> None:
        self._engine.sleep()
        is_emptied = self.name == "vllm" and self._peak.device.type == "cuda"
        self._peak.cut(_sleeping_bytes() if is_emptied else 0)

    def load_weights(self, model, version: int) -> None:
        self._peak.cut()
        self._engine.load_weights(model, version)

    def close(self) -> None:
        self._engine.close()


def _sleeping_bytes() -> int:
    """What torch counts of vLLM's weights and cache, whole segments: all are unmapped by now."""
    from vllm.device_allocator import get_mem_allocator_instance

    return get_mem_allocator_instance().get_current_usage()


def worst_prompts(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """`count` prompts as long as the longest, its tokens shuffled: no two share a beginning, which
    an engine would keep only once."""
    longest = max(prompts, key=lambda prompt: len(prompt.token_ids))

    def shuffled(number: int) -> Prompt:
        tokens = list(longest.token_ids)
        random.Random(f"check/{number}").shuffle(tokens)
        problem = replace(longest.problem, id=f"check-{number}")
        return replace(longest, problem=problem, token_ids=tuple(tokens))

    return [shuffled(number) for number in range(count)]


@contextmanager
def unchanged(learner: Learner) -> Iterator[None]:
    """Optimizers step at a learning rate of 0, and forget it afterwards. Only before the first
    step, as what they knew is forgotten, too."""
    optimizers = [learner.optimizer, learner.critic_optimizer]
    groups = [group for found in optimizers if found for group in found.param_groups]
    rates = [group["lr"] for group in groups]
    for group in groups:
        group["lr"] = 0.0
    try:
        yield
    finally:
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
        for found in filter(None, optimizers):
            found.state.clear()
            found.zero_grad()


def worst_step(
    config: Config,
    prompts: Sequence[Prompt],
    learner: Learner,
    engine: Engine,
    grader: Grader,
) -> Checked:
    """The longest prompts, every response at its limit, the full batch, through all of a step.

    Raises:
        OpoError: as a step does, out of memory above all.
    """
    once = changed(config, {"algorithm.max_sampling_rounds": 1})
    worst = worst_prompts(prompts, config.rollout.prompts_per_step)
    source = TrainingPrompts(worst, config.seed)
    peak = PeakMemory(device_of(learner.policy))
    with unchanged(learner):
        record = training_step(0, source, once, learner, Unending(engine, peak), grader).record
    peak_bytes = peak.measured()
    engine.load_weights(learner.policy, 0)
    return _checked(config, learner, engine, record, len(worst[0].token_ids), peak_bytes)


def _checked(
    config: Config, learner: Learner, engine: Engine, record, prompt: int, peak_bytes: int
) -> Checked:
    shape, device = shape_of(learner.policy.config), training_device(config)
    load = load_of(config, shape, prompt)
    predicted = totals(memory_parts(config, shape, device, engine.name, load))
    known = peak_of(device) if device.is_gpu else None
    utilisation = None
    if known is not None:
        rate = update_flops(config, shape, load) / record["update_seconds"]
        utilisation = rate / flops_per_second(known, config.model.compute_dtype)
    return Checked(
        num_ranks=num_ranks(),
        load=load,
        record=record,
        peak_bytes=peak_bytes,
        predicted_bytes=max(predicted[: len(STEP_PHASES)]),
        utilisation=utilisation,
    )
