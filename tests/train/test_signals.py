"""Real signals to real trainings, wherever they fall: what is left goes on as if never stopped, and
no process and no temporary file is left. OPO_SIGNAL_TRIALS=12 sends more of them."""

from __future__ import annotations

import json
import os
import pty
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

NUM_TRIALS = int(os.environ.get("OPO_SIGNAL_TRIALS", "1"))
OF_THE_MACHINE = ("seconds", "_per_second", "_gigabytes", "_file")
TRAIN = ["train", "--preset", "smoke", "--steps", "8", "--set", "checkpoint.every=3"]
TRAIN += ["--set", "eval.every=4", "--set", "eval.during=['tiny-easy']", "--out", "run"]
MARK = "OPO_TEST_MARK"
PATIENCE = 120
SIGNALLED = Path(__file__).parent / "signalled.py"


def without_times(file: Path) -> list[dict]:
    records = map(json.loads, file.read_text().splitlines())
    return [
        {k: v for k, v in r.items() if not k.endswith(OF_THE_MACHINE) and k != "crc32"}
        for r in records
    ]


def result_of(place: Path) -> tuple:
    run = place / "run"
    files = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    logs = [without_times(run / name) for name in ("steps.jsonl", "evals.jsonl")]
    return files, logs, (run / "model" / "model.safetensors").read_bytes()


def temporary(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.rglob(".*")]


class Place:
    """A working folder with everything that a run may leave behind."""

    def __init__(self, path: Path, cache: Path, marked: Callable[[str], list[int]]):
        self.marked = marked
        self.path, self.cache, self.scratch = path, cache, path / "tmp"
        self.scratch.mkdir()
        self.mark = uuid.uuid4().hex
        self.environment = os.environ | {MARK: self.mark, "TMPDIR": str(self.scratch)}

    def start(self, *arguments: str, **keys) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.path,
            env=self.environment,
            **{"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True} | keys,
        )

    def finish(self) -> None:
        is_there = (self.path / "run" / "config.json").is_file()
        arguments = ["train", "--resume", "--out", "run"] if is_there else TRAIN
        child = self.start("-m", "opo_cli", *arguments)
        _, told = child.communicate(timeout=PATIENCE)
        assert child.returncode == 0, told

    def check_clean(self, *, after_second: bool = False) -> None:
        deadline = time.monotonic() + 5
        while self.marked(self.mark) and time.monotonic() < deadline:
            time.sleep(0.05)  # The kernel ends workers with their parent, in its own time.
        assert self.marked(self.mark) == []
        if not after_second:
            assert temporary(self.path, self.cache) == []
            assert list(self.scratch.iterdir()) == []


@dataclass
class Whole:
    result: tuple
    num_changes: int
    seconds: float


@pytest.fixture(scope="module")
def whole(base, cache, marked, tmp_path_factory) -> Whole:
    """The run never stopped, with the initial policy's samples already in the cache."""
    for _ in range(2):
        place, started = Place(tmp_path_factory.mktemp("whole"), cache, marked), time.monotonic()
        child = place.start(str(SIGNALLED), "run", "0", "", "count", "--", *TRAIN)
        _, told = child.communicate(timeout=PATIENCE)
        assert child.returncode == 0, told
    count = int((place.path / "count").read_text())
    return Whole(result_of(place.path), count, time.monotonic() - started)


def check_told(child: subprocess.Popen, told: str, number: int) -> None:
    assert child.returncode in (0, 128 + number), told
    assert "Traceback" not in told
    if "stopped after" in told:
        assert "opo train --resume --out run" in told or "saved: run" in told, told


TRIALS = range(NUM_TRIALS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("trial", TRIALS)
def test_a_signal_before_any_change_of_a_file(trial, number, whole, cache, marked, tmp_path):
    place = Place(tmp_path, cache, marked)
    at = random.Random(f"place/{trial}/{number}").randint(1, whole.num_changes)
    child = place.start(str(SIGNALLED), "run", str(int(number)), str(at), "count", "--", *TRAIN)
    _, told = child.communicate(timeout=PATIENCE)
    assert child.returncode == 128 + number, f"change {at}: {told}"
    check_told(child, told, number)
    place.check_clean()
    if "saved: run" not in told:
        place.finish()
    assert result_of(place.path) == whole.result, f"change {at}"


@pytest.mark.parametrize("trial", TRIALS)
def test_a_second_signal_while_the_first_is_obeyed(trial, whole, cache, marked, tmp_path):
    place, number = Place(tmp_path, cache, marked), signal.SIGTERM
    drawn = random.Random(f"second/{trial}")
    first = drawn.randint(whole.num_changes // 4, whole.num_changes)
    places = f"{first},{first + drawn.randint(1, 6)}"
    child = place.start(str(SIGNALLED), "run", str(int(number)), places, "count", "--", *TRAIN)
    _, told = child.communicate(timeout=PATIENCE)
    assert child.returncode == 128 + number, f"changes {places}: {told}"
    assert "Traceback" not in told
    place.check_clean(after_second=True)
    if not (tmp_path / "run" / "model").is_dir():
        place.finish()
        place.check_clean()
    assert result_of(place.path) == whole.result, f"changes {places}"


@pytest.mark.parametrize("trial", TRIALS)
def test_a_signal_at_any_time(trial, whole, cache, marked, tmp_path):
    """Again and again, until the run is finished."""
    place, drawn = Place(tmp_path, cache, marked), random.Random(f"time/{trial}")
    for _ in range(2):
        is_there = (tmp_path / "run" / "config.json").is_file()
        arguments = ["train", "--resume", "--out", "run"] if is_there else TRAIN
        child = place.start("-m", "opo_cli", *arguments)
        time.sleep(drawn.uniform(0, whole.seconds))
        number = drawn.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
        child.send_signal(number)
        _, told = child.communicate(timeout=PATIENCE)
        if child.returncode != -number:  # Before Python has come to our code.
            check_told(child, told, number)
        place.check_clean()
        if child.returncode == 0 or "saved: run" in told:
            break
    else:
        place.finish()
    assert result_of(place.path) == whole.result


def wait_for_steps(place: Place, child: subprocess.Popen, count: int) -> None:
    log, deadline = place.path / "run" / "steps.jsonl", time.monotonic() + PATIENCE
    while not (log.is_file() and log.read_bytes().count(b"\n") >= count):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


LONG = [*TRAIN, "--steps", "400", "--set", "eval.every=0"]


def test_a_terminal_that_hangs_up_costs_nothing(whole, cache, marked, tmp_path):
    """Writing to it fails from then on."""
    place = Place(tmp_path, cache, marked)
    ours, theirs = pty.openpty()
    child = place.start(
        "-m", "opo_cli", *LONG, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    wait_for_steps(place, child, 2)
    os.close(ours)
    os.kill(child.pid, signal.SIGHUP)  # Which the kernel sends to those it controls alone.
    assert child.wait(PATIENCE) == 128 + signal.SIGHUP
    place.check_clean()
    done = len(steps_of(place))
    assert [path.stem for path in (tmp_path / "run/checkpoints").iterdir()][-1:] == [
        f"step-{done:06d}"
    ]


def test_a_pipe_whose_reader_ends_costs_nothing(whole, cache, marked, tmp_path):
    place = Place(tmp_path, cache, marked)
    child = place.start("-m", "opo_cli", *LONG, stdout=subprocess.PIPE)
    wait_for_steps(place, child, 2)
    child.stdout.close()
    with child.stderr:
        assert "opo train --resume --out run" in child.stderr.read()
    assert child.wait(PATIENCE) == 128 + signal.SIGPIPE
    place.check_clean()


def test_what_is_ignored_from_the_start_stays_ignored(whole, cache, marked, tmp_path):
    """As under nohup, and for a job that a shell puts into the background."""
    place = Place(tmp_path, cache, marked)
    ignored = (signal.SIGHUP, signal.SIGINT)

    def ignore() -> None:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

    child = place.start("-m", "opo_cli", *LONG, preexec_fn=ignore)
    wait_for_steps(place, child, 1)
    for number in ignored:
        child.send_signal(number)
    wait_for_steps(place, child, 6)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=PATIENCE)
    assert child.returncode == 128 + signal.SIGTERM
    place.check_clean()


def test_a_step_beyond_its_grace_is_abandoned_and_the_newest_checkpoint_stands(
    whole, cache, marked, tmp_path
):
    place = Place(tmp_path, cache, marked)
    slow = ["--set", "checkpoint.grace_seconds=0.2", "--set", "checkpoint.every=1"]
    slow += ["--set", "algorithm.minibatches_per_step=8", "--set", "train.microbatch_tokens=1"]
    slow += ["--set", "eval.benchmarks=[]", "--set", "eval.validation=[]"]
    slow += ["--set", "rollout.prompts_per_step=64", "--set", "measure.every=0"]
    child = place.start("-m", "opo_cli", *LONG, *slow)
    wait_for_steps(place, child, 1)
    folder = tmp_path / "run" / "checkpoints"
    while not list(folder.glob("step-*")):
        time.sleep(0.02)
    time.sleep(drawn_seconds(place) * 0.75)  # The update takes most of a step.
    child.send_signal(signal.SIGTERM)
    started = time.monotonic()
    _, told = child.communicate(timeout=PATIENCE)
    assert child.returncode == 128 + signal.SIGTERM, told
    done = len(steps_of(place))
    assert time.monotonic() - started < drawn_seconds(place) / 4 + 3
    assert [path.stem for path in folder.iterdir()][-1:] == [f"step-{done:06d}"]
    place.check_clean()


def drawn_seconds(place: Place) -> float:
    """Of the first step."""
    return steps_of(place)[0]["step_seconds"]


def steps_of(place: Place) -> list[dict]:
    log = place.path / "run" / "steps.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()]
