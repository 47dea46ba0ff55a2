"""Intervals over prompts: prompts are the sample, responses of one prompt are not independent.

The statistics here are functions of sums over prompts. A few prompts with long responses and large
gradients carry most of such a sum, so that its estimate is skewed and its standard error is itself
uncertain. Both are corrected for here. Percentile and BCa intervals of the bootstrap, which know of
neither, are too narrow with few prompts (benchmarks/lab_coverage.py).

Shape legend: M prompts, k sums.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit
from scipy.stats import kurtosis, skew

from opo_cli.report.estimate import LEVEL

NEARLY_ONE = 1 - 1e-9
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Scale:
    """Where a statistic is nearer to normal than where it is told, and there and back."""

    to: Callable[[np.ndarray], np.ndarray]
    back: Callable[[float], float]


def _fisher(values: np.ndarray) -> np.ndarray:
    """1, which has no place there, as far out as rounding lets it be."""
    return np.arctanh(np.clip(values, -NEARLY_ONE, NEARLY_ONE))


PLAIN = Scale(lambda values: values, float)
LOG = Scale(np.log, np.exp)
"""Of ratios."""
FISHER = Scale(_fisher, np.tanh)
"""Of correlations (Fisher 1915), and of means of them: bounds stay within -1 and 1."""


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
    scale: Scale = PLAIN,
) -> Interval | None:
    """Of `statistic` of the column sums, by leaving out one prompt after the other.

    t = (estimate - truth) / standard error is skewed as the prompts' deviations are; Hall's cubic
    (1992) takes that off. What is left is held against Student's t, with as many degrees of freedom
    as a scaled chi-square of the standard error's own variance has (Satterthwaite 1946), which is
    known from the deviations' kurtosis: 2 / (kurtosis / M + 2 / (M - 1)), M - 1 of normal ones.

    Args:
        sums: (M, k) each prompt's part.
        statistic: (..., k) -> (...).
        scale: on which all this is done.

    Returns:
        None where the statistic is not defined, or with fewer than two prompts.
    """
    count, total = len(sums), sums.sum(0)
    if count < 2:
        return None
    with np.errstate(all="ignore"):
        values = np.append(statistic(total - sums), statistic(total[None]))
        values = scale.to(values)
    if not np.isfinite(values).all():
        return None
    value, left = values[-1], values[:-1] - values[:-1].mean()
    error = np.sqrt((count - 1) / count * (left @ left))
    if error < ROUNDING:
        return Interval(*[float(scale.back(value))] * 3, p=float(abs(value) < ROUNDING))
    excess = max(float(kurtosis(left, bias=False)), 0.0)
    degrees = 2 / (excess / count + 2 / (count - 1))
    lean = -float(skew(left, bias=False)) / (3 * np.sqrt(count))  # Leaving out turns the sign.
    quantile = stdtrit(degrees, (1 + LEVEL) / 2)
    low, high = (value - error * _skewed(t, lean) for t in (quantile, -quantile))
    p = 2 * stdtr(degrees, -abs(_straight(value / error, lean)))
    return Interval(*(float(scale.back(each)) for each in (value, low, high)), p=float(p))


def _straight(t: float, lean: float) -> float:
    """Hall's transformation: t + lean t^2 + lean^2 t^3 / 3 + lean / 2, which rises with t."""
    return t + lean * t**2 + lean**2 * t**3 / 3 + lean / 2


def _skewed(t: float, lean: float) -> float:
    """Its inverse."""
    shifted = t - lean / 2
    return shifted if abs(lean) < ROUNDING else (np.cbrt(1 + 3 * lean * shifted) - 1) / lean


def ratio(sums: np.ndarray) -> Interval | None:
    """(M, 2) -> first sum / second sum; no effect: 1."""
    return jackknife(sums, lambda s: s[..., 0] / s[..., 1], scale=LOG)


def bootstrap_weights(num_prompts: int, resamples: int, seed: int) -> np.ndarray:
    """(R, M) how often each prompt is in each resample."""
    rng = np.random.default_rng([seed, num_prompts])
    return rng.multinomial(num_prompts, np.full(num_prompts, 1 / num_prompts), resamples)


def percentiles(value: float, resampled: np.ndarray) -> Interval:
    """The bootstrap's percentile interval; without a p value."""
    known = resampled[np.isfinite(resampled)]
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high))
