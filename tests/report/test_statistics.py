"""Differences, permutations, bootstraps and curve measures against hand-computed values, scipy's
tests where ours reduces to them, and simulations with known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import permutation_test, trim_mean, ttest_ind, ttest_rel

from opo_cli.report.statistics import (
    area_under,
    difference,
    first_reaching,
    holm,
    interquartile_mean,
    permutation,
    probability_of_improvement,
    quantile,
)

ZERO = np.zeros((2, 2))


def without_problem_part(rng: np.random.Generator, seeds: int, problems: int) -> np.ndarray:
    """A table (S, P) whose problem means are all equal, so that only seeds vary."""
    table = rng.normal(size=(seeds, problems)) + rng.normal(size=(seeds, 1))
    return table - table.mean(0) + 0.05


def test_variance_of_a_difference_by_hand():
    """Seed means 0 and .2 (.02/2), problem means -.1 and .3 (.08/2), residuals of .05 (.01/4)."""
    found = difference([np.array([[-0.25, 0.25], [0.05, 0.35]])], [ZERO])
    assert found.mean == pytest.approx(0.1)
    assert found.standard_error == pytest.approx(math.sqrt(0.01 + 0.04 - 0.0025))
    assert found.high - found.mean == pytest.approx(12.7062 * math.sqrt(0.0475), rel=1e-5)
    assert found.mean - found.low == pytest.approx(12.7062 * math.sqrt(0.0475), rel=1e-5)
    cauchy = 1 - 2 / math.pi * math.atan(0.1 / math.sqrt(0.0475))
    assert found.p == pytest.approx(cauchy)
    parts = found.components
    assert (parts.between, parts.seed) == pytest.approx((0.02, 0.015))
    assert (parts.problem, parts.residual) == pytest.approx((0.0375, 0.005))
    assert (parts.seed_degrees, parts.problem_degrees) == pytest.approx((1, 1))
    assert parts.degrees_per_seed == 1
    assert (found.num_seeds, found.num_problems) == (2, 2)


def test_quantile_is_the_weighted_mean_of_the_parts():
    """Student's at .975: 4.30265 with 2 degrees of freedom, 2.13145 with 15."""
    assert quantile(0.05, (1, 3), (2, 15)) == pytest.approx((4.30265 + 3 * 2.13145) / 4, abs=1e-5)


def test_where_only_seeds_vary_it_is_the_paired_t_test_of_seed_means():
    table = without_problem_part(np.random.default_rng(0), 5, 80)
    expected = ttest_rel(table.mean(1), np.zeros(5))
    found = difference([table], [np.zeros((5, 80))])
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_independent_seeds_are_welch_s_test_of_seed_means():
    rng = np.random.default_rng(1)
    a, b = without_problem_part(rng, 4, 80), without_problem_part(rng, 7, 80) * 2
    expected = ttest_ind(a.mean(1), b.mean(1), equal_var=False)
    found = difference([a], [b], is_paired=False)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert found.num_seeds == 4


def test_benchmarks_weigh_equally_whatever_their_problems():
    a = [np.full((3, 2), 0.2), np.full((3, 40), 0.4)]
    found = difference(a, [np.zeros((3, 2)), np.zeros((3, 40))])
    assert found.mean == pytest.approx(0.3)
    assert found.num_problems == 42


def test_two_equal_benchmarks_halve_the_problem_part_and_keep_the_seed_part():
    """A seed's effect is shared by the benchmarks; problems are not."""
    rng = np.random.default_rng(2)
    table = 0.1 * rng.normal(size=(6, 1)) + 0.3 * rng.normal(size=(1, 50))
    one = difference([table], [np.zeros((6, 50))]).components
    two = difference([table] * 2, [np.zeros((6, 50))] * 2).components
    assert two.seed == pytest.approx(one.seed)
    assert two.problem == pytest.approx(one.problem / 2)
    assert two.problem_degrees == pytest.approx(2 * one.problem_degrees)


def test_components_are_the_simulated_ones():
    """Standard errors of the estimates: seed .18, problem .07, residual .01 of the value."""
    rng, seeds, problems = np.random.default_rng(3), 60, 400
    table = (
        0.05 * rng.normal(size=(seeds, 1))
        + 0.2 * rng.normal(size=(1, problems))
        + 0.4 * rng.normal(size=(seeds, problems))
    )
    parts = difference([table], [np.zeros_like(table)]).components
    assert parts.seed == pytest.approx(0.05**2, rel=0.5)
    assert parts.problem * problems == pytest.approx(0.2**2, rel=0.2)
    assert parts.residual * problems == pytest.approx(0.4**2, rel=0.03)


def test_agreement_on_all_problems_is_no_certainty():
    """30 problems, none different: as wide as if 2 of 32 were; Student's of 29 is 2.04523."""
    found = difference([np.ones((3, 30))], [np.ones((3, 30))])
    assert (found.mean, found.p) == (0, 1)
    assert found.high == pytest.approx(2.04523 * math.sqrt(2) / 32, rel=1e-5)
    clear = difference([np.ones((3, 30))], [np.zeros((3, 30))])
    assert clear.high - clear.low == pytest.approx(found.high - found.low)
    assert 0 < clear.p < 1e-15


def test_seed_means_that_coincide_leave_a_width():
    """Seed means both 0, problem means both 0: no part but the residual."""
    table = np.array([[1.0, -1, 1, -1], [-1, 1, -1, 1]])
    found = difference([table], [np.zeros((2, 4))])
    assert found.standard_error > 0
    assert found.low < 0 < found.high


@pytest.mark.parametrize("seed", range(20))
def test_sign_order_and_a_shared_shift_do_not_matter(seed: int):
    rng = np.random.default_rng(seed)
    a, b = rng.random((4, 12)), rng.random((4, 12))
    found, swapped = difference([a], [b]), difference([b], [a])
    assert (swapped.mean, swapped.p) == pytest.approx((-found.mean, found.p))
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low))
    seeds, problems = rng.permutation(4), rng.permutation(12)
    moved = difference([a[seeds][:, problems] + 0.1], [b[seeds][:, problems] + 0.1])
    assert (moved.low, moved.high, moved.p) == pytest.approx((found.low, found.high, found.p))


@pytest.mark.parametrize("is_paired", [True, False])
def test_p_is_below_5_percent_exactly_where_the_interval_leaves_0_out(is_paired: bool):
    rng, seen = np.random.default_rng(4), set()
    for _ in range(200):
        a, b = rng.random((3, 20)) + rng.uniform(0, 0.4), rng.random((3, 20))
        found = difference([a], [b], is_paired=is_paired)
        leaves_out = found.low > 0 or found.high < 0
        assert (found.p < 0.05) == leaves_out
        seen.add(leaves_out)
    assert seen == {True, False}


@pytest.mark.parametrize(("seeds", "problems"), [(1, 30), (3, 1), (1, 1)])
def test_without_a_between_seed_or_between_problem_estimate_the_mean_stands_alone(
    seeds: int, problems: int
):
    found = difference([np.full((seeds, problems), 0.5)], [np.zeros((seeds, problems))])
    assert found.mean == 0.5
    assert found.low is found.high is found.p is found.standard_error is found.components is None


def test_one_seed_in_one_arm_is_one_seed():
    found = difference([np.ones((5, 9))], [np.zeros((1, 9))], is_paired=False)
    assert (found.mean, found.low, found.num_seeds) == (1, None, 1)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([], []),
        ([ZERO], [ZERO, ZERO]),
        ([np.zeros((3, 2))], [np.zeros((2, 2))]),
        ([np.zeros((2, 3))], [np.zeros((2, 2))]),
        ([ZERO, np.zeros((3, 2))], [ZERO, np.zeros((3, 2))]),
        ([np.zeros(3)], [np.zeros(3)]),
    ],
)
def test_tables_that_do_not_fit_are_refused(a: list, b: list):
    with pytest.raises(ValueError, match="cannot be compared"):
        difference(a, b)


def simulated(rng: np.random.Generator, arms: int, seeds: int, problems: int) -> np.ndarray:
    """(arms, S, P): equal arms; seeds, problems, problem x arm, and 8 samples of each."""
    chances = expit(
        1.5 * rng.normal(size=(1, 1, problems))
        + 0.15 * rng.normal(size=(arms, seeds, 1))
        + 0.5 * rng.normal(size=(arms, 1, problems))
        + 0.3 * rng.normal(size=(arms, seeds, problems))
    )
    return rng.binomial(8, chances) / 8


@pytest.mark.parametrize("is_paired", [True, False])
@pytest.mark.parametrize("seeds", [3, 10])
def test_intervals_cover_the_truth_as_often_as_they_say(seeds: int, is_paired: bool):
    """600 comparisons: .95 has a standard error of .009; .93 to .97 is asked, 2 errors around."""
    rng, held = np.random.default_rng(5), []
    for _ in range(600):
        a, b = simulated(rng, 2, seeds, 60)
        found = difference([a], [b], is_paired=is_paired)
        held.append(found.low <= 0 <= found.high)
    assert 0.93 - 0.018 < np.mean(held) < 0.97 + 0.018


def test_holm_by_hand():
    """Sorted: 4 x .005, 3 x .01, 2 x .03, then .04, which may not be below .06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("gaps", "p", "least"),
    [
        ([1, 2, 3], 0.25, 0.25),
        ([3, 2, -1], 0.5, 0.25),  # |sum| of 4 or more: 4, 6 and their negatives, of 8.
        ([1, -1], 1, 0.5),
        ([0, 0, 0], 1, 0.25),
        ([5], 1, 1),
    ],
)
def test_flipped_signs_by_hand(gaps: list[float], p: float, least: float):
    found = permutation(gaps, [0] * len(gaps))
    assert (found.p, found.least) == (p, least)


def test_permuted_labels_by_hand():
    """Of 6 ways to choose 2 of 4 runs, {3, 4} and {1, 2} are as far apart."""
    found = permutation([3, 4], [1, 2], is_paired=False)
    assert (found.p, found.least) == pytest.approx((1 / 3, 1 / 3))
    assert permutation([9], [1, 2], is_paired=False).least == pytest.approx(1 / 3)


@pytest.mark.parametrize("is_paired", [True, False])
def test_permutations_are_scipy_s(is_paired: bool):
    rng = np.random.default_rng(6)
    a, b = rng.normal(0.8, 1, 6), rng.normal(0, 1, 6)
    kind = "samples" if is_paired else "independent"
    expected = permutation_test(
        (a, b), lambda x, y: np.mean(x) - np.mean(y), permutation_type=kind, n_resamples=10**5
    )
    assert permutation(a, b, is_paired=is_paired).p == pytest.approx(expected.pvalue)


@pytest.mark.parametrize("is_paired", [True, False])
def test_many_seeds_are_drawn_and_never_give_0(is_paired: bool):
    rng = np.random.default_rng(7)
    a, b = rng.normal(0.6, 1, 24), rng.normal(0, 1, 24)
    drawn = permutation(a, b, is_paired=is_paired)
    test = ttest_rel(a, b) if is_paired else ttest_ind(a, b)
    assert drawn.p == pytest.approx(test.pvalue, rel=0.25)
    certain = permutation(np.ones(24), np.zeros(24), is_paired=is_paired)
    assert certain.p == certain.least == 1 / 2**14


def test_probability_of_improvement_by_hand():
    """1 ties with 1 and beats 0, 2 beats both: (1/2 + 3) / 4."""
    found = probability_of_improvement([1, 2], [1, 0])
    assert found.value == 0.875
    assert 0 <= found.low < found.value < found.high <= 1
    apart = probability_of_improvement([2, 3, 4], [0, 1])
    assert (apart.value, apart.low, apart.high) == (1, 1, 1)
    single = probability_of_improvement([1], [0, 2])
    assert (single.value, single.low, single.high) == (0.5, None, None)


def test_probability_of_improvement_and_its_reverse_are_1_together():
    rng = np.random.default_rng(8)
    a, b = rng.integers(0, 5, 7), rng.integers(0, 5, 9)
    there, back = probability_of_improvement(a, b), probability_of_improvement(b, a)
    assert there.value + back.value == pytest.approx(1)


def test_interval_of_the_probability_of_improvement_is_the_asymptotic_one():
    """Of 40 runs each of one distribution the U statistic's standard error is 1/sqrt(6 x 40)."""
    rng = np.random.default_rng(9)
    found = probability_of_improvement(rng.normal(size=40), rng.normal(size=40))
    assert found.high - found.low == pytest.approx(2 * 1.96 / math.sqrt(240), rel=0.15)


def test_interquartile_mean_by_hand():
    found = interquartile_mean(np.array([[0, 1], [2, 3], [4, 5], [6, 100]]))
    assert found.value == 3.5
    assert found.low < 3.5 < found.high
    single = interquartile_mean(np.array([[1.0, 2, 3, 100]]))
    assert (single.value, single.low, single.high) == (2.5, None, None)


def test_interquartile_mean_of_three_runs_has_their_range_as_interval():
    """1/27 of resamples, more than .025, are one run thrice: the truth is outside in 2 of 8."""
    found = interquartile_mean(np.array([[0.5], [0.2], [0.6]]))
    assert (found.low, found.high) == pytest.approx((0.2, 0.6))


def test_interquartile_mean_s_interval_holds_the_truth_as_often_as_stated():
    """800 times ten runs on four benchmarks: .89 has a standard error of .011."""
    rng, benchmarks = np.random.default_rng(13), np.array([-0.3, -0.1, 0.1, 0.3])
    covered = 0
    for _ in range(800):
        runs = rng.normal(size=(10, 1)) + rng.normal(size=(10, 4))
        found = interquartile_mean(benchmarks + 0.02 * runs)
        covered += found.low <= 0 <= found.high
    assert covered / 800 == pytest.approx(0.89, abs=2 * 0.011)


@pytest.mark.parametrize("shape", [(3, 1), (3, 3), (5, 4), (10, 1), (7, 3)])
def test_interquartile_mean_is_scipy_s_trimmed_mean(shape: tuple[int, int]):
    scores = np.random.default_rng(10).random(shape)
    assert interquartile_mean(scores).value == pytest.approx(trim_mean(scores, 0.25, axis=None))


def test_a_resample_keeps_a_run_s_benchmarks_together():
    """Where benchmarks repeat each other, eight of them carry no more than one."""
    scores = np.random.default_rng(11).random((8, 1))
    one, many = interquartile_mean(scores), interquartile_mean(np.repeat(scores, 8, axis=1))
    assert (many.value, many.low, many.high) == pytest.approx((one.value, one.low, one.high))


def test_equal_runs_have_an_interval_of_zero_and_repeats_are_the_same():
    scores = np.array([[0.1, 0.5]] * 6)
    found = interquartile_mean(scores)
    assert found.low == pytest.approx(found.value) == pytest.approx(found.high)
    other = np.random.default_rng(12).random((5, 2))
    assert interquartile_mean(other) == interquartile_mean(other)


@pytest.mark.parametrize(
    ("values", "x", "expected"),
    [
        ([0, 1, 1], [0, 1, 3], 2.5 / 3),
        ([0, math.nan, 1], [0, 1, 2], 0.5),
        ([math.nan, 2, 4, math.nan], [0, 1, 2, 9], 3),
        ([0.7], [5], 0.7),
        ([math.nan], [0], None),
        ([], [], None),
    ],
)
def test_area_under_is_the_mean_height(values: list, x: list, expected: float | None):
    assert area_under(values, x) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("values", "threshold", "window", "expected"),
    [
        ([0, 1, 1, 0], 1, 1, 1),
        ([0, 1, 1, 0], 1, 2, 2),
        ([0, 1, 0, 1], 0.5, 2, 1),
        ([0, 1, math.nan, 1], 1, 2, 3),
        ([0.1, 0.2], 1, 1, None),
        ([1, 1], 1, 3, None),
        ([math.nan, math.nan], 0, 1, None),
        ([0.1] * 3, 0.1, 3, 2),  # .1 + .1 + .1 is not .3 in binary.
    ],
)
def test_first_reaching(values: list, threshold: float, window: int, expected: int | None):
    assert first_reaching(values, threshold, window) == expected
