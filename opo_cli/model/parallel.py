"""The ranks of a run: how they join, what they sum, and where they meet.

Every denominator goes through `all_sum`. Errors and signals of one rank reach the others where they
meet (`on_all_ranks`, `from_main`); elsewhere torchrun ends the others.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from opo_cli.console import note
from opo_cli.errors import OpoError, OtherRankError, first_line
from opo_cli.interrupt import Interrupted, abandonable, shared
from opo_cli.ranks import (
    INTERFACES,
    is_joined,
    is_launched,
    is_one_machine,
    local_rank,
    num_local_ranks,
    rank,
    set_joined,
    world_size,
)

Result = TypeVar("Result")
BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}  # Objects and metrics go through gloo.
LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "onnection refused",
    "remote process exit",  # NCCL's.
)
POLL_SECONDS = 0.02
EXPIRED = ("Timed out waiting", "timed out", "Timeout")


def num_ranks() -> int:
    """Of a run. An engine in our process may have set up a group of its own."""
    return dist.get_world_size() if is_joined() else 1


@contextmanager
def joined(device: str, timeout_seconds: int) -> Iterator[None]:
    """Around all that ranks do together; in a process of its own, nothing.

    Args:
        device: "cpu" or "cuda".
        timeout_seconds: how long a rank waits for the others.

    Raises:
        OpoError: the others cannot be reached, do not come in that time, or have ended; or there
            are too few GPUs for them.
    """
    if not is_launched() or is_joined():
        yield
        return
    if is_one_machine():
        os.environ.update(INTERFACES)  # Nobody else has a business with us.
    timeout = timedelta(seconds=timeout_seconds)
    if device == "cuda":
        _take_gpu()
    with _peers(timeout_seconds):
        store, _, _ = next(dist.rendezvous("env://", timeout=timeout))
        start = _number_of_start(dist.PrefixStore("opo", store), timeout_seconds)
        dist.init_process_group(
            BACKENDS[device],
            # torchrun's store outlives a restart, and with it the addresses of those that died.
            store=dist.PrefixStore(f"start-{start}", store),
            rank=rank(),
            world_size=world_size(),
            timeout=timeout,  # No device_id: NCCL would connect each of vLLM's many groups at once.
        )
        set_joined(True, start - 1)
        # One rank alone stops at once, as without torchrun: it never comes to a meeting.
        with shared() if world_size() > 1 else nullcontext():
            yield
            largest(0)  # All have come so far.
        set_joined(False)
        dist.destroy_process_group()  # Not after an error: it would wait for the others.


def _number_of_start(store: dist.Store, timeout_seconds: int) -> int:
    """From 1. Rank 0 counts, and answers whoever asks, with a word that is nobody else's: what the
    dead have left in the store deceives none of the living."""
    if rank() == 0:
        start = store.add("starts", 1)
        _answer(store, start, timeout_seconds)
        return start
    word = secrets.token_hex(8)
    store.set(f"word-{rank()}", word)
    start = int(store.get(word))
    store.set(f"{start}-{rank()}", "heard")
    return start


def _answer(store: dist.Store, start: int, timeout_seconds: int) -> None:
    """Until all have heard it; raises OpoError where one does not come."""
    left, end = set(range(1, world_size())), time.monotonic() + timeout_seconds
    while left:
        for number in [n for n in left if store.check([f"word-{n}"])]:
            store.set(store.get(f"word-{number}").decode(), str(start))
        left = {number for number in left if not store.check([f"{start}-{number}"])}
        if left and time.monotonic() > end:
            raise OpoError(
                f"rank {min(left)} did not come within {timeout_seconds} s",
                "look for what it says; --set runtime.timeout_seconds=N waits longer",
            )
        time.sleep(POLL_SECONDS if left else 0)


def _take_gpu() -> None:
    """Each rank has one of its own, as NCCL wants it."""
    count, found = num_local_ranks(), torch.cuda.device_count()
    if count > found:
        raise OpoError(
            f"{count} ranks of this machine take a GPU each, and torch sees {found}",
            f"torchrun --nproc-per-node {found}, or --set runtime.device=cpu",
        )
    torch.cuda.set_device(local_rank())


@contextmanager
def _peers(timeout_seconds: int) -> Iterator[None]:
    """What collectives raise where another rank is gone, or late, in our words."""
    try:
        yield
    except OpoError:
        raise
    except RuntimeError as error:
        text = str(error)
        if any(mark in text for mark in LOST):
            note(f"rank {rank()}: another rank has ended", is_of_every_rank=True)
            raise OtherRankError from error
        if isinstance(error, dist.DistError) or any(mark in text for mark in EXPIRED):
            raise OpoError(
                f"the other ranks did not come within {timeout_seconds} s: {first_line(error)}",
                "look for what they say; --set runtime.timeout_seconds=N waits longer",
            ) from error
        raise


# --- sums -----------------------------------------------------------------------------------------


def all_sum(x: Tensor) -> Tensor:
    """The elementwise sum of `x` over all ranks; `x` itself where there is one."""
    return _reduced(x, dist.ReduceOp.SUM)


def all_max(x: Tensor) -> Tensor:
    """The elementwise maximum of `x` over all ranks; `x` itself where there is one."""
    return _reduced(x, dist.ReduceOp.MAX)


def largest(number: int) -> int:
    """Of a number of each rank's."""
    return int(all_max(torch.tensor(number))) if num_ranks() > 1 else number


def _reduced(x: Tensor, operation) -> Tensor:
    if num_ranks() > 1:
        dist.all_reduce(x, op=operation)
    return x


# --- shards ---------------------------------------------------------------------------------------


def whole(tensor: Tensor) -> Tensor:
    """All of it, from all ranks, which have to come along; on their GPUs, where they have some:
    parts that lie in host memory go there first, as gloo would take many times as long."""
    if not isinstance(tensor, DTensor):
        return tensor
    return tensor.to(tensor.device_mesh.device_type).full_tensor()


def own(tensor: Tensor) -> Tensor:
    """This rank's part of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


# --- meetings -------------------------------------------------------------------------------------


def gathered(value: Result) -> list[Result]:
    """What each rank gives, by rank."""
    if num_ranks() == 1:
        return [value]
    found: list[Any] = [None] * num_ranks()
    dist.all_gather_object(found, value)
    return found


def on_all_ranks(compute: Callable[[], Result]) -> list[Result]:
    """What `compute` returns on each rank, by rank.

    What it raises on one of them, a signal included, ends it on all. It must not meet the other
    ranks itself.
    """
    if num_ranks() == 1:
        return [compute()]
    found, error = None, None
    try:
        with abandonable():
            found = compute()
    except BaseException as raised:
        error = raised
    results = gathered((found, _failure(error)))
    failures = [failure for _, failure in results if failure is not None]
    if failures:
        raise _ending(error, failures[0])
    return [found for found, _ in results]


@dataclass(frozen=True, slots=True)
class _Failure:
    """What other ranks learn of an error."""

    rank: int
    text: str
    signal: int | None
    """Behind it."""


def _failure(error: BaseException | None) -> _Failure | None:
    if error is None:
        return None
    number = error.number if isinstance(error, Interrupted) else None
    return _Failure(rank(), str(error), number)


def _ending(error: BaseException | None, first: _Failure) -> BaseException:
    """What ends this rank: its own error, but one that several have is told by the first alone."""
    if error is not None and (rank() == first.rank or str(error) != first.text):
        return error
    return OtherRankError() if first.signal is None else Interrupted(first.signal)


def from_main(compute: Callable[[], Result]) -> Result:
    """What `compute` returns on rank 0, which alone calls it. What it raises there ends all."""
    if num_ranks() == 1:
        return compute()
    found: list[Any] = [None]

    def has_value() -> bool:
        if rank() == 0:
            found[0] = compute()
        return found[0] is not None

    if on_all_ranks(has_value)[0]:  # A gathering would keep room for as much of every rank.
        dist.broadcast_object_list(found, 0)
    return found[0]


@contextmanager
def on_main(make: Callable[[], AbstractContextManager]) -> Iterator[None]:
    """Inside what `make` returns, which rank 0 alone makes and enters."""
    with ExitStack() as stack:

        def enter() -> None:
            stack.enter_context(make())

        from_main(enter)
        yield


# --- shares ---------------------------------------------------------------------------------------


def share_of(count: int, place: int, num_shares: int) -> range:
    """The neighbours among `count` things that fall to a place; sizes differ by one at most."""
    return range(count * place // num_shares, count * (place + 1) // num_shares)


def balanced(weights: Sequence[int], num_shares: int) -> list[list[int]]:
    """Places of `weights`, dealt so that sums are near each other: the heaviest first, each to
    whoever has least (Graham's LPT rule, within 4/3 of the best largest sum). In order within a
    share; empty ones where there are too few."""
    shares: list[list[int]] = [[] for _ in range(num_shares)]
    sums = [0] * num_shares
    for place in sorted(range(len(weights)), key=lambda i: -weights[i]):
        least = sums.index(min(sums))
        shares[least].append(place)
        sums[least] += weights[place]
    return [sorted(share) for share in shares]
