"""Means with Student intervals, and pass@k. Shape legend: P problems."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

LEVEL = 0.95
"""Of every interval."""


def t_quantile(degrees_of_freedom: int) -> float:
    """Two-sided 95 % quantile of Student's t."""
    return float(stdtrit(degrees_of_freedom, (1 + LEVEL) / 2))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over training seeds."""

    mean: float | None
    half_width: float | None
    """Of the 95 % t-interval between seeds; None for one seed, where no such estimate exists."""
    num_seeds: int
    sd: float | None = None
    """Between seeds; None for one."""


def over_seeds(values: Sequence[float | None]) -> Estimate:
    """One value per seed -> mean and interval; None values (nothing to measure) drop out."""
    known = np.array([value for value in values if value is not None], float)
    if not len(known):
        return Estimate(None, None, 0)
    if len(known) == 1:
        return Estimate(float(known[0]), None, 1)
    sd = float(known.std(ddof=1))
    half_width = t_quantile(len(known) - 1) * sd / math.sqrt(len(known))
    return Estimate(float(known.mean()), half_width, len(known), sd)


def pass_at_k(num_samples: Sequence[int], num_correct: Sequence[int], k: int) -> np.ndarray:
    """Per problem, the unbiased chance that k samples hold a correct one: 1 - C(n-c, k)/C(n, k).

    Chen et al. 2021 (arXiv 2107.03374), as a product, which does not overflow.

    Args:
        num_samples, num_correct: (P,) n and c, with k <= n.

    Returns:
        (P,)
    """
    n, c = np.asarray(num_samples, float), np.asarray(num_correct, float)
    if (k > n).any():
        raise ValueError(f"pass@{k} of {int(n.min())} samples is not defined")
    all_wrong = np.ones_like(n)
    for i in range(k):
        all_wrong *= np.clip((n - c - i) / (n - i), 0, None)
    return 1 - all_wrong
