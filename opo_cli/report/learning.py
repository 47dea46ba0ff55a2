"""How fast and how far arms learn: the robust score over all benchmarks, the area under the reward
curve, steps and seconds to a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from opo_cli.report.estimate import Estimate, over_seeds
from opo_cli.report.runs import Arm, Run
from opo_cli.report.shared import common_benchmarks
from opo_cli.report.statistics import Bootstrap, area_under, first_reaching, interquartile_mean
from opo_cli.report.tables import Table, between, number, plus_minus

CURVE = "reward"
WINDOW = 5
"""Steps whose mean reward has to reach the threshold: one step's is a matter of luck."""
THRESHOLD_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Learned:
    """By one arm."""

    label: str
    score: Bootstrap | None
    """Interquartile mean of accuracy; None where nothing common was evaluated."""
    area: Estimate
    """Mean height of the reward curve over steps."""
    steps: Estimate
    """To the threshold, of the runs that reach it."""
    seconds: Estimate
    num_runs: int


@dataclass(frozen=True, slots=True)
class Learning:
    """By all arms."""

    threshold: float | None
    """Of the reward; None where there is none."""
    arms: Sequence[Learned]


def default_threshold(arms: Sequence[Arm]) -> float | None:
    """Nine tenths of the final reward (mean of the last `WINDOW` steps) of the arm whose is lowest,
    so that about every arm gets there."""
    finals = [over_seeds([_final_reward(run) for run in arm.runs]).mean for arm in arms]
    known = [value for value in finals if value is not None]
    return THRESHOLD_SHARE * min(known) if known else None


def _final_reward(run: Run) -> float | None:
    values = run.steps[CURVE][-WINDOW:]
    return None if np.isnan(values).all() else float(np.nanmean(values))


def _learned(arm: Arm, benchmarks: Sequence[str], threshold: float | None) -> Learned:
    scores = np.array([[run.final[b]["accuracy"] for b in benchmarks] for run in arm.runs])
    reached = [_reached(run, threshold) for run in arm.runs]

    def at(unit: str) -> Estimate:
        return over_seeds(
            [
                None if place is None else float(run.used[unit][place])
                for run, place in zip(arm.runs, reached, strict=True)
            ]
        )

    return Learned(
        label=arm.label,
        score=interquartile_mean(scores) if benchmarks else None,
        area=over_seeds([area_under(run.steps[CURVE], run.steps["step"]) for run in arm.runs]),
        steps=at("steps"),
        seconds=at("seconds"),
        num_runs=len(arm.runs),
    )


def _reached(run: Run, threshold: float | None) -> int | None:
    if threshold is None:
        return None
    return first_reaching(run.steps[CURVE], threshold, min(WINDOW, max(1, len(run.steps))))


def learning_of(arms: Sequence[Arm], threshold: float | None) -> Learning:
    """`threshold`: None: see `default_threshold`."""
    threshold = default_threshold(arms) if threshold is None else threshold
    benchmarks = common_benchmarks(arms)
    return Learning(threshold, [_learned(arm, benchmarks, threshold) for arm in arms])


def learning_table(learning: Learning) -> Table:
    threshold = learning.threshold
    level = number(threshold)
    rows = []
    for each in learning.arms:
        score, num_there = each.score, each.steps.num_seeds
        bounds = None if score is None or score.low is None else (score.low, score.high)
        is_partial = threshold is not None and num_there < each.num_runs
        rows.append(
            [
                each.label,
                number(score.value if score else None),
                between(bounds),
                plus_minus(each.area.mean, each.area.half_width),
                number(each.steps.mean, 1) + f" ({num_there}/{each.num_runs})" * is_partial,
                number(each.seconds.mean, 0),
            ]
        )
    head = ["policy", "IQM", "95 % interval", "area", f"steps to {level}", f"s to {level}"]
    note = (
        "IQM: interquartile mean of accuracy over runs and benchmarks, interval by bootstrap over "
        f"runs (too narrow for few); area: mean reward over the steps; steps, s: until the mean "
        f"reward of {WINDOW} steps is {level}, of the runs that get there, without evaluation"
    )
    return Table("score and speed", head, rows, note)


def learning_records(learning: Learning) -> list[dict[str, Any]]:
    """Tidy, as `compare` has them."""
    records: list[dict[str, Any]] = []
    for each in learning.arms:
        if each.score:
            records.append(
                {
                    "algorithm": each.label,
                    "measure": "interquartile_mean",
                    "final": each.score.value,
                    "low_95": each.score.low,
                    "high_95": each.score.high,
                    "num_seeds": each.num_runs,
                }
            )
        named = {
            "area_under_reward": each.area,
            "steps_to_threshold": each.steps,
            "seconds_to_threshold": each.seconds,
        }
        records += [
            {
                "algorithm": each.label,
                "measure": name,
                "final": estimate.mean,
                "half_width_95": estimate.half_width,
                "num_seeds": estimate.num_seeds,
                **({"threshold": learning.threshold} if "threshold" in name else {}),
            }
            for name, estimate in named.items()
        ]
    return records
