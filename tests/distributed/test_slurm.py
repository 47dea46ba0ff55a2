"""`docs/slurm.sh` with a real torchrun, and Slurm's commands replaced by the least that they do;
and what docs/distributed.md names."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import PATIENCE, children_of, is_alive, starting, wait_for

DOCS = Path(__file__).parents[2] / "docs"
SCRIPT = DOCS / "slurm.sh"
NUM_STEPS = 12
TRAIN = [
    *("--preset", "smoke", "--steps", str(NUM_STEPS)),
    *("--set", "eval.benchmarks=[]", "--set", "eval.validation=[]"),
]
COMMANDS = {
    "srun": 'exec "$@"',
    "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"',
    "scontrol": 'if [ "$1" = show ]; then echo localhost; else echo "$@" >> requeued; fi',
}
JOB = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NAME": "opo",
    "SLURM_JOB_NUM_NODES": "1",
    "SLURM_JOB_NODELIST": "localhost",
    "RANKS": "2",
}


@pytest.fixture
def submit(base, in_tmp):
    """Starts the script as Slurm does; what a failed test leaves is ended."""
    for name, body in COMMANDS.items():
        path = in_tmp / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    environment = {**os.environ, **JOB, "PATH": f"{in_tmp / 'bin'}:{os.environ['PATH']}"}
    with starting() as start:
        yield lambda *arguments: start(["bash", str(SCRIPT), *arguments], environment)


def steps() -> list[int]:
    log = Path("runs/opo-4711/steps.jsonl")
    lines = log.read_text().splitlines(keepends=True) if log.is_file() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("\n")]


def test_a_job_stops_before_its_limit_queues_and_goes_on(submit):
    first = submit(*TRAIN)
    wait_for(lambda: len(steps()) >= 2, first)
    below = children_of(first.pid)
    first.send_signal(signal.SIGTERM)  # Of `--signal=B:TERM`: the script alone hears it.
    talk = first.communicate(timeout=PATIENCE)[1]
    assert first.returncode != 0
    assert "stopped after step" in talk
    assert not any(map(is_alive, below))
    assert Path("requeued").read_text() == "requeue 4711\n"
    done = steps()
    assert 2 <= len(done) < NUM_STEPS

    again = submit(*TRAIN)
    talk = again.communicate(timeout=PATIENCE)[1]
    assert again.returncode == 0, talk
    assert steps() == list(range(1, NUM_STEPS + 1))
    assert Path("runs/opo-4711/model/config.json").is_file()
    assert Path("requeued").read_text() == "requeue 4711\n"  # Once.


def test_the_script_parses_and_its_times_fit():
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    text = SCRIPT.read_text()
    (before,) = map(int, re.findall(r"--signal=B:TERM@(\d+)", text))
    (grace,) = map(int, re.findall(r"^grace=(\d+)$", text, re.M))
    (patience,) = map(int, re.findall(r"TORCH_ELASTIC_SHUTDOWN_TIMEOUT=(\d+)", text))
    assert grace < patience < before


def test_the_docs_name_files_and_settings_that_exist():
    from opo_cli.presets import check_key

    text = (DOCS / "distributed.md").read_text()
    assert "docs/slurm.sh" in text
    for link in re.findall(r"\]\(([\w./-]+)\)", text):
        assert (DOCS / link).is_file(), link
    keys = re.findall(r"`(?:--set )?((?:runtime|rollout|train|checkpoint)\.\w+)", text)
    assert {"rollout.tensor_parallel", "train.use_cpu_offload"} <= set(keys)
    for key in keys:
        check_key(key)
