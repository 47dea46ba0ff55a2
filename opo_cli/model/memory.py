"""Running out of memory, told as what to lower."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from opo_cli.errors import OpoError

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
        place = "host" if HOST_ALLOCATOR in str(error) else "GPU"
        raise OpoError(f"out of {place} memory in {phase}{size}", hint) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Of a GPU or, where the system refuses instead of ending the process, of the host."""
    return isinstance(error, torch.OutOfMemoryError) or HOST_ALLOCATOR in str(error)
