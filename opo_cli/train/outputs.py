"""Which folder a run goes to, and whether it may: nothing is ever overwritten. No torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from opo_cli.config import Config, changed
from opo_cli.data.benchmarks import check_names
from opo_cli.data.training import check_source
from opo_cli.errors import OpoError
from opo_cli.evaluate.settings import check_evaluation
from opo_cli.files import SCRATCH, nearest_existing, write_json
from opo_cli.presets import completed, merged, parse_override, resolve, stored, validated
from opo_cli.records import RUNS, RunFolder, digest, environment, shaping
from opo_cli.train.warmstart import check_base


def default_name(config: Config) -> str:
    """`preset-algorithm-seedN`, and a hash where settings differ from the preset's own."""
    plain = resolve(config.preset, algorithm=config.algorithm.name, named={"seed": config.seed})
    name = f"{config.preset}-{config.algorithm.name}-seed{config.seed}"
    return name if plain == config else f"{name}-{digest(config.model_dump())[:6]}"


def default_folder(config: Config) -> RunFolder:
    return RunFolder(RUNS / default_name(config))


def stored_config(
    folder: RunFolder, named: Mapping[str, Any], overrides: Iterable[str] = ()
) -> Config:
    """The config that a run was started with, and what is said on top.

    Args:
        named: tables from the command's own options.
        overrides: `section.key=value` strings.

    Raises:
        OpoError: it was written by a version with other keys, or edited; an unknown key or value.
    """
    tables = merged(stored(folder).model_dump(mode="json"), named)
    for text in overrides:
        tables = merged(tables, parse_override(text))
    return validated(tables)


def with_ranks(config: Config, count: int) -> Config:
    """For so many ranks of torchrun as there are, whatever the preset was sized for."""
    return changed(config, {"runtime.num_gpus": count})


def check_data(config: Config) -> None:
    """Raises OpoError for an unknown benchmark, template or source, too few samples, or an embedded
    model that cannot be."""
    check_base(config)
    check_source(config.data)
    check_evaluation(config)
    check_names(config.data.audit)


def check_run(config: Config, folder: RunFolder, *, resume: bool) -> None:
    """Checks that `folder` may take this run; writes nothing, but tidies up behind a finished one
    that was killed as it did.

    Raises:
        OpoError: the folder holds something else, a finished run, or one that `resume` does not
            allow to go on.
    """
    if not folder.exists:
        if resume:
            raise OpoError(f"there is no run to resume at '{folder.path}'", "leave --resume out")
        if folder.path.exists() and not _is_unused(folder.path):
            raise OpoError(
                f"'{folder.path}' exists and is no run folder", "choose another with --out"
            )
        check_writable(folder.path)
        return
    difference = difference_from(config, folder)
    if difference:
        raise OpoError(
            f"'{folder.path}' holds another configuration's run: {difference}",
            "choose another folder with --out",
        )
    if folder.is_finished:
        with suppress(OSError), folder.locked():
            pass  # It may have been killed as it tidied up.
        raise OpoError(
            f"'{folder.path}' holds this very run, finished",
            f"opo eval --run {folder.path} BENCHMARK, or run it anew with --out",
        )
    done = 0 if resume else len(folder.steps())  # Resuming puts a damaged log back.
    if done:
        raise OpoError(
            f"'{folder.path}' holds this run, stopped after step {done}",
            "--resume goes on; --out starts another",
        )


def _is_unused(path: Path) -> bool:
    """An empty folder, or one where a start did not come as far as its config."""
    return path.is_dir() and all(
        entry.name == "environment.json" or entry.name.startswith(SCRATCH)
        for entry in path.iterdir()
    )


def difference_from(config: Config, folder: RunFolder) -> str:
    """The first setting that shapes results in which a run differs from `config`, in words."""
    there, here = completed(folder.config()), config.model_dump(mode="json")
    return first_difference(shaping(there), shaping(here))


def check_writable(path: Path) -> None:
    """Raises OpoError where `path` cannot be made: told now, not after the base is trained."""
    place = nearest_existing(path)
    if not os.access(place, os.W_OK | os.X_OK):
        raise OpoError(f"cannot write '{path}': '{place}' is not yours to write", "choose --out")


def start_run(config: Config, folder: RunFolder, **facts: Any) -> None:
    """Puts a new run on disk; config.json, which makes it a run, comes last. A run that is gone on
    with keeps what is said of it now: settings of memory, speed and instruments alone can differ
    (`check_run`)."""
    tables = config.model_dump(mode="json")
    if not folder.exists:
        write_json(folder.path / "environment.json", environment(seed=config.seed, **facts))
    elif folder.config() == tables:
        return
    write_json(folder.path / "config.json", tables)


def first_difference(there: Any, here: Any, key: str = "") -> str:
    """The first setting in which two configs differ, in words; empty where none does."""
    if isinstance(there, dict) and isinstance(here, dict):
        for name in dict.fromkeys([*here, *there]):
            found = first_difference(there.get(name), here.get(name), f"{key}.{name}".lstrip("."))
            if found:
                return found
        return ""
    return "" if there == here else f"{key} is {there!r} there, {here!r} here"
