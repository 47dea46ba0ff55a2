"""Grader workers that hang, die or eat memory in a real training: counted, told, and gone on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from opo_cli.data.tiny import CHAINS
from opo_cli.presets import resolve
from tests.endless import ENDLESS

HUGE = "2^{10^{10}}"
"""Beyond any worker's memory."""
STEPS = 3


def write_problems(path: Path, answers: dict[int, str]) -> None:
    """Those of the embedded task, whose answers no worker needs to read, with answers that one has
    to; `answers` of some rows replace them."""
    problems = CHAINS.training_problems(resolve("smoke").data)[:8]
    rows = [
        {"question": p.question, "answer": answers.get(i, rf"\sqrt{{{int(p.answer) ** 2 * 3}}}")}
        for i, p in enumerate(problems)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@contextmanager
def training(base: Path, *sets: str, **environment: str) -> Iterator[subprocess.Popen]:
    common = ["data.source=problems.jsonl", "data.template=line", "eval.benchmarks=[]"]
    common += ["eval.validation=[]", "grading.require_stop=false"]
    common += ["rollout.prompts_per_step=8", "rollout.group_size=4", f"train.steps={STEPS}"]
    command = [sys.executable, "-m", "opo_cli", "train", "--preset", "smoke", "--out", "run"]
    command += ["--model", str(base)]
    for text in (*common, *sets):
        command += ["--set", text]
    with subprocess.Popen(
        command,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def steps() -> list[dict]:
    return [json.loads(line) for line in Path("run/steps.jsonl").read_text().splitlines()]


def workers_of(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            text = status.read_text()
            is_child = re.search(r"^PPid:\t(\d+)", text, re.M)[1] == str(parent)
            command = (status.parent / "cmdline").read_bytes()
            if is_child and b"spawn_main" in command:
                found.append(int(status.parent.name))
    return found


def test_hanging_and_greedy_answers_are_counted_and_the_run_goes_on(base, in_tmp):
    write_problems(Path("problems.jsonl"), {0: ENDLESS, 1: HUGE})
    with training(base, "train.steps=1", "grading.memory_megabytes=512") as child:
        _, told = child.communicate(timeout=300)
    assert child.returncode == 0, told
    [step] = steps()
    assert step["grader_timeout"] > 0
    assert step["grader_timeout"] + step["grader_memory"] + step["grader_error"] <= 2 / 8
    assert "the grader failed on" in told


def test_killed_workers_are_replaced_and_the_run_goes_on(base, in_tmp):
    """Whoever kills them: the kernel that runs out of memory, for one."""
    write_problems(Path("problems.jsonl"), {0: ENDLESS})
    num_killed, log = 0, Path("run/steps.jsonl")
    with training(base) as child:
        while child.poll() is None:
            if log.is_file() and log.stat().st_size:  # The self-test is over.
                for worker in workers_of(child.pid):
                    with suppress(ProcessLookupError):
                        os.kill(worker, signal.SIGKILL)
                        num_killed += 1
            time.sleep(3)
        told = child.stderr.read()
    assert child.returncode == 0, told
    assert "Traceback" not in told
    assert [step["step"] for step in steps()] == list(range(1, STEPS + 1))
    assert num_killed > 0
    assert sum(step["grader_error"] for step in steps()) > 0
    assert "the grader failed on" in told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_no_worker_outlives_its_training(number, base, in_tmp, marked):
    """One of them hangs."""
    write_problems(Path("problems.jsonl"), {0: ENDLESS})
    mark = uuid.uuid4().hex
    with training(base, "grading.timeout_seconds=60", OPO_TEST_MARK=mark) as child:
        deadline = time.monotonic() + 120
        while len(workers_of(child.pid)) < 2:
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(2)
        assert len(marked(mark)) >= 3
        child.send_signal(number)
        _, told = child.communicate(timeout=60)
    assert child.returncode == (-number if number == signal.SIGKILL else 128 + number), told
    assert "Traceback" not in told
    deadline = time.monotonic() + 10
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert marked(mark) == []
