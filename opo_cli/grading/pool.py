"""Grading in worker processes: one that takes too long is killed and replaced.

math-verify's own timeout is an alarm signal, which C code can outlive and threads cannot use; only
another process gives a bound. Workers start when the first answer needs them, so a task of plain
integers never pays for them.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import TimeoutError

from pebble import ProcessPool

from opo_cli.config import Grading
from opo_cli.grading.grader import last_box, math_verdict, quick_verdict
from opo_cli.types import Grade, GradedGroup, GradeReason, Group, Rollout

WORKER_MEMORY_BYTES = 2 * 2**30
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
TASKS_PER_WORKER = 20_000  # Then a fresh one: parsers cache without bound.


def _start_worker(parent: int) -> None:
    """In the worker: die with the parent, leave Ctrl-C to it, bound the memory, import early."""
    if sys.platform == "linux":
        # The kernel's doing, because no Python thread runs while C code holds the interpreter.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        resource.setrlimit(resource.RLIMIT_AS, (WORKER_MEMORY_BYTES, WORKER_MEMORY_BYTES))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Pebble's own handler is Python code: it never runs while C code hangs, and costs 3 s a kill.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    logging.disable(logging.CRITICAL)
    math_verdict("1", "1")


class Grader:
    """Grades groups; a context manager that ends its workers."""

    def __init__(self, config: Grading):
        self.config = config
        self._pool: ProcessPool | None = None

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None

    def grade(self, groups: Sequence[Group]) -> list[GradedGroup]:
        """Grades every rollout of every group, in order."""
        pairs = [
            (rollout, group.prompt.problem.answer) for group in groups for rollout in group.rollouts
        ]
        grades = iter(self.grade_responses(pairs))
        return [
            GradedGroup(group=group, grades=tuple(next(grades) for _ in group.rollouts))
            for group in groups
        ]

    def grade_responses(self, pairs: Sequence[tuple[Rollout, str]]) -> list[Grade]:
        """(rollout, reference answer) pairs -> grades; only mathematics goes to a worker."""
        boxes = [last_box(rollout.text) for rollout, _ in pairs]
        verdicts: list[bool | GradeReason | None] = []
        for (rollout, answer), box in zip(pairs, boxes, strict=True):
            if self.config.require_stop and rollout.finish_reason != "stop":
                verdicts.append("truncated")
            elif box is None:
                verdicts.append("no-answer")
            else:
                verdicts.append(quick_verdict(box, answer))
        hard = [row for row, verdict in enumerate(verdicts) if verdict is None]
        answers = self._math_verdicts([(boxes[row], pairs[row][1]) for row in hard])
        for row, verdict in zip(hard, answers, strict=True):
            verdicts[row] = verdict
        return [_grade(verdict, box) for verdict, box in zip(verdicts, boxes, strict=True)]

    def _math_verdicts(self, cases: list[tuple[str, str]]) -> list[bool | GradeReason]:
        if not cases:
            return []
        distinct = dict.fromkeys(cases)
        pool = self._workers()
        futures = {
            case: pool.schedule(math_verdict, args=case, timeout=self.config.timeout_seconds)
            for case in distinct
        }
        for case, future in futures.items():
            try:
                distinct[case] = future.result()
            except TimeoutError:
                distinct[case] = "timeout"
            except Exception:  # Whatever broke: the worker, math-verify, the reference answer.
                distinct[case] = "error"
        return [distinct[case] for case in cases]

    def _workers(self) -> ProcessPool:
        if self._pool is None:
            self._pool = ProcessPool(
                max_workers=self.config.num_workers,
                max_tasks=TASKS_PER_WORKER,
                initializer=_start_worker,
                initargs=(os.getpid(),),
                # Not fork: the parent has torch's threads. Not a fork server: it would outlive us.
                context=multiprocessing.get_context("spawn"),
            )
        return self._pool


def _grade(verdict: bool | GradeReason, box: str | None) -> Grade:
    correct = verdict is True
    reason: GradeReason = verdict if isinstance(verdict, str) else "correct" if correct else "wrong"
    return Grade(reward=float(correct), correct=correct, extracted=box, reason=reason)
