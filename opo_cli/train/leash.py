"""`python -m opo_cli.train.leash [--ranks N] COMMAND ...`: an `opo` command that ends with its
parent, however that ends; with ranks, by torchrun, which then is its parent.

Its stdin is a pipe whose other end the parent holds open and never writes to. The end of the file
is the parent's end, by `kill -9` too, and counts as SIGTERM: a training saves its state. torchrun
hands that on to its ranks. When torchrun itself is gone, they are killed: whoever kills it does not
want to wait.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading

from opo_cli.console import note
from opo_cli.ranks import is_launched

RANKS = "--ranks"
SHUTDOWN = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(24 * 3600)}
"""Seconds until torchrun kills ranks that it has told to end: a step, or the save behind it, may
take minutes."""


def _end_with_parent(end: int, number: int) -> None:
    while os.read(end, 4096):
        pass
    os.kill(os.getpid(), number)


def _watch(end: int, number: int) -> None:
    threading.Thread(target=_end_with_parent, args=[end, number], daemon=True).start()


def _torchrun(count: str, *command: str) -> None:
    """As this process, which holds a leash for its ranks."""
    _watch(os.dup(0), signal.SIGTERM)
    reading, _ = os.pipe()  # Of the other end we alone know.
    os.dup2(reading, 0)
    os.environ.update(SHUTDOWN)
    sys.argv = ["torchrun", "--standalone", "--nproc-per-node", count, "-m", __spec__.name]
    sys.argv += command
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        runpy.run_module("torch.distributed.run", run_name="__main__", alter_sys=True)
    except SignalException as error:
        sys.exit(128 + error.sigval)
    except ChildFailedError as error:  # What the rank says of it stands above.
        number, failure = error.get_first_failure()
        note(f"rank {number} has ended first: {ending(failure.exitcode)}")
        sys.exit(failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode)


def ending(code: int) -> str:
    """Of a process that failed, in words; below zero the signal that ended it."""
    if code > 0:
        return f"exit code {code}"
    names = {number.value: number.name for number in signal.Signals}
    memory = ", perhaps for its memory" if code == -signal.SIGKILL else ""
    return f"killed by {names.get(-code, f'signal {-code}')}{memory}"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Even where the parent ignores it.
    if sys.argv[1:2] == [RANKS]:
        _torchrun(*sys.argv[2:])
    else:
        _watch(0, signal.SIGKILL if is_launched() else signal.SIGTERM)
        runpy.run_module("opo_cli", run_name="__main__", alter_sys=True)
