"""One process at a time on a folder: the file `lock` in it, which says who that is."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from opo_cli.errors import OpoError
from opo_cli.files import disk_errors
from opo_cli.redact import command_line

LOCK = "lock"


@contextmanager
def locked_by_us(file: Path) -> Iterator[None]:
    """Around work on the folder that `file` is in. The lock dies with its owner: what a killed one
    leaves of it is only a file.

    Raises:
        OpoError: another process works on it.
    """
    path = file.parent / LOCK
    with _acquired(path) as opened:
        with disk_errors(path):  # At once: what a buffer keeps would fail again, without a name.
            os.truncate(opened.fileno(), 0)
            os.write(opened.fileno(), json.dumps(_ourselves()).encode() + b"\n")
        try:
            yield
        finally:
            with suppress(OSError):  # The folder may be gone, or its disk read-only by now.
                path.unlink()


@contextmanager
def _acquired(path: Path) -> Iterator[TextIO]:
    while True:
        with path.open("a+") as opened:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OpoError(
                    f"another process{_owner(path)} is at work on '{path.parent}'",
                    "wait for it, or choose --out",
                ) from None
            if _is_still(path, opened):
                yield opened
                return


def _is_still(path: Path, opened: TextIO) -> bool:
    """Whether what we locked is the file by that name: its last owner removed it as we opened it,
    and another may have made a new one."""
    try:
        return os.path.samestat(os.fstat(opened.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _ourselves() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
    }


def _owner(path: Path) -> str:
    """In words; empty where the file does not say it yet."""
    try:
        owner = json.loads(path.read_text())
        since = datetime.fromisoformat(owner["since"]).strftime("%Y-%m-%d %H:%M UTC")
        return f" (pid {owner['pid']} on host {owner['host']}, since {since})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
