"""Means over seeds and their intervals, against table values of Student's t."""

from __future__ import annotations

import numpy as np
import pytest

from opo_cli.report.estimate import Estimate, over_seeds, t_quantile


@pytest.mark.parametrize(
    ("degrees", "expected"), [(1, 12.7062), (2, 4.3027), (4, 2.7764), (29, 2.0452), (10**6, 1.96)]
)
def test_t_quantile_is_the_printed_one(degrees: int, expected: float):
    assert t_quantile(degrees) == pytest.approx(expected, abs=1e-4)


def test_three_seeds():
    estimate = over_seeds([0.4, 0.5, 0.6])
    assert estimate.mean == pytest.approx(0.5)
    assert estimate.half_width == pytest.approx(4.3027 * 0.1 / 3**0.5, abs=1e-4)
    assert estimate.num_seeds == 3


def test_one_seed_has_no_interval():
    assert over_seeds([0.4]) == Estimate(0.4, None, 1)


@pytest.mark.parametrize("values", [[], [None, None]])
def test_nothing_measured(values):
    assert over_seeds(values) == Estimate(None, None, 0)


def test_missing_values_drop_out():
    assert over_seeds([0.4, None, 0.6]) == over_seeds([0.4, 0.6])


def test_equal_seeds_have_an_interval_of_zero():
    assert over_seeds([0.25, 0.25]) == Estimate(0.25, 0.0, 2, 0.0)


def test_intervals_cover_the_mean_as_often_as_they_say():
    """2000 experiments of four seeds: the share covered has a standard error of 0.005."""
    experiments = np.random.default_rng(0).normal(size=(2000, 4))
    estimates = [over_seeds(seeds) for seeds in experiments]
    covered = np.mean([abs(estimate.mean) <= estimate.half_width for estimate in estimates])
    assert covered == pytest.approx(0.95, abs=0.02)
