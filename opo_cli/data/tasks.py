"""The table of embedded tasks. A task is a file and a row here."""

from __future__ import annotations

from opo_cli.data.embedded import Task
from opo_cli.data.search import SEARCH
from opo_cli.data.tiny import CHAINS
from opo_cli.types import Problem

TASKS: dict[str, Task] = {"chains": CHAINS, "search": SEARCH}
"""Rows of `data.task`."""


def embedded_problems(benchmark: str) -> list[Problem]:
    """A tier's or validation problems, of whichever task has them."""
    for task in TASKS.values():
        if benchmark in task.tiers:
            return task.tier_problems(benchmark)
        if benchmark == task.validation:
            return task.validation_problems()
    raise KeyError(benchmark)
