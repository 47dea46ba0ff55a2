"""The best weights so far by the validation split: one copy beside the checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from opo_cli.errors import OpoError
from opo_cli.train.checkpoint import write_state

PREFIX = "best-"


def best_step(records: Iterable[Mapping[str, Any]]) -> int | None:
    """The step with the highest mean avg@n over the validation benchmarks, of equals the earliest;
    None where none has been evaluated.

    Args:
        records: of evals.jsonl; those of the initial and of the final policy do not count.
    """
    found: dict[int, list[float]] = {}
    for record in records:
        if record["policy"] == "step" and record.get("split") == "validation":
            found.setdefault(record["step"], []).append(record["accuracy"])
    means = {step: sum(values) / len(values) for step, values in sorted(found.items())}
    return max(means, key=means.__getitem__, default=None)


def _path(folder: Path, step: int) -> Path:
    return folder / f"{PREFIX}{step:06d}.pt"


def is_best_kept(folder: Path, records: Iterable[Mapping[str, Any]], step: int) -> bool:
    """Whether a run that goes on behind `step` can still end with the best weights so far: they are
    in `folder`, or those of `step` itself, which is evaluated again."""
    best = best_step(records)
    return best in (None, step) or _path(folder, best).exists()


def save_best(folder: Path, policy, step: int) -> None:
    """Writes `folder/best-000020.pt`, and drops what was the best before."""
    target = _path(folder, step)
    write_state(target, policy.state_dict())  # What is there may be of a step that is made again.
    for old in folder.glob(f"{PREFIX}*.pt"):
        if old != target:
            old.unlink()


def load_best(folder: Path, policy, step: int) -> None:
    """
    Raises:
        OpoError: the weights are gone or damaged.
    """
    path = _path(folder, step)
    try:
        policy.load_state_dict(torch.load(path, map_location=policy.device, weights_only=True))
    except Exception as error:  # A damaged file surfaces as almost any type.
        raise OpoError(
            f"the best weights '{path}' do not load: {type(error).__name__}",
            "without them the run's checkpoint rule cannot be kept: start it anew with --out",
        ) from error
