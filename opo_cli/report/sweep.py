"""A swept setting: each algorithm at its own best value, chosen on the validation split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from opo_cli.errors import OpoError
from opo_cli.report.estimate import Estimate, over_seeds
from opo_cli.report.runs import Arm, Record, Run, flat, value_text
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
    is_complete: bool = True
    """Every seed of the sweep was trained at this value; else it cannot be chosen."""
    is_best: bool = False


@dataclass(frozen=True, slots=True)
class Swept:
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

    @property
    def notes(self) -> list[str]:
        """What the choice is worth."""
        lines = [
            "best values are chosen from the same seeds that are compared, on other problems: that "
            "favours an algorithm which depends less on the setting"
        ]
        left_out = [each.arm.label for each in self.tried if not each.is_complete]
        if left_out:
            lines.append(f"not chosen from, as seeds are missing: {', '.join(left_out)}")
        return lines

    def table(self) -> Table:
        rows, before = [], None
        for each in self.tried:
            state = "chosen" if each.is_best else "" if each.is_complete else "seeds missing"
            rows.append(
                [
                    "" if each.algorithm == before else each.algorithm,
                    value_text(each.value),
                    plus_minus(each.validation.mean, each.validation.half_width),
                    plus_minus(each.test.mean, each.test.half_width),
                    state,
                ]
            )
            before = each.algorithm
        names = ", ".join(self.tried[0].arm.runs[0].validation)
        note = (
            f"mean accuracy, ± between seeds; each algorithm's value is the best on validation "
            f"({names}), not on the test; of equals the first"
        )
        head = ["algorithm", self.key.rpartition(".")[2], "validation", "test", ""]
        return Table(f"sweep over {self.key}", head, rows, note)


def read_sweep(key: str, arms: Sequence[Arm]) -> Swept:
    """
    Args:
        key: `section.key`, which the arms of one algorithm differ in.

    Raises:
        OpoError: a run was not evaluated on a validation split, or on one that is a benchmark too;
            or an algorithm has no value with all seeds.
    """
    found = [_tried(key, arm) for arm in arms]
    most = max(len(each.arm.runs) for each in found)
    found = [replace(each, is_complete=len(each.arm.runs) == most) for each in found]
    best: dict[str, int] = {}
    for place, each in enumerate(found):
        if each.is_complete:
            leader = best.setdefault(each.algorithm, place)
            if each.validation.mean > found[leader].validation.mean:
                best[each.algorithm] = place
    names = list(dict.fromkeys(each.algorithm for each in found))
    for name in names:
        if name not in best:
            raise OpoError(
                f"sweep over {key}: no value of '{name}' has all {most} seeds",
                "call the same command again: it does what is missing",
            )
    tried = [replace(each, is_best=place in best.values()) for place, each in enumerate(found)]
    return Swept(key, sorted(tried, key=lambda each: names.index(each.algorithm)))


def _tried(key: str, arm: Arm) -> Tried:
    for run in arm.runs:
        _check_validation(run)
    value = flat(arm.runs[0].config).get(key)
    return Tried(
        algorithm=arm.algorithm,
        value=value,
        arm=replace(arm, label=f"{arm.algorithm} {value_text(value)}"),
        validation=over_seeds([_accuracy(run, "validation") for run in arm.runs]),
        test=over_seeds([_accuracy(run, "final") for run in arm.runs]),
    )


def _check_validation(run: Run) -> None:
    """Raises OpoError where there is none, or its problems are those of a benchmark."""
    if not run.validation:
        raise OpoError(
            f"run '{run.path}' was not evaluated on a validation split",
            "values of a sweep are chosen on one: --set eval.validation=[...]",
        )
    held_out = {_digest(record): name for name, record in run.validation.items()}
    for name, record in run.final.items():
        if _digest(record) is not None and _digest(record) in held_out:
            raise OpoError(
                f"'{held_out[_digest(record)]}' and '{name}' are the same problems: what is chosen "
                "on them would be reported on them",
                "another file in eval.validation",
            )


def _digest(record: Record) -> str | None:
    return record.get("settings", {}).get("problems_sha256")


def _accuracy(run: Run, which: str) -> float | None:
    records = getattr(run, which).values()
    return float(np.mean([r["accuracy"] for r in records])) if records else None
