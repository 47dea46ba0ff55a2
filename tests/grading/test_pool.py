"""Grading in worker processes: what hangs or dies costs one answer, not the run."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from opo_cli.config import Grading
from opo_cli.grading.pool import Grader
from opo_cli.types import FinishReason, Grade, Group, Problem, Prompt, Rollout

HALF, HALF_ANSWER = r"\boxed{\frac12}", "0.5"
HANGING = r"\boxed{1E+4000000}"  # C code that polls no signal for minutes.


def rollout(text: str, finish_reason: FinishReason = "stop") -> Rollout:
    return Rollout(token_ids=(), sampler_logprobs=(), text=text, finish_reason=finish_reason)


def grade(grader: Grader, text: str, answer: str) -> Grade:
    return grader.grade_responses([(rollout(text), answer)])[0]


@pytest.fixture
def others() -> set[int]:
    return {process.pid for process in multiprocessing.active_children()}


def workers(others: set[int]) -> list[int]:
    return [p.pid for p in multiprocessing.active_children() if p.pid not in others]


# --- without a worker -------------------------------------------------------------------------


def test_grades_of_integers_start_no_worker():
    with Grader(Grading()) as grader:
        grades = grader.grade_responses(
            [(rollout(r"\boxed{8}"), "8"), (rollout(r"\boxed{9}"), "8"), (rollout("8"), "8")]
        )
        assert grader._pool is None
    assert grades == [
        Grade(reward=1.0, correct=True, extracted="8", reason="correct"),
        Grade(reward=0.0, correct=False, extracted="9", reason="wrong"),
        Grade(reward=0.0, correct=False, extracted=None, reason="no-answer"),
    ]


@pytest.mark.parametrize(
    ("text", "require_stop", "reason"),
    [
        (r"\boxed{8}", True, "truncated"),
        ("8", True, "truncated"),
        (r"\boxed{8}", False, "correct"),
        ("8", False, "no-answer"),
    ],
)
def test_truncated_responses(text: str, require_stop: bool, reason: str):
    with Grader(Grading(require_stop=require_stop)) as grader:
        (result,) = grader.grade_responses([(rollout(text, "length"), "8")])
    assert (result.reason, result.reward) == (reason, float(reason == "correct"))


def test_groups_keep_their_order():
    def group(answer: str, *texts: str) -> Group:
        problem = Problem(id=answer, question="?", answer=answer, benchmark="x")
        return Group(
            prompt=Prompt(problem=problem, text="?", token_ids=(1,)),
            rollouts=tuple(map(rollout, texts)),
            policy_version=0,
        )

    groups = [group("1", r"\boxed{1}", r"\boxed{2}"), group("2", "no", r"\boxed{1}", r"\boxed{2}")]
    with Grader(Grading()) as grader:
        graded = grader.grade(groups)
    assert [g.group for g in graded] == groups
    assert [[grade.reward for grade in g.grades] for g in graded] == [[1, 0], [0, 0, 1]]


def test_nothing_to_grade():
    with Grader(Grading()) as grader:
        assert grader.grade_responses([]) == []


# --- with workers -----------------------------------------------------------------------------


def test_mathematics_goes_to_workers_that_end_with_the_grader(others: set[int]):
    pairs = [
        (rollout(HALF), HALF_ANSWER),
        (rollout(r"\boxed{7}"), "7"),
        (rollout(r"\boxed{\frac13}"), HALF_ANSWER),
        (rollout(HALF), HALF_ANSWER),
        (rollout(r"\boxed{\frac14}"), HALF_ANSWER),
    ]
    with Grader(Grading(num_workers=2)) as grader:
        grades = grader.grade_responses(pairs)
        assert len(workers(others)) == 2
    assert [grade.correct for grade in grades] == [True, True, False, True, False]
    assert workers(others) == []


def test_a_hanging_answer_is_a_timeout_and_the_next_ones_are_graded():
    with Grader(Grading(timeout_seconds=2, num_workers=1)) as grader:
        grade(grader, HALF, HALF_ANSWER)
        started = time.monotonic()
        hanging = grade(grader, HANGING, "3")
        seconds = time.monotonic() - started
        assert grade(grader, HALF, HALF_ANSWER).reason == "correct"
    assert hanging == Grade(reward=0.0, correct=False, extracted="1E+4000000", reason="timeout")
    assert 2 <= seconds < 10


def test_a_killed_worker_is_an_error_and_the_next_answers_are_graded(others: set[int]):
    with Grader(Grading(timeout_seconds=60, num_workers=1)) as grader:
        grade(grader, HALF, HALF_ANSWER)
        (worker,) = workers(others)
        timer = threading.Timer(1.0, os.kill, (worker, signal.SIGKILL))
        timer.start()
        killed = grade(grader, HANGING, "3")
        timer.join()
        assert (killed.reason, killed.reward) == ("error", 0)
        assert grade(grader, HALF, HALF_ANSWER).reason == "correct"
        assert worker not in workers(others)


def test_workers_leave_ctrl_c_to_the_parent(others: set[int]):
    with Grader(Grading(num_workers=1)) as grader:
        grade(grader, HALF, HALF_ANSWER)
        before = workers(others)
        os.kill(before[0], signal.SIGINT)
        assert grade(grader, r"\boxed{\frac24}", HALF_ANSWER).reason == "correct"
        assert workers(others) == before


def test_an_interrupt_does_not_wait_for_a_hanging_answer(others: set[int]):
    def interrupted():
        with Grader(Grading(timeout_seconds=60, num_workers=1)) as grader:
            grade(grader, HALF, HALF_ANSWER)
            threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
            grade(grader, HANGING, "3")

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - started < 20
    assert workers(others) == []


PARENT = f"""
from opo_cli.config import Grading
from opo_cli.grading.pool import Grader
from opo_cli.types import Rollout

def rollout(text):
    return Rollout(token_ids=(), sampler_logprobs=(), text=text, finish_reason="stop")

grader = Grader(Grading(timeout_seconds=600, num_workers=2))
grader.grade_responses([(rollout(r"{HALF}"), "{HALF_ANSWER}")])
print("ready", flush=True)
grader.grade_responses([(rollout(r"{HANGING}"), "3")])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_workers_die_with_a_killed_parent():
    """The workers hold the parent's stdout open: it ends when the last of them does."""
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.5)  # One worker is in the middle of its task, the other idle.
        process.kill()
        assert process.communicate(timeout=10) == (b"", None)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
