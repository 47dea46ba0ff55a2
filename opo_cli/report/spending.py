"""When a run ends: after `train.steps` steps, or with the step that reaches `train.budget`. All of
it follows from the config and steps.jsonl, so that a resumed run ends where the other would. No
torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from opo_cli.config import Config
from opo_cli.metrics import BUDGETS


@dataclass(frozen=True, slots=True)
class Total:
    """Steps of a whole run."""

    steps: int
    word: str = ""
    """"": known; "about": at the mean of the steps so far; "at least": if every response goes to
    its limit and every round of dynamic sampling is needed."""

    def __str__(self) -> str:
        return f"{self.word} {self.steps}".strip()


@dataclass(slots=True)
class Spending:
    """What a run has spent of its budget."""

    config: Config
    num_steps: int = 0
    spent: int = 0
    """In `unit`."""

    @classmethod
    def of(cls, config: Config, records: Iterable[Mapping[str, Any]]) -> Spending:
        """`records`: of steps.jsonl."""
        spending = cls(config)
        for record in records:
            spending.add(record)
        return spending

    @property
    def unit(self) -> str:
        return self.config.train.budget_unit if self.config.train.budget else "steps"

    @property
    def limit(self) -> int:
        return self.config.train.budget or self.config.train.steps

    @property
    def is_over(self) -> bool:
        return self.spent >= self.limit

    def add(self, record: Mapping[str, Any]) -> None:
        metric = BUDGETS[self.unit]
        self.num_steps += 1
        self.spent += 1 if metric is None else round(record[metric])

    @property
    def total(self) -> Total:
        """Steps in the end, those behind included."""
        least, most = cost_of_step(self.config, self.unit)
        left = max(0, self.limit - self.spent)
        if not left or least == most:
            return Total(self.num_steps + -(-left // most))
        if not self.spent:
            return Total(-(-left // most), "at least")
        return Total(self.num_steps + -(-left * self.num_steps // self.spent), "about")


def cost_of_step(config: Config, unit: str) -> tuple[int, int]:
    """(least, most) that a step takes of a budget in `unit`; optimizer steps that are skipped for
    a gradient that is not finite apart."""
    rollout, algorithm = config.rollout, config.algorithm
    if unit == "steps":
        return 1, 1
    if unit == "gradient-steps":
        return algorithm.minibatches_per_step, algorithm.minibatches_per_step
    greedy = rollout.prompts_per_step if algorithm.estimator.needs_greedy else 0
    least = config.num_rows + greedy
    most = config.num_rows * algorithm.max_sampling_rounds + greedy
    return (least, most) if unit == "samples" else (least, most * rollout.max_new_tokens)
