"""What the runs of a comparison share: settings, evaluations, budgets; and what they must share to
be comparable at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from opo_cli.algorithms import ALGORITHMS
from opo_cli.config import Algorithm
from opo_cli.errors import OpoError
from opo_cli.metrics import BUDGETS
from opo_cli.report.evals import SETTINGS, setting_text
from opo_cli.report.runs import Arm, Run, changed_keys, value_text

DEFAULTS = Algorithm().model_dump(mode="json")
OF_BUDGET = ("train.steps", "train.budget", "train.budget_unit")
"""Told as budgets used, not as settings."""
TOLERANCE = 0.05
"""Share by which budgets may differ and count as equal: updates are skipped now and then, and
nobody knows beforehand how many tokens a step takes. Steps may not."""
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


def not_shared(arms: Sequence[Arm]) -> list[str]:
    """A line on each thing that the arms do not share, beyond what their algorithms are."""
    settings = differing_settings(arms)
    found = {k: v for k, v in settings.items() if not _is_expected(k, v, arms)}
    lines = [_line(key, arms, values) for key, values in found.items()]
    lines += [_line(key, arms, values) for key, values in _evaluations(arms).items()]
    labels = [arm.certificate.label for arm in arms]
    if len(set(labels)) > 1:
        lines.append(_line("certificate", arms, labels))
    if len({run.initial_policy_id for arm in arms for run in arm.runs}) > 1:
        lines.append("not the same: the initial policy; 'initial' is that of the first arm")
    return lines


def _is_expected(key: str, values: Sequence[Any], arms: Sequence[Arm]) -> bool:
    """A budget, or what each algorithm's own row says; the reduction, which alone changes results,
    is told in any case."""
    section, _, name = key.partition(".")
    if section != "algorithm" or name == "reduction":
        return key in OF_BUDGET
    rows = [ALGORITHMS.get(arm.runs[0].config["algorithm"]["name"]) for arm in arms]
    default = DEFAULTS.get(name)
    return name == "name" or all(
        row is not None and value == row.settings.get(name, default)
        for row, value in zip(rows, values, strict=True)
    )


def _evaluations(arms: Sequence[Arm]) -> dict[str, list[str]]:
    """Setting of an evaluation -> its values in each arm, of those that any two runs differ in."""
    found: dict[str, list[str]] = {}
    for benchmark in benchmarks_of(arms):
        for key in OF_EVALUATION:
            values = [_values_of(arm, benchmark, key) for arm in arms]
            if len({value for each in values for value in each}) > 1:
                found.setdefault(key, [" or ".join(each) or "-" for each in values])
    return found


def _values_of(arm: Arm, benchmark: str, key: str) -> list[str]:
    records = [run.final[benchmark] for run in arm.runs if benchmark in run.final]
    return list(dict.fromkeys(setting_text(key, r.get("settings", {})) for r in records))


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
    runs = [run for arm in arms for run in arm.runs]
    silent = [str(run.path) for run in runs if not run.final]
    if silent and benchmarks_of(arms):
        found.append(f"'{silent[0]}' has no evaluation of its final policy")
    if len({run.initial_policy_id for arm in arms for run in arm.runs}) > 1:
        found.append("they started from different policies")
    if not silent and benchmarks_of(arms) and not common_benchmarks(arms):
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
    """Whether every run used as much of `unit`, but for less than a step (a run ends with a whole
    one) or for the tolerance."""
    used = np.concatenate([totals(arm, unit) for arm in arms])
    gap = float(used.max() - used.min())
    if unit == "steps":
        return not gap
    last = max(float(np.diff(run.used[unit], prepend=0)[-1:].sum()) for a in arms for run in a.runs)
    return gap < last or gap <= TOLERANCE * float(used.max())


def equal_budgets(arms: Sequence[Arm]) -> list[str]:
    return [unit for unit in BUDGETS if are_equal(arms, unit)]


def budget_line(arms: Sequence[Arm], match: str | None) -> str:
    """Which budgets are equal, and how much of the others each arm used."""
    equal = equal_budgets(arms)
    same = ", ".join(f"{unit.replace('-', ' ')} ({_equal_amount(arms, unit)})" for unit in equal)
    rest = [u for u in BUDGETS if u not in equal]
    others = "; ".join(f"{u.replace('-', ' ')} {_amount(arms, u)}" for u in rest)
    asked = f"matched by {match.replace('-', ' ')}; " if match in equal else ""
    if match and match not in equal:
        asked = f"NOT equal in {match.replace('-', ' ')}, as was asked; "
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


def _equal_amount(arms: Sequence[Arm], unit: str) -> str:
    amount = _range(arms, unit)
    return amount if " to " not in amount else f"{amount}, within a step"


def checkpoint_rule(run: Run) -> str:
    """Which weights of a run are compared; fixed by its config before it started."""
    settings: Mapping[str, Any] = run.config["eval"]
    if settings.get("checkpoint", "last") == "last":
        return "last"
    names = ", ".join(settings["validation"])
    return f"best on {names}, evaluated every {settings['every']} steps"


def chosen_steps(arms: Sequence[Arm]) -> str:
    """The steps whose weights are compared, where a rule chose them; else empty."""
    found = []
    for arm in arms:
        if arm.runs[0].config["eval"].get("checkpoint", "last") != "last":
            steps = [str(r["step"]) for run in arm.runs for r in [*run.final.values()][:1]]
            found.append(f"{arm.label} {'/'.join(steps)}")
    return ", ".join(found)
