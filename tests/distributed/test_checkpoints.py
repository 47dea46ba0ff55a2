"""Checkpoints of many ranks and of one process: each goes on with the other's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from opo_cli.model.export import save_policy
from opo_cli.model.policy import load_policy
from opo_cli.presets import resolve
from opo_cli.records import RunFolder
from opo_cli.train.checkpoint import Checkpoints, checkpoint_path
from opo_cli.train.learner import Learner, new_learner
from opo_cli.train.snapshots import MOMENTS, second_moments
from tests.damage import flip_a_bit, names
from tests.distributed import launch
from tests.distributed.checkpointing import move

PROGRAM = ("-m", "tests.distributed.checkpointing")


def on_ranks(
    count: int, base: Path, tasks: dict[str, RunFolder]
) -> subprocess.CompletedProcess[str]:
    """Does the tasks, each with its run."""
    words = [word for task, run in tasks.items() for word in (task, str(run.path))]
    return subprocess.run(
        launch.command(*PROGRAM, str(base), *words, ranks=count),
        cwd=launch.ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def learner_of(base: Path) -> Learner:
    policy, _ = load_policy(str(base), torch.device("cpu"))
    return new_learner(policy, None, resolve("smoke", algorithm="ppo"))


def state_of(learner: Learner) -> dict[str, torch.Tensor]:
    """Weights and AdamW's state, copied."""
    found = {}
    for name in ("policy", "critic"):
        optimizer = learner.optimizer if name == "policy" else learner.critic_optimizer
        for parameter, value in getattr(learner, name).named_parameters():
            found[f"{name}.{parameter}"] = value.detach().clone()
            for key, each in optimizer.state.get(value, {}).items():
                found[f"{name}.{parameter}.{key}"] = each.clone()
    return found


def equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


@pytest.fixture(scope="module")
def states(base: Path) -> list[dict[str, torch.Tensor]]:
    """Of a process by itself, by number of moves."""
    learner = learner_of(base)
    found = [state_of(learner)]
    for _ in range(4):
        move(learner)
        found.append(state_of(learner))
    return found


@pytest.fixture(scope="module")
def runs(base: Path, tmp_path_factory) -> dict[str, RunFolder]:
    """Who wrote its first two checkpoints -> run; two ranks then went on with either."""
    place = tmp_path_factory.mktemp("runs")
    found = {name: RunFolder(place / name) for name in ("two ranks", "one process")}
    for run in found.values():
        run.path.mkdir()
    learner, run = learner_of(base), found["one process"]
    for step in (1, 2):
        run.add_step({"step": step})
        move(learner)
        Checkpoints(run, learner, 3).save(step)
    done = on_ranks(2, base, {"write": found["two ranks"], "go on": run})
    assert done.returncode == 0, done.stderr
    return found


@pytest.fixture
def written(runs) -> RunFolder:
    return runs["two ranks"]


def copied(run: RunFolder, place: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(run.path, place / "run")))


def cut_to(run: RunFolder, step: int) -> None:
    """As if the run had been killed right behind that step's checkpoint."""
    for path in run.checkpoints.glob("step-*"):
        if int(path.name[5:]) > step:
            shutil.rmtree(path)


@pytest.mark.parametrize(("step", "num_moves"), [(1, 0), (2, 2), (3, 3)])
def test_one_process_goes_on_with_what_two_ranks_wrote(
    step: int, num_moves: int, written, base, states, tmp_path: Path
):
    """Also where weights changed while the files were written (2), and where AdamW had no state
    yet (1)."""
    run = copied(written, tmp_path)
    assert names(run.checkpoints) == ["best-000003", *(f"step-00000{i}" for i in (1, 2, 3))]
    cut_to(run, step)
    learner = learner_of(base)
    assert Checkpoints(run, learner, 2).load(needs_best=False) == step
    assert equal(state_of(learner), states[num_moves])
    assert [record["step"] for record in run.steps()] == list(range(1, step + 1))
    move(learner)
    assert equal(state_of(learner), states[num_moves + 1])


def test_two_ranks_go_on_with_what_one_process_wrote(runs, base, states):
    run, learner = runs["one process"], learner_of(base)
    assert names(run.checkpoints)[-3:] == [f"step-00000{i}" for i in (1, 2, 3)]
    assert Checkpoints(run, learner, 3).load(needs_best=False) == 3
    assert equal(state_of(learner), states[3])


def test_three_ranks_go_on_with_what_two_wrote(written, base, states, tmp_path: Path):
    """The newest is damaged, which is told once."""
    run = copied(written, tmp_path)
    flip_a_bit(next(checkpoint_path(run.checkpoints, 3).glob("*.safetensors")))
    done = on_ranks(3, base, {"go on": run})
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is damaged") == 1
    learner = learner_of(base)
    assert Checkpoints(run, learner, 3).load(needs_best=False) == 3
    assert equal(state_of(learner), states[3])


def test_models_of_two_ranks_are_those_of_one_process(written, base, states, tmp_path: Path):
    """The model, the best weights and a snapshot: the files' bytes."""
    learner, tokenizer = learner_of(base), load_policy(str(base), torch.device("cpu"))[1]
    for _ in range(3):
        move(learner)
    save_policy(learner.policy, tokenizer, tmp_path / "model")
    for folder in (written.model, written.path / "best", written.snapshot(3)):
        assert json.loads((folder / "config.json").read_text())["architectures"] == [
            "Qwen2ForCausalLM"
        ]
        for path in (tmp_path / "model").iterdir():
            if path.name != "manifest.json":
                assert (folder / path.name).read_bytes() == path.read_bytes(), path.name
    policy, _ = load_policy(str(written.model), torch.device("cpu"))
    for name, value in policy.named_parameters():
        assert torch.equal(value, states[3][f"policy.{name}"])
    moments, expected = load_file(written.snapshot(3) / MOMENTS), second_moments(learner)
    assert equal(moments, expected)


@pytest.mark.parametrize("task", ["die writing", "die sealing"])
def test_a_rank_that_is_killed_leaves_no_half_checkpoint(task: str, base, states, tmp_path: Path):
    run, started = RunFolder(tmp_path / "run"), time.monotonic()
    run.path.mkdir()
    done = on_ranks(2, base, {task: run})
    assert done.returncode != 0
    assert " dies" in done.stdout
    assert time.monotonic() - started < 60, done.stderr
    assert {"step-000001"} <= set(names(run.checkpoints))
    assert not checkpoint_path(run.checkpoints, 2).exists()
    learner = learner_of(base)
    checkpoints = Checkpoints(run, learner, 2)
    assert checkpoints.load(needs_best=False) == 1
    assert equal(state_of(learner), states[0])
    checkpoints.save(2)
    assert names(run.checkpoints) == ["step-000001", "step-000002"]
