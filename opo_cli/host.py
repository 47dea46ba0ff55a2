"""Cores and memory of the machine and of this process, as the system tells them."""

from __future__ import annotations

import os
import re
import resource
import sys
from pathlib import Path


def num_cores() -> int:
    """The cores that this process may use, where the system tells."""
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def peak_resident_bytes() -> int:
    """Most memory that this process has held. Linux's `ru_maxrss` would be the parent's, where
    that is fatter: it outlives fork and exec."""
    status = Path("/proc/self/status")
    if status.is_file():
        found = re.search(rb"^VmHWM:\s*(\d+) kB", status.read_bytes(), re.M)
        if found is not None:
            return int(found[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_bytes() -> int:
    """Host memory that a new process could take; where the system does not say, all of it."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
