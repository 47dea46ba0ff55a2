"""Worker processes for the costly comparisons: one that takes too long is killed and replaced.

math-verify's own timeout is an alarm signal, which C code can outlive and threads cannot use; only
another process gives a bound. A worker ends with its parent, leaves Ctrl-C to it, and may take so
much memory and no more.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, TimeoutError
from contextlib import contextmanager
from itertools import islice
from multiprocessing import resource_tracker
from queue import Empty, SimpleQueue
from types import SimpleNamespace

import pebble.pool.process
from pebble import ProcessExpired, ProcessPool

from opo_cli.config import Grading
from opo_cli.errors import OpoError
from opo_cli.grading.grader import Question
from opo_cli.host import peak_resident_bytes
from opo_cli.types import GradeReason

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
OUT_OF_MEMORY = 77  # Exit code of a worker; its answer has hit the limit.
RETIRED = 78  # Exit code of a worker that has used too much for another answer.
START_SECONDS = 120  # For imports on a machine that is busy with other things.
BACKLOG_PER_WORKER = 16  # Enough to keep workers busy; what waits longer waits with us.
PURE_PYTHON = {"SYMPY_GROUND_TYPES": "python", "MPMATH_NOGMPY": "1"}
"""GMP ends the whole process where a number overflows it, and polls no signals."""

HALF = Question(r"\frac{1}{2}", "0.5", True)
THIRD = Question(r"\frac{1}{3}", "0.5", True)
HANGING = Question("$1E+4000000$", "3", False)  # C code that polls no signal for minutes.
HANGING_SECONDS = 0.5

# Pebble asks the wall clock how long an answer takes: set forward, it would time out all that are
# under way; set back, none that hangs.
pebble.pool.process.time = SimpleNamespace(time=time.monotonic, sleep=time.sleep)

_memory = {"most": float("inf")}
"""Of the worker: peak bytes beyond which an answer counts as out of memory."""


def _start_worker(parent: int, memory_bytes: int) -> None:
    """In the worker: die with the parent, bound the memory, leave no core dump, import early."""
    if sys.platform == "linux":
        # The kernel's doing, because no Python thread runs while C code holds the interpreter.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Pebble's own handler is Python code: it never runs while C code hangs, and costs 3 s a kill.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.update(PURE_PYTHON)
    logging.disable(logging.CRITICAL)
    from opo_cli.grading.mathematics import judge

    judge(*HALF)
    _memory["most"] = peak_resident_bytes() + (memory_bytes - peak_resident_bytes()) / 4


def _work(question: Question) -> tuple[GradeReason, float]:
    """In the worker: the verdict and its seconds.

    math-verify takes a MemoryError for "not equal". So an answer that is not right and took a
    quarter of the memory that was left counts as out of memory, and its worker is done: a number
    that grows by squares meets the limit from there. After a right one of that size it is done
    too, for its peak hides that of the next.
    """
    from opo_cli.grading.mathematics import judge

    if peak_resident_bytes() > _memory["most"]:
        os._exit(RETIRED)
    start = time.perf_counter()
    try:
        outcome = judge(*question)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except RecursionError:
        outcome = "unparsed"
    if outcome != "correct" and peak_resident_bytes() > _memory["most"]:
        os._exit(OUT_OF_MEMORY)
    return outcome, time.perf_counter() - start


class Workers:
    """Running workers, tested."""

    def __init__(self, config: Grading):
        """Raises OpoError where the workers do not start or do not tell right from wrong."""
        self.config = config
        self._pool = self._new_pool()
        try:
            self._test()
        except BaseException:
            self.close()
            raise

    def _new_pool(self) -> ProcessPool:
        # Its start unblocks signals: before the first worker's, which is to inherit them blocked.
        resource_tracker.ensure_running()
        return ProcessPool(
            max_workers=self.config.num_workers,
            max_tasks=self.config.tasks_per_worker,
            initializer=_start_worker,
            initargs=(os.getpid(), self.config.memory_megabytes * 2**20),
            # Not fork: the parent has torch's threads. Not a fork server: it would outlive us.
            context=multiprocessing.get_context("spawn"),
        )

    def close(self) -> None:
        self._pool.stop()
        self._pool.join()

    def _test(self) -> None:
        """A known right, a known wrong and a known hanging answer; about a second."""
        with _interrupts_held():  # Pebble starts threads and processes, which inherit this.
            futures = [self._pool.schedule(_work, args=(HALF,))]
        futures.append(self._pool.schedule(_work, args=(THIRD,)))
        futures.append(self._pool.schedule(_work, args=(HANGING,), timeout=HANGING_SECONDS))
        found = tuple(self._outcome(future, START_SECONDS)[0] for future in futures)
        if found != ("correct", "wrong", "timeout"):
            raise OpoError(
                f"the grader fails its self-test: {', '.join(found)} instead of correct, wrong, "
                "timeout",
                "reinstall math-verify, or give workers more memory: "
                "--set grading.memory_megabytes=2048",
            )

    def judge_all(
        self, questions: Iterable[Question]
    ) -> Iterator[tuple[Question, GradeReason, float]]:
        """(question, verdict, seconds) in the order in which workers finish.

        Few questions are under way at once, so that any number may wait without taking memory, and
        one that hangs holds up no other but on its own worker.
        """
        waiting = iter(questions)
        done: SimpleQueue[Question] = SimpleQueue()
        running: dict[Question, tuple[Future, float]] = {}
        while True:
            free = BACKLOG_PER_WORKER * self.config.num_workers - len(running)
            for question in islice(waiting, free):
                running[question] = self._schedule(question, done), time.monotonic()
            if not running:
                return
            try:
                question = done.get(timeout=self.config.timeout_seconds + START_SECONDS)
            except Empty:  # Nothing moves: the pool itself is broken.
                self._restart()
                yield from ((question, "error", 0.0) for question in running)
                running.clear()
                continue
            future, start = running.pop(question)
            if _is_unread(future):
                running[question] = self._schedule(question, done), start
                continue
            reason, seconds = self._outcome(future)
            yield question, reason, min(time.monotonic() - start, seconds)

    def _schedule(self, question: Question, done: SimpleQueue[Question]) -> Future:
        if not self._pool.active:
            self._restart()
        future = self._pool.schedule(_work, args=(question,), timeout=self.config.timeout_seconds)
        future.add_done_callback(lambda _: done.put(question))
        return future

    def _outcome(self, future: Future, patience: float = 0) -> tuple[GradeReason, float]:
        limit = float(self.config.timeout_seconds)
        try:
            return future.result(timeout=patience)
        except TimeoutError:
            return "timeout", limit
        except ProcessExpired as error:
            return ("memory" if error.exitcode == OUT_OF_MEMORY else "error"), limit
        except Exception:  # Whatever broke: math-verify, or the pool.
            return "error", limit

    def _restart(self) -> None:
        self.close()
        self._pool = self._new_pool()
        with _interrupts_held():
            self._pool.schedule(_work, args=(HALF,))


def _is_unread(future: Future) -> bool:
    """Whether its worker has retired instead; the next one is new."""
    error = future.exception()
    return isinstance(error, ProcessExpired) and error.exitcode == RETIRED


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C and a hung-up terminal are the parent's: what starts meanwhile never sees them, not
    even while it starts."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
