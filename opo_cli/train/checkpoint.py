"""Checkpoints: sealed folders, the newest `keep` of them.

A checkpoint is what cannot be rebuilt: weights, optimizer state, the step, and the logs up to it.
Prompts and sampling follow from (seed, step, row), so there is no data or random state to save.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from opo_cli.console import warn
from opo_cli.errors import OpoError
from opo_cli.files import check_seal, make_folder, remove_folder, sync_tree
from opo_cli.lines import read_lines
from opo_cli.records import EVALS, RunFolder
from opo_cli.train.best import best_path, best_step, drop_best, write_state
from opo_cli.train.learner import Learner

PREFIX = "step-"
STATE = "state.pt"


def _state(learner: Learner, step: int) -> dict[str, Any]:
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
    return folder / f"{PREFIX}{step:06d}"


def list_checkpoints(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if path.is_dir())


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix(PREFIX))


def save_checkpoint(run: RunFolder, learner: Learner, step: int, keep: int) -> Path:
    """Writes `checkpoints/step-000020/`. When that is on the disk, drops all but the newest `keep`,
    and best weights that none of these goes on with."""

    def fill(scratch: Path) -> None:
        write_state(_state(learner, step), scratch / STATE)
        run.copy_logs(scratch)

    target = checkpoint_path(run.checkpoints, step)
    if run.ledger.steps():
        sync_tree(run.ledger.folder)
    make_folder(target, fill)
    for old in list_checkpoints(run.checkpoints)[:-keep]:
        remove_folder(old)
    drop_best(run.checkpoints, _needed_best(run))
    return target


def _needed_best(run: RunFolder) -> set[int | None]:
    """Steps whose weights the run may end with, gone on from where it is or from a checkpoint."""
    checkpoints = list_checkpoints(run.checkpoints)
    return {best_step(run.evals()), *(_best_of(checkpoint) for checkpoint in checkpoints)}


def _best_of(checkpoint: Path) -> int | None:
    try:
        return best_step(read_lines(checkpoint / EVALS))
    except OpoError:  # Damaged: nothing goes on from it.
        return None


def load_checkpoint(run: RunFolder, learner: Learner, *, needs_best: bool) -> int:
    """Makes the run what it was at its newest whole checkpoint, logs included; returns its step, 0
    where there is none. Damaged ones are told and removed.

    Args:
        needs_best: a checkpoint counts as whole only with the best weights up to its step.

    Raises:
        OpoError: a whole checkpoint is not one of this model.
    """
    damaged: dict[Path, str] = {}
    found: Path | None = None
    for path in reversed(list_checkpoints(run.checkpoints)):
        try:
            _check(run, path, needs_best=needs_best)
        except OpoError as error:
            damaged[path] = error.message
            continue
        found = path
        break
    step = _restore(found, learner) if found else 0
    _check_not_older(run.checkpoints)
    run.go_back(step, found)
    if damaged:
        warn(f"{'; '.join(damaged.values())}: the run goes on from step {step}, as it was then")
    for path in damaged:
        remove_folder(path)
    drop_best(run.checkpoints, _needed_best(run))
    return step


def _check(run: RunFolder, path: Path, *, needs_best: bool) -> None:
    """Raises OpoError where the run cannot go on from a checkpoint as if it had never stopped."""
    check_seal(path)
    best = _best_of(path)
    if needs_best and best not in (None, _step_of(path)):  # Its own are evaluated again.
        check_seal(best_path(run.checkpoints, best))


def _restore(path: Path, learner: Learner) -> int:
    try:
        state = torch.load(path / STATE, map_location=learner.policy.device, weights_only=True)
        learner.policy.load_state_dict(state["policy"])
        learner.optimizer.load_state_dict(state["optimizer"])
        if learner.critic is not None:
            learner.critic.load_state_dict(state["critic"])
            learner.critic_optimizer.load_state_dict(state["critic_optimizer"])
    except Exception as error:  # What does not fit surfaces as almost any type.
        raise OpoError(
            f"checkpoint '{path}' is whole and does not load: {type(error).__name__}",
            "go on with the version of torch that wrote it, or start anew with --out",
        ) from error
    return state["step"]


def _check_not_older(folder: Path) -> None:
    """Raises OpoError rather than begin a run anew whose checkpoints we no longer read."""
    for path in folder.glob(f"{PREFIX}*.pt"):
        raise OpoError(
            f"'{path}' is a checkpoint of an older version",
            "go on with that version, or start anew with --out",
        )
