"""Signals that end a command: at once where abandoning is safe, after the block where it is not.

Python runs handlers between two of its instructions: a signal that falls into one long call (a
backward pass, fsync) is heard behind it.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ECHO_SECONDS = 5.0  # torchrun hands on to its ranks what the terminal has sent them already.

DEAF_SECONDS = 60.0  # Of one call, such as a wait on a GPU for a rank that is dead.


class Interrupted(KeyboardInterrupt):
    """A signal arrived.

    Attributes:
        number: which.
        is_urgent: whether it is the second one, which does not wait for anything to be saved.
    """

    def __init__(self, number: int, *, is_urgent: bool = False):
        super().__init__()
        self.number, self.is_urgent = number, is_urgent


class Interrupts:
    """While installed, a signal raises `Interrupted` at once, except after `hold()` within a
    `step()`: then it waits for the step's end, so that weights and log never part. A second signal
    does not wait; a third one kills.

    Where several ranks work together (`is_shared`), it waits for the next work that can be
    `abandonable` on all of them.

    Attributes:
        first: the signal that came first, if one has.
        is_shared: whether other ranks have to stop with us.
    """

    _active: ClassVar[Interrupts | None] = None

    def __init__(self):
        self.first: int | None = None
        self.is_shared = False
        self._since = 0.0
        self._is_held = self._is_abandonable = False
        self._seconds = math.inf
        self._has_heard = threading.Event()

    @contextmanager
    def installed(self) -> Iterator[Interrupts]:
        """Of the main thread; inside such a block, those of that block. What is ignored already, as
        under `nohup`, stays so."""
        if Interrupts._active is not None:
            yield Interrupts._active
            return
        self._obeyed = [n for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._receive) for number in self._obeyed}
        before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._expire)
        Interrupts._active = self
        try:
            yield self
        finally:
            Interrupts._active = None
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)

    def hold(self, seconds: float = math.inf) -> None:
        """From here to the end of the `step()`, a signal waits, at most so long from its coming."""
        self._seconds = seconds
        self._is_held = True
        if seconds == math.inf:
            signal.setitimer(signal.ITIMER_REAL, 0)

    @contextmanager
    def step(self) -> Iterator[None]:
        if not self.is_shared:
            self._raise_waiting()  # Where a library has swallowed it.
        try:
            yield
        except OSError as error:  # The terminal, or the reader of our pipe, may have ended with us.
            if self.first is not None:
                raise Interrupted(self.first) from error
            raise
        finally:
            self._is_held = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        if not self.is_shared:
            self._raise_waiting()

    def _raise_waiting(self) -> None:
        if self.first is not None:
            raise Interrupted(self.first)

    @contextmanager
    def _abandonable(self) -> Iterator[None]:
        if self._is_held:
            yield
            return
        self._raise_waiting()
        self._is_abandonable = True
        try:
            yield
        finally:
            self._is_abandonable = False

    def _receive(self, number: int, frame) -> None:
        self._has_heard.set()
        if self.first is not None:
            if self.is_shared and time.monotonic() - self._since < ECHO_SECONDS:
                return
            for each in self._obeyed:
                signal.signal(each, signal.SIG_DFL)
            raise Interrupted(number, is_urgent=True)
        self.first, self._since = number, time.monotonic()
        if not self._is_held and (self._is_abandonable or not self.is_shared):
            raise Interrupted(number)
        if self._seconds < math.inf:
            signal.setitimer(signal.ITIMER_REAL, max(self._seconds, 1e-3))  # 0 would be never.

    def _expire(self, number: int, frame) -> None:
        if self._is_held and self._seconds < math.inf:
            # Other ranks may be further: what they have together is not saved.
            raise Interrupted(self.first, is_urgent=self.is_shared)


@contextmanager
def abandonable() -> Iterator[None]:
    """Around work of one rank whose end the others learn: a signal ends it at once, one that has
    come before it does not let it begin."""
    if Interrupts._active is None:
        yield
        return
    with Interrupts._active._abandonable():
        yield


@contextmanager
def shared() -> Iterator[None]:
    """Around the work of several ranks; see `Interrupts.is_shared`. A signal that is not heard for
    `DEAF_SECONDS` ends the process: what it waits for may never come."""
    active = Interrupts._active
    if active is None:
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_end_if_deaf, args=(active, reading), daemon=True).start()
    active.is_shared = True
    try:
        yield
    finally:
        active.is_shared = False
        signal.set_wakeup_fd(before)
        os.close(writing)


def _end_if_deaf(active: Interrupts, reading: int) -> None:
    """`reading`: tells each signal at once, wherever the main thread is."""
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while number := pipe.read(1):
            if number[0] in SIGNALS and not active._has_heard.wait(DEAF_SECONDS):
                os._exit(128 + number[0])
