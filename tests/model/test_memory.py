"""Allocations that fail, told as what to lower."""

from __future__ import annotations

import pytest
import torch

from opo_cli.errors import OpoError
from opo_cli.model.memory import out_of_memory

TOO_MUCH = 2**60


def test_an_allocation_that_fails_is_told_with_phase_size_and_hint():
    with pytest.raises(OpoError) as told, out_of_memory("the update", "lower it"):
        torch.empty(TOO_MUCH, dtype=torch.uint8)
    assert told.value.message == (
        f"out of host memory in the update: {TOO_MUCH} bytes could not be had"
    )
    assert told.value.hint == "lower it"


def test_a_gpus_error_is_told():
    """The words of torch's CUDA allocator; its class is the one that it raises."""
    words = "CUDA out of memory. Tried to allocate 2.32 GiB. GPU 0 has a total capacity of 79 GiB"
    with pytest.raises(OpoError, match=r"out of GPU memory in scoring: 2\.32 GiB could not be had"):
        with out_of_memory("scoring", ""):
            raise torch.OutOfMemoryError(words)


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="size of tensor"), out_of_memory("the update", ""):
        torch.ones(2) + torch.ones(3)
