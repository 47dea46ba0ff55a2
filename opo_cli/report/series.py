"""Curves as charts draw them: runs aligned by step, thinned to what a page can carry, and the mean
over each arm's seeds with its band. The page and the figures for papers share this.

A arms, R runs of an arm, G steps of the grid, P points that are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from opo_cli.report.estimate import t_quantile

if TYPE_CHECKING:
    from opo_cli.report.page import ArmCurves, Page

AXES = {
    "step": "step",
    "sample": "responses sampled",
    "token": "tokens sampled",
    "second": "seconds",
}
"""Key of `Curve.x` -> title of the axis."""
ACCURACY = "accuracy"  # The key of `Page.metrics` that stands for the evaluations.
NUMBERS = 100_000
"""That a page's curves may take, at about 7 bytes each. plotly.js leaves 1.2 of 6 MB."""
MEAN_SHARE = 0.3  # Of `NUMBERS`, for means and bands; the rest is for the seeds' own lines.
LEAST_POINTS = 8  # Of a seed's line: with fewer it would mislead, and is left out.


@dataclass(frozen=True, slots=True)
class Line:
    """One run in one chart."""

    name: str
    seed: int
    x: Mapping[str, np.ndarray]
    y: np.ndarray
    """[P], nan where nothing was measured."""


@dataclass(frozen=True, slots=True)
class Lines:
    """One arm in one chart."""

    x: Mapping[str, np.ndarray]
    """Axis -> [P], the mean over runs."""
    mean: np.ndarray
    """[P], over the runs that measured it; nan where one of them lacks a value."""
    half_width: np.ndarray
    """[P], of the 95 % t-interval between seeds; nan for one seed."""
    num_runs: int
    """That measured it."""
    runs: Sequence[Line]

    @property
    def last(self) -> float | None:
        """The mean at its last point."""
        known = self.mean[np.isfinite(self.mean)]
        return float(known[-1]) if len(known) else None


@dataclass(frozen=True, slots=True)
class Chart:
    key: str
    title: str
    note: str
    """Unit and formula."""
    arms: Sequence[Lines]
    """In the order of `Page.arms`."""
    is_evaluation: bool = False

    @property
    def is_measured(self) -> bool:
        return any(lines.num_runs for lines in self.arms)


@dataclass(frozen=True, slots=True)
class Charts:
    axes: Sequence[str]
    """Those that every run has."""
    charts: Sequence[Chart]
    num_steps: int
    """What there was to draw."""
    mean_points: int
    """Points of a mean that are drawn; fewer than `num_steps` where steps had to be averaged."""
    run_points: int
    """Of a seed's own line; 0: they are left out."""


def charts_of(page: Page, numbers: int = NUMBERS) -> Charts:
    """Args: numbers bounds how many numbers the charts hold."""
    curves = [curve for arm in page.arms for curve in arm.curves]
    axes = [axis for axis in AXES if all(axis in curve.x for curve in curves)]
    grid = _union([curve.x["step"] for curve in curves])
    benchmarks = list(dict.fromkeys(name for curve in curves for name in curve.accuracy))
    tests = _union([[at for at, _ in pairs] for c in curves for pairs in c.accuracy.values()])
    keys = [key for key in page.metrics if key != ACCURACY]
    grids = ((len(grid), len(keys)), (len(tests), len(benchmarks)))
    mean_points, run_points = _points(page.arms, grids, len(axes), numbers)

    charts = []
    xs = [_x_of(arm, grid, axes, mean_points, run_points) for arm in page.arms] if curves else []
    for key, (title, note) in _ordered(page.metrics).items():
        if key == ACCURACY:
            taken = [{axis: _at_steps(arm, axis, tests) for axis in axes} for arm in page.arms]
            given = (note, tests, taken, mean_points, run_points)
            charts += [_evaluation(page, name, *given) for name in benchmarks]
            continue
        drawn = [
            _lines(arm, _table(arm, key, grid), mean_points, run_points, *x)
            for arm, x in zip(page.arms, xs, strict=True)
        ]
        charts.append(Chart(key, title, note, drawn))
    return Charts(axes, charts, max(len(grid), len(tests)), mean_points, run_points)


def _ordered(metrics: Mapping[str, tuple[str, str]]) -> Mapping[str, tuple[str, str]]:
    """Evaluations are drawn even where nobody named them."""
    return metrics if ACCURACY in metrics else {**metrics, ACCURACY: (ACCURACY, "")}


# --- how many points ----------------------------------------------------------------------------


def _points(
    arms: Sequence[ArmCurves], grids: Sequence[tuple[int, int]], num_axes: int, numbers: int
) -> tuple[int, int]:
    """(of a mean, of a run): all steps where they fit, else as many averages as do.

    Args:
        grids: (steps, charts over them), of metrics and of evaluations.
    """
    num_runs, most = sum(len(arm.curves) for arm in arms), max(steps for steps, _ in grids)

    def cost(points: int, num_lines: int, per_chart: int) -> int:
        held = (min(points, steps) * (per_chart * charts + num_axes) for steps, charts in grids)
        return num_lines * sum(held)

    def largest(budget: int, num_lines: int, per_chart: int) -> int:
        fits = (p for p in range(most, 0, -1) if cost(p, num_lines, per_chart) <= budget)
        return next(fits, 0)

    means, runs = cost(most, len(arms), 3), cost(most, num_runs, 1)
    if means + runs <= numbers:
        return most, most
    mean_points = max(LEAST_POINTS, largest(int(MEAN_SHARE * numbers), len(arms), 3))
    left = numbers - cost(mean_points, len(arms), 3)
    run_points = min(mean_points, largest(left, num_runs, 1))
    return mean_points, run_points if run_points >= LEAST_POINTS else 0


def binned(table: np.ndarray, num_points: int) -> np.ndarray:
    """[R, G] -> [R, P]: means of neighbouring steps, what is not finite left out.

    As it is where it has no more than `num_points`; nan where a bin holds nothing.
    """
    num_steps = table.shape[1]
    known = np.isfinite(table)
    if num_steps <= num_points:
        return np.where(known, table, np.nan)
    if not num_points:
        return np.empty((len(table), 0))
    starts = np.arange(num_points) * num_steps // num_points
    counts = np.add.reduceat(known, starts, axis=1, dtype=float)
    sums = np.add.reduceat(np.where(known, table, 0.0), starts, axis=1)
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


# --- one arm ------------------------------------------------------------------------------------


def over_runs(table: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """[R, P] -> mean [P], half width of the 95 % t-interval between runs [P], runs that count.

    A run without any value does not count. Where one that counts has none, there is no mean: one
    over other runs would jump.
    """
    counted = table[np.isfinite(table).any(axis=1)]
    num_runs = len(counted)
    nothing = np.full(table.shape[1], np.nan)
    if not num_runs:
        return nothing, nothing, 0
    mean = counted.mean(axis=0)
    if num_runs == 1:
        return mean, nothing, 1
    spread = counted.std(axis=0, ddof=1) / np.sqrt(num_runs)
    return mean, t_quantile(num_runs - 1) * spread, num_runs


def _lines(
    arm: ArmCurves,
    table: np.ndarray,
    mean_points: int,
    run_points: int,
    mean_x: Mapping[str, np.ndarray],
    run_x: Mapping[str, np.ndarray],
) -> Lines:
    """Args: table is [R, G]; mean_x holds [P] and run_x [R, P] per axis."""
    runs = [
        Line(curve.run, curve.seed, {axis: values[row] for axis, values in run_x.items()}, y)
        for row, (curve, y) in enumerate(zip(arm.curves, binned(table, run_points), strict=True))
        if np.isfinite(y).any()
    ]
    return Lines(mean_x, *over_runs(binned(table, mean_points)), runs)


def _union(steps: Sequence[Sequence[float]]) -> np.ndarray:
    """All steps of any run, rising."""
    return (
        np.unique(np.concatenate([np.asarray(s, float) for s in steps])) if steps else np.empty(0)
    )


def _table(arm: ArmCurves, key: str, grid: np.ndarray) -> np.ndarray:
    """[R, G] of a metric, or of an axis ("step", "sample", ...); nan where a run has no value."""
    table = np.full((len(arm.curves), len(grid)), np.nan)
    for row, curve in zip(table, arm.curves, strict=True):
        values = curve.metrics.get(key) if key not in AXES else curve.x[key]
        if values is not None:
            row[np.searchsorted(grid, np.asarray(curve.x["step"], float))] = values
    return table


AxisValues = Mapping[str, np.ndarray]


def _x_of(
    arm: ArmCurves, grid: np.ndarray, axes: Sequence[str], mean_points: int, run_points: int
) -> tuple[AxisValues, AxisValues]:
    """Per axis: the mean over runs [P], and of each run [R, P]."""
    tables = {axis: _table(arm, axis, grid) for axis in axes}
    means = {axis: over_runs(binned(table, mean_points))[0] for axis, table in tables.items()}
    return means, {axis: binned(table, run_points) for axis, table in tables.items()}


def _evaluation(
    page: Page,
    benchmark: str,
    note: str,
    tests: np.ndarray,
    taken: Sequence[AxisValues],
    mean_points: int,
    run_points: int,
) -> Chart:
    """The chart of one benchmark, over the steps at which an arm was evaluated on it.

    Args:
        tests: steps of any evaluation, rising.
        taken: per arm and axis [R, len(tests)].
    """
    drawn = []
    for arm, values in zip(page.arms, taken, strict=True):
        pairs = [curve.accuracy.get(benchmark, ()) for curve in arm.curves]
        grid = _union([[step for step, _ in run] for run in pairs])
        table = np.full((len(arm.curves), len(grid)), np.nan)
        for row, run in zip(table, pairs, strict=True):
            row[np.searchsorted(grid, [step for step, _ in run])] = [value for _, value in run]
        at = {axis: rows[:, np.searchsorted(tests, grid)] for axis, rows in values.items()}
        mean_x = {axis: over_runs(binned(rows, mean_points))[0] for axis, rows in at.items()}
        run_x = {axis: binned(rows, run_points) for axis, rows in at.items()}
        drawn.append(_lines(arm, table, mean_points, run_points, mean_x, run_x))
    return Chart(f"{ACCURACY} {benchmark}", benchmark, note, drawn, is_evaluation=True)


def _at_steps(arm: ArmCurves, axis: str, grid: np.ndarray) -> np.ndarray:
    """[R, G]: what each run had taken when it was evaluated; nothing at step 0."""
    if axis == "step":
        return np.tile(grid, (len(arm.curves), 1))

    def known(values: Sequence[float]) -> np.ndarray:
        return np.concatenate([[0.0], np.asarray(values, float)])

    rows = [np.interp(grid, known(c.x["step"]), known(c.x[axis])) for c in arm.curves]
    return np.array(rows).reshape(len(arm.curves), len(grid))
