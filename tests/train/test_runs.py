"""Whole runs as real processes: resuming, interrupting, what a folder holds."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opo_cli.records import RunFolder

OF_THE_MACHINE = ("_seconds", "_per_second", "_gigabytes")


def steps_of(folder: Path) -> list[dict]:
    return RunFolder(folder).steps()


def without_times(steps: list[dict]) -> list[dict]:
    return [{k: v for k, v in step.items() if not k.endswith(OF_THE_MACHINE)} for step in steps]


def weights_of(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


def interrupted_at(step: int, folder: Path, arguments: list[str]) -> subprocess.Popen:
    """Starts a run and sends SIGINT once `step` steps are logged."""
    child = subprocess.Popen(
        [sys.executable, "-m", "opo_cli", *arguments],
        cwd=folder.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log, deadline = folder / "steps.jsonl", time.monotonic() + 120
    while not (log.is_file() and log.read_text().count("\n") >= step):
        assert child.poll() is None, child.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    child.out, child.err = child.communicate(timeout=120)
    return child


@pytest.mark.parametrize("algorithm", ["opo", "ppo"])
def test_a_run_stopped_and_resumed_is_the_run_never_stopped(algorithm, base, tmp_path, run_opo):
    arguments = ["train", "--preset", "smoke", "--algorithm", algorithm, "--steps", "12"]
    arguments += ["--set", "checkpoint.every=3", "--set", "eval.benchmarks=[]"]
    whole = run_opo(*arguments, "--out", "whole")
    assert whole.returncode == 0, whole.stderr

    stopped = interrupted_at(2, tmp_path / "cut", [*arguments, "--out", "cut"])
    assert stopped.returncode == 130
    assert "opo train --resume --out cut" in stopped.err
    assert "Traceback" not in stopped.err
    done = len(steps_of(tmp_path / "cut"))
    assert 2 <= done < 12
    assert [path.name for path in (tmp_path / "cut/checkpoints").iterdir()] == [f"step-{done:06d}"]
    resumed = run_opo("train", "--resume", "--out", "cut")
    assert resumed.returncode == 0, resumed.stderr
    ours, theirs = steps_of(tmp_path / "cut"), steps_of(tmp_path / "whole")
    assert without_times(ours) == without_times(theirs)
    assert weights_of(tmp_path / "cut") == weights_of(tmp_path / "whole")


def test_a_stopped_run_goes_on_with_less_memory_and_with_nothing_else(base, tmp_path, run_opo):
    arguments = ["train", "--preset", "smoke", "--algorithm", "grpo", "--steps", "30"]
    stopped = interrupted_at(1, tmp_path / "cut", [*arguments, "--out", "cut"])
    assert stopped.returncode == 130
    again = ["train", "--resume", "--out", "cut"]
    refused = run_opo(*again, "--set", "optim.learning_rate=0.1")
    assert refused.returncode == 2
    assert "optim.learning_rate is 0.0002 there, 0.1 here" in refused.stderr
    refused = run_opo(*again, "--set", "train.steps=3")
    assert "train.steps is 30 there, 3 here" in refused.stderr
    stopped = interrupted_at(
        len(steps_of(tmp_path / "cut")) + 1,
        tmp_path / "cut",
        [*again, "--set", "train.microbatch_tokens=300", "--set", "rollout.max_rows=16"],
    )
    assert stopped.returncode == 130, stopped.err


def evals_of(folder: Path) -> list[dict]:
    return RunFolder(folder).evals()


def test_evaluations_during_training_change_nothing_and_survive_a_stop(base, tmp_path, run_opo):
    plain = ["train", "--preset", "smoke", "--steps", "8", "--set", "checkpoint.every=4"]
    often = [*plain, "--set", "eval.every=2", "--set", "eval.during=['tiny-easy']"]
    for name, arguments in (("plain", plain), ("often", often)):
        result = run_opo(*arguments, "--out", name)
        assert result.returncode == 0, result.stderr
    assert "after step 2: tiny-easy 0." in result.stdout
    assert without_times(steps_of(tmp_path / "often")) == without_times(
        steps_of(tmp_path / "plain")
    )
    assert weights_of(tmp_path / "often") == weights_of(tmp_path / "plain")
    during = [e for e in evals_of(tmp_path / "often") if e["policy"] == "step"]
    assert [(e["step"], e["benchmark"]) for e in during] == [(n, "tiny-easy") for n in (2, 4, 6)]
    assert len({e["settings"]["seed"] for e in during}) == 1

    # Stopped behind the third evaluation; of the checkpoint's step or later.
    stopped = interrupted_at(6, tmp_path / "cut", [*often, "--out", "cut"])
    assert stopped.returncode == 130, stopped.err
    resumed = run_opo("train", "--resume", "--out", "cut")
    assert resumed.returncode == 0, resumed.stderr
    assert without_eval_times(tmp_path / "cut") == without_eval_times(tmp_path / "often")


def without_eval_times(folder: Path) -> list[dict]:
    left_out = ("seconds", "samples_file", "grading_seconds")
    return [{k: v for k, v in e.items() if k not in left_out} for e in evals_of(folder)]


def test_a_killed_run_goes_on_from_its_checkpoint(base, tmp_path, run_opo):
    arguments = ["train", "--preset", "smoke", "--set", "eval.benchmarks=[]", "--out", "killed"]
    folder = tmp_path / "killed"
    child = subprocess.Popen(
        [sys.executable, "-m", "opo_cli", *arguments], cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    while not list(folder.glob("checkpoints/step-*")):
        assert child.poll() is None
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    with (folder / "steps.jsonl").open("a") as log:
        log.write('{"step": 99, "rew')  # As if killed while writing a line.
    resumed = run_opo("train", "--resume", "--out", "killed")
    assert resumed.returncode == 0, resumed.stderr
    assert [step["step"] for step in steps_of(folder)] == [1, 2, 3, 4, 5, 6]


def test_a_finished_run_holds_what_it_should(base, tmp_path, run_opo):
    result = run_opo("train", "--preset", "smoke")
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "runs" / "smoke-opo-seed0"
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "environment.json",
        "steps.jsonl",
        "rollouts",
        "evals.jsonl",
        "samples",
        "certificate.json",
        "model",
    }
    assert len(list((folder / "rollouts").iterdir())) == 6
    certificate = json.loads((folder / "certificate.json").read_text())
    assert certificate["label"] == "exact on-policy"
    assert certificate["num_exact_steps"] == certificate["num_steps"] == 6
    assert certificate["bounds"]["max_mismatch"] == 1e-3
    assert "trained by opo: exact on-policy, 6/6 exact steps" in result.stdout
    environment = json.loads((folder / "environment.json").read_text())
    # As installed: of PyPI's CUDA build torch itself adds +cu130.
    assert environment["versions"]["torch"] == importlib.metadata.version("torch")
    assert environment["seed"] == 0
    assert 0 < environment["startup_seconds"] < 300
    assert environment["device"] in ("cpu", "cuda")
    evals = RunFolder(folder).evals()
    assert [(e["policy"], e["benchmark"], e.get("split")) for e in evals] == [
        ("initial", "tiny-easy", None),
        ("initial", "tiny-mid", None),
        ("final", "tiny-easy", None),
        ("final", "tiny-mid", None),
        ("final", "tiny-validation", "validation"),
    ]
    assert evals[0]["kl_k3_sequence"] == pytest.approx(0, abs=1e-4)
    assert "objective" in result.stdout
    assert "exact on-policy" in result.stdout
    assert result.stdout.count("\n") > 15

    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(folder / "model")

    again = run_opo("train", "--preset", "smoke")
    assert again.returncode == 2
    assert "finished" in again.stderr

    evaluated = run_opo("eval", "tiny-easy", "--samples", "2", "--limit", "4")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "smoke-opo-seed0" in evaluated.stderr
    assert "avg@2" in evaluated.stdout
    assert "trained by opo: exact on-policy" in " ".join(evaluated.stdout.split())


def test_a_run_has_one_process_at_a_time(base, tmp_path, run_opo):
    arguments = ["train", "--preset", "smoke", "--steps", "200", "--out", "busy"]
    child = subprocess.Popen(
        [sys.executable, "-m", "opo_cli", *arguments], cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    log = tmp_path / "busy" / "steps.jsonl"
    while not (log.is_file() and log.read_text()):
        assert child.poll() is None
        time.sleep(0.02)
    second = run_opo("train", "--resume", "--out", "busy")
    assert second.returncode == 2
    assert f"another process (pid {child.pid} on host {socket.gethostname()}, since 20" in (
        second.stderr
    )
    assert "UTC) is at work on 'busy'" in second.stderr
    assert child.poll() is None
    child.kill()
    child.wait()
    assert steps_of(tmp_path / "busy")  # The lock died with its owner, the log did not.


def test_a_run_does_not_go_on_from_another_base(base, tmp_path, run_opo):
    stopped = interrupted_at(
        1, tmp_path / "cut", ["train", "--preset", "smoke", "--steps", "50", "--out", "cut"]
    )
    assert stopped.returncode == 130
    path = tmp_path / "cut" / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"initial_policy_id": "another"}))
    result = run_opo("train", "--resume", "--out", "cut")
    assert result.returncode == 2
    assert "did not start from" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_budget_ends_a_stopped_run_where_it_ends_the_other(base, tmp_path, run_opo):
    arguments = ["train", "--preset", "smoke", "--set", "eval.benchmarks=[]"]
    arguments += ["--set", "eval.validation=[]", "--set", "checkpoint.every=3"]
    arguments += ["--set", "train.budget_unit=tokens", "--set", "train.budget=9000"]
    whole = run_opo(*arguments, "--out", "whole")
    assert whole.returncode == 0, whole.stderr
    assert "at least 5: those that take 9000 tokens" in whole.stdout
    steps = steps_of(tmp_path / "whole")
    spent = [sum(step["num_tokens"] for step in steps[:n]) for n in range(1, len(steps) + 1)]
    assert spent[-2] < 9000 <= spent[-1]
    assert all(step["num_samples"] == 64 for step in steps)
    assert all(0.1 < step["memory_gigabytes"] < 100 for step in steps)

    stopped = interrupted_at(4, tmp_path / "cut", [*arguments, "--out", "cut"])
    assert stopped.returncode == 130, stopped.err
    assert "stopped after step" in stopped.err
    assert " of about " in stopped.err
    assert run_opo("train", "--resume", "--out", "cut").returncode == 0
    assert without_times(steps_of(tmp_path / "cut")) == without_times(steps)


def test_greedy_responses_count_as_samples(base, tmp_path, run_opo):
    arguments = ["train", "--preset", "smoke", "--algorithm", "remax", "--steps", "1"]
    assert run_opo(*arguments, "--out", "run").returncode == 0
    [step] = steps_of(tmp_path / "run")
    assert step["num_samples"] == 64 + 8
    assert 64 * step["length"] < step["num_tokens"] <= 64 * step["length"] + 8 * 32
