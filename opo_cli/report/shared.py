"""What the runs of a comparison share: settings, evaluations, budgets; and what they must share to
be comparable at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from opo_cli.errors import OpoError
from opo_cli.metrics import BUDGETS
from opo_cli.report.evals import SETTINGS, setting_text
from opo_cli.report.runs import Arm, Run, changed_keys, value_text

BY_ALGORITHM = ("algorithm.", "optim.")
"""Settings in which algorithms are meant to differ."""
OF_BUDGET = ("train.steps", "train.budget", "train.budget_unit")
"""Told as budgets used, not as settings."""
OF_EVALUATION = ("problems_sha256", "samples", *(key for key in SETTINGS if key != "grader_limits"))
"""Settings of an evaluation without which two accuracies do not compare."""
SHOWN_VALUES = 4
"""Values that a line on a difference spells out; of more arms it counts them."""


def benchmarks_of(arms: Sequence[Arm]) -> list[str]:
    """Every benchmark that a final policy was evaluated on, in order."""
    return list(dict.fromkeys(name for arm in arms for run in arm.runs for name in run.final))


def common_benchmarks(arms: Sequence[Arm]) -> list[str]:
    """Those that every run has."""
    runs = [run for arm in arms for run in arm.runs]
    return [name for name in benchmarks_of(arms) if all(name in run.final for run in runs)]


def differing_settings(arms: Sequence[Arm]) -> dict[str, list[Any]]:
    """Key -> its value in each arm, of all settings that the arms do not share."""
    settings = [arm.runs[0].settings for arm in arms]
    return {key: [each.get(key) for each in settings] for key in changed_keys(settings)}


def differences(arms: Sequence[Arm]) -> list[str]:
    """A line on each thing that the arms do not share and that is not what they are compared in."""
    is_ablation = len({arm.runs[0].config["algorithm"]["name"] for arm in arms}) < len(arms)
    left_out = OF_BUDGET if is_ablation else (*BY_ALGORITHM, *OF_BUDGET)
    found = {k: v for k, v in differing_settings(arms).items() if not k.startswith(left_out)}
    reductions = [arm.runs[0].config["algorithm"]["reduction"] for arm in arms]
    if len(set(reductions)) > 1:
        found["algorithm.reduction"] = reductions
    lines = [_line(key, arms, values) for key, values in found.items()]
    lines += [_line(key, arms, values) for key, values in _evaluations(arms).items()]
    labels = [arm.certificate.label for arm in arms]
    if len(set(labels)) > 1:
        lines.append(_line("certificate", arms, labels))
    if len({run.initial_policy_id for arm in arms for run in arm.runs}) > 1:
        lines.append("not the same: the initial policy; 'initial' is that of the first arm")
    return lines


def _evaluations(arms: Sequence[Arm]) -> dict[str, list[str | None]]:
    """Setting of an evaluation -> its value in each arm, of those that differ."""
    found: dict[str, list[str | None]] = {}
    for benchmark in benchmarks_of(arms):
        records = [arm.runs[0].final.get(benchmark) for arm in arms]
        for key in OF_EVALUATION:
            values = [
                None if r is None else setting_text(key, r.get("settings", {})) for r in records
            ]
            if len({value for value in values if value is not None}) > 1:
                found.setdefault(key, values)
    return found


def _line(key: str, arms: Sequence[Arm], values: Sequence[Any]) -> str:
    by_value: dict[str, list[str]] = {}
    for arm, value in zip(arms, values, strict=True):
        by_value.setdefault(value_text(value), []).append(arm.label)
    pairs = [
        f"{', '.join(names) if len(names) < SHOWN_VALUES else f'{len(names)} arms'}: {value}"
        for value, names in by_value.items()
    ]
    return f"not the same: {key} ({'; '.join(pairs)})"


def obstacles(arms: Sequence[Arm], match: str | None) -> list[str]:
    """Why these arms must not be held against each other; empty where they may."""
    found = [f"{key} of the evaluations differs" for key in _evaluations(arms) if key != "engine"]
    if len({run.initial_policy_id for arm in arms for run in arm.runs}) > 1:
        found.append("they started from different policies")
    if benchmarks_of(arms) and not common_benchmarks(arms):
        found.append("no benchmark is common to all of them")
    if match is not None and not are_equal(arms, match):
        found.append(f"they used different numbers of {match.replace('-', ' ')}")
    return found


def check_comparable(arms: Sequence[Arm], match: str | None) -> None:
    """Raises OpoError where the arms must not be held against each other."""
    if len(arms) < 2:
        return
    found = obstacles(arms, match)
    if found:
        labels = ", ".join(arm.label for arm in arms[:SHOWN_VALUES])
        more = " and more" if len(arms) > SHOWN_VALUES else ""
        raise OpoError(
            f"these runs do not compare ({labels}{more}): {'; '.join(found)}",
            "--allow-incomparable tabulates them all the same, and says what differs",
        )


# --- budgets -----------------------------------------------------------------------------------


def totals(arm: Arm, unit: str) -> np.ndarray:
    """(runs,)"""
    return np.array([run.total(unit) for run in arm.runs])


def are_equal(arms: Sequence[Arm], unit: str) -> bool:
    """Whether every run used as much of `unit`, up to less than a step: a run ends with a whole one,
    and how many tokens that takes nobody knows beforehand."""
    used = np.concatenate([totals(arm, unit) for arm in arms])
    last = max(float(np.diff(run.used[unit], prepend=0)[-1:].sum()) for a in arms for run in a.runs)
    return bool(used.max() == used.min() or used.max() - used.min() < last)


def equal_budgets(arms: Sequence[Arm]) -> list[str]:
    return [unit for unit in BUDGETS if are_equal(arms, unit)]


def budget_line(arms: Sequence[Arm], match: str | None) -> str:
    """Which budgets are equal, and how much of the others each arm used."""
    equal = equal_budgets(arms)
    same = ", ".join(f"{unit.replace('-', ' ')} ({_range(arms, unit)})" for unit in equal)
    rest = [u for u in BUDGETS if u not in equal]
    others = "; ".join(f"{u.replace('-', ' ')} {_amount(arms, u)}" for u in rest)
    asked = f"matched by {match.replace('-', ' ')}; " if match else ""
    return f"budget: {asked}equal {same or 'in nothing'}" + (
        f"; not equal: {others}" if others else ""
    )


def _amount(arms: Sequence[Arm], unit: str) -> str:
    """Of each arm the mean; of many their range."""
    if len(arms) >= SHOWN_VALUES:
        return _range(arms, unit)
    return ", ".join(f"{arm.label} {totals(arm, unit).mean():,.0f}" for arm in arms)


def _range(arms: Sequence[Arm], unit: str) -> str:
    means = [float(totals(arm, unit).mean()) for arm in arms]
    low, high = f"{min(means):,.0f}", f"{max(means):,.0f}"
    return low if low == high else f"{low} to {high}"


def checkpoint_rule(run: Run) -> str:
    """Which weights of a run are compared; fixed by its config before it started."""
    settings: Mapping[str, Any] = run.config["eval"]
    if settings.get("checkpoint", "last") == "last":
        return "last"
    names = ", ".join(settings["validation"])
    return f"best on {names}, evaluated every {settings['every']} steps"
