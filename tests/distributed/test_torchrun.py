"""What ends a run of ranks, and how it goes on: real kills, restarts, signals and errors."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from opo_cli.lines import read_lines
from opo_cli.records import RunFolder
from tests.distributed import launch
from tests.distributed.test_training import differences

TRAIN = ("-m", "opo_cli", "train", "--preset", "smoke", "--steps", "8", "--out")
AGAIN = "torchrun --standalone --nproc-per-node 2 -m opo_cli train --resume --out"
PLAIN = ("--set", "eval.benchmarks=[]", "--set", "eval.validation=[]")
RARELY = ("--set", "checkpoint.every=100")


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory) -> Path:
    """A run of two ranks that nothing stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    code, said = launch.run(*TRAIN, str(out), *PLAIN)
    assert code == 0, said
    return out


def num_steps(out: Path) -> int:
    log = out / "steps.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def after_steps(process, out: Path, count: int) -> dict[int, int]:
    """Waits for them; rank -> pid."""
    deadline = time.monotonic() + 240
    while num_steps(out) < count:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return ranks_of(out)


def ranks_of(out: Path) -> dict[int, int]:
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, StopIteration):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if str(out).encode() in words and b"torch.distributed.run" not in words:
                environ = (entry / "environ").read_bytes().split(b"\0")
                number = next(x for x in environ if x.startswith(b"RANK="))
                found[int(number[5:])] = int(entry.name)
    return found


def test_a_killed_rank_ends_the_job_in_seconds_and_one_process_goes_on(whole: Path, tmp_path: Path):
    out = tmp_path / "run"
    process = launch.start(*TRAIN, str(out), *PLAIN)
    ranks = after_steps(process, out, 3)
    started = time.monotonic()
    os.kill(ranks[1], signal.SIGKILL)
    code, said = launch.end(process, timeout=30)
    assert time.monotonic() - started < 20
    assert code == 1
    assert "(SIGKILL)" in said
    assert "Traceback" not in said.partition("elastic")[0]
    assert ranks_of(out) == {}
    assert not list(out.rglob(".writing-*")) or num_steps(out) < 8
    resumed = launch.subprocess.run(
        [sys.executable, "-m", "opo_cli", "train", "--resume", "--out", str(out)],
        cwd=launch.ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert resumed.returncode == 0, resumed.stderr
    assert max(differences(whole, out).values()) < 1e-4
    assert not list(out.rglob(".writing-*"))


def test_a_restart_is_exactly_the_run_that_was_never_killed(whole: Path, tmp_path: Path):
    out = tmp_path / "run"
    process = launch.start(*TRAIN, str(out), *PLAIN, restarts=1)
    os.kill(after_steps(process, out, 3)[0], signal.SIGKILL)
    code, said = launch.end(process)
    assert code == 0, said
    assert set(differences(whole, out).values()) == {0.0}
    assert [line["step"] for line in read_lines(out / "steps.jsonl")] == list(range(1, 9))


@pytest.mark.parametrize(("number", "is_for_all"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_a_signal_saves_what_all_ranks_have(number, is_for_all: bool, whole: Path, tmp_path: Path):
    """To torchrun alone, as from a scheduler; to all of them, as from a terminal. The run goes on,
    on three ranks."""
    out = tmp_path / "run"
    process = launch.start(*TRAIN, str(out), *PLAIN, *RARELY)
    after_steps(process, out, 2)
    (os.killpg if is_for_all else os.kill)(process.pid, number)
    code, said = launch.end(process, timeout=60)
    assert code == 1
    done = num_steps(out)
    assert f"stopped after step {done} of 8\n" in said
    assert f"go on: {AGAIN} {out}\n" in said
    assert [path.name for path in RunFolder(out).checkpoints.iterdir()] == [f"step-{done:06d}"]
    code, said = launch.run("-m", "opo_cli", "train", "--resume", "--out", str(out), ranks=3)
    assert code == 0, said
    assert max(differences(whole, out).values()) < 1e-4


def test_an_error_of_one_rank_ends_all_with_its_message(tmp_path: Path):
    """In a rollout, where the others meet it; and alone, where torchrun ends them."""
    for place in ("rollout", "update"):
        process = launch.start("-m", "tests.distributed.failing", place, str(tmp_path / place))
        code, said = launch.end(process, timeout=120)
        assert code == 1
        told = [line for line in said.splitlines() if line.startswith(("error:", "hint:"))]
        assert told == [
            f"error: rank 1: step 1: no {place} today",
            f"hint: {AGAIN} {tmp_path / place} goes on; another day",
        ]


def test_a_mistake_is_told_once(tmp_path: Path):
    (tmp_path / "x").write_text("")
    for arguments, message in [
        (("--preset", "tinny"), "error: unknown preset 'tinny'"),
        (
            ("--preset", "smoke", "--out", str(tmp_path)),
            f"error: '{tmp_path}' exists and is no run",
        ),
    ]:
        code, said = launch.run("-m", "opo_cli", "train", *arguments, timeout=100)
        assert code == 1
        errors = [line for line in said.splitlines() if line.startswith("error:")]
        assert len(errors) == 1
        assert errors[0].startswith(message)
