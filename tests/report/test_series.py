"""Curves as charts draw them: alignment, thinning, and bands, against numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from opo_cli.report.page import ArmCurves, Curve, Page
from opo_cli.report.series import binned, charts_of, over_runs

NAN = float("nan")


def curve_of(seed: int, steps: list[float], reward: list[float], **changes) -> Curve:
    x = {"step": steps, "token": [10 * step * (seed + 1) for step in steps]}
    fields = {"x": x, "metrics": {"reward": reward}, "accuracy": {}}
    return Curve(run=f"run-{seed}", seed=seed, **fields | changes)


def page_of(*arms: ArmCurves, metrics: tuple[str, ...] = ("reward",)) -> Page:
    titles = {key: (key, "") for key in metrics}
    return Page("", [], [], [], 0.02, [], [], [], arms, titles, [])


def test_bins_are_means_of_what_is_finite():
    table = np.array([[1, 3, 5, np.inf, NAN, NAN], [2, 2, 2, 4, 0, 6]])
    np.testing.assert_allclose(binned(table, 3), [[2, 5, NAN], [2, 3, 3]])
    assert np.isnan(binned(table, 6)[0, 3])
    assert binned(table, 0).shape == (2, 0)


def test_bins_of_uneven_sizes_lose_no_step():
    table = np.arange(7.0)[None]
    assert binned(table, 3).tolist() == [[0.5, 2.5, 5.0]]  # Of 2, 2 and 3 steps.


def test_the_band_is_the_t_interval_between_runs():
    mean, half, num_runs = over_runs(np.array([[1.0, 2.0], [3.0, NAN], [NAN, NAN]]))
    assert num_runs == 2
    assert mean.tolist() == pytest.approx([2, NAN], nan_ok=True)
    assert half[0] == pytest.approx(12.7062, abs=1e-3)  # t(1) x sd 1.4142 / sqrt 2.
    assert np.isnan(over_runs(np.array([[1.0]]))[1]).all()
    assert over_runs(np.full((2, 3), NAN))[2] == 0


def test_runs_are_aligned_by_step_and_the_mean_ends_with_the_shortest():
    arm = ArmCurves("a", [curve_of(0, [1, 2, 3], [1, 2, 3]), curve_of(1, [2, 3, 4], [4, 5, 6])])
    (chart, *_) = charts_of(page_of(arm)).charts
    (lines,) = chart.arms
    assert lines.x["step"].tolist() == pytest.approx([NAN, 2, 3, NAN], nan_ok=True)
    assert lines.x["token"].tolist() == pytest.approx([NAN, 30, 45, NAN], nan_ok=True)
    assert lines.mean.tolist() == pytest.approx([NAN, 3, 4, NAN], nan_ok=True)
    assert lines.last == 4
    assert lines.runs[1].y.tolist() == pytest.approx([NAN, 4, 5, 6], nan_ok=True)


def test_only_axes_that_every_run_has():
    seconds = curve_of(0, [1], [1], x={"step": [1], "second": [2], "token": [9]})
    assert charts_of(page_of(ArmCurves("a", [seconds]))).axes == ["step", "token", "second"]
    assert charts_of(page_of(ArmCurves("a", [seconds, curve_of(1, [1], [1])]))).axes == [
        "step",
        "token",
    ]


def test_evaluations_are_a_chart_per_benchmark_over_what_was_taken_by_then():
    scores = {"easy": [(0, 0.1), (1, 0.3), (3, 0.5)]}
    arm = ArmCurves("a", [curve_of(s, [1, 2, 3], [1, 2, 3], accuracy=scores) for s in (0, 1)])
    (chart,) = charts_of(page_of(arm, metrics=("accuracy",))).charts
    assert (chart.title, chart.is_evaluation) == ("easy", True)
    assert chart.arms[0].mean.tolist() == pytest.approx([0.1, 0.3, 0.5])
    assert chart.arms[0].x["token"].tolist() == [0, 15, 45]
    assert chart.arms[0].runs[1].x["token"].tolist() == [0, 20, 60]


@pytest.mark.parametrize(
    ("num_steps", "num_runs", "is_whole"),
    [(40, 3, True), (1000, 3, True), (20_000, 3, False), (40, 200, False), (1000, 200, False)],
)
def test_all_numbers_together_keep_the_budget(num_steps: int, num_runs: int, is_whole: bool):
    steps = list(range(1, num_steps + 1))
    scores = {"easy": [(step, 0.5) for step in steps[::10]]}
    runs = [curve_of(seed, steps, steps, accuracy=scores) for seed in range(num_runs)]
    charts = charts_of(
        page_of(ArmCurves("a", runs), metrics=("reward", "accuracy")), numbers=20_000
    )
    held = 0
    for lines in (lines for chart in charts.charts for lines in chart.arms):
        held += 3 * len(lines.mean) + sum(len(x) for x in lines.x.values())
        held += sum(len(run.y) + len(run.x["token"]) for run in lines.runs)
    assert held <= 20_000
    assert charts.mean_points >= min(num_steps, 500)
    assert (charts.run_points == num_steps) == is_whole
    assert charts.run_points >= 8


def test_seeds_are_left_out_where_few_points_would_mislead():
    runs = [curve_of(seed, list(range(100)), list(range(100))) for seed in range(50)]
    charts = charts_of(page_of(ArmCurves("a", runs)), numbers=500)
    assert (charts.mean_points, charts.run_points) == (30, 0)  # 150 numbers, 5 a point.
    assert charts.charts[0].arms[0].num_runs == 50
