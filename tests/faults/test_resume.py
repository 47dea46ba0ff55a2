"""Real runs, really killed: the machinery finds them equal, and finds a difference where one is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from opo_cli.faults.child import MARK, Doom, orphans
from opo_cli.faults.equal import differences
from opo_cli.faults.report import report_of
from opo_cli.faults.trials import Trial, make_reference, run_trials

from .conftest import SHORT


def test_runs_killed_at_writes_and_by_time_are_the_run_never_killed(new_bench, tmp_path: Path):
    bench, told = new_bench(tmp_path), []
    reference = make_reference(bench)
    trials = run_trials(bench, reference, 0, 3, 2, lambda done, word: told.append(word))
    assert [(trial.failure, trial.found) for trial in trials] == [("", [])] * 3
    assert told[-1] == "3 of 3 equal"
    assert all(trial.kills for trial in trials)
    assert not list(tmp_path.glob("trial-*"))  # Those that are equal are not kept.

    # Another seed's run is another run, and the report says so.
    other = replace(bench, start=[*bench.start, "--seed", "1"])
    (wrong,) = run_trials(other, reference, 2, 1, 1, lambda *_: None)
    assert not wrong.is_within(0.0)
    report = report_of([*trials, wrong], reference, 0.0)
    assert "3 of 4 resumed runs equal the uninterrupted run bit for bit" in report.closing
    assert "weights are equal bit for bit in 3 of 4 runs" in report.closing
    assert [row[-1] for row in report.tables[0].rows][-1] == "differs"
    assert report.tables[1].title == "largest relative difference by metric"
    assert "run 1: " in report.closing[0]
    assert "differences, the first: run/" in report.closing[0]


def test_a_torn_line_and_a_critic(new_bench, tmp_path: Path):
    """PPO, killed by the kernel in the middle of a line of its log, and again while it resumes."""
    bench = new_bench(tmp_path, "--algorithm", "ppo")
    make_reference(bench)
    lines = bench.place("writes.txt").read_text().splitlines()
    logged = [n for n, line in enumerate(lines, 1) if line.endswith("/steps.jsonl")]
    root = bench.place("torn")
    subprocess.run(["cp", "-r", bench.place("prepared"), root], check=True)

    ending = bench.train("torn", Doom(action="tear", at=logged[2], tear_bytes=100))
    assert ending.code == -signal.SIGXFSZ
    assert " in add_step\n" in ending.stack
    whole, torn = (root / "files/run/steps.jsonl").read_bytes().rsplit(b"\n", 1)
    assert (whole.count(b"\n") + 1, len(torn)) == (2, 100)

    ending = bench.train("torn", Doom(action="tell", at=2, delay_seconds=0.3))
    assert ending.code == -signal.SIGKILL
    assert ending.was_killed
    assert bench.train("torn").code == 0
    assert list(differences(bench.place("reference/files"), root / "files")) == []


def test_the_command_prints_the_figure(base, cache, run_opo, tmp_path: Path):
    arguments = ["check", "resume", *SHORT, "--kills", "1", "--seed", "5", "--format", "json"]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    result = run_opo(*arguments, "--keep", TMPDIR=str(scratch))
    assert result.returncode == 0, result.stderr
    records = json.loads(result.stdout)
    assert {record["is_equal"] for record in records} == {True}
    assert records[0]["phase"]
    kept = next(scratch.glob("opo-check-*"))
    assert f"kept: {kept}" in result.stderr
    assert (kept / "trial-001/files/run/model").is_dir()


def test_a_signal_ends_the_check_and_all_its_processes(base, tmp_path: Path):
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
    assert orphans(mark, variable="OPO_CHECK_TEST") == []
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_goes_on_is_found_and_one_that_ends_is_not():
    mark = f"sleeper-{os.getpid()}"
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    sleeper = subprocess.Popen(command, env=os.environ | {MARK: mark})
    try:
        (found,) = orphans(mark, patience_seconds=0.2)
        assert found.startswith(f"{sleeper.pid}: ")
    finally:
        sleeper.kill()
        sleeper.wait()
    assert orphans(mark) == []


def test_a_tolerance_is_for_metrics_alone_and_for_no_failure():
    from opo_cli.faults.equal import Difference

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
