"""Means with Student intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

LEVEL = 0.95


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


def over_seeds(values: Sequence[float | None]) -> Estimate:
    """One value per seed -> mean and interval; None values (nothing to measure) drop out."""
    known = np.array([value for value in values if value is not None], float)
    if not len(known):
        return Estimate(None, None, 0)
    half_width = None
    if len(known) > 1:
        half_width = t_quantile(len(known) - 1) * float(known.std(ddof=1) / np.sqrt(len(known)))
    return Estimate(float(known.mean()), half_width, len(known))
