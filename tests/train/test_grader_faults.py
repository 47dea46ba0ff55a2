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
from contextlib import suppress
from pathlib import Path

import pytest

from opo_cli.data.tiny import CHAINS
from opo_cli.presets import resolve

HEAVY = r"\int_0^{1} e^{\sin(\cos(\tan(x^{x})))} \ln(\ln(1+x^x)) dx"
"""As in the pool's own test: many seconds."""
HUGE = "2^{10^{10}}"
"""Beyond any worker's memory."""
STEPS = 6


def write_problems(path: Path, answers: dict[int, str]) -> None:
    """Those of the embedded task, whose answers no worker needs to read, with answers that one has
    to; `answers` of some rows replace them."""
    problems = CHAINS.training_problems(resolve("smoke").data)[:8]
    rows = [
        {"question": p.question, "answer": answers.get(i, rf"\sqrt{{{int(p.answer) ** 2 * 3}}}")}
        for i, p in enumerate(problems)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def training(base: Path, *sets: str, **environment: str) -> subprocess.Popen:
    common = ["data.source=problems.jsonl", "data.template=line", "eval.benchmarks=[]"]
    common += ["eval.validation=[]", "grading.timeout_seconds=1", "grading.require_stop=false"]
    common += ["rollout.prompts_per_step=8", f"train.steps={STEPS}"]
    command = [sys.executable, "-m", "opo_cli", "train", "--preset", "smoke", "--out", "run"]
    command += ["--model", str(base)]
    for text in (*common, *sets):
        command += ["--set", text]
    return subprocess.Popen(
        command,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def steps() -> list[dict]:
    return [json.loads(line) for line in Path("run/steps.jsonl").read_text().splitlines()]


def workers_of(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            text = status.read_text()
            is_child = re.search(r"^PPid:\t(\d+)", text, re.M)[1] == str(parent)
            command = (status.parent / "cmdline").read_bytes()
            if is_child and b"spawn_main" in command and b"tracker" not in command:
                found.append(int(status.parent.name))
    return found


def test_hanging_and_greedy_answers_are_counted_and_the_run_goes_on(base, in_tmp):
    write_problems(Path("problems.jsonl"), {0: HEAVY, 1: HUGE})
    child = training(base, "train.steps=1", "grading.memory_megabytes=512")
    _, told = child.communicate(timeout=300)
    assert child.returncode == 0, told
    [step] = steps()
    assert step["grader_timeout"] > 0
    assert step["grader_memory"] + step["grader_timeout"] <= 2 / 8
    assert "the grader failed on" in told


def test_killed_workers_are_replaced_and_the_run_goes_on(base, in_tmp):
    """Whoever kills them: the kernel that runs out of memory, for one."""
    write_problems(Path("problems.jsonl"), {0: HEAVY})
    child, num_killed = training(base, "grading.timeout_seconds=3"), 0
    while child.poll() is None:
        log = Path("run/steps.jsonl")
        if log.is_file() and log.stat().st_size:  # The self-test is over.
            for worker in workers_of(child.pid):
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
                    num_killed += 1
        time.sleep(1)
    told = child.stderr.read()
    child.stderr.close()
    assert child.returncode == 0, told
    assert "Traceback" not in told
    assert [step["step"] for step in steps()] == list(range(1, STEPS + 1))
    assert num_killed > 0
    assert sum(step["grader_error"] for step in steps()) > 0
    assert "the grader failed on" in told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_no_worker_outlives_its_training(number, base, in_tmp, marked):
    """One of them hangs."""
    write_problems(Path("problems.jsonl"), {0: HEAVY})
    mark = uuid.uuid4().hex
    child = training(base, "grading.timeout_seconds=60", OPO_TEST_MARK=mark)
    deadline = time.monotonic() + 120
    while len(workers_of(child.pid)) < 2:
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(2)
    assert len(marked(mark)) >= 3
    child.send_signal(number)
    _, told = child.communicate(timeout=30)
    assert child.returncode == (-number if number == signal.SIGKILL else 128 + number), told
    assert "Traceback" not in told
    deadline = time.monotonic() + 10
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert marked(mark) == []
