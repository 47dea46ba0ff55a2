"""pass@k, maj@k and intervals: constants, brute force, exact expectations, simulated coverage."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opo_cli.evaluate.estimators import (
    interval,
    ks_for,
    maj_at_k,
    most_trials_of,
    standard_error,
)
from opo_cli.report.estimate import pass_at_k

quick = settings(deadline=None, derandomize=True)


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [
        (16, 3, 4, 0.607143),
        (16, 3, 1, 3 / 16),
        (16, 0, 16, 0.0),
        (16, 1, 16, 1.0),
        (16, 13, 4, 1.0),
        (10_000, 1, 100, 0.01),
    ],
)
def test_pass_at_k_constants(n: int, c: int, k: int, expected: float):
    assert pass_at_k([n], [c], k) == pytest.approx([expected], abs=1e-6)


cases = st.integers(1, 8).flatmap(
    lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))
)


@quick
@given(cases)
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(case):
    n, c, k = case
    subsets = list(combinations([True] * c + [False] * (n - c), k))
    expected = sum(map(any, subsets)) / len(subsets)
    assert pass_at_k([n], [c], k) == pytest.approx([expected])


@pytest.mark.parametrize("chance", [0.0, 0.1, 0.5, 0.93])
@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize("n", [6, 12])
def test_pass_at_k_is_unbiased_whatever_n(n: int, k: int, chance: float):
    counts = range(n + 1)
    weights = [math.comb(n, c) * chance**c * (1 - chance) ** (n - c) for c in counts]
    expected = np.dot(weights, pass_at_k([n] * (n + 1), counts, k))
    assert expected == pytest.approx(1 - (1 - chance) ** k)


def test_pass_at_1_is_the_accuracy_of_each_problem():
    assert pass_at_k([4, 8, 3], [1, 2, 3], 1).tolist() == pytest.approx([0.25, 0.25, 1.0])


def test_pass_at_k_of_fewer_samples_is_refused():
    with pytest.raises(ValueError, match="pass@5 of 4 samples"):
        pass_at_k([8, 4], [1, 1], 5)


# --- maj@k ------------------------------------------------------------------------------------


def test_maj_at_k_constants():
    """[a, a, b, b, c] with gold a: theory's .4333 at k = 3; all five are a tie of two."""
    assert maj_at_k(2, [2, 1], 0, 3) == pytest.approx(13 / 30)
    assert maj_at_k(2, [2, 1], 0, 5) == pytest.approx(1 / 2)
    assert maj_at_k(2, [2, 1], 0, 1) == pytest.approx(2 / 5)
    assert maj_at_k(0, [3], 1, 4) == 0
    assert maj_at_k(1, [], 63, 64) == 1
    assert maj_at_k(0, [], 4, 2) == 0


answers = st.lists(st.sampled_from(["right", "right", "a", "b", "c", None]), min_size=1, max_size=8)


@quick
@given(answers, st.integers(1, 8))
def test_maj_at_k_is_the_mean_over_subsets_with_ties_shared(given_answers, k: int):
    k = min(k, len(given_answers))
    wrong = [given_answers.count(a) for a in "abc" if a in given_answers]
    counted = maj_at_k(given_answers.count("right"), wrong, given_answers.count(None), k)
    assert counted == pytest.approx(np.mean([won(s) for s in combinations(given_answers, k)]))


def won(subset) -> float:
    """The right answer's share of the first place."""
    votes = {answer: subset.count(answer) for answer in subset if answer is not None}
    first = [answer for answer in votes if votes[answer] == max(votes.values())]
    return 1 / len(first) if "right" in first else 0.0


@pytest.mark.parametrize("k", [1, 3, 4])
@pytest.mark.parametrize("n", [4, 6])
def test_maj_at_k_is_unbiased_whatever_n(n: int, k: int):
    """Over all samples of size n from three answers, against the truth for samples of size k."""
    chances = (0.5, 0.3, 0.2)

    def expectation(size: int) -> float:
        total = 0.0
        for right in range(size + 1):
            for first in range(size + 1 - right):
                counts = (right, first, size - right - first)
                ways = math.factorial(size) / math.prod(map(math.factorial, counts))
                chance = ways * math.prod(p**c for p, c in zip(chances, counts, strict=True))
                total += chance * maj_at_k(right, [c for c in counts[1:] if c], 0, k)
        return total

    assert expectation(n) == pytest.approx(expectation(k))


def test_maj_at_k_of_many_samples_is_quick_and_a_share():
    assert 0.97 < maj_at_k(90, [1] * 100 + [16, 50], 0, 64) < 1


@pytest.mark.parametrize(
    ("right", "wrong", "silent", "k"), [(1000, [3, 4], 1041, 256), (500, [500], 1048, 512)]
)
def test_maj_at_k_of_thousands_of_samples_is_a_share(right, wrong, silent, k):
    """Their binomials exceed any float. Two answers as frequent as each other share the place."""
    expected = 0.5 if wrong == [500] else 1.0
    assert maj_at_k(right, wrong, silent, k) == pytest.approx(expected, abs=1e-9)


def test_maj_at_k_of_fewer_samples_is_refused():
    with pytest.raises(ValueError, match="maj@5 of 4 samples"):
        maj_at_k(2, [1], 1, 5)


@pytest.mark.parametrize(
    ("samples", "asked", "expected"),
    [(64, (), [1, 4, 16, 64]), (8, (), [1, 4]), (1, (), [1]), (8, (1, 8), [1, 8]), (2, (4,), [2])],
)
def test_ks(samples: int, asked, expected: list[int]):
    assert ks_for(samples, asked) == expected


# --- intervals --------------------------------------------------------------------------------


def test_standard_error_is_over_problems_not_samples():
    """Five problems of four samples: theory's .176777, where .111803 would count samples."""
    shares = pass_at_k([4] * 5, [0, 1, 2, 3, 4], 1)
    assert shares.mean() == pytest.approx(0.5)
    assert standard_error(shares) == pytest.approx(0.176777, abs=1e-6)


def test_standard_error_of_paired_differences():
    first = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    second = np.array([0.0, 0.5, 0.75, 0.75, 1.0])
    assert standard_error(second - first) == pytest.approx(0.061237, abs=1e-6)


def test_one_problem_has_no_standard_error():
    assert standard_error(np.array([0.5])) is None
    assert interval(np.array([0.5])) is None


def test_the_interval_of_agreeing_problems_is_that_of_so_many_trials():
    """t(29) = 2.04523: 30 of 30 give 1 / (1 + t^2 / 30) = 0.87763 to 1."""
    assert interval(np.ones(30)) == pytest.approx((0.87763, 1.0), abs=1e-5)
    assert interval(np.zeros(30)) == pytest.approx((0.0, 0.12237), abs=1e-5)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 1 / 3, 0.7])
def test_problems_that_agree_on_no_binary_share_leave_an_interval(share: float):
    low, high = interval(np.full(30, share))
    assert low < share - 0.05
    assert high > share + 0.05


def test_an_interval_by_hand():
    """Five problems: mean 1/2, SE^2 1/32, so 8 effective trials; t(4) = 2.776445."""
    t, size = 2.776445, 8
    half = t / (1 + t**2 / size) * math.sqrt(0.25 / size + t**2 / (4 * size**2))
    expected = (0.5 - half, 0.5 + half)
    assert interval(np.array([0, 0.25, 0.5, 0.75, 1])) == pytest.approx(expected, abs=1e-6)


REPEATS = 2000  # Three standard errors of a simulated coverage of .95 are .015.
POPULATIONS = {
    "even": lambda rng, n: rng.beta(0.5, 0.5, n),
    "hard": lambda rng, n: rng.beta(0.3, 2, n),
    "easy": lambda rng, n: rng.beta(5, 0.5, n),
    "alike": lambda rng, n: np.full(n, 0.3),
}


@pytest.mark.parametrize("population", POPULATIONS)
@pytest.mark.parametrize(("problems", "samples"), [(30, 16), (30, 64), (100, 8), (500, 4)])
def test_the_interval_covers_the_truth_as_often_as_it_says(population, problems, samples):
    """New problems and new samples each time; the truth is the population's mean."""
    draw = POPULATIONS[population]
    truth = draw(np.random.default_rng(1), 1_000_000).mean()
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(REPEATS):
        low, high = interval(rng.binomial(samples, draw(rng, problems)) / samples)
        covered += low <= truth <= high
    assert 0.93 <= covered / REPEATS <= 0.97


@pytest.mark.parametrize("measure", ["pass@4", "maj@4"])
def test_intervals_of_other_measures_cover_their_truths(measure: str):
    """Each problem: a right answer with its own chance, and two wrong ones."""
    rng, problems, samples, k = np.random.default_rng(0), 30, 12, 4

    def value(right: int, first: int) -> float:
        if measure == "pass@4":
            return float(pass_at_k([samples], [right], k)[0])
        wrong = [count for count in (first, samples - right - first) if count]
        return maj_at_k(right, wrong, 0, k)

    table = {
        (right, first): value(right, first)
        for right in range(samples + 1)
        for first in range(samples + 1 - right)
    }

    def drawn(count: int) -> np.ndarray:
        right = rng.binomial(samples, rng.beta(1, 1, count))
        first = rng.binomial(samples - right, 0.6)
        return np.array([table[pair] for pair in zip(right.tolist(), first.tolist(), strict=True)])

    truth = drawn(400_000).mean()
    most = most_trials_of(problems * samples, k)
    intervals = [interval(drawn(problems), most) for _ in range(REPEATS)]
    assert 0.93 <= np.mean([low <= truth <= high for low, high in intervals]) <= 0.97


@pytest.mark.parametrize(("problems", "samples", "k"), [(30, 16, 4), (30, 64, 16), (100, 8, 4)])
def test_near_one_an_interval_claims_no_more_than_its_responses_can_carry(problems, samples, k):
    """pass@k of easy problems: without a bound the truth is held in .2 to .8 of cases."""
    truth = (1 - (1 - np.random.default_rng(1).beta(5, 0.5, 1_000_000)) ** k).mean()
    most = most_trials_of(problems * samples, k)

    def coverage(bound: float) -> float:
        rng, held = np.random.default_rng(0), 0
        for _ in range(500):
            correct = rng.binomial(samples, rng.beta(5, 0.5, problems))
            low, high = interval(pass_at_k([samples] * problems, correct, k), bound)
            held += low <= truth <= high
        return held / 500

    assert coverage(math.inf) < 0.85
    assert coverage(most) > 0.93


def test_the_mean_itself_is_not_bounded():
    assert most_trials_of(480, 1) == math.inf
    assert most_trials_of(480, 16) == 120
