"""An end to what several ranks do together and one of them never finishes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from opo_cli.console import complain
from opo_cli.model.parallel import is_joined

RESUME_HINT = (
    "torchrun --max-restarts=N, or the same command with --resume, goes on from the last checkpoint"
)


@contextmanager
def in_time(what: str, seconds: int) -> Iterator[None]:
    """Ends the process, exit code 2, where the block is not over in time: neither a collective nor
    an engine that hangs can be interrupted. torchrun then ends the other ranks. In a process of its
    own, nothing.

    Args:
        what: is done inside, such as "the sync of the engine".
    """
    if not is_joined():
        yield
        return
    terminal = os.dup(2)  # Inside, the talk of libraries may be dropped.
    watch = threading.Timer(seconds, _end, (what, seconds, terminal))
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        watch.cancel()
        os.close(terminal)


def _end(what: str, seconds: int, terminal: int) -> None:
    os.dup2(terminal, 2)
    give_up(
        f"{what} is not over after {seconds} s",
        f"{RESUME_HINT}; --set runtime.timeout_seconds=N waits longer",
    )


def give_up(message: str, hint: str) -> NoReturn:
    """Ends the process where no error could reach the other ranks."""
    try:
        complain(message, hint)
    finally:
        os._exit(2)
