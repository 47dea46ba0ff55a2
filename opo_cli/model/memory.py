"""What is kept in host memory until it is used, and what happens where there is too little."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from opo_cli.errors import OpoError
from opo_cli.model.sharding import device_of, is_sharded

HOST_ALLOCATOR = "DefaultCPUAllocator"  # In the RuntimeError that torch raises on a CPU.


@contextmanager
def out_of_memory(phase: str, hint: str) -> Iterator[None]:
    """An allocation that fails inside, on a GPU or in host memory, ends as an OpoError.

    Args:
        phase: what was being done, such as "the update".
        hint: which setting to lower.
    """
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one.
        if not is_out_of_memory(error):
            raise
        asked = re.search(r"ried to allocate ([\d.]+ \w+)", str(error))
        size = f": {asked[1]} could not be had" if asked else ""
        raise OpoError(f"out of {_place(error)}memory in {phase}{size}", hint) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Of a GPU or, where the system refuses instead of ending the process, of the host. CUDA itself
    (pinned memory) and vLLM's allocator raise no class of their own."""
    known = isinstance(error, torch.OutOfMemoryError) or HOST_ALLOCATOR in str(error)
    return known or "out of memory" in str(error).lower()


def _place(error: BaseException) -> str:
    """Empty where CUDA does not tell."""
    if HOST_ALLOCATOR in str(error):
        return "host "
    return "GPU " if isinstance(error, torch.OutOfMemoryError) else ""


def host_copy(model: nn.Module) -> nn.Module:
    """A frozen copy in host memory, pinned where `model` is on a GPU, where there is never a second
    one.

    Raises:
        OpoError: out of memory.
    """
    device = next(model.parameters()).device
    with out_of_memory("a copy in host memory", "--set train.use_reference_offload=false"):
        copied = copy.deepcopy(model.to("cpu")).requires_grad_(False)
        model.to(device)
        if device.type == "cuda":
            for tensor in _tensors(copied):
                tensor.data = tensor.data.pin_memory()
    return copied


@contextmanager
def on_device(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Inside, a frozen `model` is on `device`; afterwards where it was, as it was. One in shards
    sees to it itself."""
    if is_sharded(model) or device_of(model) == device:
        yield
        return
    kept = [(tensor, tensor.data) for tensor in _tensors(model)]
    try:
        for tensor, data in kept:
            tensor.data = data.to(device, non_blocking=True)
        yield
    finally:
        for tensor, data in kept:
            tensor.data = data


def _tensors(model: nn.Module) -> list[Tensor]:
    """Parameters and buffers, shared ones once."""
    return [*model.parameters(), *model.buffers()]
