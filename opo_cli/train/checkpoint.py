"""Checkpoints: written under a temporary name and renamed, the newest `keep` are kept.

A checkpoint is what cannot be rebuilt: weights, optimizer state, the step. Prompts and sampling
follow from (seed, step, row), so there is no data or random state to save.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import torch

from opo_cli.errors import OpoError
from opo_cli.records import disk_errors
from opo_cli.train.learner import Learner

PREFIX = "step-"


def _state(learner: Learner, step: int) -> dict:
    state = {
        "step": step,
        "policy": learner.policy.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
    }
    if learner.critic is not None:
        state["critic"] = learner.critic.state_dict()
        state["critic_optimizer"] = learner.critic_optimizer.state_dict()
    return state


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"{PREFIX}{step:06d}.pt"


def save_checkpoint(folder: Path, learner: Learner, step: int, keep: int) -> Path:
    """Writes `folder/step-000020.pt` and drops all but the newest `keep`."""
    target = checkpoint_path(folder, step)
    write_state(target, _state(learner, step))
    for old in list_checkpoints(folder)[:-keep]:
        old.unlink()
    return target


def write_state(target: Path, state: dict) -> None:
    """`target` is whole or not there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".writing-") as scratch:
        written = Path(scratch) / target.name
        with disk_errors(target), written.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        written.replace(target)


def list_checkpoints(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted(folder.glob(f"{PREFIX}*.pt")) if folder.is_dir() else []


def load_checkpoint(folder: Path, learner: Learner) -> int:
    """Restores the newest checkpoint; returns its step, 0 where there is none.

    Raises:
        OpoError: the newest checkpoint is damaged.
    """
    found = list_checkpoints(folder)
    if not found:
        return 0
    path = found[-1]
    try:
        state = torch.load(path, map_location=learner.policy.device, weights_only=True)
        learner.policy.load_state_dict(state["policy"])
        learner.optimizer.load_state_dict(state["optimizer"])
        if learner.critic is not None:
            learner.critic.load_state_dict(state["critic"])
            learner.critic_optimizer.load_state_dict(state["critic_optimizer"])
    except Exception as error:  # A damaged file surfaces as almost any type.
        raise OpoError(
            f"checkpoint '{path}' does not load: {type(error).__name__}",
            "remove it: --resume then takes the one before, or starts anew",
        ) from error
    return state["step"]


def remove_checkpoints(folder: Path) -> None:
    """A finished run needs none; its weights are in `model/`."""
    shutil.rmtree(folder, ignore_errors=True)
