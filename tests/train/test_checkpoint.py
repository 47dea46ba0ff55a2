"""Checkpoints: sealed, with the logs in them; a damaged one is made good from the one before."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
from pathlib import Path

import pytest
import torch

from opo_cli.errors import OpoError
from opo_cli.files import check_seal
from opo_cli.model import saved
from opo_cli.model.policy import load_policy
from opo_cli.presets import resolve
from opo_cli.records import RunFolder
from opo_cli.train.checkpoint import (
    Checkpoints,
    checkpoint_path,
    read_policy,
    read_second_moments,
)
from opo_cli.train.learner import Learner, make_reference, new_learner
from opo_cli.train.snapshots import second_moments
from tests.damage import flip_a_bit, kill_as_it_says, names

STATE = "shard-00001-model-00001-of-00001.safetensors"
FILES = ["evals.jsonl", "manifest.json", STATE, "steps.jsonl"]


def learner_of(policy, algorithm: str = "opo"):
    config = resolve("smoke", algorithm=algorithm)
    return new_learner(policy, make_reference(policy, config), config)


def bare_learner_of(module: torch.nn.Module) -> Learner:
    return Learner(policy=module, reference=None, optimizer=torch.optim.AdamW(module.parameters()))


def moved(learner) -> None:
    """One optimizer step by made-up gradients."""
    pairs = [(learner.policy, learner.optimizer)]
    if learner.critic is not None:
        pairs.append((learner.critic, learner.critic_optimizer))
    for module, optimizer in pairs:
        for place, parameter in enumerate(module.parameters()):
            parameter.grad = torch.full_like(parameter, 0.1 + place)
        optimizer.step()
        optimizer.zero_grad()


def state_of(learner) -> list[torch.Tensor]:
    """Weights and moments, copied."""
    modules = [m for m in (learner.policy, learner.critic) if m is not None]
    optimizers = [o for o in (learner.optimizer, learner.critic_optimizer) if o is not None]
    found = [p.detach().clone() for m in modules for p in m.parameters()]
    for optimizer in optimizers:
        for state in optimizer.state_dict()["state"].values():
            found += [value.clone() for value in state.values()]
    return found


def equal(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> bool:
    return len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))


@pytest.fixture
def run(policy_and_tokenizer, tmp_path: Path):
    """A run of three steps, checkpoints after each of them but the first; with its learner, and
    what that was after each."""
    run, learner = RunFolder(tmp_path / "run"), learner_of(policy_and_tokenizer[0])
    run.path.mkdir()
    states = {0: state_of(learner)}
    for step in (1, 2, 3):
        moved(learner)
        run.add_step({"step": step})
        run.write_evals([*run.evals(), {"policy": "step", "step": step}])
        states[step] = state_of(learner)
        Checkpoints(run, learner, 2).save(step)
    return run, learner, states


def test_the_newest_are_kept_and_hold_all_that_cannot_be_rebuilt(run):
    run, _, _ = run
    assert names(run.checkpoints) == ["step-000002", "step-000003"]
    for step in (2, 3):
        path = checkpoint_path(run.checkpoints, step)
        assert names(path) == FILES
        check_seal(path)
        assert [r["step"] for r in RunFolder(path).steps()] == list(range(1, step + 1))


@pytest.mark.parametrize("algorithm", ["opo", "ppo"])
def test_what_is_saved_comes_back(algorithm: str, policy_and_tokenizer, tmp_path: Path):
    """Weights and moments of policy and critic."""
    run, learner = RunFolder(tmp_path / "run"), learner_of(policy_and_tokenizer[0], algorithm)
    run.path.mkdir()
    moved(learner)
    expected = state_of(learner)
    Checkpoints(run, learner, 1).save(1)
    moved(learner)
    moved(learner)
    assert not equal(state_of(learner), expected)
    assert Checkpoints(run, learner, 2).load(needs_best=False) == 1
    assert equal(state_of(learner), expected)


def test_the_logs_come_back_whatever_became_of_the_runs_own(run):
    run, learner, _ = run
    run.add_step({"step": 4})
    flip_a_bit(run.path / "steps.jsonl", 3)
    (run.path / "evals.jsonl").unlink()
    assert Checkpoints(run, learner, 2).load(needs_best=False) == 3
    assert [record["step"] for record in run.steps()] == [1, 2, 3]
    assert [record["step"] for record in run.evals()] == [1, 2, 3]


DAMAGE = {
    "flipped": lambda path: flip_a_bit(path / STATE),
    "cut": lambda path: os.truncate(path / STATE, 1000),
    "empty": lambda path: os.truncate(path / STATE, 0),
    "gone": lambda path: (path / STATE).unlink(),
    "log flipped": lambda path: flip_a_bit(path / "steps.jsonl"),
    "log gone": lambda path: (path / "evals.jsonl").unlink(),
    "no seal": lambda path: (path / "manifest.json").unlink(),
    "seal flipped": lambda path: flip_a_bit(path / "manifest.json", 2),
    "all gone": lambda path: [file.unlink() for file in path.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_taken(damage, run, capfd):
    run, learner, states = run
    DAMAGE[damage](checkpoint_path(run.checkpoints, 3))
    assert Checkpoints(run, learner, 2).load(needs_best=False) == 2
    assert equal(state_of(learner), states[2])
    assert [record["step"] for record in run.steps()] == [1, 2]
    told = capfd.readouterr().err
    assert told.count("warning:") == 1
    assert f"'{checkpoint_path(run.checkpoints, 3)}/" in told
    assert "the run goes on from step 2, as it was then" in told
    assert names(run.checkpoints) == ["step-000002"]


def test_a_damaged_one_does_not_stop_a_run_that_goes_on(run):
    run, learner, _ = run
    flip_a_bit(checkpoint_path(run.checkpoints, 3) / "evals.jsonl")
    Checkpoints(run, learner, 2).save(4)
    assert names(run.checkpoints) == ["step-000003", "step-000004"]


def test_where_all_are_damaged_the_run_begins_anew(run, policy_and_tokenizer, capfd):
    run, _, _ = run
    for step in (2, 3):
        flip_a_bit(checkpoint_path(run.checkpoints, step) / STATE, 500)
    learner = learner_of(policy_and_tokenizer[0])
    before = state_of(learner)
    assert Checkpoints(run, learner, 2).load(needs_best=False) == 0
    assert equal(state_of(learner), before)
    assert run.steps() == run.evals() == names(run.checkpoints) == []
    told = capfd.readouterr().err
    assert told.count("warning:") == 1
    assert told.count("is damaged") == 2
    assert "goes on from step 0" in told


OTHERS = {
    "'policy.weight' has the shape (2, 2), not (2, 3)": torch.nn.Linear(3, 2),
    "'policy.bias' is too much": torch.nn.Linear(2, 2, bias=False),
    "'policy.scale' is missing": torch.nn.Linear(2, 2),
}
OTHERS["'policy.scale' is missing"].register_buffer("scale", torch.ones(2))


@pytest.mark.parametrize("told", OTHERS)
def test_a_whole_checkpoint_of_another_model_is_no_damage(told: str, tmp_path: Path):
    """It is kept: nobody asked for a new start."""
    run = RunFolder(tmp_path)
    run.add_step({"step": 3})
    Checkpoints(run, bare_learner_of(torch.nn.Linear(2, 2)), 1).save(3)
    message = f"step-000003' is whole and does not load: {told}"
    with pytest.raises(OpoError, match=re.escape(message)):
        Checkpoints(run, bare_learner_of(OTHERS[told]), 2).load(needs_best=False)
    assert names(run.checkpoints) == ["step-000003"]
    assert len(run.steps()) == 1


@pytest.mark.parametrize("name", ["step-000003.pt", "step-000003/state.pt"])
def test_an_older_versions_checkpoints_are_not_thrown_away(name: str, run):
    run, learner, _ = run
    shutil.rmtree(run.checkpoints)
    (run.checkpoints / name).parent.mkdir(parents=True)
    (run.checkpoints / name).write_bytes(b"")
    with pytest.raises(OpoError, match=f"{name}' is a checkpoint of an older version"):
        Checkpoints(run, learner, 2).load(needs_best=False)
    assert len(run.steps()) == 3


def test_an_optimizer_that_has_not_begun_comes_back_as_such(policy_and_tokenizer, tmp_path: Path):
    """Also one that has moved some parameters alone, and where the learner has gone on since."""
    run, learner = RunFolder(tmp_path), learner_of(policy_and_tokenizer[0])
    Checkpoints(run, learner, 2).save(1)
    learner.policy.model.norm.weight.grad = torch.ones(learner.policy.config.hidden_size)
    learner.optimizer.step()
    Checkpoints(run, learner, 2).save(2)
    expected = state_of(learner)
    moved(learner)
    assert Checkpoints(run, learner, 2).load(needs_best=False) == 2
    assert equal(state_of(learner), expected)
    shutil.rmtree(checkpoint_path(run.checkpoints, 2))
    assert Checkpoints(run, learner, 2).load(needs_best=False) == 1
    assert not learner.optimizer.state


def test_it_goes_on_as_if_never_stopped(run, policy_and_tokenizer, base: Path):
    """In another process's learner; AdamW's own state, as it makes it, stands for the first's."""
    run, learner, _ = run
    again = learner_of(load_policy(str(base), torch.device("cpu"))[0])
    assert Checkpoints(run, again, 2).load(needs_best=False) == 3
    for each in (learner, again):
        moved(each)
    assert equal(state_of(learner), state_of(again))
    for ours, theirs in zip(
        learner.optimizer.state.values(), again.optimizer.state.values(), strict=True
    ):
        for key, value in ours.items():
            assert (value.dtype, value.device) == (theirs[key].dtype, theirs[key].device)


def test_large_states_are_written_in_several_files(run, monkeypatch):
    monkeypatch.setattr(saved, "FILE_BYTES", 200_000)
    run, learner, states = run
    Checkpoints(run, learner, 2).save(4)
    assert len(names(checkpoint_path(run.checkpoints, 4))) > len(FILES) + 2
    moved(learner)
    assert Checkpoints(run, learner, 2).load(needs_best=False) == 4
    assert equal(state_of(learner), states[3])


def test_others_read_what_they_need_of_it(run, policy_and_tokenizer):
    run, learner, _ = run
    path = checkpoint_path(run.checkpoints, 3)
    weights = read_policy(path)
    found = dict(learner.policy.named_parameters())
    assert weights.keys() == found.keys()
    assert all(torch.equal(weights[name], found[name]) for name in found)
    moments, expected = read_second_moments(path, 0.95), second_moments(learner)
    assert moments.keys() == found.keys()
    assert all(torch.equal(moments[name], expected[name]) for name in found)
    flip_a_bit(path / STATE)
    for read in (read_policy, lambda path: read_second_moments(path, 0.95)):
        with pytest.raises(OpoError, match=f"{STATE}' is damaged"):
            read(path)


SAVER = """
import sys
from pathlib import Path
import torch
from opo_cli import files
from opo_cli.model.policy import load_policy
from opo_cli.presets import resolve
from opo_cli.records import RunFolder
from opo_cli.train.checkpoint import Checkpoints
from opo_cli.train.learner import new_learner

def stop(folder):
    print("there", flush=True)
    while True:
        pass

base, run = sys.argv[1:]
learner = new_learner(load_policy(base, torch.device("cpu"))[0], None, resolve("smoke"))
files._seal = stop
Checkpoints(RunFolder(Path(run)), learner, 2).save(4)
"""


def test_a_kill_while_one_is_written_costs_none(run, base: Path):
    run, learner, states = run
    kill_as_it_says("there", SAVER, str(base), str(run.path))
    scratch, *left = names(run.checkpoints)
    assert scratch.startswith(".writing-")
    assert left == ["step-000002", "step-000003"]
    assert Checkpoints(run, learner, 2).load(needs_best=False) == 3
    assert equal(state_of(learner), states[3])
    Checkpoints(run, learner, 2).save(4)
    assert names(run.checkpoints) == ["step-000003", "step-000004"]


def test_a_disk_that_is_full_keeps_the_ones_before(run):
    """The write itself fails, in torch, which hides why."""
    run, learner, _ = run
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(OSError, match="File too large") as caught:
            Checkpoints(run, learner, 2).save(4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.filename == str(checkpoint_path(run.checkpoints, 4))
    assert names(run.checkpoints) == ["step-000002", "step-000003"]


# --- whole runs -----------------------------------------------------------------------------------

RUN = ["train", "--preset", "smoke", "--set", "checkpoint.every=2"]


def content_of(folder: Path) -> dict[str, object]:
    """All that a run must share with the run never stopped, without what the clock says."""
    run = RunFolder(folder)
    clocks = ("seconds", "_per_second", "_gigabytes", "samples_file")

    def timeless(records):
        return [{k: v for k, v in r.items() if not k.endswith(clocks)} for r in records]

    return {
        "steps": timeless(run.steps()),
        "evals": timeless(run.evals()),
        "certificate": (folder / "certificate.json").read_bytes(),
        "rollouts": {path.name: path.read_bytes() for path in run.ledger.folder.iterdir()},
        "weights": (run.model / "model.safetensors").read_bytes(),
        "names": names(folder),
    }


def test_a_run_is_the_run_never_damaged_whatever_of_it_is_hit(base, in_tmp: Path, run_opo):
    """Each time another thing is hit; then the run goes on, or says what is damaged."""
    assert run_opo(*RUN, "--out", "whole").returncode == 0
    killed = [*RUN, "--out", "cut"]
    cut = in_tmp / "cut"
    killed_at_checkpoint(killed, cut, 4)
    flip_a_bit(cut / "checkpoints" / "step-000004" / STATE, 100_000)
    flip_a_bit(cut / "steps.jsonl")
    told = run_opo("list", "runs")  # Elsewhere: this run is not under runs/.
    assert told.returncode == 0
    refused = run_opo(*RUN, "--out", "cut")
    assert refused.returncode == 2
    assert "steps.jsonl:" in refused.stderr
    assert "opo train --resume --out cut" in refused.stderr
    resumed = run_opo("train", "--resume", "--out", "cut")
    assert resumed.returncode == 0, resumed.stderr
    assert f"step-000004/{STATE}' is damaged" in resumed.stderr
    assert "goes on from step 2" in resumed.stderr
    assert content_of(cut) == content_of(in_tmp / "whole")

    again = run_opo("train", "--resume", "--out", "cut")
    assert (again.returncode, "finished" in again.stderr) == (2, True)
    flip_a_bit(cut / "model" / "model.safetensors")
    for command in (
        ["eval", "tiny-easy", "--run", "cut"],
        ["eval", "tiny-easy", "--model", "cut/model"],
    ):
        refused = run_opo(*command)
        assert refused.returncode == 2
        assert "cut/model/model.safetensors' is damaged" in refused.stderr
        assert "Traceback" not in refused.stderr


def killed_at_checkpoint(arguments: list[str], folder: Path, step: int) -> None:
    script = f"""
import os, sys
from pathlib import Path
sys.argv = {["opo", *arguments]!r}
from opo_cli.train.checkpoint import Checkpoints
save = Checkpoints.save
def saved(self, step):
    save(self, step)
    if step == {step}:
        print("saved", flush=True)
        while True:
            pass
Checkpoints.save = saved
from opo_cli.cli import main
main(sys.argv[1:])
"""
    kill_as_it_says("saved", script)
