"""`opo compare --launcher torchrun`: runs of two ranks that end with the comparison, however that
ends, and go on with or without torchrun."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import PATIENCE, children_of, is_alive, starting, wait_for

NUM_STEPS = 16
COMPARE = [
    *(sys.executable, "-m", "opo_cli", "compare", "--preset", "smoke", "--algorithms", "opo"),
    *("--budget", str(NUM_STEPS), "--set", "eval.validation=[]", "--set", "eval.limit=4"),
]
ON_RANKS = ("--launcher", "torchrun", "--ranks", "2")


@pytest.fixture
def compare(base, in_tmp):
    """Starts a comparison; what a failed test leaves ends with it."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with starting() as start:
        yield lambda *arguments: start([*COMPARE, *arguments], environment)


def steps() -> list[int]:
    """Of the one run, as far as they are written."""
    logs = [log.read_text() for log in Path("runs").glob("smoke-*/steps.jsonl")]
    lines = [line for log in logs for line in log.splitlines(keepends=True)]
    return [json.loads(line)["step"] for line in lines if line.endswith("\n")]


def once_trained(process: subprocess.Popen[str], count: int) -> list[int]:
    """Waits until there are so many steps; the processes below, torchrun first."""
    wait_for(lambda: len(steps()) >= count, process)
    return children_of(process.pid)


def test_ranks_end_with_the_comparison_and_go_on_in_the_next(compare):
    first = compare(*ON_RANKS)
    below = once_trained(first, 2)
    assert len(below) >= 3
    first.kill()
    talk = first.communicate(timeout=PATIENCE)[1]
    assert "1 to do, one after the other on 2 ranks" in talk
    wait_for(lambda: not any(map(is_alive, below)))
    done = steps()
    assert 2 <= len(done) < NUM_STEPS
    # Saved where it stopped, as by SIGTERM.
    checkpoint = max(Path("runs").glob("smoke-*/checkpoints/step-*"))
    assert int(checkpoint.name.removeprefix("step-")) == done[-1]

    second = compare(*ON_RANKS)
    below = once_trained(second, len(done) + 1)
    os.kill(below[0], signal.SIGKILL)  # As a second signal to the comparison does.
    talk = second.communicate(timeout=PATIENCE)[1]
    assert second.returncode == 1
    assert "failed (killed by SIGKILL" in talk
    wait_for(lambda: not any(map(is_alive, below)))
    assert len(steps()) < NUM_STEPS

    third = compare()  # By one process.
    talk = third.communicate(timeout=PATIENCE)[1]
    assert third.returncode == 0, talk
    assert steps() == list(range(1, NUM_STEPS + 1))
    assert list(Path("comparisons").glob("smoke-opo-*/report.html"))
