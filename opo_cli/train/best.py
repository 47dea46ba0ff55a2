"""The best weights so far by the validation split: sealed folders beside the checkpoints, one for
the run and one for each checkpoint that would go on with others."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from opo_cli.errors import OpoError
from opo_cli.files import check_seal, remove_folder, step_name, step_of
from opo_cli.model.parallel import from_main
from opo_cli.model.saved import read, tensors_of, write

PREFIX = "best-"
POLICY = "policy"


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
    return folder / step_name(step, PREFIX)


def save_best(folder: Path, policy, step: int) -> None:
    """Writes `folder/best-000020/`. Every rank has to come along."""
    target = best_path(folder, step)
    from_main(lambda: remove_folder(target))  # It may be of a step that was made again.
    write(target, tensors_of(policy, POLICY))


def drop_best(folder: Path, needed: Container[int | None]) -> None:
    """Those of other steps."""
    for path in folder.glob(f"{PREFIX}*"):
        if step_of(path) not in needed:
            remove_folder(path)


def load_best(folder: Path, policy, step: int) -> None:
    """Every rank has to come along.

    Raises:
        OpoError: the weights are gone or damaged, or another model's.
    """
    path = best_path(folder, step)
    from_main(lambda: _check(path))
    read(tensors_of(policy, POLICY), path)


def _check(path: Path) -> None:
    try:
        check_seal(path)
    except OpoError as error:
        raise OpoError(
            f"the best weights on the validation split: {error.message}",
            "--resume goes back to a checkpoint before them",
        ) from None
