"""Processes that tests start, stop and look at."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


@contextmanager
def starting() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts commands that speak into pipes: (words, environment); what a failed test leaves is
    ended."""
    started: list[subprocess.Popen[str]] = []

    def start(words: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        child = subprocess.Popen(words, env=environment, stdout=pipe, stderr=pipe, text=True)
        started.append(child)
        return child

    yield start
    for child in started:
        if child.poll() is None:
            child.terminate()
            child.communicate()
