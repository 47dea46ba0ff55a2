"""Which of a run's processes this one is, as torchrun tells it. No torch."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from typing import NoReturn

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
INTERFACES = {"GLOO_SOCKET_IFNAME": LOOPBACK, "NCCL_SOCKET_IFNAME": LOOPBACK}
"""Process groups within a machine listen for others, by default at the machine's own address."""


def is_launched() -> bool:
    """Whether torchrun has started this process; variables such as RANK alone may be another's."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def rank() -> int:
    """From 0, over all machines."""
    return int(os.environ["RANK"]) if is_launched() else 0


def local_rank() -> int:
    """From 0, on this machine; it is also the number of the process's GPU."""
    return int(os.environ["LOCAL_RANK"]) if is_launched() else 0


def world_size() -> int:
    """Processes of the run."""
    return int(os.environ["WORLD_SIZE"]) if is_launched() else 1


def num_local_ranks() -> int:
    """Of this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if is_launched() else 1


def is_one_machine() -> bool:
    return num_local_ranks() == world_size()


def program() -> str:
    """How a user starts what we are."""
    if not is_launched():
        return "opo"
    if not is_one_machine():
        return "torchrun ... -m opo_cli"  # The rest is not ours to know.
    return f"torchrun --standalone --nproc-per-node {num_local_ranks()} -m opo_cli"


def is_main() -> bool:
    """Whether it is the process that prints and writes."""
    return rank() == 0


_is_joined = False
_num_restarts = 0


def num_restarts() -> int:
    """How often torchrun has started all processes anew (`--max-restarts`), the same on all that
    have joined. TORCHELASTIC_RESTART_COUNT is not: the machine counts on which a rank has failed,
    not those that start again for its sake."""
    return _num_restarts


def set_joined(value: bool, num_restarts: int = 0) -> None:
    global _is_joined, _num_restarts
    _is_joined, _num_restarts = value, num_restarts


def is_joined() -> bool:
    """Whether torchrun has started us and the ranks, perhaps but one, work together."""
    return _is_joined


def run_to_end(main: Callable[[], int | None]) -> NoReturn:
    """Ends this process with the exit code that `main` returns, as its last work.

    Python's own ending is no place for gloo's threads: one that lets go of its last tensor there
    aborts the process (pytorch/pytorch#190489), and a successful run with it; after an error they
    wait for ranks that are gone.
    """
    if not is_launched():
        sys.exit(main())
    try:
        code = main() or 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if not is_joined():
        atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
