"""Scores and learning curves of arms."""

from __future__ import annotations

import pytest

from opo_cli.report.learning import (
    default_threshold,
    learning_of,
    learning_records,
    score_table,
    speed_table,
)
from opo_cli.report.runs import make_arms, read_run

from .conftest import step


def arms_of(*folders):
    return make_arms([read_run(folder, ["reward"]) for folder in folders])


def ramp(slope: float, count: int = 10):
    return [step(i + 1, reward=slope * i) for i in range(count)]


@pytest.fixture
def two(make_run):
    """opo climbs by .1 a step, ppo by .05; a step takes 2 s."""
    return arms_of(make_run("x", steps=ramp(0.1)), make_run("y", algorithm="ppo", steps=ramp(0.05)))


def test_the_threshold_is_in_reach_of_the_slowest(two):
    # ppo's first five rewards are 0 to .2, mean .1, its last .25 to .45, mean .35.
    assert default_threshold(two, 5) == pytest.approx(0.1 + 0.9 * 0.25)


def test_a_rise_below_zero_is_one_too(make_run):
    arms = arms_of(make_run("x", steps=[step(i + 1, reward=-1 + 0.1 * i) for i in range(10)]))
    assert default_threshold(arms, 1) == pytest.approx(-1 + 0.9 * 0.9)


def test_without_a_rise_there_is_no_threshold(make_run):
    arms = arms_of(make_run("x", steps=[step(i + 1, reward=0.5) for i in range(10)]))
    learning = learning_of(arms, None)
    assert learning.threshold is None
    assert speed_table(learning).rows[0][2:] == ["-", "-"]


def test_the_window_is_no_longer_than_a_run(make_run):
    learning = learning_of(arms_of(make_run("x", steps=ramp(0.1, 3))), None)
    assert (learning.window, "mean reward of 3 steps" in speed_table(learning).note) == (3, True)


def test_steps_and_seconds_until_the_mean_of_five_steps_is_there(two):
    records = {
        (r["algorithm"], r["measure"]): r["final"] for r in learning_records(learning_of(two, 0.35))
    }
    # The mean of five rewards ending at step i+1 is slope (i - 2): opo .4 at i = 6, ppo .35 at 9.
    assert records["opo", "steps_to_threshold"] == 7
    assert records["ppo", "steps_to_threshold"] == 10
    assert records["ppo", "seconds_to_threshold"] == 20
    assert records["opo", "area_under_reward"] == pytest.approx(0.45)


def test_a_run_that_never_gets_there_is_counted_as_such(make_run):
    arms = arms_of(
        make_run("x", steps=ramp(0.1)),
        make_run("y", seed=1, steps=[step(i + 1) for i in range(10)]),
    )
    (row,) = speed_table(learning_of(arms, 0.4)).rows
    assert row[2] == "7.0 (1/2)"
    records = {r["measure"]: r for r in learning_records(learning_of(arms, 0.4))}
    assert (records["steps_to_threshold"]["num_seeds"], records["steps_to_threshold"]["final"]) == (
        1,
        7,
    )


def test_score_is_the_mean_with_its_spread_and_the_robust_mean(make_run):
    arms = arms_of(make_run("x", [2, 1]), make_run("y", [2, 3], seed=1))
    (row,) = score_table(learning_of(arms, None)).rows
    # Accuracies .375 and .625: sd .17678, t(0.975, 1) = 12.706, half width 1.588.
    assert row[:4] == ["opo", "0.500", "0.177", "-1.088 to 2.088"]
    assert row[4] == "0.500"


def test_without_evaluations_there_is_no_score(make_run):
    (row,) = score_table(learning_of(arms_of(make_run("x", {})), None)).rows
    assert row[1:] == ["-"] * 5


def test_a_run_without_rewards_has_neither_area_nor_threshold(make_run):
    arms = arms_of(make_run("x", steps=[step(1, reward=None)]))
    assert default_threshold(arms, 1) is None
    (row,) = speed_table(learning_of(arms, None)).rows
    assert row[1:] == ["-", "-", "-"]
