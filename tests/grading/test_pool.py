"""Grading in worker processes: what hangs, dies or eats memory costs one answer, not the run."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from opo_cli.config import Grading
from opo_cli.errors import OpoError
from opo_cli.grading import workers as workers_module
from opo_cli.grading.grader import Question
from opo_cli.grading.pool import Case, Grader
from opo_cli.grading.workers import HALF, HANGING, THIRD, Workers
from opo_cli.types import FinishReason, Grade, Group, Problem, Prompt, Rollout
from tests.endless import ENDLESS

ROOT, ROOT_ANSWER = r"\boxed{\sqrt8}", r"2\sqrt2"
HANGS = rf"\boxed{{{ENDLESS}}}"


def rollout(text: str, finish_reason: FinishReason = "stop") -> Rollout:
    return Rollout(token_ids=(), sampler_logprobs=(), text=text, finish_reason=finish_reason)


def group(answer: str, *rollouts: Rollout, answer_format: str = "box") -> Group:
    problem = Problem(id=answer, question="?", answer=answer, benchmark="x")
    prompt = Prompt(problem=problem, text="?", token_ids=(1,), answer_format=answer_format)
    return Group(prompt=prompt, rollouts=rollouts, policy_version=0)


def grade(grader: Grader, text: str, answer: str) -> Grade:
    return grader.grade_texts([Case(text, answer)])[0]


@pytest.fixture
def others() -> set[int]:
    return {process.pid for process in multiprocessing.active_children()}


def pids(others: set[int]) -> set[int]:
    return {p.pid for p in multiprocessing.active_children() if p.pid not in others}


# --- without a worker -------------------------------------------------------------------------


def test_plain_answers_start_no_worker():
    with Grader(Grading()) as grader:
        (graded,) = grader.grade(
            [group("8", *map(rollout, [r"\boxed{8}", r"\boxed{9}", "8", r"\boxed{\frac{16}2}"]))]
        )
        assert grader._workers is None
    assert [g.reason for g in graded.grades] == ["correct", "wrong", "no-answer", "correct"]
    assert graded.grades[0] == Grade(reward=1.0, correct=True, extracted="8", reason="correct")
    assert graded.grades[2] == Grade(reward=0.0, correct=False, extracted=None, reason="no-answer")
    assert grader.num_quick == 4


@pytest.mark.parametrize(
    ("text", "setting", "argument", "reason"),
    [
        (r"\boxed{8}", True, None, "truncated"),
        ("8", True, None, "truncated"),
        (r"\boxed{8}", False, None, "correct"),
        (r"\boxed{8}", True, False, "correct"),
        (r"\boxed{8}", False, True, "truncated"),
        ("8", False, None, "no-answer"),
    ],
)
def test_truncated_responses(text: str, setting: bool, argument: bool | None, reason: str):
    with Grader(Grading(require_stop=setting)) as grader:
        (graded,) = grader.grade([group("8", rollout(text, "length"))], require_stop=argument)
    assert (graded.grades[0].reason, graded.grades[0].reward) == (reason, reason == "correct")


def test_a_truncated_response_must_mark_its_answer():
    answers = [
        group("8", rollout("It is 8.", cut), answer_format="any") for cut in ("stop", "length")
    ]
    with Grader(Grading(require_stop=False)) as grader:
        graded = grader.grade(answers)
    assert [g.grades[0].reason for g in graded] == ["correct", "no-answer"]
    assert [g.grades[0].extracted for g in graded] == ["8", None]


def test_groups_keep_their_order_and_format():
    groups = [
        group("1", rollout(r"\boxed{1}"), rollout(r"\boxed{2}")),
        group("2", rollout("<answer>2</answer>"), rollout(r"\boxed{2}"), answer_format="tag"),
    ]
    with Grader(Grading()) as grader:
        graded = grader.grade(groups)
    assert [g.group for g in graded] == groups
    assert [[grade.reward for grade in g.grades] for g in graded] == [[1, 0], [1, 0]]


def test_what_breaks_the_grader_is_an_error_and_the_others_are_graded():
    cases = [Case(None, "8"), Case(r"\boxed{8}", "8"), Case("8", 8)]
    with Grader(Grading()) as grader:
        grades = grader.grade_texts(cases)
    assert [grade.reason for grade in grades] == ["error", "correct", "error"]


def test_nothing_to_grade():
    with Grader(Grading()) as grader:
        assert grader.grade_texts([]) == []
        assert grader.grade([]) == []


# --- with workers -----------------------------------------------------------------------------


def test_mathematics_goes_to_workers_that_end_with_the_grader(others: set[int]):
    cases = [
        Case(ROOT, ROOT_ANSWER),
        Case(r"\boxed{7}", "7"),
        Case(r"\boxed{\sqrt7}", ROOT_ANSWER),
        Case(ROOT, ROOT_ANSWER),
        Case(r"\boxed{\text{\}}}", ROOT_ANSWER),
    ]
    done = []
    with Grader(Grading(num_workers=2)) as grader:
        grades = grader.grade_texts(cases, on_done=done.append)
        assert len(pids(others)) == 2
    assert [grade.correct for grade in grades] == [True, True, False, True, False]
    assert grades[0].seconds > 0
    assert grades[1].seconds == grades[3].seconds == 0  # No worker; the first one's verdict.
    assert sorted(done) == done
    assert done[-1] == 5
    assert pids(others) == set()


def test_verdicts_are_remembered():
    with Grader(Grading(num_workers=1)) as grader:
        first, again = grade(grader, ROOT, ROOT_ANSWER), grade(grader, ROOT, ROOT_ANSWER)
    assert (first.reason, again.reason, again.seconds) == ("correct", "correct", 0)
    assert first.seconds > 0


def test_a_hanging_answer_is_a_timeout_and_holds_up_no_other(others: set[int]):
    """While one worker hangs, the other grades more answers than may be under way at once."""
    ordinary = [Case(rf"\boxed{{\sqrt{{{3 * n * n}}}}}", rf"{n}\sqrt3") for n in range(2, 62)]
    finished = []
    with Grader(Grading(timeout_seconds=10, num_workers=2)) as grader:
        grade(grader, ROOT, ROOT_ANSWER)
        start = time.monotonic()
        grades = grader.grade_texts(
            [Case(HANGS, "3"), *ordinary],
            on_done=lambda _: finished.append(time.monotonic() - start),
        )
        assert grade(grader, r"\boxed{\sqrt{12}}", r"2\sqrt3").reason == "correct"
    assert grades[0].reason == "timeout"
    assert grades[0].seconds == 10
    assert all(grade.correct for grade in grades[1:])
    assert finished[-2] < finished[-1] - 0.5
    assert 10 <= finished[-1] < 18


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_wall_clock_that_jumps_times_out_what_hangs_and_nothing_else(jump: float, monkeypatch):
    """It jumps again at every look."""
    real, jumps = time.time, itertools.count()
    monkeypatch.setattr(time, "time", lambda: real() + jump * next(jumps))
    ordinary = [Case(rf"\boxed{{\sqrt{{{3 * n * n}}}}}", rf"{n}\sqrt3") for n in range(2, 22)]
    with Grader(Grading(timeout_seconds=5, num_workers=2)) as grader:
        start = time.monotonic()
        grades = grader.grade_texts([Case(HANGS, "3"), *ordinary])
        assert time.monotonic() - start < 60  # Its start included.
    assert [grade.reason for grade in grades] == ["timeout", *["correct"] * 20]


def test_a_killed_worker_is_an_error_and_the_next_answers_are_graded(others: set[int]):
    with Grader(Grading(timeout_seconds=60, num_workers=1)) as grader:
        grade(grader, ROOT, ROOT_ANSWER)
        deadline = time.monotonic() + 20
        while not pids(others) and time.monotonic() < deadline:
            time.sleep(0.05)  # The self-test's hanging answer has cost the first one.
        (worker,) = pids(others)
        timer = threading.Timer(2.0, os.kill, (worker, signal.SIGKILL))
        timer.start()
        killed = grade(grader, HANGS, "3")
        timer.join()
        assert (killed.reason, killed.reward) == ("error", 0)
        assert grade(grader, r"\boxed{\sqrt{12}}", r"2\sqrt3").reason == "correct"
        assert worker not in pids(others)


def test_an_answer_that_takes_all_memory_says_so_and_the_next_is_graded():
    workers = Workers(Grading(memory_megabytes=512, timeout_seconds=400, num_workers=1))
    try:
        ((_, reason, _),) = workers.judge_all([Question("2^{10^{10}}", "3", True)])
        ((_, after, _),) = workers.judge_all([HALF])
    finally:
        workers.close()
    assert (reason, after) == ("memory", "correct")


FAT_PARENT = """
from opo_cli.config import Grading
from opo_cli.grading.grader import Question
from opo_cli.grading.workers import HALF, Workers

if __name__ == "__main__":
    ballast = b"x" * (1536 * 2**20)
    workers = Workers(Grading(memory_megabytes=512, timeout_seconds=400, num_workers=1))
    for question in (Question("2^{10^{10}}", "3", True), HALF):
        print(*(reason for _, reason, _ in workers.judge_all([question])))
    workers.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds a worker's memory")
def test_a_fat_parent_hides_no_worker_out_of_memory(in_tmp: Path):
    """Such as one that holds a model: the kernel hands its peak down to what it starts."""
    Path("parent.py").write_text(FAT_PARENT)
    result = subprocess.run(
        [sys.executable, "parent.py"], capture_output=True, text=True, timeout=120
    )
    assert result.stdout.split() == ["memory", "correct"], result.stderr


def test_a_worker_retires_after_a_large_right_answer_and_the_next_is_graded(others: set[int]):
    large = Question(r"\frac{2^{200000000}}{2^{200000000}}", "1", True)
    workers = Workers(Grading(memory_megabytes=512, timeout_seconds=400, num_workers=1))
    try:
        ((_, reason, _),) = workers.judge_all([large])
        before = pids(others)
        ((_, after, _),) = workers.judge_all([THIRD])
        assert (reason, after) == ("correct", "wrong")
        assert not before & pids(others)
    finally:
        workers.close()


def test_a_worker_out_of_memory_says_so():
    code = (
        "from opo_cli.grading import workers as w, mathematics as m\n"
        "import os\n"
        "w._start_worker(os.getppid(), 600 * 2**20)\n"
        "def judge(*_):\n"
        "    kept = [bytearray(2**20) for _ in range(10_000)]\n"
        "m.judge = judge\n"
        "w._work(w.HALF)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert result.returncode == workers_module.OUT_OF_MEMORY, result.stderr


def test_workers_are_replaced_after_so_many_tasks(others: set[int]):
    with Grader(Grading(num_workers=1, tasks_per_worker=3)) as grader:
        seen = set()
        for n in range(2, 12):
            assert grade(grader, rf"\boxed{{\sqrt{{{3 * n * n}}}}}", rf"{n}\sqrt3").correct
            seen |= pids(others)
    assert len(seen) >= 3


def test_the_self_test_tells_right_from_wrong_from_hanging():
    workers = Workers(Grading(num_workers=1, timeout_seconds=1))
    try:
        found = {q: reason for q, reason, _ in workers.judge_all([HALF, THIRD, HANGING])}
    finally:
        workers.close()
    assert found == {HALF: "correct", THIRD: "wrong", HANGING: "timeout"}


def test_workers_that_fail_their_self_test_are_not_used(monkeypatch, others: set[int]):
    monkeypatch.setattr(workers_module, "HALF", THIRD)
    with pytest.raises(OpoError) as error:
        Workers(Grading(num_workers=1))
    assert error.value.message.endswith(
        "self-test: wrong, wrong, timeout instead of correct, wrong, timeout"
    )
    assert pids(others) == set()


def test_workers_leave_ctrl_c_to_the_parent(others: set[int]):
    with Grader(Grading(num_workers=2)) as grader:
        grade(grader, ROOT, ROOT_ANSWER)
        before = pids(others)
        for pid in before:
            os.kill(pid, signal.SIGINT)
        assert grade(grader, r"\boxed{\sqrt{12}}", r"2\sqrt3").reason == "correct"
        assert before <= pids(others)


def test_an_interrupt_does_not_wait_for_a_hanging_answer(others: set[int]):
    def interrupted():
        with Grader(Grading(timeout_seconds=60, num_workers=1)) as grader:
            grade(grader, ROOT, ROOT_ANSWER)
            threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
            grade(grader, HANGS, "3")

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - started < 20
    assert pids(others) == set()


PARENT = f"""
from opo_cli.config import Grading
from opo_cli.grading.pool import Case, Grader

grader = Grader(Grading(timeout_seconds=600, num_workers=2))
grader.grade_texts([Case(r"{ROOT}", r"{ROOT_ANSWER}")])
print("ready", flush=True)
grader.grade_texts([Case(r"{HANGS}", "3")])
"""


BLOCKED = """
import multiprocessing
from pathlib import Path
from opo_cli.config import Grading
from opo_cli.grading.workers import Workers

workers = Workers(Grading(num_workers=2))
for child in multiprocessing.active_children():
    status = Path(f"/proc/{child.pid}/status").read_text()
    print(status.partition("SigBlk:")[2].split()[0])
workers.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process blocks")
def test_workers_are_born_deaf_to_what_is_meant_for_the_parent():
    """The first one, too, before which multiprocessing starts a helper of its own."""
    command = [sys.executable, "-c", BLOCKED]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    masks = [int(mask, 16) for mask in told.stdout.split()]
    wanted = 1 << signal.SIGINT - 1 | 1 << signal.SIGHUP - 1
    assert masks  # One may be just being replaced, after the self-test.
    assert all(mask & wanted == wanted for mask in masks)


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
