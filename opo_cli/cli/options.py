"""Options that several commands share, and how they become a config."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from opo_cli.errors import OpoError
from opo_cli.files import nearest_existing, write_text

if TYPE_CHECKING:
    from opo_cli.config import Config

DEFAULT_PRESET = "tiny"
MOST_NUMBERS = 10_000  # A range of more is a slip of the finger, and fills memory.


class Format(StrEnum):
    rich = "rich"
    markdown = "markdown"
    csv = "csv"
    json = "json"
    latex = "latex"


SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any other setting; may be repeated."),
]
FormatOption = Annotated[Format, typer.Option("--format", "-f", help="How the table is printed.")]


def prepare_process() -> None:
    """Settings that torch reads when it is imported: call before the first heavy import.

    Waiting OpenMP threads sleep instead of spinning, which on a shared machine is worth several
    times the speed; tokenizers stay single-threaded beside us.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def set_threads(config: Config) -> None:
    """Before torch is imported, so that it never makes threads that it will not use."""
    if config.runtime.num_threads:
        os.environ.setdefault("OMP_NUM_THREADS", str(config.runtime.num_threads))


def named_options(
    *, seed: int | None, steps: int | None, model: str | None, engine: str | None
) -> dict[str, Any]:
    """Config tables of the options that were given."""
    given = {
        "seed": seed,
        "train": None if steps is None else {"steps": steps},
        "model": None if model is None else {"path": model},
        "runtime": None if engine is None else {"engine": engine},
    }
    return {key: value for key, value in given.items() if value is not None}


def parse_numbers(text: str, option: str) -> list[int]:
    """`0,1,2` or `0-4` or both.

    Raises:
        OpoError: anything else, or more than `MOST_NUMBERS`.
    """
    numbers: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            found = range(int(first), int(last if dash else first) + 1)
            if not 0 < len(found) <= MOST_NUMBERS:
                raise ValueError
            numbers += found
    except (ValueError, OverflowError):
        numbers = []
    if not numbers:
        raise OpoError(f"{option} '{text}' is no list of numbers", f"for example: {option} 1,2,4")
    return list(dict.fromkeys(numbers))


def parse_names(text: str, option: str) -> list[str]:
    """`a,b,c`. Raises OpoError where there is no name in it."""
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise OpoError(f"{option} '{text}' holds no name", f"for example: {option} a,b")
    return names


def parse_columns(text: str, option: str) -> dict[str, str]:
    """`question=problem,answer=solution`. Raises OpoError for anything else."""
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(key.strip() and column.strip() for key, _, column in pairs):
        raise OpoError(
            f"{option} '{text}' is not KEY=COLUMN,...",
            f"for example: {option} question=problem,answer=solution",
        )
    return {key.strip(): column.strip() for key, _, column in pairs}


def check_target(path: str | None, *, is_folder: bool) -> None:
    """Before hours of work are spent on what cannot be written.

    Raises:
        OpoError: a folder stands where a file should be, or the reverse, or nothing may be written
            there.
    """
    if path is None:
        return
    target = Path(path)
    if not is_folder and (path.endswith("/") or target.is_dir()):
        raise OpoError(f"'{path}' is a folder", "name a file in it")
    if is_folder and target.exists() and not target.is_dir():
        raise OpoError(f"'{path}' is a file", "name a folder")
    nearest = nearest_existing(target)
    if not os.access(nearest, os.W_OK) or (nearest != target and not nearest.is_dir()):
        raise OpoError(f"'{path}' cannot be written", "name another place")


def write_page(path: str, text: str) -> None:
    """Raises OpoError where it cannot be written: some places tell only then."""
    try:
        write_text(Path(path), text)
    except OSError as error:
        raise OpoError(
            f"'{path}' cannot be written: {error.strerror}",
            "free some space, or name another place",
        ) from error
