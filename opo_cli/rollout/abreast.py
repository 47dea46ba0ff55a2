"""Ranks that share a vLLM go through each of its steps together: whatever ends a batch on one of
them has to end it on all between the same two steps, or the others would wait inside the next one
for ever, where no signal is heard."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.distributed as dist

from opo_cli.errors import OtherRankError
from opo_cli.interrupt import SIGNALS, Interrupted

Between = Callable[[Callable[[], None]], None]
"""Calls what is to be done between two steps."""
ERROR = 1  # Codes of ends: 0 is none, ERROR + n the signal n.


@contextmanager
def abreast(peers: dist.ProcessGroup | None) -> Iterator[Between]:
    """Around the steps of a batch; what it gives is called after each of them, on every peer, and
    raises on all what has come up on one: `Interrupted`, or the error there and `OtherRankError`
    here. Signals wait for it.

    Args:
        peers: the ranks that share the engine; None: we have it to ourselves.
    """
    if peers is None:
        yield lambda compute: compute()
        return
    with _waiting_signals() as deliver:
        yield partial(_between, peers, deliver)


def _between(peers: dist.ProcessGroup, deliver, compute: Callable[[], None]) -> None:
    error = None
    try:
        deliver()
        compute()
    except BaseException as raised:
        error = raised
    code = torch.tensor(_code(error))
    dist.all_reduce(code, dist.ReduceOp.MAX, group=peers)
    if error is not None:
        raise error
    if code > ERROR:
        raise Interrupted(int(code) - ERROR)
    if code == ERROR:
        raise OtherRankError()


def _code(error: BaseException | None) -> int:
    if error is None:
        return 0
    return ERROR + error.number if isinstance(error, Interrupted) else ERROR


@contextmanager
def _waiting_signals() -> Iterator[Callable[[], None]]:
    """What is given hands those that have come to their handlers. None is lost."""
    waiting: list[int] = []

    def deliver() -> None:
        while waiting:
            handlers[(number := waiting.pop(0))](number, None)

    try:
        handlers = {n: h for n in SIGNALS if callable(h := signal.getsignal(n))}
        for number in handlers:
            signal.signal(number, lambda number, frame: waiting.append(number))
    except ValueError:  # Not the main thread, which alone hears signals.
        handlers = {}
    try:
        yield deliver
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        deliver()
