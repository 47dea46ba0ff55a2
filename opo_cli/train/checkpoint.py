"""Checkpoints: sealed folders, the newest `keep` of them.

A checkpoint is what cannot be rebuilt: weights, AdamW's state, the step (in its name), and the logs
up to it. Prompts and sampling follow from (seed, step, row), so there is no data or random state to
save. Any number of ranks goes on with what any other has written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import Future
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from opo_cli.console import warn
from opo_cli.errors import OpoError
from opo_cli.files import STEP_PREFIX, check_seal, remove_folder, step_name, step_of, sync_tree
from opo_cli.lines import read_lines
from opo_cli.model.parallel import from_main, is_joined, on_all_ranks
from opo_cli.model.saved import names_in, read, read_whole, tensors_of, write, write_later
from opo_cli.model.sharding import put_away
from opo_cli.ranks import is_main
from opo_cli.records import EVALS, RunFolder
from opo_cli.train.best import best_path, best_step, drop_best
from opo_cli.train.learner import Learner
from opo_cli.train.snapshots import unbiased

POLICY, OPTIMIZER = "policy", "optimizer"
MODULES = ((POLICY, OPTIMIZER), ("critic", "critic_optimizer"))
"""Of a `Learner`, and what their tensors are called after in a checkpoint."""


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / step_name(step)


def list_checkpoints(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted(path for path in folder.glob(f"{STEP_PREFIX}*") if path.is_dir())


class Checkpoints:
    """Of a run that goes on. Every rank has to come along in all that is called here."""

    def __init__(self, run: RunFolder, learner: Learner, keep: int):
        self._run, self._learner, self._keep = run, learner, keep
        self._group = dist.new_group(backend="gloo") if is_joined() else None
        self._writing: Future[None] | None = None

    def save(self, step: int) -> None:
        """Writes `checkpoints/step-000020/`: where ranks share the work, in the background. When it
        is on the disk, drops all but the newest `keep`, and best weights that none of these goes on
        with.

        Raises:
            OSError: it, or the one before, cannot be written.
        """
        self.finish()
        target = checkpoint_path(self._run.checkpoints, step)
        from_main(self._sync_ledger)
        if self._group is None:
            write(target, _state(self._learner), self._run.copy_logs)
            self._drop_old()
        else:
            state, logs = _state(self._learner), self._run.copy_logs
            self._writing = write_later(target, state, self._group, logs)

    def finish(self) -> None:
        """Waits for what is being written in the background; raises what was raised there. May be
        called again where a signal has ended the wait."""
        on_all_ranks(self._finish)

    def _finish(self) -> None:
        if self._writing is None:
            return
        try:
            self._writing.result()
        finally:
            if self._writing.done():
                self._writing = None
        if is_main():
            self._drop_old()

    def _sync_ledger(self) -> None:
        if self._run.ledger.steps():
            sync_tree(self._run.ledger.folder)

    def _drop_old(self) -> None:
        folder = self._run.checkpoints
        for old in list_checkpoints(folder)[: -self._keep]:
            remove_folder(old)
        drop_best(folder, _needed_best(self._run))

    def load(self, *, needs_best: bool) -> int:
        """Makes the run what it was at its newest whole checkpoint, logs included; returns its
        step, 0 where there is none. Damaged ones are told and removed.

        Args:
            needs_best: a checkpoint counts as whole only with the best weights up to its step.

        Raises:
            OpoError: a whole checkpoint is not one of this model.
        """
        self.finish()
        run = self._run
        found, damaged = from_main(lambda: _newest_whole(run, needs_best=needs_best))
        if found:
            _restore(found, self._learner)
        step = step_of(found) if found else 0
        from_main(lambda: _go_back(run, step, found, damaged))
        return step


# --- the run's files ------------------------------------------------------------------------------


def _needed_best(run: RunFolder) -> set[int | None]:
    """Steps whose weights the run may end with, gone on from where it is or from a checkpoint."""
    checkpoints = list_checkpoints(run.checkpoints)
    return {best_step(run.evals()), *(_best_of(checkpoint) for checkpoint in checkpoints)}


def _best_of(checkpoint: Path) -> int | None:
    try:
        return best_step(read_lines(checkpoint / EVALS))
    except OpoError:  # Damaged: nothing goes on from it.
        return None


def _newest_whole(run: RunFolder, *, needs_best: bool) -> tuple[Path | None, dict[Path, str]]:
    """(the newest checkpoint that the run can go on from, what is damaged of newer ones)."""
    _check_not_older(run.checkpoints)
    damaged: dict[Path, str] = {}
    for path in reversed(list_checkpoints(run.checkpoints)):
        try:
            _check(run, path, needs_best=needs_best)
        except OpoError as error:
            damaged[path] = error.message
            continue
        return path, damaged
    return None, damaged


def _check(run: RunFolder, path: Path, *, needs_best: bool) -> None:
    """Raises OpoError where the run cannot go on from a checkpoint as if it had never stopped."""
    check_seal(path)
    best = _best_of(path)
    if needs_best and best not in (None, step_of(path)):  # Its own are evaluated again.
        check_seal(best_path(run.checkpoints, best))


def _check_not_older(folder: Path) -> None:
    """Raises OpoError rather than begin a run anew whose checkpoints we no longer read."""
    for path in (*folder.glob(f"{STEP_PREFIX}*.pt"), *folder.glob(f"{STEP_PREFIX}*/state.pt")):
        raise OpoError(
            f"'{path}' is a checkpoint of an older version",
            "go on with that version, or start anew with --out",
        )


def _go_back(run: RunFolder, step: int, found: Path | None, damaged: dict[Path, str]) -> None:
    run.go_back(step, found)
    if damaged:
        warn(f"{'; '.join(damaged.values())}: the run goes on from step {step}, as it was then")
    for path in damaged:
        remove_folder(path)
    drop_best(run.checkpoints, _needed_best(run))


# --- what they hold -------------------------------------------------------------------------------


def _state(learner: Learner) -> dict[str, Tensor]:
    """Name -> tensor, of weights and of what AdamW keeps of each; nothing of those that it has not
    moved yet."""
    found: dict[str, Tensor] = {}
    for name, optimizer, parts in _modules(learner):
        found |= tensors_of(parts, name)
        for parameter, tensor in parts.named_parameters():
            for key, value in getattr(learner, optimizer).state.get(tensor, {}).items():
                found[f"{optimizer}.{parameter}.{key}"] = value
    return found


def _modules(learner: Learner) -> Iterator[tuple[str, str, nn.Module]]:
    """(its name, its optimizer's, the module), of those that there are."""
    for name, optimizer in MODULES:
        if getattr(learner, name) is not None:
            yield name, optimizer, getattr(learner, name)


def _restore(path: Path, learner: Learner) -> None:
    """Raises OpoError where it does not fit."""
    kept = from_main(lambda: names_in(path))
    for _, optimizer, parts in _modules(learner):
        _make_room(getattr(learner, optimizer), parts, optimizer, kept)
    read(_state(learner), path)


def _make_room(
    optimizer: torch.optim.Optimizer, module: nn.Module, prefix: str, kept: Collection[str]
) -> None:
    """Gives an AdamW the state that a checkpoint holds of it, as it makes it in its first step."""
    put_away(module)
    for name, parameter in module.named_parameters():
        optimizer.state.pop(parameter, None)
        if f"{prefix}.{name}.step" in kept:
            optimizer.state[parameter] = {
                "step": torch.tensor(0.0),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }


# --- readers beside the run -----------------------------------------------------------------------


def read_policy(path: Path) -> dict[str, Tensor]:
    """Parameter's name -> value, in host memory; of tied ones, the first name. For a process by
    itself.

    Raises:
        OpoError: the checkpoint is damaged.
    """
    check_seal(path)
    found = read_whole(path, lambda name: name.startswith(f"{POLICY}."))
    return {name.removeprefix(f"{POLICY}."): tensor for name, tensor in found.items()}


def read_second_moments(path: Path, beta2: float) -> dict[str, Tensor]:
    """Parameter's name -> AdamW's running mean of squared gradients, bias-corrected; otherwise as
    `read_policy`."""
    check_seal(path)
    of, step = ".exp_avg_sq", ".step"
    found = read_whole(
        path, lambda name: name.startswith(f"{OPTIMIZER}.") and name.endswith((of, step))
    )
    names = [name.removesuffix(of) for name in found if name.endswith(of)]
    return {
        name.removeprefix(f"{OPTIMIZER}."): unbiased(found[name + of], found[name + step], beta2)
        for name in names
    }
