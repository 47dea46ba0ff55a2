"""Intervals over prompts: prompts are the sample, responses of one prompt are not independent.

The statistics here are functions of sums over prompts. A few prompts with long responses and large
gradients carry most of such a sum, so that resampling 16 or 64 of them promises too much: 95 %
percentile and BCa intervals of the bootstrap held the truth of simulated labs of 64 in .92 of cases
and in the worst setting in .83 and .85; these in .95 and .89 (benchmarks/lab_coverage.py).

Shape legend: M prompts, k sums.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

LEVEL = 0.95
LEAST_DEGREES = 2.0
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95 % bounds."""

    value: float
    low: float
    high: float
    p: float = 1.0
    """Two-sided, of no effect: a ratio of 1, any other statistic of 0."""

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


def jackknife(
    sums: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    is_log: bool = False,
) -> Interval | None:
    """Of `statistic` of the column sums, by leaving out one prompt after the other.

    The quantile is Student's, with (sum u^2)^2 / sum u^4 degrees of freedom, u the prompts'
    deviations: the number of prompts that carry the variance, of all that there are.

    Args:
        sums: (M, k) each prompt's part.
        statistic: (..., k) -> (...).
        is_log: the statistic is a ratio, whose logarithm is nearer to normal.

    Returns:
        None where the statistic is not defined, or with fewer than two prompts.
    """
    count, total = len(sums), sums.sum(0)
    if count < 2:
        return None
    with np.errstate(all="ignore"):
        values = np.append(statistic(total - sums), statistic(total[None]))
        values = np.log(values) if is_log else values
    if not np.isfinite(values).all():
        return None
    value, left = values[-1], values[:-1] - values[:-1].mean()
    back = np.exp if is_log else float
    error = np.sqrt((count - 1) / count * (left @ left))
    if error < ROUNDING:
        return Interval(*[float(back(value))] * 3, p=float(abs(value) < ROUNDING))
    degrees = max((left @ left) ** 2 / (left**4).sum(), LEAST_DEGREES)
    half = stdtrit(degrees, (1 + LEVEL) / 2) * error
    p = 2 * stdtr(degrees, -abs(value) / error)
    low, high = float(back(value - half)), float(back(value + half))
    return Interval(float(back(value)), low, high, float(p))


def ratio(sums: np.ndarray) -> Interval | None:
    """(M, 2) -> first sum / second sum; no effect: 1."""
    return jackknife(sums, lambda s: s[..., 0] / s[..., 1], is_log=True)


def bootstrap_weights(num_prompts: int, resamples: int, seed: int) -> np.ndarray:
    """(R, M) how often each prompt is in each resample."""
    rng = np.random.default_rng([seed, num_prompts])
    return rng.multinomial(num_prompts, np.full(num_prompts, 1 / num_prompts), resamples)


def percentiles(value: float, resampled: np.ndarray) -> Interval:
    """The bootstrap's percentile interval; without a p value."""
    known = resampled[np.isfinite(resampled)]
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high))
