"""Estimators over problems and samples. Shape legend: P problems. numpy and scipy, no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import gammaln

from opo_cli.report.estimate import t_quantile

DEFAULT_KS = (1, 4, 16, 64)
ROUNDING = 1e-9


def ks_for(num_samples: int, asked: Sequence[int] = ()) -> list[int]:
    """The k that `num_samples` can carry; all that were asked for, else those of `DEFAULT_KS`."""
    return [k for k in asked or DEFAULT_KS if k <= num_samples] or [num_samples]


def maj_at_k(num_correct: int, wrong: Sequence[int], num_silent: int, k: int) -> float:
    """The unbiased chance that the most frequent answer of k samples is the right one.

    The mean over all k-subsets of the samples, a tie between j answers counting 1/j; a sample
    without an answer has no vote. It is counted, not enumerated: over the number m of right answers
    in the subset, C(c, m) times the ways to fill it up with at most m of each wrong answer.

    Args:
        num_correct: samples with the right answer.
        wrong: how often each wrong answer was given.
        num_silent: samples without an answer.
        k: at most the number of samples.
    """
    total = num_correct + sum(wrong) + num_silent
    if k > total:
        raise ValueError(f"maj@{k} of {total} samples is not defined")
    unit = _log_choose(total, k) / k  # Taken off per sample, so that all subsets together are 1.
    won = 0.0
    for m in range(1, min(num_correct, k) + 1):
        ways = _fillings(m, wrong, num_silent, k - m, unit)
        share = (ways / np.arange(1, len(ways) + 1)).sum()
        won += _ways(num_correct, m, unit) * float(share)
    return won


def _fillings(
    most: int, wrong: Sequence[int], num_silent: int, size: int, unit: float
) -> np.ndarray:
    """[t]: ways to choose `size` samples with at most `most` of each wrong answer, t of the wrong
    answers reaching `most`; see `_ways`."""
    num_ties = size // most
    ways = np.zeros((size + 1, num_ties + 1))
    ways[:, 0] = [_ways(num_silent, taken, unit) for taken in range(size + 1)]
    for count in wrong:
        longer = ways.copy()
        for taken in range(1, min(count, most, size) + 1):
            tie = int(taken == most)
            added = _ways(count, taken, unit) * ways[: size + 1 - taken, : num_ties + 1 - tie]
            longer[taken:, tie:] += added
        ways = longer
    return ways[size]


def _ways(count: int, taken: int, unit: float) -> float:
    """C(count, taken) / exp(unit * taken): binomials themselves exceed any float."""
    return math.exp(_log_choose(count, taken) - unit * taken) if taken <= count else 0.0


def _log_choose(count: int, taken: int) -> float:
    return float(gammaln(count + 1) - gammaln(taken + 1) - gammaln(count - taken + 1))


def standard_error(per_problem: np.ndarray) -> float | None:
    """Standard error of the mean over problems, samples clustered by problem.

    Miller, arXiv 2411.00640, eq. for clustered errors with equal clusters. None for one problem.
    """
    if len(per_problem) < 2:
        return None
    return float(np.std(per_problem, ddof=1) / np.sqrt(len(per_problem)))


def interval(per_problem: np.ndarray, most_trials: float = math.inf) -> tuple[float, float] | None:
    """95 % interval of a mean of shares over problems, clustered by problem; None for one problem.

    Wilson's score interval at the effective sample size m(1-m)/SE^2, with Student's quantile
    (Korn and Graubard 1998 for clustered shares; Wilson 1927). It stays within 0 and 1 and keeps
    its level where a t-interval loses it: few problems, means near 0 or 1. Where all problems agree
    the size is the number of problems, so that 30 of 30 is no certainty.

    Args:
        per_problem: (P,) in [0, 1].
        most_trials: the effective size is at most this; see `most_trials_of`.
    """
    error, count = standard_error(per_problem), len(per_problem)
    if error is None:
        return None
    mean, t = float(np.mean(per_problem)), t_quantile(count - 1)
    size = count  # Where all agree; not exactly, as a share of a third is none in binary.
    if error > ROUNDING:
        size = max(min(mean * (1 - mean) / error**2, most_trials), count)
    scale = 1 + t**2 / size
    centre = (mean + t**2 / (2 * size)) / scale
    half = t / scale * math.sqrt(mean * (1 - mean) / size + t**2 / (4 * size**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def most_trials_of(num_responses: int, k: int) -> float:
    """What an estimate of pass@k or maj@k may claim at most: responses / sqrt(k) trials.

    Where nearly all problems are at 1, their values differ by so little that the sample variance
    promises thousands of trials, and intervals of .95 hold the truth in .2 to .8 of cases; so
    bounded, in .95 or more, and others stay as they are. The bound is no theory: it was found by
    simulation (`benchmarks/interval_coverage.py`). The mean itself (k = 1) needs none.
    """
    return num_responses / math.sqrt(k) if k > 1 else math.inf
