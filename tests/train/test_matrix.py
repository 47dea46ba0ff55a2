"""A comparison's runs as real processes: shared, killed, stopped, gone on with."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from opo_cli.errors import OpoError
from opo_cli.host import num_cores
from opo_cli.interrupt import Interrupts
from opo_cli.presets import resolve
from opo_cli.train.cells import plan_matrix
from opo_cli.train.leash import ending
from opo_cli.train.matrix import (
    DEVICES,
    THREADS,
    _leash,
    _Pool,
    _reason,
    _Run,
    check_devices,
    log_of,
    num_jobs,
    ranks_to_launch,
    visible_devices,
)
from opo_cli.train.progress import Display
from tests.processes import PATIENCE, children_of, is_alive, wait_for

SCRIPT = """
import sys
from opo_cli.train.cells import plan_matrix
from opo_cli.interrupt import Interrupted
from opo_cli.train.matrix import run_matrix
algorithms, steps = sys.argv[1:]
sets = ["eval.benchmarks=[]", "eval.validation=[]", f"train.steps={steps}"]
try:
    sys.exit(len(run_matrix(plan_matrix("smoke", algorithms.split(","), [0], sets), 2)))
except Interrupted as stop:
    sys.exit(128 + stop.number)
"""


def start(algorithms: str, steps: int) -> subprocess.Popen:
    command = [sys.executable, "-c", SCRIPT, algorithms, str(steps)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def steps_of(log: Path) -> list[int]:
    return [json.loads(line)["step"] for line in log.read_text().splitlines()]


def logs(count: int, least: int) -> bool:
    """Whether so many runs have so many steps behind them."""
    found = list(Path("runs").glob("smoke-*/steps.jsonl"))
    return len(found) == count and all(log.read_bytes().count(b"\n") >= least for log in found)


def test_runs_end_with_a_killed_comparison_and_go_on_in_the_next(base, in_tmp):
    first = start("opo,grpo", 25)
    wait_for(lambda: logs(2, 3), first)
    children = children_of(first.pid)
    assert len(children) >= 2
    started = [path.read_text() for path in sorted(Path("runs").glob("*/environment.json"))]
    first.kill()
    first.communicate(timeout=PATIENCE)

    again = start("opo,grpo", 25)  # At once: the others may still be saving.
    wait_for(lambda: not any(map(is_alive, children)))
    _, talk = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, talk
    for log in Path("runs").glob("smoke-*/steps.jsonl"):
        assert steps_of(log) == list(range(1, 26))
    # Gone on with, not begun anew.
    assert started == [path.read_text() for path in sorted(Path("runs").glob("*/environment.json"))]
    for log in Path("runs/.logs").iterdir():
        assert "stopped after step" in log.read_text()

    third = start("opo,grpo", 25)
    _, talk = third.communicate(timeout=PATIENCE)
    assert third.returncode == 0
    assert "2 finished, 0 to do" in talk


def test_a_killed_comparison_leaves_nothing_behind_where_no_step_was_made(base, in_tmp):
    first = start("opo,grpo", 25)
    wait_for(lambda: len(children_of(first.pid)) == 2, first)
    children = children_of(first.pid)
    first.kill()
    first.communicate(timeout=PATIENCE)
    wait_for(lambda: not any(map(is_alive, children)))
    assert not list(Path("runs").glob("smoke-*"))


def test_two_comparisons_at_once_share_the_work(base, in_tmp):
    both = [start("opo,grpo,rloo", 8) for _ in range(2)]
    talks = [process.communicate(timeout=PATIENCE)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], talks
    assert "another process is at work on it" in "".join(talks)
    found = list(Path("runs").glob("smoke-*/steps.jsonl"))
    assert len(found) == 3
    for log in found:
        assert steps_of(log) == list(range(1, 9))
    for log in Path("runs/.logs").iterdir():
        assert log.read_text().count("saved: ") == 1  # Nothing was trained twice.


def test_a_stopped_run_elsewhere_is_waited_for(base, in_tmp):
    """A training that the user started by hand holds its folder."""
    sets = ["eval.benchmarks=[]", "eval.validation=[]", "train.steps=8"]
    [cell] = plan_matrix("smoke", ["opo"], [0], sets)
    by_hand = [sys.executable, "-m", "opo_cli", *cell.command()]
    with subprocess.Popen(by_hand, stdout=subprocess.DEVNULL) as training:
        wait_for(lambda: logs(1, 1))
        comparison = start("opo", 8)
        _, talk = comparison.communicate(timeout=PATIENCE)
    assert training.returncode == 0
    assert comparison.returncode == 0, talk
    if "1 finished" not in talk:  # It may have ended before the other looked.
        assert "another process is at work on it" in talk
        assert "finished by another process" in talk
    assert steps_of(cell.folder.path / "steps.jsonl") == list(range(1, 9))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_runs_where_they_can_go_on(number, base, in_tmp):
    process = start("opo,grpo", 40)
    wait_for(lambda: logs(2, 1), process)
    children = children_of(process.pid)
    process.send_signal(number)
    _, talk = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    assert "call the same command again" in talk
    assert not any(map(is_alive, children))
    for folder in Path("runs").glob("smoke-*"):
        checkpoint = max(folder.glob("checkpoints/step-*"))
        assert steps_of(folder / "steps.jsonl")[-1] == int(checkpoint.name.removeprefix("step-"))


SAVING = """
import signal, time
def save(number, frame):
    time.sleep({seconds})
    open("saved", "w").close()
    raise SystemExit
signal.signal(signal.SIGTERM, save)
open("ready", "w").close()
while True:
    time.sleep(1)
"""


def saving_for(seconds: float) -> subprocess.Popen:
    """A process that takes so long to end, once told to."""
    child = subprocess.Popen([sys.executable, "-c", SAVING.format(seconds=seconds)])
    wait_for(Path("ready").exists)
    return child


def pool_of(*algorithms: str, sets: Sequence[str] = (), jobs: int = 2, devices=()) -> _Pool:
    cells = plan_matrix("smoke", algorithms, [0], ["runtime.device=cpu", *sets])
    return _Pool(cells, jobs, devices, subprocess.DEVNULL, Display(cells, jobs))


def test_a_save_may_take_as_long_as_it_takes(in_tmp, monkeypatch):
    pool, child = pool_of("opo"), saving_for(1)
    pool.running[child] = _Run(pool.waiting[0], None, 0)
    # A clock on which an hour passes between two looks.
    monkeypatch.setattr(time, "monotonic", itertools.count(0, 3600).__next__)
    pool._stop()
    assert child.returncode == 0
    assert Path("saved").exists()


def test_a_second_signal_kills(in_tmp):
    pool, child = pool_of("opo"), saving_for(PATIENCE)
    pool.running[child] = _Run(pool.waiting[0], None, 0)
    with Interrupts().installed():
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        pool._stop()
    assert child.returncode == -signal.SIGKILL


# --- ranks ----------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="reads another process's command")
def test_ranks_are_started_by_torchrun_and_share_the_threads(in_tmp, monkeypatch):
    monkeypatch.delenv(THREADS)
    for set_to, share in ((0, max(1, num_cores() // 2)), (3, 3)):
        sets = ["runtime.device=cpu", f"runtime.num_threads={set_to}"]
        [cell] = plan_matrix("smoke", ["opo"], [set_to], sets)
        cell = cell.on_ranks(2)
        with _leash() as leash:
            pool = _Pool([cell], 1, [], leash, Display([cell], 1))
            pool._start_some()
            [child] = pool.running
            line = Path(f"/proc/{child.pid}/cmdline")
            wait_for(lambda line=line: b"opo_cli" in line.read_bytes())  # It is empty at first.
            command = line.read_text().split("\0")[:-1]
            found = environment_of(child.pid)[THREADS]
            child.kill()
            child.wait()
        assert command[1:5] == ["-m", "opo_cli.train.leash", "--ranks", "2"]
        assert command[5:] == cell.command()
        assert found == str(share)


def test_ranks_are_the_presets_gpus_or_those_that_are_here():
    on_cpu = resolve("smoke", overrides=["runtime.device=cpu"])
    assert ranks_to_launch(on_cpu) == 2
    assert ranks_to_launch(on_cpu, 5) == 5
    assert ranks_to_launch(resolve("qwen-math-7b")) == 8
    assert ranks_to_launch(resolve("qwen-math-7b"), 4) == 4
    assert ranks_to_launch(resolve("qwen-math")) == max(1, torch.cuda.device_count())


def test_gpus_are_missed_before_anything_starts():
    [cell] = plan_matrix("qwen-math-7b", ["opo"], [0], ())
    most = torch.cuda.device_count()
    with pytest.raises(OpoError) as alone:
        check_devices(cell)
    with pytest.raises(OpoError) as together:
        check_devices(cell.on_ranks(max(8, most + 1)))
    if most:
        assert alone.value.hint == "--launcher torchrun starts them"
        assert f"and torch sees {most}" in together.value.message
    else:
        assert "needs 8 GPUs of 80 GB; torch sees none here" in alone.value.message
        assert "needs 8 GPUs of 80 GB; torch sees none here" in together.value.message
    [cell] = plan_matrix("qwen-math-7b", ["opo"], [0], ["runtime.device=cpu"])
    check_devices(cell.on_ranks(99))


# --- failures -----------------------------------------------------------------------------------

LEAK = [
    "lib/multiprocessing/resource_tracker.py:279: UserWarning: resource_tracker: There appear to "
    "be 1 leaked semaphore objects to clean up at shutdown",
    "  warnings.warn('resource_tracker: There appear to be %d '",
]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["error: no", "hint: do", "step 1", "error: disk full", "hint: free some", *LEAK], (3, 5)),
        (["error: no", "Traceback (most recent call last):", "ValueError: wrong", *LEAK], (2, 3)),
        (["  raise", "torch.OutOfMemoryError: CUDA out of memory.", "hint: none"], (1, 3)),
        (["ZeroDivisionError", *LEAK], (0, 1)),
        (["Illegal instruction", "gone"], (0, 2)),
        ([], (0, 0)),
    ],
)
def test_the_reason_of_a_failure_is_its_last_error(lines, told):
    assert list(_reason(lines, 1)) == lines[slice(*told)]


def test_what_a_signal_ended_names_it_and_no_line_that_says_nothing():
    assert ending(2) == "exit code 2"
    assert ending(-signal.SIGKILL) == "killed by SIGKILL, perhaps for its memory"
    assert ending(-signal.SIGSEGV) == "killed by SIGSEGV"
    assert ending(-40) == "killed by signal 40"
    assert _reason(LEAK, -signal.SIGKILL) == []
    assert _reason(["RuntimeError: no", *LEAK], -signal.SIGABRT) == ["RuntimeError: no"]


def test_an_earlier_attempts_error_is_not_told(in_tmp, capsys):
    pool = pool_of("opo")
    log = log_of(pool.waiting[0])
    log.parent.mkdir(parents=True)
    log.write_text("error: of another day\n")
    pool._start_some()
    [child] = pool.running
    child.kill()
    child.wait()
    pool._end(child)
    told = capsys.readouterr().err
    assert f"{pool.failed[0].name} failed (killed by SIGKILL, perhaps for its memory)" in told
    assert "of another day" not in told


# --- devices ------------------------------------------------------------------------------------


def test_gpus_are_named_as_this_process_may_see_them():
    assert visible_devices(None, 3) == ["0", "1", "2"]
    assert visible_devices("2, 5", 2) == ["2", "5"]
    assert visible_devices("GPU-8a,GPU-9b", 1) == ["GPU-8a"]
    assert visible_devices("0,-1,1", 1) == ["0"]  # CUDA stops at what is none.
    assert visible_devices("", 0) == visible_devices(None, 0) == []


def environment_of(number: int) -> dict[str, str]:
    parts = Path(f"/proc/{number}/environ").read_text().split("\0")
    return dict(part.partition("=")[::2] for part in parts)


@pytest.mark.skipif(sys.platform != "linux", reason="reads another process's environment")
def test_each_run_has_a_device_of_its_own(base, in_tmp):
    cells = plan_matrix("smoke", ["opo", "grpo", "ppo"], [0], ["runtime.device=cpu"])
    with _leash() as leash:
        pool = _Pool(cells, 2, ["4", "7"], leash, Display(cells, 2))
        pool._start_some()
        try:
            assert [environment_of(child.pid)[DEVICES] for child in pool.running] == ["4", "7"]
            assert [cell.algorithm for cell in pool.waiting] == ["ppo"]
            child = next(iter(pool.running))
            child.kill()
            child.wait()
            pool._end(child)
            assert pool.free == ["4"]
            assert [cell.algorithm for cell in pool.failed] == ["opo"]
        finally:
            for child in pool.running:
                child.kill()
                child.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="reads another process's environment")
def test_runs_at_once_share_the_threads_that_nobody_has_given_them(in_tmp, monkeypatch):
    monkeypatch.delenv(THREADS)

    def threads(*algorithms: str, sets: Sequence[str], jobs: int, devices=()) -> list[str | None]:
        pool = pool_of(*algorithms, sets=sets, jobs=jobs, devices=devices)
        with _leash() as pool.leash:  # Else they may have ended before we look.
            pool._start_some()
            found = [environment_of(child.pid).get(THREADS) for child in pool.running]
            for child in pool.running:
                child.kill()
                child.wait()
        return found

    free, given = ["runtime.num_threads=0"], ["runtime.num_threads=1"]
    share = str(max(1, num_cores() // 2))
    assert threads("opo", "grpo", "ppo", sets=free, jobs=2) == [share, share]
    assert threads("opo", "grpo", sets=free, jobs=9 * num_cores()) == [share, share]
    assert threads("opo", sets=free, jobs=2) == [None]  # Alone, all are its own.
    assert threads("opo", "grpo", sets=given, jobs=2) == [None, None]  # It sets its own number.
    assert threads("opo", "grpo", sets=free, jobs=2, devices=["0", "1"]) == [None, None]
    monkeypatch.setenv(THREADS, "7")
    assert threads("opo", "grpo", sets=free, jobs=2) == ["7", "7"]


def test_jobs_on_a_cpu_are_as_many_as_cores():
    config = resolve("smoke", overrides=["runtime.device=cpu"])
    assert num_jobs(config) == num_cores()
    assert num_jobs(config, 7) == 7
    with pytest.raises(OpoError, match="--jobs 0"):
        num_jobs(config, 0)


def test_jobs_on_gpus_are_no_more_than_gpus():
    config = resolve("qwen-math")
    most = max(1, torch.cuda.device_count())
    assert num_jobs(config) == most
    with pytest.raises(OpoError, match=f"--jobs {most + 1}: these runs train on a GPU"):
        num_jobs(config, most + 1)
