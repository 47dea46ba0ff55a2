"""Estimators over problems and samples. Shape legend: P problems. numpy alone, no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


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


def standard_error(per_problem: np.ndarray) -> float | None:
    """Standard error of the mean over problems, samples clustered by problem.

    Miller, arXiv 2411.00640, eq. for clustered errors with equal clusters. None for one problem.
    """
    if len(per_problem) < 2:
        return None
    return float(np.std(per_problem, ddof=1) / np.sqrt(len(per_problem)))
