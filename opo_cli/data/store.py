"""Problems that were fetched once: a folder under the cache with `problems.jsonl` and
`source.json`. It is checked against its hashes whenever it is read, and needs neither a network
nor the hub's libraries."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opo_cli.console import warn
from opo_cli.data.sources import load_problems, save_problems
from opo_cli.errors import OpoError
from opo_cli.records import cache_folder, digest, make_folder, read_json, write_json
from opo_cli.types import Problem, ProblemSet

FORMAT = 1
"""Raised when decoding changes its results: older copies are then fetched anew. A hash of our
source would cost every user without a network their copies whenever a comment changes."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A stored set with what is known of it."""

    problems: ProblemSet
    file: Path
    counts: dict[str, int] = field(default_factory=dict)


def problem_set(
    name: str, problems: Sequence[Problem], *, source: str, revision: str = ""
) -> ProblemSet:
    """A ProblemSet with its hash."""
    texts = [[p.id, p.question, p.answer] for p in problems]
    return ProblemSet(
        name=name,
        problems=tuple(problems),
        source=source,
        revision=revision,
        sha256=hashlib.sha256(json.dumps(texts).encode()).hexdigest(),
    )


def kept_folder(name: str, *shape: Any) -> Path:
    """Where the set called `name` is, or will be; `shape` is all that its content depends on."""
    plain = re.sub(r"[^\w.-]+", "__", name).strip(".")
    return cache_folder() / "problems" / f"{plain}-{digest(FORMAT, *shape)}"


def load_or_make(folder: Path, make: Callable[[], tuple[ProblemSet, dict[str, int]]]) -> Kept:
    """The set in `folder`; where there is none, or a damaged one, it is made.

    Args:
        make: fetches the set; with counts of what became of its rows.
    """
    if folder.is_dir():
        try:
            return _load(folder)
        except OpoError as error:
            warn(f"{error.message}: damaged, fetching it again")
    problems, counts = make()
    shutil.rmtree(folder, ignore_errors=True)  # Only now: a damaged copy may still be of use.
    make_folder(folder, lambda scratch: _save(problems, counts, scratch))
    return Kept(problems, folder / "problems.jsonl", counts)


def _save(problems: ProblemSet, counts: dict[str, int], folder: Path) -> None:
    file = folder / "problems.jsonl"
    save_problems(problems.problems, file)
    facts = {
        "name": problems.name,
        "source": problems.source,
        "revision": problems.revision,
        "sha256": problems.sha256,
        "file_sha256": file_sha256(file),
        "counts": counts,
    }
    write_json(folder / "source.json", facts)


def _load(folder: Path) -> Kept:
    """Raises OpoError where it is not what was saved."""
    file = folder / "problems.jsonl"
    try:
        facts = read_json(folder / "source.json")
        found = file_sha256(file)
        if found != facts["file_sha256"]:
            raise OpoError(f"{file} has sha256 {found[:12]}, not {facts['file_sha256'][:12]}", "")
        known = {key: facts[key] for key in ("name", "source", "revision", "sha256")}
        counts = facts["counts"]
    except (FileNotFoundError, KeyError, TypeError) as error:
        raise OpoError(f"{folder} is not whole ({error})", "") from None
    return Kept(ProblemSet(problems=tuple(load_problems(file)), **known), file, counts)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
