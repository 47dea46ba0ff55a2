"""Snapshots of a run."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from opo_cli.files import check_seal
from opo_cli.presets import resolve
from opo_cli.records import RunFolder
from opo_cli.train.learner import new_learner
from opo_cli.train.snapshots import MOMENTS, list_snapshots, save_snapshot, second_moments
from tests.damage import flip_a_bit

RUN = ("train", "--preset", "smoke", "--set", "eval.benchmarks=[]", "--set", "eval.validation=[]")


def test_second_moments_are_adams_without_its_bias(policy_and_tokenizer):
    """After two steps with gradients 1 and 3: v = b (1 - b) + 9 (1 - b) over 1 - b^2."""
    policy = policy_and_tokenizer[0]
    learner = new_learner(policy, None, resolve("smoke"))
    assert second_moments(learner) == {}
    for value in (1.0, 3.0):
        for each in policy.parameters():
            each.grad = torch.full_like(each, value)
        learner.optimizer.step()
    found = second_moments(learner)
    expected = (0.95 * 0.05 + 9 * 0.05) / (1 - 0.95**2)
    assert found.keys() == {name for name, _ in policy.named_parameters()}
    for name, parameter in policy.named_parameters():
        torch.testing.assert_close(found[name], torch.full_like(parameter, expected))


def test_a_snapshot_is_a_sealed_model_folder_written_once(policy_and_tokenizer, tmp_path):
    policy, tokenizer = policy_and_tokenizer
    learner, folder = new_learner(policy, None, resolve("smoke")), RunFolder(tmp_path / "run")
    save_snapshot(folder, 10, learner, tokenizer, use_moments=False)
    assert list_snapshots(folder) == {10: folder.snapshot(10)}
    before = (folder.snapshot(10) / "model.safetensors").read_bytes()
    with torch.no_grad():
        policy.model.norm.weight.add_(1)
    save_snapshot(folder, 10, learner, tokenizer, use_moments=False)
    assert (folder.snapshot(10) / "model.safetensors").read_bytes() == before
    assert not (folder.snapshot(10) / MOMENTS).exists()
    check_seal(folder.snapshot(10))
    flip_a_bit(folder.snapshot(10) / "config.json")
    save_snapshot(folder, 10, learner, tokenizer, use_moments=False)
    check_seal(folder.snapshot(10))
    assert (folder.snapshot(10) / "model.safetensors").read_bytes() != before


def test_a_run_keeps_them_and_cuts_them_on_resume(base, in_tmp: Path, run_opo):
    arguments = [*RUN, "--steps", "4", "--set", "checkpoint.snapshot_every=2", "--out", "run"]
    done = run_opo(*arguments, "--set", "checkpoint.snapshot_moments=true")
    assert done.returncode == 0, done.stderr
    folder = RunFolder(in_tmp / "run")
    assert list(list_snapshots(folder)) == [2, 4]
    last = load_file(folder.snapshot(4) / "model.safetensors")
    final = load_file(folder.model / "model.safetensors")
    assert all(torch.equal(last[name], final[name]) for name in final)
    assert "model.embed_tokens.weight" in load_file(folder.snapshot(2) / MOMENTS)
    folder.go_back(3, None)
    assert list(list_snapshots(folder)) == [2]
    plain = run_opo(*RUN, "--steps", "4", "--out", "plain")
    assert plain.returncode == 0, plain.stderr
    assert not (in_tmp / "plain" / "snapshots").exists()
    weights = [
        (in_tmp / run / "model" / "model.safetensors").read_bytes() for run in ("run", "plain")
    ]
    assert weights[0] == weights[1]
    assert json.loads((in_tmp / "run" / "config.json").read_text())["checkpoint"]["every"] == 2
