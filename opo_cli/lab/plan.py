"""From what `opo lab` is asked to policies with their folders. No torch: a lab that is finished is
read without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opo_cli.config import Config
from opo_cli.data.benchmarks import benchmark_title, check_names, load_benchmark
from opo_cli.data.prompts import check_template
from opo_cli.data.training import data_folder, prepare_data
from opo_cli.errors import OpoError
from opo_cli.files import SCRATCH, step_name
from opo_cli.lab.settings import CODE, PolicySource, Request, check_count, settings_of
from opo_cli.lab.store import LabFolder
from opo_cli.model.folder import policy_id
from opo_cli.records import digest, source_digest

LABS = Path("labs")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabPlan:
    """One policy's lab."""

    source: PolicySource
    settings: Mapping[str, Any]
    folder: LabFolder


def training_file(config: Config, asked: Request) -> Path | None:
    """Of the training problems, made where it is missing; None where others are measured.

    Raises:
        OpoError: the problems cannot be had, or are fewer than asked for.
    """
    check_template(config.data.template)
    if asked.problems:
        check_names([asked.problems])
        check_count(asked, len(load_benchmark(asked.problems, config.eval.columns).problems))
        return None
    training = prepare_data(config) / "train.jsonl"
    with training.open("rb") as lines:
        check_count(asked, sum(1 for _ in lines))
    return training


def plan_lab(
    config: Config, asked: Request, sources: Sequence[PolicySource], out: Path | None, first: str
) -> list[LabPlan]:
    """
    Args:
        out: None: `default_folder`.
        first: how that begins.

    Raises:
        OpoError: a folder holds something else.
    """
    settings = [_settings(config, asked, source) for source in sources]
    folder = out or _default_folder(first, settings)
    plans = []
    for source, of_policy in zip(sources, settings, strict=True):
        path = folder if len(sources) == 1 else folder / step_name(source.step)
        plan = LabPlan(source=source, settings=of_policy, folder=LabFolder(path))
        check_folder(plan, asked)
        plans.append(plan)
    return plans


def _settings(config: Config, asked: Request, source: PolicySource) -> dict[str, Any]:
    if asked.problems:
        found = load_benchmark(asked.problems, config.eval.columns)
        problems = {"name": benchmark_title(asked.problems), "sha256": found.sha256}
    else:
        problems = {"name": "training problems", "sha256": data_folder(config).name}
    return settings_of(config, asked, source, policy_id=_policy_id(source), problems=problems)


def _policy_id(source: PolicySource) -> str:
    """What tells these weights from others."""
    if source.checkpoint is None:
        return policy_id(source.path)
    state = source.checkpoint.stat()
    return digest(policy_id(source.path), state.st_size, state.st_mtime_ns)


def check_folder(plan: LabPlan, asked: Request) -> None:
    """Whether the lab may be made, or gone on with, where it is to be. Code counts only as long as
    something is missing: what is measured stays measured.

    Raises:
        OpoError: no.
    """
    folder = plan.folder
    if not folder.exists:
        if folder.path.exists() and not _is_unused(folder.path):
            raise OpoError(
                f"'{folder.path}' exists and is no lab folder", "choose another with --out"
            )
        return
    found = folder.settings
    for name, here in plan.settings.items():
        there = found.get(name)
        if there != here:
            raise OpoError(
                f"'{folder.path}' holds another lab: {name} is {there!r} there, {here!r} here",
                "choose another folder with --out",
            )
    if folder.is_whole != (asked.memory_gigabytes >= folder.whole_gigabytes):
        there, side = ("whole", "above") if folder.is_whole else ("projected", "below")
        raise OpoError(
            f"'{folder.path}' holds another lab: gradients are {there} there, but not with "
            f"--memory {asked.memory_gigabytes:g}",
            f"choose another folder with --out, or --memory {side} {folder.whole_gigabytes:.3g}",
        )
    if not folder.missing():
        return
    if folder.code != source_digest(*CODE):
        raise OpoError(
            f"'{folder.path}' was begun by another version of this program",
            "start anew with --out, or remove it",
        )
    with folder.locked():  # Nobody else is at it: told now, not when a model has been loaded.
        pass


def _is_unused(path: Path) -> bool:
    """A folder with nothing, or with what a process that was killed at the start has left."""
    return path.is_dir() and all(each.name.startswith(SCRATCH) for each in path.iterdir())


def _default_folder(first: str, settings: Sequence[Mapping[str, Any]]) -> Path:
    """`labs/tiny-1a2b3c`: the hash is of all that shapes it."""
    return LABS / f"{first}-{digest(list(settings))[:6]}"
