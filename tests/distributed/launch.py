"""A real torchrun on this machine's CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
ONLY_RANK = {
    "TORCHELASTIC_RUN_ID": "test",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "0",
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_WORLD_SIZE": "1",
}
"""What torchrun tells the only rank of a run."""


def command(*arguments: str, ranks: int = 2, restarts: int = 0) -> list[str]:
    """`arguments`: a program or `-m module`, and its own."""
    options = ["--standalone", f"--nproc-per-node={ranks}", f"--max-restarts={restarts}"]
    return [sys.executable, "-m", "torch.distributed.run", *options, *arguments]


def start(*arguments: str, ranks: int = 2, restarts: int = 0, **environment: str):
    """The process, a session of its own; what it says goes into a pipe, both streams."""
    return subprocess.Popen(
        command(*arguments, ranks=ranks, restarts=restarts),
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(*arguments: str, ranks: int = 2, timeout: float = 300, **environment: str):
    """(exit code, what was said)."""
    process = start(*arguments, ranks=ranks, **environment)
    return end(process, timeout)


def end(process: subprocess.Popen, timeout: float = 300) -> tuple[int, str]:
    """Waits for it; leaves no process behind."""
    try:
        said, _ = process.communicate(timeout=timeout)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, said


def run_ranked(script: str) -> subprocess.CompletedProcess[str]:
    """A script as torchrun starts the only rank of a run."""
    return subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | ONLY_RANK,
        capture_output=True,
        text=True,
        timeout=60,
    )
