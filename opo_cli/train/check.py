"""One step at its worst, before any real one is paid for. It leaves weights, optimizer and random
streams as they were."""

from __future__ import annotations

import random
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from opo_cli.config import Config
from opo_cli.data.sources import TrainingPrompts
from opo_cli.grading.pool import Grader
from opo_cli.model.device import training_device
from opo_cli.model.shape import shape_of
from opo_cli.rollout.engine import Engine, Progress
from opo_cli.train.budget import Load, changed, load_of, memory_parts, peak
from opo_cli.train.learner import Learner
from opo_cli.train.speed import flops_per_second, peak_of, update_flops
from opo_cli.train.step import training_step
from opo_cli.types import Group, Prompt, Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What the worst step took."""

    load: Load
    record: dict[str, Any]
    """The step's, as in steps.jsonl."""
    peak_bytes: int
    """On a GPU what torch had allocated at most; on a CPU the process's largest resident size."""
    predicted_bytes: int
    """Of tensors, by `budget`."""
    utilisation: float | None
    """Model FLOPs of the update as a share of the GPU's peak; None on a CPU."""


class Unending:
    """An engine whose every response goes on to the limit."""

    def __init__(self, engine: Engine):
        self._engine, self.name = engine, engine.name

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, **keys) -> list[Group]:
        return self._engine.generate(prompts, replace(sampling, ignores_end=True), **keys)

    def sleep(self) -> None:
        self._engine.sleep()

    def load_weights(self, model, version: int) -> None:
        self._engine.load_weights(model, version)

    def close(self) -> None:
        self._engine.close()


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
    progress: Progress | None = None,
) -> Checked:
    """The longest prompts, every response at its limit, the full batch, through all of a step.

    Raises:
        OpoError: as a step does, out of memory above all.
    """
    once = changed(config, {"algorithm.max_sampling_rounds": 1})
    worst = worst_prompts(prompts, config.rollout.prompts_per_step)
    source = TrainingPrompts(worst, config.seed)
    _forget_peak()
    with unchanged(learner):
        record = training_step(
            0, source, once, learner, Unending(engine), grader, progress=progress
        ).record
    peak_bytes = _peak_bytes()
    engine.load_weights(learner.policy, 0)
    return _checked(config, learner, engine, record, len(worst[0].token_ids), peak_bytes)


def _checked(
    config: Config, learner: Learner, engine: Engine, record, prompt: int, peak_bytes: int
) -> Checked:
    shape, device = shape_of(learner.policy.config), training_device(config)
    load = load_of(config, shape, prompt)
    known = peak_of(device) if device.is_gpu else None
    utilisation = None
    if known is not None:
        rate = update_flops(config, shape, load) / record["update_seconds"]
        utilisation = rate / flops_per_second(known, config.model.compute_dtype)
    return Checked(
        load=load,
        record=record,
        peak_bytes=peak_bytes,
        predicted_bytes=peak(memory_parts(config, shape, device, engine.name, load))[0],
        utilisation=utilisation,
    )


def _forget_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak_bytes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
