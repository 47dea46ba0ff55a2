"""pass@k and standard errors: constants, brute force, exact expectations."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opo_cli.evaluate.estimators import pass_at_k, standard_error

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
