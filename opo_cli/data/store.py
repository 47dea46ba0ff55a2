"""Problems that were fetched once: a sealed folder under the cache with `problems.jsonl` and
`source.json`. It needs neither a network nor the hub's libraries."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opo_cli.console import warn
from opo_cli.data.sources import load_problems, save_problems
from opo_cli.errors import OpoError
from opo_cli.files import check_seal, make_folder, read_json, write_json
from opo_cli.records import cache_folder, digest
from opo_cli.types import Problem, ProblemSet

FORMAT = 2
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


def is_kept(folder: Path) -> bool:
    """Whether a sealed folder of the cache is there and whole; a damaged one is told."""
    if not folder.is_dir():
        return False
    try:
        check_seal(folder)
    except OpoError as error:
        warn(f"{error.message}; made again")
        return False
    return True


def load_or_make(folder: Path, make: Callable[[], tuple[ProblemSet, dict[str, int]]]) -> Kept:
    """The set in `folder`; where there is none, or a damaged one, it is made.

    Args:
        make: fetches the set; with counts of what became of its rows.
    """
    if is_kept(folder):
        return _load(folder)
    problems, counts = make()  # Only then a damaged copy goes, which may still be of use.
    make_folder(folder, lambda scratch: _save(problems, counts, scratch))
    return Kept(problems, folder / "problems.jsonl", counts)


def _save(problems: ProblemSet, counts: dict[str, int], folder: Path) -> None:
    save_problems(problems.problems, folder / "problems.jsonl")
    facts = {
        "name": problems.name,
        "source": problems.source,
        "revision": problems.revision,
        "sha256": problems.sha256,
        "counts": counts,
    }
    write_json(folder / "source.json", facts)


def _load(folder: Path) -> Kept:
    facts, file = read_json(folder / "source.json"), folder / "problems.jsonl"
    known = {key: facts[key] for key in ("name", "source", "revision", "sha256")}
    return Kept(ProblemSet(problems=tuple(load_problems(file)), **known), file, facts["counts"])
