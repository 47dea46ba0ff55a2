"""Benchmarks, one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from opo_cli.choose import choose
from opo_cli.data import tiny
from opo_cli.types import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    description: str
    load: Callable[[], list[Problem]]


def _tier(name: str) -> Benchmark:
    fewest, most = tiny.TIERS[name]
    note = "longer than any training problem" if name == "tiny-ood" else "held out"
    return Benchmark(
        description=f"running totals of {fewest}-{most} terms, {note}",
        load=lambda: tiny.tier_problems(name),
    )


BENCHMARKS: dict[str, Benchmark] = {name: _tier(name) for name in tiny.TIERS}


def check_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names as the table spells them.

    Raises:
        OpoError: an unknown benchmark.
    """
    spelled = {id(row): name for name, row in BENCHMARKS.items()}
    return tuple(spelled[id(choose(name, BENCHMARKS, "benchmark"))] for name in names)


def load_problems(name: str, limit: int = 0) -> list[Problem]:
    """A benchmark's problems, or its first `limit`."""
    problems = choose(name, BENCHMARKS, "benchmark").load()
    return problems[:limit] if limit else problems
