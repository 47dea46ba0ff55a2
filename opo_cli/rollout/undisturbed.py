"""vLLM inside our own process: what its start changes around us is put back.

Constructing `vllm.LLM` on a CPU moves torch's random state, sets environment variables that child
processes would inherit (LD_PRELOAD, LD_LIBRARY_PATH, LOCAL_WORLD_SIZE, ...), replaces
`torch.set_num_threads` by a function that does nothing, may change the number of threads and the
cores that we may run on, freezes the garbage collector, changes `sys.path`, `sys.excepthook` and
how multiprocessing starts, and writes to the terminal from C++. At its end it destroys the process
group, whosever it is.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
import torch.distributed as dist

from opo_cli.interrupt import SIGNALS
from opo_cli.model.parallel import is_joined
from opo_cli.ranks import INTERFACES, is_one_machine

OWN_PREFIX = "VLLM_"  # Variables that vLLM reads again later.
SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # In our process: weights need no way across.
    "VLLM_LOGGING_LEVEL": "CRITICAL",  # Errors come as exceptions; their log is megabytes.
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
}


def settings_before_import() -> None:
    """vLLM reads its variables when it is imported."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # Whatever the user has set.


@contextmanager
def undisturbed() -> Iterator[None]:
    """Around what vLLM does at its start: the process is afterwards what it was before."""
    environment = dict(os.environ)
    if is_one_machine():
        os.environ.update(INTERFACES)
    set_num_threads, num_threads = torch.set_num_threads, torch.get_num_threads()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    handlers, excepthook, path = _handlers(), sys.excepthook, list(sys.path)
    start_method = multiprocessing.get_start_method(allow_none=True)
    is_frozen = gc.get_freeze_count() > 0
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    with torch.random.fork_rng(devices), warnings.catch_warnings(), _kept_group():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for name in set(os.environ) - set(environment):
                if not name.startswith(OWN_PREFIX):
                    del os.environ[name]
            os.environ.update(environment)
            torch.set_num_threads = set_num_threads
            if torch.get_num_threads() != num_threads:
                torch.set_num_threads(num_threads)
            if cores is not None and os.sched_getaffinity(0) != cores:
                os.sched_setaffinity(0, cores)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            sys.excepthook, sys.path[:] = excepthook, path
            multiprocessing.set_start_method(start_method, force=True)
            if not is_frozen:
                gc.unfreeze()


@contextmanager
def _kept_group() -> Iterator[None]:
    """The group of all ranks, in which the trainer works, too, outlives vLLM's."""
    if not is_joined():
        yield
        return
    ours, destroy = dist.group.WORLD, dist.destroy_process_group

    def destroy_others(group=None) -> None:
        if group is not None and group is not ours:
            destroy(group)

    dist.destroy_process_group = destroy_others
    try:
        yield
    finally:
        dist.destroy_process_group = destroy


def _handlers() -> dict[int, object]:
    """Of the main thread, which alone may set them."""
    try:
        return {number: signal.signal(number, signal.getsignal(number)) for number in SIGNALS}
    except ValueError:
        return {}


@contextmanager
def quiet() -> Iterator[None]:
    """What is written to the terminal meanwhile, from C++ too, is dropped, unless the user asks for
    vLLM's log."""
    if os.environ.get("VLLM_LOGGING_LEVEL") != SETTINGS["VLLM_LOGGING_LEVEL"]:
        yield
        return
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as noise:
        try:
            os.dup2(noise.fileno(), 1)
            os.dup2(noise.fileno(), 2)
            yield
        finally:
            with suppress(OSError):
                sys.stdout.flush()
            with suppress(OSError):
                sys.stderr.flush()
            for target, original in enumerate(kept, start=1):
                os.dup2(original, target)
                os.close(original)
