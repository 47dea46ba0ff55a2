"""Sums within groups, and whitening over tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

AllSum = Callable[["Tensor"], "Tensor"]
"""Sums a tensor over all ranks, element by element."""
AllMax = AllSum
"""Takes the maximum over all ranks, likewise."""


def one_rank(x: Tensor) -> Tensor:
    """The `AllSum` and `AllMax` of a single rank."""
    return x


def group_totals(x: Tensor, groups: Tensor) -> Tensor:
    """The sum of `x` over each group.

    Args:
        x: (B, ...) any float type.
        groups: (B,) int64 group indices from 0; rows of one group need not be neighbours.

    Returns:
        (G, ...)
    """
    num_groups = int(groups.max()) + 1 if groups.numel() else 0
    return x.new_zeros((num_groups, *x.shape[1:])).index_add(0, groups, x)


def group_sum(x: Tensor, groups: Tensor) -> Tensor:
    """The sum of `x` (B, ...) over each row's group, at every row: (B, ...)."""
    return group_totals(x, groups)[groups]


def group_is_constant(x: Tensor, groups: Tensor, valid: Tensor) -> Tensor:
    """(B,) bool: whether the valid rows of the row's group hold one and the same `x` (B,)."""
    num_groups = int(groups.max()) + 1 if groups.numel() else 0
    least, most = x.new_full((num_groups,), float("inf")), x.new_full((num_groups,), float("-inf"))
    low = least.scatter_reduce(0, groups, x.where(valid, least.new_tensor(float("inf"))), "amin")
    high = most.scatter_reduce(0, groups, x.where(valid, most.new_tensor(float("-inf"))), "amax")
    return (low >= high)[groups]


def group_correlation(x: Tensor, y: Tensor, groups: Tensor, all_sum: AllSum = one_rank) -> Tensor:
    """Pearson's correlation of `x` and `y` (B,), each less its group's mean, over all ranks, which
    hold whole groups. Scalar; NaN where one of them does not vary within any group."""
    x, y = x.double(), y.double()  # Where the mean of equal fp32 numbers is that number.
    count = group_sum(x.new_ones(x.shape), groups)
    x, y = x - group_sum(x, groups) / count, y - group_sum(y, groups) / count
    sums = x.new_tensor([float((x * y).sum()), float(x.square().sum()), float(y.square().sum())])
    both, xs, ys = all_sum(sums).unbind()
    return both / (xs * ys).sqrt()


def variance(x: Tensor, all_sum: AllSum = one_rank) -> float:
    """Of `x` (N,) over all ranks (ddof 0); 0 where there is nothing."""
    x = x.double()
    count, total = all_sum(x.new_tensor([float(x.numel()), float(x.sum())])).tolist()
    if not count:
        return 0.0
    return float(all_sum((x - total / count).square().sum())) / count


def effective_sample_size(total: float, squares: float, count: float) -> float | None:
    """Kish's (sum w)^2 / sum w^2 as a share of `count`; None where all weights are 0."""
    return total**2 / squares / count if squares and count else None


def whiten(x: Tensor, mask: Tensor, all_sum: AllSum = one_rank, *, scale: bool = True) -> Tensor:
    """Mean 0 and variance 1 over all unmasked tokens of all ranks (as verl: ddof 1, 1e-8 added).

    Args:
        x, mask: (B, T); mask is bool.
        all_sum: the sum over ranks.
        scale: False takes off the mean alone.

    Returns:
        (B, T), zero where masked. A constant `x` becomes 0.
    """
    # In fp64: the rounding error of a mean, divided by a spread of 0, would pass for a signal.
    kept = x.where(mask, x.new_zeros(())).double()
    count, total = all_sum(kept.new_tensor([float(mask.sum()), float(kept.sum())])).unbind()
    centred = (kept - total / count.clamp(min=1)) * mask
    if not scale:
        return centred.to(x.dtype)
    square = all_sum(centred.square().sum())
    return (centred * (square / (count - 1).clamp(min=1) + 1e-8).rsqrt()).to(x.dtype)
