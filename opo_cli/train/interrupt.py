"""Ctrl-C and SIGTERM: at once where abandoning is safe, after the block where it is not."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal arrived.

    Attributes:
        number: which.
    """

    def __init__(self, number: int):
        super().__init__()
        self.number = number


class Interrupts:
    """While installed, a signal raises `Interrupted` at once, except after `hold()` within a
    `step()`: then it waits for the step's end, so that weights and log never part. A second signal
    does not wait."""

    def __init__(self):
        self._waiting: int | None = None
        self._is_held = False

    @contextmanager
    def installed(self) -> Iterator[Interrupts]:
        before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def hold(self) -> None:
        """From here to the end of the `step()`, a signal waits."""
        self._is_held = True

    @contextmanager
    def step(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._is_held = False
        if self._waiting is not None:
            raise Interrupted(self._waiting)

    def _receive(self, number: int, frame) -> None:
        if self._is_held and self._waiting is None:
            self._waiting = number
            return
        raise Interrupted(number)
