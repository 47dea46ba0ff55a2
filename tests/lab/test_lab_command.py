"""`opo lab` as a program."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opo_cli.cli import main
from opo_cli.lab.store import LabFolder

SMALL = ("lab", "--preset", "smoke", "--prompts", "6", "--responses", "8", "--group-size", "2,4")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "prompts").glob("*.npz"))}


def test_a_lab_is_measured_once_and_read_again(base, in_tmp: Path, run_opo, capsys):
    done = run_opo(*SMALL, "--out", "lab", "--format", "json", "--html", "lab.html")
    assert done.returncode == 0, done.stderr
    assert "6 prompts x 8" not in done.stdout  # JSON has records alone.
    records = json.loads(done.stdout)
    assert {record["group_size"] for record in records} >= {2, 4}
    assert {"rloo", "opo", "opo-loo"} <= {record["estimator"] for record in records}
    assert "memory: " in done.stderr
    assert (in_tmp / "lab.html").read_text().lstrip().lower().startswith("<!doctype html>")
    before = files_of(in_tmp / "lab")
    assert len(before) == 6

    kl = ("--set", "algorithm.kl_in=loss", "--set", "algorithm.kl_coefficient=0.01")
    asked = ("--estimators", "opo", "--reduction", "seq-mean", "--memory", "2", "--html", "b.html")
    assert main([*SMALL, "--out", "lab", *asked, *kl]) == 0
    again = capsys.readouterr()
    assert "memory: " not in again.err
    assert "seq-mean" in again.out
    left_out = "KL in the loss (algorithm.kl_coefficient = 0.01); the gradient here is that of the"
    assert left_out in again.out
    assert left_out in (in_tmp / "b.html").read_text()
    assert files_of(in_tmp / "lab") == before

    assert main([*SMALL, "--out", "lab", "--seed", "1"]) == 2
    assert "holds another lab: seed is 0 there, 1 here" in capsys.readouterr().err
    assert main([*SMALL, "--out", "lab", "--memory", "0.001"]) == 2
    assert "gradients are whole there, but not with --memory 0.001" in capsys.readouterr().err


def stopped(kind: signal.Signals, folder: Path, arguments: list[str]) -> subprocess.Popen:
    """Starts a lab and sends a signal once a prompt more than before is measured."""
    before = len(list((folder / "prompts").glob("*.npz")))
    child = subprocess.Popen(
        [sys.executable, "-m", "opo_cli", *arguments, "--out", folder.name],
        cwd=folder.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while len(list((folder / "prompts").glob("*.npz"))) == before:
        assert child.poll() is None, child.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    child.send_signal(kind)
    child.err = child.communicate(timeout=60)[1]
    return child


def test_a_lab_stopped_and_killed_goes_on_to_the_same_files(base, in_tmp: Path, capsys):
    arguments = [*SMALL, "--set", "rollout.max_rows=8", "--estimators", "opo"]
    assert main([*arguments, "--out", "whole"]) == 0
    asked = stopped(signal.SIGINT, in_tmp / "cut", arguments)
    assert asked.returncode == 130
    assert "the same command goes on" in asked.err
    assert "Traceback" not in asked.err
    kept = len(list((in_tmp / "cut" / "prompts").glob("*.npz")))
    assert 0 < kept < 6
    stopped(signal.SIGKILL, in_tmp / "cut", arguments)
    assert kept < len(list((in_tmp / "cut" / "prompts").glob("*.npz")))
    with LabFolder(in_tmp / "cut").locked():
        capsys.readouterr()
        assert main([*arguments, "--out", "cut"]) == 2
        told = capsys.readouterr().err
        assert "is at work on" in told
        assert "memory: " not in told  # Before any model is loaded.
    assert main([*arguments, "--out", "cut"]) == 0
    assert files_of(in_tmp / "cut") == files_of(in_tmp / "whole")


def test_along_a_run_and_with_its_optimizer(base, in_tmp: Path, run_opo, capsys):
    quick = ("--set", "eval.benchmarks=[]", "--set", "eval.validation=[]", "--steps", "4")
    keep = ("checkpoint.snapshot_every=2", "checkpoint.snapshot_moments=true")
    kept = [word for each in keep for word in ("--set", each)]
    trained = run_opo("train", "--preset", "smoke", *quick, *kept, "--out", "run")
    assert trained.returncode == 0, trained.stderr
    sizes = ("--prompts", "4", "--responses", "8", "--group-size", "4", "--estimators", "opo")
    assert main(["lab", "--along", "run", *sizes, "--out", "along", "--format", "json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert {record["step"] for record in records} == {0, 2, 4}
    settings = [
        json.loads((in_tmp / "along" / f"step-{step:06d}" / "lab.json").read_text())["settings"]
        for step in (0, 2, 4)
    ]
    assert len({each["policy_id"] for each in settings}) == 3
    # The final policy, measured by itself, is the last snapshot: the same prompts and streams.
    assert main(["lab", "--run", "run", *sizes, "--out", "alone"]) == 0
    assert files_of(in_tmp / "alone") == files_of(in_tmp / "along" / "step-000004")
    assert main(["lab", "--along", "run", "--precondition", "adam", *sizes, "--out", "adam"]) == 0
    assert files_of(in_tmp / "adam" / "step-000004") != files_of(in_tmp / "alone")
    capsys.readouterr()
    assert main(["lab", "--run", "run", "--precondition", "adam", *sizes]) == 2
    assert "is finished, and its optimizer is gone" in capsys.readouterr().err
    shutil.rmtree(in_tmp / "run" / "snapshots")
    assert main(["lab", "--along", "run", *sizes]) == 2
    assert "run 'run' has no snapshots" in capsys.readouterr().err


def test_a_stopped_run_is_measured_at_its_checkpoint(base, in_tmp: Path):
    quick = ("--set", "eval.benchmarks=[]", "--set", "eval.validation=[]", "--steps", "40")
    child = subprocess.Popen(
        [sys.executable, "-m", "opo_cli", "train", "--preset", "smoke", *quick, "--out", "cut"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    log, deadline = in_tmp / "cut" / "steps.jsonl", time.monotonic() + 120
    while not (log.is_file() and log.read_text().count("\n") >= 2):
        assert child.poll() is None, child.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert child.returncode == 130
    step = int(max((in_tmp / "cut" / "checkpoints").glob("step-*")).name.partition("-")[2])
    sizes = ("--prompts", "6", "--responses", "8", "--group-size", "4", "--estimators", "opo")
    assert main(["lab", "--run", "cut", *sizes, "--precondition", "adam", "--out", "lab"]) == 0
    settings = json.loads((in_tmp / "lab" / "lab.json").read_text())["settings"]
    assert settings["step"] == step


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["--html", "."], "'.' is a folder", "name a file"),
        (["--html", "a.txt/lab.html"], "'a.txt/lab.html' cannot be written", "another place"),
        (["--out", "a.txt"], "'a.txt' is a file", "name a folder"),
        (["--prompts", "999999"], "--prompts 999999: there are", "or fewer"),
        (["--token-gradients", "--memory", "0.1"], "--memory grants 0.1", "--memory "),
        (["--run", "nowhere"], "no run at 'nowhere'", "opo train"),
        (["--model", "nowhere"], "model folder 'nowhere' does not exist", "config.json"),
        (["--run", "a", "--model", "b"], "--run and --model: one of them", "leave one out"),
        (["--along", "a", "--preset", "tiny"], "--preset tiny with a run", "leave --preset out"),
        (["--preset", "tinny"], "unknown preset 'tinny'", "tiny"),
        (["--prompts", "1"], "--prompts 1: a lab needs 2", "--prompts 64"),
        (["--responses", "3"], "--responses 3: a lab needs 4", "--responses 32"),
        (["--responses", "8"], "--group-size 8 with --responses 8", "--group-size 4"),
        (["--group-size", "1"], "--group-size 1 with", "--group-size 16"),
        (["--group-size", "x"], "--group-size 'x' is no list", "1,2,4"),
        (["--parameters", "al"], "unknown parameters 'al'", "all"),
        (["--precondition", "adamw"], "unknown precondition 'adamw'", "adam"),
        (["--precondition", "adam", "--parameters", "lora"], "fresh adapters", "leave one"),
        (["--memory", "0"], "--memory 0 is no size", "--memory 4"),
        (["--seed", "-1"], "--seed -1 is below 0", "--seed 0"),
        (["--reduction", "mean"], "unknown reduction 'mean'", "seq-mean"),
        (["--estimators", "opoo"], "unknown estimator 'opoo'", "opo"),
        (["--problems", "AIME42"], "unknown benchmark 'AIME42'", "AIME"),
        (["--set", "rollout.temperature=0.6"], "rollout.temperature = 0.6", "temperature=1"),
        (["--set", "rollout.top_p=0.9"], "rollout.top_p = 0.9", "top_p=1"),
        (["--precondition", "adam"], "has no optimizer's second moments", "--precondition none"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_is_answered_by_one_line(arguments, message, hint, base, in_tmp, capsys):
    (in_tmp / "a.txt").touch()
    start = [] if {"--run", "--along", "--preset"} & set(arguments) else ["--preset", "smoke"]
    assert main(["lab", *start, *arguments]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 2, errors
    assert message in errors[0]
    assert hint in errors[1]
    assert not (in_tmp / "labs").exists()


def test_a_reader_may_stop_before_the_end(base, in_tmp: Path):
    """The page is written all the same."""
    assert main([*SMALL, "--out", "lab"]) == 0
    arguments = [*SMALL, "--out", "lab", "--html", "lab.html"]
    with subprocess.Popen(
        [sys.executable, "-m", "opo_cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        child.stdout.close()
        told = child.stderr.read()
    assert child.returncode == 0, told
    assert "Traceback" not in told
    assert (in_tmp / "lab.html").is_file()


def test_a_full_disk_is_told(base, in_tmp: Path):
    """And the hint is true: the measured prompts are kept."""
    again = [sys.executable, "-m", "opo_cli", *SMALL, "--out", "lab"]
    with Path("/dev/full").open("w") as full:
        found = subprocess.run(again, stdout=full, stderr=subprocess.PIPE, text=True)
    assert found.returncode == 2
    error, hint = found.stderr.strip().splitlines()[-2:]
    assert error == "error: cannot open or write: No space left on device"
    assert "free some space, then give the same command again" in hint
    kept = files_of(in_tmp / "lab")
    assert subprocess.run(again, capture_output=True).returncode == 0
    assert files_of(in_tmp / "lab") == kept


def test_a_page_that_cannot_be_written_is_told(base, in_tmp: Path, capsys):
    """Nobody may make a folder in /proc, though root is told that it may."""
    assert main([*SMALL, "--out", "lab"]) == 0
    capsys.readouterr()
    assert main([*SMALL, "--out", "lab", "--html", "/proc/pages/lab.html"]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if ":" in line][-2:]
    assert errors[0].startswith("error: '/proc/pages/lab.html' cannot be written")
    assert errors[1].endswith("another place")


def test_a_broken_description_is_told(base, in_tmp: Path, capsys):
    (in_tmp / "lab").mkdir()
    (in_tmp / "lab" / "lab.json").write_text("{")
    assert main([*SMALL, "--out", "lab"]) == 2
    error, hint = capsys.readouterr().err.strip().splitlines()
    assert "lab.json is not valid JSON" in error
    assert "remove its folder, or choose another with --out" in hint
    shutil.rmtree(in_tmp / "lab")
    assert main([*SMALL, "--out", "lab", "--dry-run"]) == 0


def test_a_folder_of_something_else_is_left_alone(base, in_tmp: Path, capsys):
    (in_tmp / "notes").mkdir()
    (in_tmp / "notes" / "a.txt").write_text("mine")
    assert main([*SMALL, "--out", "notes"]) == 2
    assert "'notes' exists and is no lab folder" in capsys.readouterr().err
    assert [path.name for path in (in_tmp / "notes").iterdir()] == ["a.txt"]


def test_a_benchmark_is_measured_too(base, in_tmp: Path, capsys):
    assert main([*SMALL, "--problems", "tiny-mid", "--dry-run"]) == 0
    assert "time: " in capsys.readouterr().err
    assert not (in_tmp / "labs").exists()
