"""The best weights so far by the validation split: sealed folders beside the checkpoints, one for
the run and one for each checkpoint that would go on with others."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from opo_cli.errors import OpoError
from opo_cli.files import check_seal, make_folder, remove_folder

PREFIX = "best-"
WEIGHTS = "weights.pt"


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


def best_path(folder: Path, step: int) -> Path:
    return folder / f"{PREFIX}{step:06d}"


def write_state(state: dict[str, Any], path: Path) -> None:
    """Through Python's own file, which says why it cannot be written where torch's does not."""
    with path.open("wb") as file:
        torch.save(state, file)


def save_best(folder: Path, policy, step: int) -> None:
    """Writes `folder/best-000020/`."""
    target = best_path(folder, step)
    remove_folder(target)  # What is there may be of a step that was made again.
    make_folder(target, lambda scratch: write_state(policy.state_dict(), scratch / WEIGHTS))


def drop_best(folder: Path, needed: Container[int | None]) -> None:
    """Those of other steps."""
    for path in folder.glob(f"{PREFIX}*"):
        if int(path.name.removeprefix(PREFIX)) not in needed:
            remove_folder(path)


def load_best(folder: Path, policy, step: int) -> None:
    """
    Raises:
        OpoError: the weights are gone or damaged.
    """
    path = best_path(folder, step)
    try:
        check_seal(path)
    except OpoError as error:
        raise OpoError(
            f"the best weights on the validation split: {error.message}",
            "--resume goes back to a checkpoint before them",
        ) from None
    try:
        state = torch.load(path / WEIGHTS, map_location=policy.device, weights_only=True)
        policy.load_state_dict(state)
    except Exception as error:  # What does not fit surfaces as almost any type.
        raise OpoError(
            f"the best weights '{path}' are whole and do not load: {type(error).__name__}",
            "go on with the version of torch that wrote them, or start anew with --out",
        ) from error
