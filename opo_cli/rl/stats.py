"""Sums within groups, and whitening over tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

AllSum = Callable[["Tensor"], "Tensor"]
"""Sums a tensor over all ranks, element by element."""


def group_sum(x: Tensor, groups: Tensor) -> Tensor:
    """The sum of `x` over each row's group, at every row.

    Args:
        x: (B,) any float type.
        groups: (B,) int64 group indices from 0; rows of one group need not be neighbours.

    Returns:
        (B,)
    """
    num_groups = int(groups.max()) + 1 if groups.numel() else 0
    return x.new_zeros(num_groups).index_add(0, groups, x)[groups]


def group_is_constant(x: Tensor, groups: Tensor, valid: Tensor) -> Tensor:
    """(B,) bool: whether the valid rows of the row's group hold one and the same `x` (B,)."""
    num_groups = int(groups.max()) + 1 if groups.numel() else 0
    least, most = x.new_full((num_groups,), float("inf")), x.new_full((num_groups,), float("-inf"))
    low = least.scatter_reduce(0, groups, x.where(valid, least.new_tensor(float("inf"))), "amin")
    high = most.scatter_reduce(0, groups, x.where(valid, most.new_tensor(float("-inf"))), "amax")
    return (low >= high)[groups]


def whiten(x: Tensor, mask: Tensor, all_sum: AllSum = lambda s: s) -> Tensor:
    """Mean 0 and variance 1 over all unmasked tokens of all ranks (as verl does for GAE).

    Args:
        x, mask: (B, T); mask is bool.
        all_sum: the sum over ranks.

    Returns:
        (B, T), zero where masked. A constant `x` becomes 0.
    """
    kept = x.where(mask, x.new_zeros(()))
    count, total = all_sum(x.new_tensor([float(mask.sum()), float(kept.sum())])).unbind()
    centred = (x - total / count.clamp(min=1)).where(mask, x.new_zeros(()))
    square = all_sum(centred.square().sum())
    return centred * (square / (count - 1).clamp(min=1) + 1e-8).rsqrt()
