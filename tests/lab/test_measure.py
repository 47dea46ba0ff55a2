"""Measuring real policies: what ends up in a lab folder."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from opo_cli.errors import OpoError
from opo_cli.lab.foreseen import Tokens
from opo_cli.lab.gradients import gradients_one_by_one, gradients_together
from opo_cli.lab.measure import Lab, measure
from opo_cli.lab.parameters import measured_parameters
from opo_cli.lab.plan import plan_lab, training_file
from opo_cli.lab.settings import PolicySource, Request
from opo_cli.lab.store import LabData, load_lab
from opo_cli.model.sequences import Sequences
from opo_cli.presets import resolve
from opo_cli.types import Sampling

FEW = Request(prompts=3, responses=4)


@pytest.fixture
def source(base) -> PolicySource:
    return PolicySource(label="base", path=str(base))


def lab_of(folder: Path, source: PolicySource, asked: Request = FEW, *overrides: str) -> LabData:
    """Measured into `folder`, and read."""
    config = resolve("smoke", overrides=overrides)
    training = training_file(config, asked)
    plans = plan_lab(config, asked, [source], folder, "base")
    measure(config, asked, plans, training, lambda rows: None, only_plan=False)
    return load_lab(folder)


def files_of(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / "prompts").iterdir())]


def test_what_is_measured_is_the_policys(source, tmp_path):
    """The same responses, sampled again and measured plainly."""
    config, data = resolve("smoke"), lab_of(tmp_path / "lab", source)
    lab = Lab(config, FEW, source, training_file(config, FEW))
    sampling = Sampling(num_responses=4, max_new_tokens=config.rollout.max_new_tokens)
    groups = lab.engine.generate(lab.prompts, sampling, stream=(7, 0))
    assert len({prompt.problem_id for prompt in data.prompts}) == 3
    for prompt, group in zip(data.prompts, groups, strict=True):
        assert prompt.problem_id == group.prompt.problem.id
        assert prompt.lengths.tolist() == [len(each.token_ids) for each in group.rollouts]
        assert prompt.truncated.tolist() == [e.finish_reason == "length" for e in group.rollouts]
        np.testing.assert_array_equal(prompt.rewards, prompt.correct.astype(float))
        assert prompt.greedy_reward in (0.0, 1.0)
        packed = Sequences.pack(
            [group.prompt.token_ids] * 4,
            [each.token_ids for each in group.rollouts],
            torch.device("cpu"),
        )
        with measured_parameters(lab.model, "all", 0) as parameters:
            found = [
                torch.cat(list(each.parts)).double()
                for each in gradients_one_by_one(lab.model, parameters, packed)
            ]
        rows = torch.stack(found)
        scale = np.sqrt(np.outer(np.diag(prompt.gram), np.diag(prompt.gram)))
        assert np.abs((prompt.gram - (rows @ rows.T).numpy()) / scale).max() < 1e-5
        assert (prompt.logit_norms > 0).all()
        assert (prompt.logit_norms <= 2 * prompt.lengths).all()


def test_a_lab_goes_on_and_is_the_one_never_stopped(source, tmp_path):
    """Chunks of two prompts, of which one is half done."""
    chunks = "rollout.max_rows=8"
    lab_of(tmp_path / "whole", source, FEW, chunks)
    whole = files_of(tmp_path / "whole")
    for row in (1, 2):
        (tmp_path / "whole" / "prompts" / f"{row:06d}.npz").unlink()
    lab_of(tmp_path / "whole", source, FEW, chunks)
    assert files_of(tmp_path / "whole") == whole
    lab_of(tmp_path / "other", source, replace(FEW, seed=1), chunks)
    assert files_of(tmp_path / "other")[0] != whole[0]


def test_other_batches_change_rounding_alone(source, tmp_path):
    one = lab_of(tmp_path / "one", source, FEW, "rollout.max_rows=4")
    all_ = lab_of(tmp_path / "all", source, FEW, "rollout.max_rows=512")
    for ours, theirs in zip(one.prompts, all_.prompts, strict=True):
        assert ours.problem_id == theirs.problem_id
        np.testing.assert_array_equal(ours.lengths, theirs.lengths)
        np.testing.assert_array_equal(ours.rewards, theirs.rewards)
        np.testing.assert_allclose(ours.gram, theirs.gram, rtol=1e-4, atol=1e-4 * ours.gram.max())


def test_rewards_are_shaped_and_left_out_as_in_training(source, tmp_path):
    short = "rollout.max_new_tokens=12"  # Some of the answers do not fit.
    plain = lab_of(tmp_path / "plain", source, FEW, short)
    cut = np.concatenate([prompt.truncated for prompt in plain.prompts])
    assert 0 < cut.sum() < len(cut)
    masked = lab_of(tmp_path / "mask", source, FEW, short, "algorithm.overlong=mask")
    lengths = np.concatenate([prompt.lengths for prompt in masked.prompts])
    np.testing.assert_array_equal(lengths == 0, cut)
    punished = lab_of(tmp_path / "punish", source, FEW, short, "algorithm.overlong=punish")
    rewards = np.concatenate([prompt.rewards for prompt in punished.prompts])
    assert (rewards[cut] == -1).all()


def test_single_tokens_add_up(source, tmp_path):
    asked = Request(prompts=2, responses=4, token_gradients=True)
    for prompt in lab_of(tmp_path / "lab", source, asked).prompts:
        assert len(prompt.token_gram) == len(prompt.token_norms) == prompt.lengths.sum()
        ends = [0, *np.cumsum(prompt.lengths).tolist()]
        blocks = [slice(a, b) for a, b in pairwise(ends)]
        summed = [[prompt.token_gram[a, b].sum() for b in blocks] for a in blocks]
        scale = prompt.gram.max()
        np.testing.assert_allclose(summed, prompt.gram, rtol=1e-3, atol=1e-4 * scale)
        sums = [prompt.token_norms[block].sum() for block in blocks]
        np.testing.assert_allclose(sums, prompt.logit_norms, rtol=1e-4)


def test_little_memory_keeps_projections(source, tmp_path):
    whole = lab_of(tmp_path / "whole", source)
    little = lab_of(tmp_path / "little", source, replace(FEW, memory_gigabytes=1e-3))
    for ours, theirs in zip(whole.prompts, little.prompts, strict=True):
        np.testing.assert_allclose(np.diag(ours.gram), np.diag(theirs.gram), rtol=1e-5)
        assert np.abs(ours.gram - theirs.gram).max() > 1e-6 * ours.gram.max()


def test_memory_and_time_are_told_before(source, tmp_path):
    config, told = resolve("smoke"), []
    plans = plan_lab(config, FEW, [source], tmp_path / "lab", "base")
    measure(config, FEW, plans, training_file(config, FEW), told.extend, only_plan=True)
    rows = dict(told)
    assert rows["gradients"] == "162,432 coordinates each, whole"
    assert rows["memory"].endswith("GB beside the program")
    assert rows["of it"].startswith("weights 0.00; sampling ")
    assert "at most" in rows["time"]
    assert not (tmp_path / "lab").exists()


def test_more_prompts_than_problems_are_refused(source, tmp_path):
    with pytest.raises(OpoError, match="--prompts 999: there are 256 problems") as caught:
        lab_of(tmp_path / "lab", source, replace(FEW, prompts=999))
    assert "--prompts 256" in caught.value.hint


def test_activations_are_as_foretold(source, most_allocated):
    """Of 16 responses that are as long as can be; gradients of the measured parameters apart."""
    config = resolve("smoke", overrides=["rollout.max_new_tokens=96"])
    lab = Lab(config, FEW, source, training_file(config, FEW))
    longest = max((prompt.token_ids for prompt in lab.prompts), key=len)
    packed = Sequences.pack([longest] * 16, [[4] * 96] * 16, torch.device("cpu"))

    def run() -> None:
        with measured_parameters(lab.model, "all", 0) as parameters:
            for _ in gradients_together(lab.model, parameters, packed):
                pass

    taken = most_allocated(run) - 16 * 162_432 * 4
    assert 0.8 * taken < lab._activation_bytes() < 1.5 * taken


@pytest.mark.parametrize("which", ["last-block", "lm-head", "lora"])
def test_parts_of_the_policy_are_measured(which, source, tmp_path):
    whole = lab_of(tmp_path / "all", source)
    part = lab_of(tmp_path / "part", source, replace(FEW, parameters=which))
    for ours, theirs in zip(part.prompts, whole.prompts, strict=True):
        np.testing.assert_array_equal(ours.lengths, theirs.lengths)
        assert (np.diag(ours.gram) > 0).all()
        if which != "lora":  # There, coordinates are others.
            assert (np.diag(ours.gram) < np.diag(theirs.gram)).all()


def test_what_single_tokens_take_is_counted_beforehand():
    config = resolve("smoke", overrides=["rollout.max_new_tokens=1000"])
    found = Tokens.of(config, Request(prompts=10, responses=8, token_gradients=True))
    products, wide = 2 * 8000**2 * 8, 8000 * (2**24 // 8000) * 8
    assert found.num_tokens == 8000
    assert found.prompt_bytes == 8000 * (8209 + 1021) * 4 + products + wide
    assert found.analysis_bytes == 8 * 200 * 8000 * 8 + products
    assert found.disk_bytes == 10 * 8000**2 * 4
    assert Tokens.of(config, Request(prompts=10, responses=8)) is None
    found.check(Request(memory_gigabytes=1.46))
    with pytest.raises(OpoError, match=r"takes 1\.5 GB; --memory grants 1\.4"):
        found.check(Request(memory_gigabytes=1.4))
