"""Real runs, really killed: the machinery finds them equal, and finds a difference where one is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opo_cli.faults import child
from opo_cli.faults.child import MARK, Doom, orphans
from opo_cli.faults.equal import Difference, differences
from opo_cli.faults.phases import PHASE_OF, phase_of
from opo_cli.faults.report import report_of
from opo_cli.faults.trials import Trial, run_trials
from tests.processes import wait_for

from .conftest import SHORT


def test_runs_killed_at_writes_and_by_time_are_the_run_never_killed(checked):
    assert [
        record["first_difference"] for record in checked.records if not record["is_equal"]
    ] == []
    assert checked.code == 0
    assert "kill and resume: 50% 1 of 1 equal" in checked.talk
    kills = [(record["run"], record["killed"], record["phase"]) for record in checked.records]
    assert {run for run, _, _ in kills} == {1, 2}
    assert any(" s after " in when for run, when, _ in kills if run == 1)
    assert any(" write " in when for run, when, _ in kills if run == 2)
    assert all(phase in {*PHASE_OF.values(), "end", "other"} for _, _, phase in kills)
    assert f"kept: {checked.bench.scratch}" in checked.talk
    assert checked.bench.run("trial-002").is_finished


def test_another_run_is_not_taken_for_the_same(checked, tmp_path: Path):
    """Another seed's."""
    copies = {name: name for name in ("prepared", "reference")}
    other = checked.bench_in(tmp_path, copies, "--seed", "1")
    (wrong,) = run_trials(other, checked.reference, 2, 1, 1, lambda *_: None)
    assert not wrong.is_within(0.0)
    assert wrong.kills
    report = report_of([wrong], checked.reference, 0.0)
    assert report.closing[0].startswith("run 1: ")
    assert "differences, the first: run/steps.jsonl: line 1 (step 1) " in report.closing[0]
    assert "weights are equal bit for bit in 0 of 1 runs" in report.closing
    assert report.closing[-1] == "0 of 1 resumed runs equal the uninterrupted run bit for bit"
    assert report.tables[0].rows[-1][-1] == "differs"
    assert report.tables[1].title == "largest relative difference by metric"


def test_a_torn_line_and_a_critic(checked, tmp_path: Path):
    """PPO, ended by the kernel in the middle of a line of its log, and killed as it resumes."""
    ppo = ["--algorithm", "ppo", "--set", "eval.benchmarks=[]"]
    bench = checked.bench_in(tmp_path, {"reference": "prepared", "torn": "prepared"}, *ppo)
    log = tmp_path / "writes.txt"
    assert bench.train("reference", Doom(log=str(log))).code == 0
    lines = log.read_text().splitlines()
    third = [n for n, line in enumerate(lines, 1) if line.endswith("/run/steps.jsonl")][-2]

    ending = bench.train("torn", Doom(action="tear", at=third, tear_bytes=100))
    assert ending.code == -signal.SIGXFSZ, ending.stderr
    assert phase_of(ending.stack) == "log"
    whole, torn = (bench.run("torn").path / "steps.jsonl").read_bytes().rsplit(b"\n", 1)
    assert (whole.count(b"\n") + 1, len(torn)) == (2, 100)

    ending = bench.train("torn", Doom(action="tell", at=2, delay_seconds=0.3))
    assert ending.code == -signal.SIGKILL, ending.stderr
    assert phase_of(ending.stack)
    assert bench.train("torn").code == 0
    found = differences(bench.place("reference/files"), bench.place("torn/files"))
    assert list(found) == []


def test_a_signal_ends_the_check_and_all_its_processes(tmp_path: Path):
    mark = f"check-{os.getpid()}"
    check = subprocess.Popen(
        [sys.executable, "-m", "opo_cli", "check", "resume", *SHORT],
        env=os.environ | {"TMPDIR": str(tmp_path), "OPO_CHECK_TEST": mark},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("opo-check-*/prepared/tmp")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    check.send_signal(signal.SIGTERM)
    assert check.wait(30) == 128 + signal.SIGTERM
    wait_for(lambda: not child._marked(f"OPO_CHECK_TEST={mark}".encode()))
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_goes_on_is_found_and_one_that_ends_is_not(monkeypatch):
    monkeypatch.setattr(child, "GONE_SECONDS", 0.2)
    mark = f"sleeper-{os.getpid()}"
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    sleeper = subprocess.Popen(command, env=os.environ | {MARK: mark})
    try:
        (found,) = orphans(mark)
        assert found.startswith(f"{sleeper.pid}: ")
    finally:
        sleeper.kill()
        sleeper.wait()
    assert orphans(mark) == []


def test_a_tolerance_is_for_metrics_alone_and_for_no_failure():
    near = Difference("run/steps.jsonl", "line 1", "reward", 1.0, 1.001)
    sample = Difference("run/samples/a.jsonl", "line 1", "text", "a", "b")
    left = Difference("run/.writing-x", "", "", "absent", "there")
    assert Trial(1, found=[near, sample]).is_within(0.01)
    assert not Trial(1, found=[near, sample]).is_within(0.0001)
    assert not Trial(1, found=[near]).is_within(0.0)
    assert not Trial(1, found=[left]).is_within(0.01)
    assert not Trial(1, failure="it does not end").is_within(0.01)
    assert Trial(1).is_within(0.0)


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["resum"], "unknown check 'resum'", "did you mean 'resume'?"),
        (["resume", "--preset", "smok"], "unknown preset 'smok'", "'smoke'"),
        (["resume", "--algorithm", "opoo"], "unknown algorithm 'opoo'", "'opo'"),
        (["resume", "--kills", "0"], "--kills 0", "--kills 10"),
        (["resume", "--jobs", "0"], "--jobs 0", "one per core"),
        (["resume", "--tolerance", "2"], "--tolerance 2", "bit for bit"),
        (["resume", "--set", "eval.k=[9]"], "k 9 exceeds the 4 samples", ""),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else "",
)
def test_mistakes(arguments, error, hint, capsys):
    from opo_cli.cli import main

    assert main(["check", *arguments]) == 2
    told = capsys.readouterr().err.splitlines()
    assert error in told[0]
    assert hint in told[1]
