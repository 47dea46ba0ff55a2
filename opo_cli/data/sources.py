"""Training problems: from a JSONL file to the prompts of a step."""

from __future__ import annotations

import json
from collections.abc import Sequence, Set
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import numpy as np

from opo_cli.errors import OpoError
from opo_cli.types import Problem, Prompt


def save_problems(problems: Sequence[Problem], path: Path) -> None:
    path.write_text("".join(json.dumps(asdict(problem)) + "\n" for problem in problems))


def load_problems(path: Path) -> list[Problem]:
    """Problems from a JSONL file that `save_problems` wrote.

    Raises:
        OpoError: a line that is no problem.
    """
    problems = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            problems.append(Problem(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise OpoError(
                f"{path}:{number}: not a problem ({error})",
                "remove the folder; opo prepare makes it anew",
            ) from None
    return problems


Item = TypeVar("Item")

# First word of each random stream's key: equal (seed, step) must not make equal streams.
PROMPT_STREAM, MINIBATCH_STREAM, SAMPLING_STREAM, EVALUATION_STREAM = 1, 2, 3, 4
REPLACEMENT_STREAM, PROBE_STREAM, LAB_STREAM = 5, 6, 7


def items_of_step(items: Sequence[Item], seed: int, step: int, count: int) -> list[Item]:
    """The problems (or prompts) of a step: a function of (seed, step) alone, so that resuming needs
    no state and all algorithms see the same ones. Each epoch is its own permutation.

    Args:
        step: from 0.
        count: prompts per step.
    """
    chosen = []
    for position in range(step * count, (step + 1) * count):
        epoch, place = divmod(position, len(items))
        if place == 0 or not chosen:
            order = np.random.default_rng([PROMPT_STREAM, seed, epoch]).permutation(len(items))
        chosen.append(items[order[place]])
    return chosen


class TrainingPrompts:
    """What a run draws its prompts from; every draw is a function of (seed, step, round)."""

    def __init__(self, prompts: Sequence[Prompt], seed: int):
        self.prompts, self.seed = prompts, seed

    def of_step(self, step: int, count: int) -> list[Prompt]:
        return items_of_step(self.prompts, self.seed, step, count)

    def replacements(self, step: int, round: int, count: int, seen: Set[str]) -> list[Prompt]:
        """For dynamic sampling: prompts of problems that the step has not `seen`, by id, as long as
        there are any."""
        order = np.random.default_rng([REPLACEMENT_STREAM, self.seed, step, round]).permutation(
            len(self.prompts)
        )
        chosen = [self.prompts[i] for i in order]
        fresh = [prompt for prompt in chosen if prompt.problem.id not in seen]
        return (fresh or chosen)[:count]

    def probe(self, count: int) -> list[Prompt]:
        """The fixed prompts of exact measurements, the same for every seed."""
        order = np.random.default_rng([PROBE_STREAM]).permutation(len(self.prompts))
        return [self.prompts[i] for i in order[:count]]
