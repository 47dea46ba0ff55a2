"""Benchmarks, one row each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
    note = "longer than what the presets train on" if name == "tiny-ood" else "held out"
    return Benchmark(
        description=f"running totals of {fewest}-{most} terms, {note}",
        load=lambda: tiny.tier_problems(name),
    )


BENCHMARKS: dict[str, Benchmark] = {name: _tier(name) for name in tiny.TIERS}


def check_names(names: Iterable[str]) -> None:
    """Raises OpoError for an unknown benchmark."""
    for name in names:
        choose(name, BENCHMARKS, "benchmark")


def load_problems(name: str, limit: int = 0) -> list[Problem]:
    """A benchmark's problems, or its first `limit`."""
    problems = choose(name, BENCHMARKS, "benchmark").load()
    return problems[:limit] if limit else problems
