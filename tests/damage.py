"""Damage done for real: bits flipped, files cut, writers killed while they write."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path


def flip_a_bit(path: Path, place: int | None = None, bit: int = 0) -> None:
    """Of the byte at `place`, else of that in the middle."""
    with path.open("r+b") as file:
        place = path.stat().st_size // 2 if place is None else place
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))


def names(folder: Path) -> list[str]:
    """Of all that is in it, sorted; none where it is gone."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def kill_as_it_says(word: str, script: str, *arguments: str) -> int:
    """Runs a script and kills it when it prints `word`; returns its process id."""
    command = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert word in (line.strip() for line in child.stdout)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert child.returncode == -signal.SIGKILL
    return child.pid
