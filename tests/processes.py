"""Processes that tests start, stop and look at."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

PATIENCE = 120


def wait_for(condition: Callable[[], bool], process: subprocess.Popen | None = None) -> None:
    """While `process` runs; it has to speak into a pipe."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process is None or process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def children_of(number: int) -> list[int]:
    """Processes below a process, its own children first."""
    table = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True).stdout
    pairs = [tuple(map(int, line.split())) for line in table.splitlines()]
    own = [child for child, parent in pairs if parent == number]
    return [*own, *(below for child in own for below in children_of(child))]


def is_alive(number: int) -> bool:
    command = ["ps", "-o", "stat=", "-p", str(number)]
    state = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")  # A zombie waits for its new parent.
