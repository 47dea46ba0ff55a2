"""The checkpoint rule: which step's weights the final policy has, also after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from opo_cli.errors import OpoError
from opo_cli.train.best import best_step, is_best_kept, load_best, save_best

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


def test_one_copy_of_the_best_weights_is_kept(tmp_path: Path):
    model = torch.nn.Linear(2, 2)
    model.device = torch.device("cpu")
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
    assert [path.name for path in tmp_path.iterdir()] == ["best-000005.pt"]
    (tmp_path / "best-000005.pt").write_bytes(b"damaged")
    for step in (3, 5):
        with pytest.raises(OpoError, match="best weights"):
            load_best(tmp_path, model, step)


def test_best_weights_are_kept_or_at_hand_or_gone(tmp_path: Path):
    (tmp_path / "best-000002.pt").touch()
    assert is_best_kept(tmp_path, [], 0)
    assert is_best_kept(tmp_path, [record(1, 0.2), record(2, 0.5), record(3, 0.4)], 3)
    assert is_best_kept(tmp_path, [record(1, 0.2), record(4, 0.5)], 4)
    assert not is_best_kept(tmp_path, [record(1, 0.6), record(2, 0.5), record(3, 0.4)], 3)


def evals_of(folder: Path) -> list[dict]:
    left_out = ("seconds", "samples_file", "grading_seconds")
    lines = [json.loads(line) for line in (folder / "evals.jsonl").read_text().splitlines()]
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
        copies = list((in_tmp / "cut" / "checkpoints").glob("best-*.pt"))
        assert len(copies) <= 2  # Two between the new one and the end of the old.
    resumed = run_opo(*BEST, "--resume", "--out", "cut")
    assert resumed.returncode == 0, resumed.stderr
    assert evals_of(in_tmp / "cut") == found
    assert weights_of(in_tmp / "cut") == weights_of(in_tmp / "whole")


def test_a_run_that_goes_back_behind_the_best_chooses_among_what_it_has(
    base, in_tmp: Path, run_opo
):
    """The newest checkpoint was damaged and removed, as the hint says; the best weights of before
    had made room for later ones."""
    keeps = ["--set", "checkpoint.keep=9"]
    killed_after(6, "cut", *keeps)
    folder = in_tmp / "cut"
    for path in folder.glob("checkpoints/*.pt"):
        if path.name != "step-000004.pt":
            path.unlink()
    lines = [json.loads(line) for line in (folder / "evals.jsonl").read_text().splitlines()]
    lines = [line | {"accuracy": 1.0} if line["step"] == 2 else line for line in lines]
    (folder / "evals.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    resumed = run_opo(*BEST, *keeps, "--resume", "--out", "cut")
    assert resumed.returncode == 0, resumed.stderr
    assert "the weights after step 2, the best on the validation split up to step 4" in (
        resumed.stderr
    )
    found = evals_of(folder)
    validated = {e["step"]: e["accuracy"] for e in found if e["policy"] == "step"}
    assert list(validated) == [4, 5, 6, 7, 8]
    final = [e for e in found if e["policy"] == "final"]
    assert {e["step"] for e in final} == {max(validated, key=validated.__getitem__)}
    assert final[-1]["accuracy"] == max(validated.values())
    assert [e["benchmark"] for e in found if e["policy"] == "initial"] == ["tiny-easy"]
