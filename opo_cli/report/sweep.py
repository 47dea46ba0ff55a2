"""A swept setting: each algorithm at its own best value, chosen on the validation split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from opo_cli.errors import OpoError
from opo_cli.report.estimate import Estimate, over_seeds
from opo_cli.report.runs import Arm, Run, flat, value_text
from opo_cli.report.tables import Table, plus_minus


@dataclass(frozen=True, slots=True)
class Tried:
    """An algorithm at one value of the swept setting."""

    algorithm: str
    value: Any
    arm: Arm
    validation: Estimate
    """Mean avg@n over the validation benchmarks, over seeds."""
    test: Estimate
    """Likewise over the benchmarks; nothing was chosen by it."""
    is_best: bool = False


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep found."""

    key: str
    tried: Sequence[Tried]

    @property
    def best(self) -> list[Arm]:
        """One arm per algorithm."""
        return [each.arm for each in self.tried if each.is_best]

    @property
    def at_each_value(self) -> dict[str, list[Arm]]:
        """Value -> the arms that share it; values that only one algorithm has are left out."""
        found: dict[str, list[Arm]] = {}
        for each in self.tried:
            found.setdefault(value_text(each.value), []).append(each.arm)
        return {value: arms for value, arms in found.items() if len(arms) > 1}

    def table(self) -> Table:
        rows, before = [], None
        for each in self.tried:
            rows.append(
                [
                    "" if each.algorithm == before else each.algorithm,
                    value_text(each.value),
                    plus_minus(each.validation.mean, each.validation.half_width),
                    plus_minus(each.test.mean, each.test.half_width),
                    "chosen" if each.is_best else "",
                ]
            )
            before = each.algorithm
        names = ", ".join(self.tried[0].arm.runs[0].validation)
        note = (
            f"mean accuracy, ± between seeds; each algorithm's value is the best on validation "
            f"({names}), which no test problem is part of; of equals the first"
        )
        head = ["algorithm", self.key.rpartition(".")[2], "validation", "test", ""]
        return Table(f"sweep over {self.key}", head, rows, note)


def read_sweep(key: str, arms: Sequence[Arm]) -> Sweep:
    """
    Args:
        key: `section.key`, which the arms of one algorithm differ in.

    Raises:
        OpoError: a run was not evaluated on a validation split.
    """
    found = [_tried(key, arm) for arm in arms]
    best: dict[str, int] = {}
    for place, each in enumerate(found):
        leader = best.setdefault(each.algorithm, place)
        if each.validation.mean > found[leader].validation.mean:
            best[each.algorithm] = place
    chosen = set(best.values())
    tried = [replace(each, is_best=place in chosen) for place, each in enumerate(found)]
    return Sweep(key, sorted(tried, key=lambda each: list(best).index(each.algorithm)))


def _tried(key: str, arm: Arm) -> Tried:
    first = arm.runs[0]
    for run in arm.runs:
        if not run.validation:
            raise OpoError(
                f"run '{run.path}' was not evaluated on a validation split",
                "values of a sweep are chosen on one: --set eval.validation=[...]",
            )
    return Tried(
        algorithm=first.config["algorithm"]["name"],
        value=flat(first.config).get(key),
        arm=arm,
        validation=over_seeds([_accuracy(run, "validation") for run in arm.runs]),
        test=over_seeds([_accuracy(run, "final") for run in arm.runs]),
    )


def _accuracy(run: Run, which: str) -> float | None:
    records = getattr(run, which).values()
    return float(np.mean([r["accuracy"] for r in records])) if records else None
