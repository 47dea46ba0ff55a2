"""A policy's weights on their way to an engine: one tensor after the other, never all at once.

Where they lie in shards, each rank puts every tensor together from all ranks' parts. Parts are
disjoint, so that the sum over ranks of the parts' bits has to be that of the whole tensor's: a
transfer that goes wrong, or memory that does, is told with the tensor's name.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from opo_cli.model.parallel import all_sum, on_all_ranks, own
from opo_cli.model.sharding import whole_state
from opo_cli.rollout.engine import EngineError

INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
CHUNK = 2**24  # Numbers; on a CPU, torch widens all that it sums.


class Delivery:
    """Iterate over it for (name, whole tensor), as in the state dict, then `check`. Every rank has
    to come along."""

    def __init__(self, model: nn.Module):
        self._model = model
        self._sent: dict[str, int] = {}
        self._taken: dict[str, int] = {}

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        self._sent = sums_over_ranks(self._model)
        for name, tensor in whole_state(self._model):
            if name in self._sent:
                self._taken[name] = sum_of_bits(tensor).item()
            yield name, tensor

    def check(self) -> None:
        """
        Raises:
            EngineError: a tensor is not what the ranks had; OtherRankError on the other ranks.
        """
        on_all_ranks(self._check)

    def _check(self) -> None:
        for name, expected in self._sent.items():
            if self._taken.get(name) != expected:
                raise EngineError(
                    f"{name} did not arrive as the ranks had it: the checksums of "
                    "whole and parts differ",
                    "look at the memory and the network of the machine",
                )


def sums_over_ranks(model: nn.Module) -> dict[str, int]:
    """`sum_of_bits` of each tensor in shards, by its name in the state dict."""
    parts = {k: own(v) for k, v in model.state_dict().items() if isinstance(v, DTensor)}
    if not parts:
        return {}
    sums = torch.stack([sum_of_bits(part) for part in parts.values()]).cpu()
    return dict(zip(parts, all_sum(sums).tolist(), strict=True))


def sum_of_bits(tensor: Tensor) -> Tensor:
    """The numbers' bit patterns as integers, summed modulo 2^64."""
    bits = tensor.detach().contiguous().view(INTEGERS[tensor.element_size()]).flatten()
    return torch.stack([part.sum(dtype=torch.int64) for part in bits.split(CHUNK)]).sum()
