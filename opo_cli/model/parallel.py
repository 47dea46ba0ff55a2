"""Sums and maxima over ranks. One rank today; every denominator already goes through here."""

from __future__ import annotations

import torch
from torch import Tensor


def all_sum(x: Tensor) -> Tensor:
    """The elementwise sum of `x` over all ranks; `x` itself where there is one."""
    return _reduced(x, torch.distributed.ReduceOp.SUM)


def all_max(x: Tensor) -> Tensor:
    """The elementwise maximum of `x` over all ranks; `x` itself where there is one."""
    return _reduced(x, torch.distributed.ReduceOp.MAX)


def num_ranks() -> int:
    """An engine in our process may have set up a group of one rank, on a GPU for tensors there."""
    is_set_up = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if is_set_up else 1


def _reduced(x: Tensor, operation) -> Tensor:
    if num_ranks() > 1:
        torch.distributed.all_reduce(x, op=operation)
    return x
