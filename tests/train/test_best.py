"""The checkpoint rule: which step's weights the final policy has, also after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from opo_cli.errors import OpoError
from opo_cli.presets import resolve
from opo_cli.records import RunFolder
from opo_cli.train.best import best_path, best_step, drop_best, load_best, save_best
from opo_cli.train.checkpoint import Checkpoints
from opo_cli.train.learner import new_learner
from tests.damage import flip_a_bit, names

WEIGHTS = "shard-00001-model-00001-of-00001.safetensors"
BEST = ["train", "--preset", "smoke", "--set", "eval.checkpoint=best", "--set", "eval.every=1"]
BEST += ["--set", "eval.during=['tiny-validation']", "--set", "eval.benchmarks=['tiny-easy']"]
BEST += ["--set", "checkpoint.every=4", "--steps", "8"]


def record(step: int, accuracy: float, policy: str = "step", **keys) -> dict:
    return {"policy": policy, "step": step, "split": "validation", "accuracy": accuracy, **keys}


def test_the_best_step_has_the_highest_mean_and_is_the_earliest_of_equals():
    assert best_step([]) is None
    assert best_step([record(1, 0.2), record(2, 0.5), record(3, 0.4)]) == 2
    assert best_step([record(3, 0.5), record(2, 0.5), record(1, 0.4)]) == 2
    # Two benchmarks: .35 after step 1, .4 after step 2.
    assert best_step([record(1, 0.1), record(1, 0.6), record(2, 0.5), record(2, 0.3)]) == 2


def test_only_validations_during_training_count():
    others = [
        record(0, 0.9, "initial"),
        record(9, 0.9, "final"),
        {"policy": "step", "step": 5, "accuracy": 0.9},
    ]
    assert best_step(others) is None
    assert best_step([*others, record(1, 0.1)]) == 1


def test_the_best_weights_are_sealed_and_come_back(tmp_path: Path):
    model = torch.nn.Linear(2, 2)
    save_best(tmp_path, model, 3)
    with torch.no_grad():
        model.weight.add_(1)
    again = model.weight.detach().clone()
    save_best(tmp_path, model, 3)  # A step made again, on a GPU, has other weights.
    with torch.no_grad():
        model.weight.zero_()
    load_best(tmp_path, model, 3)
    assert torch.equal(model.weight, again)
    save_best(tmp_path, model, 5)
    drop_best(tmp_path, {5, None})
    assert [path.name for path in tmp_path.iterdir()] == ["best-000005"]
    flip_a_bit(tmp_path / "best-000005" / WEIGHTS)
    with pytest.raises(OpoError, match=r"best-000003/manifest.json' is missing"):
        load_best(tmp_path, model, 3)
    with pytest.raises(OpoError, match=f"best-000005/{WEIGHTS}' is damaged") as caught:
        load_best(tmp_path, model, 5)
    assert "--resume goes back" in caught.value.hint
    save_best(tmp_path, torch.nn.Linear(3, 1), 7)
    with pytest.raises(
        OpoError, match=r"best-000007' is whole and does not load: 'policy\.weight'"
    ):
        load_best(tmp_path, model, 7)


def evals_of(folder: Path) -> list[dict]:
    left_out = ("seconds", "samples_file", "grading_seconds")
    lines = RunFolder(folder).evals()
    return [{k: v for k, v in line.items() if k not in left_out} for line in lines]


def weights_of(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


def killed_after(step: int, out: str, *others: str) -> None:
    """Starts a run, or goes on with it, and kills it once `step` steps are logged."""
    go_on = ["--resume"] if Path(out).exists() else []
    child = subprocess.Popen(
        [sys.executable, "-m", "opo_cli", *BEST, *others, *go_on, "--out", out],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    log, deadline = Path(out) / "steps.jsonl", time.monotonic() + 120
    while not (log.is_file() and log.read_bytes().count(b"\n") >= step):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()


def test_the_best_policy_is_the_final_one_whatever_kills_the_run(base, in_tmp: Path, run_opo):
    whole = run_opo(*BEST, "--out", "whole")
    assert whole.returncode == 0, whole.stderr
    found = evals_of(in_tmp / "whole")
    validated = {e["step"]: e["accuracy"] for e in found if e["policy"] == "step"}
    assert list(validated) == list(range(1, 9))
    chosen = max(validated, key=validated.__getitem__)
    final = [(e["benchmark"], e["step"], e.get("split")) for e in found if e["policy"] == "final"]
    assert final == [("tiny-easy", chosen, None), ("tiny-validation", chosen, "validation")]
    assert found[-1]["accuracy"] == validated[chosen]
    assert f"that after step {chosen}, the best" in whole.stderr
    assert not (in_tmp / "whole" / "checkpoints").exists()

    # Its weights are those of a run that ends there.
    plain = ["train", "--preset", "smoke", "--steps", str(chosen), "--out", "plain"]
    assert run_opo(*plain, "--set", "eval.benchmarks=[]").returncode == 0
    assert weights_of(in_tmp / "whole") == weights_of(in_tmp / "plain")

    for step in (2, 5, 7):
        killed_after(step, "cut")
        copies = list((in_tmp / "cut" / "checkpoints").glob("best-*"))
        assert len(copies) <= 3  # Of two checkpoints, and between the new one and the end of one.
    resumed = run_opo(*BEST, "--resume", "--out", "cut")
    assert resumed.returncode == 0, resumed.stderr
    assert evals_of(in_tmp / "cut") == found
    assert weights_of(in_tmp / "cut") == weights_of(in_tmp / "whole")


def test_a_checkpoint_counts_with_the_best_weights_that_it_goes_on_with(
    policy_and_tokenizer, tmp_path
):
    """Checkpoints after step 2 (best: 1) and step 4 (best: 3); of the best weights one is hit."""
    learner, run = new_learner(policy_and_tokenizer[0], None, resolve("smoke")), RunFolder(tmp_path)
    for step, accuracy in ((1, 0.5), (2, 0.4), (3, 0.6), (4, 0.3)):
        run.add_step({"step": step})
        run.write_evals([*run.evals(), record(step, accuracy)])
        if best_step(run.evals()) == step:
            save_best(run.checkpoints, learner.policy, step)
        if step % 2 == 0:
            Checkpoints(run, learner, 2).save(step)
    assert names(run.checkpoints) == ["best-000001", "best-000003", "step-000002", "step-000004"]
    for hit, expected in ((None, 4), (3, 2), (1, 0)):
        if hit is not None:
            flip_a_bit(best_path(run.checkpoints, hit) / WEIGHTS)
        assert Checkpoints(run, learner, 2).load(needs_best=True) == expected
        assert [s["step"] for s in run.steps()] == list(range(1, expected + 1))
        assert [e["step"] for e in run.evals()] == list(range(1, expected + 1))
    assert names(run.checkpoints) == []


def test_without_the_rule_no_best_weights_are_needed(policy_and_tokenizer, tmp_path):
    learner, run = new_learner(policy_and_tokenizer[0], None, resolve("smoke")), RunFolder(tmp_path)
    run.add_step({"step": 1})
    run.write_evals([record(1, 0.5), record(2, 0.4)])
    run.add_step({"step": 2})
    Checkpoints(run, learner, 1).save(2)
    assert Checkpoints(run, learner, 2).load(needs_best=False) == 2
