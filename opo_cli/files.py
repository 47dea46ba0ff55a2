"""Files and folders that are whole or not there, and folders that tell when they were altered.

What is being written has a temporary place beside its target, which its writer holds a lock on: so
what a dead process has left can be told from what a living one is at.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from opo_cli.errors import OpoError

SCRATCH = ".writing-"
STEP_PREFIX = "step-"
MANIFEST = "manifest.json"
"""{"files": {name: {"bytes": n, "sha256": hex}}}, of every other file of a sealed folder."""


def step_name(step: int, prefix: str = STEP_PREFIX) -> str:
    """As a file or folder of a step is called: `step-000020`, in order by name."""
    return f"{prefix}{step:06d}"


def step_of(path: Path) -> int:
    """Of a path with such a name, with or without a suffix."""
    return int(path.stem.rpartition("-")[2])


def nearest_existing(path: Path) -> Path:
    """`path`, or the nearest of its parents that is there."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Around writers that hide why they failed: a full disk comes out as the OSError that it is,
    with the name of what was to be written.

    torch leaves the OSError as the context of its own error, safetensors only a number in the text.
    """
    try:
        yield
    except OpoError:
        raise
    except OSError as error:
        _name(error, path)
        raise
    except Exception as error:
        if isinstance(error.__context__, OSError):
            _name(error.__context__, path)
            raise error.__context__ from error
        number = re.search(r"os error (\d+)", str(error))
        if number:
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        raise


def _name(error: OSError, path: Path) -> None:
    if error.filename is None or SCRATCH in str(error.filename):
        error.filename = str(path)


# --- temporary places -----------------------------------------------------------------------------


@contextmanager
def _scratch_folder(parent: Path) -> Iterator[Path]:
    """A temporary folder in `parent`, ours as long as we live, and gone afterwards."""
    parent.mkdir(parents=True, exist_ok=True)
    path, lock = _locked_scratch(parent)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _locked_scratch(parent: Path) -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(dir=parent, prefix=SCRATCH))
        try:
            lock = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # Swept before it was ours.
            continue
        with suppress(OSError):  # A file system without locks: nobody sweeps there either.
            fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return path, lock
        os.close(lock)


def sweep(folder: Path) -> None:
    """Removes what processes that died while they were writing have left in `folder`."""
    for path in folder.glob(f"{SCRATCH}*"):
        with suppress(OSError):  # Of a living one, or of another user's.
            lock = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
            finally:
                os.close(lock)


def sync(path: Path) -> None:
    """What was written to a file, or the names in a folder, are on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def sync_tree(folder: Path) -> None:
    """`sync` of a folder and of all that is in it."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


# --- files ----------------------------------------------------------------------------------------


def write_file(target: Path, fill: Callable[[BinaryIO], object], *, use_sync: bool = True) -> None:
    """`fill`s a temporary file and renames it: the target is the old one or the new one, never
    half; with `use_sync` on the disk when this returns, which may take tens of milliseconds."""
    with disk_errors(target), _scratch_folder(target.parent) as scratch:
        written = scratch / target.name
        with written.open("wb") as file:
            fill(file)
            file.flush()
            if use_sync:
                os.fsync(file.fileno())
        written.replace(target)
        if use_sync:
            sync(target.parent)


def write_text(path: Path, text: str) -> None:
    """See `write_file`."""
    write_file(path, lambda file: file.write(text.encode()))


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Raises OpoError where the file is not JSON."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise OpoError(f"{path} is not valid JSON: {error}", "restore or remove it") from None


# --- sealed folders -------------------------------------------------------------------------------


def make_folder(target: Path, fill: Callable[[Path], object]) -> None:
    """See `new_folder`; `fill` fills it."""
    with new_folder(target) as new:
        fill(new)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder to fill; at the end it is sealed with a manifest and renamed to `target`:
    whole, or not there, and on the disk behind the block. Other threads and processes may fill it,
    too.

    A target that is there and whole stays: another process was first, with the same content. A
    damaged one makes room.
    """
    sweep(target.parent)
    with disk_errors(target), _scratch_folder(target.parent) as scratch:
        new = scratch / target.name
        new.mkdir()
        yield new
        _seal(new)
        if target.is_dir() and not is_whole(target):
            target.rename(scratch / ".old")
        try:
            new.rename(target)
        except OSError:
            if not is_whole(target):
                raise
        sync(target.parent)


def remove_folder(path: Path) -> None:
    """Under another name first: a kill leaves the whole folder, or none by its name."""
    if path.is_dir():
        with _scratch_folder(path.parent) as scratch:
            path.rename(scratch / path.name)


def _seal(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    contents = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": file_sha256(path),
        }
        for path in files
    }
    (folder / MANIFEST).write_text(json.dumps({"files": contents}, indent=2) + "\n")
    sync_tree(folder)


def check_seal(folder: Path) -> None:
    """Reads all of a sealed folder.

    Raises:
        OpoError: a file is missing, shorter or altered, or the seal itself is.
    """
    for name, facts in _sealed_files(folder / MANIFEST).items():
        problem = _difference(folder / name, facts)
        if problem:
            raise OpoError(f"'{folder / name}' {problem}", "restore it, or make the folder again")


def is_whole(folder: Path) -> bool:
    """See `check_seal`."""
    try:
        check_seal(folder)
    except OpoError:
        return False
    return True


def _sealed_files(manifest: Path) -> dict[str, dict[str, Any]]:
    hint = "restore it, or make the folder again; another program's file of this name: rename it"
    try:
        files = json.loads(manifest.read_bytes())["files"]
        if files and all(facts.keys() == {"bytes", "sha256"} for facts in files.values()):
            return files
    except (FileNotFoundError, NotADirectoryError):
        raise OpoError(f"'{manifest}' is missing", hint) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise OpoError(f"'{manifest}' is damaged: not a seal of this program", hint)


def _difference(path: Path, facts: dict[str, Any]) -> str:
    """From what was sealed, in words; empty: none."""
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != facts["bytes"]:
        return f"is damaged: {size} bytes, not {facts['bytes']}"
    try:
        is_same = file_sha256(path) == facts["sha256"]
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return "is damaged: the disk cannot read it"
    return "" if is_same else "is damaged: not what was written, by its checksum"


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
