"""How fast and how far arms learn: the robust score over all benchmarks, the area under the reward
curve, steps and seconds to a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from opo_cli.report.estimate import Estimate, over_seeds
from opo_cli.report.runs import Arm
from opo_cli.report.shared import common_benchmarks
from opo_cli.report.statistics import Bootstrap, area_under, first_reaching, interquartile_mean
from opo_cli.report.tables import Table, between, number, plus_minus

CURVE = "reward"
WINDOW = 5
"""Steps whose mean reward has to reach the threshold, if a run has so many: one step's is a matter
of luck."""
THRESHOLD_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Learned:
    """By one arm."""

    label: str
    mean: Estimate
    """Accuracy, the mean over benchmarks."""
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
    is_default: bool
    """Nobody asked for this threshold: see `default_threshold`."""
    window: int
    """Steps whose mean reward has to reach it."""
    arms: Sequence[Learned]


def default_threshold(arms: Sequence[Arm], window: int) -> float | None:
    """Nine tenths of the rise (mean reward of the first and of the last `window` steps) of the arm
    that ends lowest, so that about every arm gets there. None where that arm does not rise."""
    ends = [(_ends(arm, slice(-window, None)), _ends(arm, slice(window))) for arm in arms]
    known = [(last, first) for last, first in ends if last is not None and first is not None]
    last, first = min(known, default=(0.0, 0.0))
    return first + THRESHOLD_SHARE * (last - first) if last > first else None


def _ends(arm: Arm, part: slice) -> float | None:
    """Mean reward over the steps of a part, then over seeds."""
    values = [run.steps[CURVE][part] for run in arm.runs]
    return over_seeds([None if np.isnan(v).all() else float(np.nanmean(v)) for v in values]).mean


def _learned(arm: Arm, benchmarks: Sequence[str], threshold: float | None, window: int) -> Learned:
    scores = np.array([[run.final[b]["accuracy"] for b in benchmarks] for run in arm.runs])
    reached = [
        None if threshold is None else first_reaching(run.steps[CURVE], threshold, window)
        for run in arm.runs
    ]

    def at(unit: str) -> Estimate:
        return over_seeds(
            [
                None if place is None else float(run.used[unit][place])
                for run, place in zip(arm.runs, reached, strict=True)
            ]
        )

    return Learned(
        label=arm.label,
        mean=over_seeds(scores.mean(1) if benchmarks else []),
        score=interquartile_mean(scores) if benchmarks else None,
        area=over_seeds([area_under(run.steps[CURVE], run.steps["step"]) for run in arm.runs]),
        steps=at("steps"),
        seconds=at("seconds"),
        num_runs=len(arm.runs),
    )


def learning_of(arms: Sequence[Arm], threshold: float | None) -> Learning:
    """`threshold`: None: see `default_threshold`."""
    shortest = min(len(run.steps) for arm in arms for run in arm.runs)
    window = max(1, min(WINDOW, shortest))
    is_default = threshold is None
    threshold = default_threshold(arms, window) if is_default else threshold
    benchmarks = common_benchmarks(arms)
    return Learning(
        threshold, is_default, window, [_learned(a, benchmarks, threshold, window) for a in arms]
    )


def score_table(learning: Learning) -> Table:
    """Accuracy over all benchmarks."""
    rows = []
    for each in learning.arms:
        mean, score = each.mean, each.score
        bounds = None
        if mean.mean is not None and mean.half_width is not None:
            bounds = (mean.mean - mean.half_width, mean.mean + mean.half_width)
        rows.append(
            [
                each.label,
                number(mean.mean),
                number(mean.sd),
                between(bounds),
                number(score.value if score else None),
                between((score.low, score.high) if score and score.low is not None else None),
            ]
        )
    head = ["policy", "mean", "sd", "95 % interval", "IQM", "95 % interval"]
    note = (
        "accuracy, benchmarks weighing equally; sd: between seeds; interval of the mean: t; "
        "IQM: interquartile mean over runs and benchmarks, interval by bootstrap over runs (too "
        "narrow for few)"
    )
    return Table("score over all benchmarks", head, rows, note)


def speed_table(learning: Learning) -> Table:
    threshold = learning.threshold
    level = number(threshold)
    rows = []
    for each in learning.arms:
        num_there = each.steps.num_seeds
        is_partial = threshold is not None and num_there < each.num_runs
        rows.append(
            [
                each.label,
                plus_minus(each.area.mean, each.area.half_width),
                number(each.steps.mean, 1) + f" ({num_there}/{each.num_runs})" * is_partial,
                number(each.seconds.mean, 0),
            ]
        )
    head = ["policy", "area", f"steps to {level}", f"seconds to {level}"]
    note = (
        "area: mean reward over the steps, the area under its curve; steps, seconds: until the "
        f"mean reward of {learning.window} step{'s' * (learning.window > 1)} is {level}, of the "
        "runs that get there, without evaluation"
    )
    if learning.is_default and threshold is not None:
        note += f"; {level} is nine tenths of the rise of the arm that ends lowest"
    return Table("speed of learning", head, rows, note)


def learning_records(learning: Learning) -> list[dict[str, Any]]:
    """Tidy, as `compare` has them."""
    records: list[dict[str, Any]] = []
    for each in learning.arms:
        if each.score:
            records.append(
                {
                    "algorithm": each.label,
                    "measure": "mean_accuracy",
                    "final": each.mean.mean,
                    "half_width_95": each.mean.half_width,
                    "sd_between_seeds": each.mean.sd,
                    "num_seeds": each.num_runs,
                }
            )
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
                "sd_between_seeds": estimate.sd,
                "num_seeds": estimate.num_seeds,
                "num_runs": each.num_runs,
                **({"threshold": learning.threshold} if "threshold" in name else {}),
            }
            for name, estimate in named.items()
        ]
    return records
