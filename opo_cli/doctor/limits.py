"""What a container allows this process: control groups, in both of their versions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


class MemoryLimit(NamedTuple):
    num_bytes: int
    used: int


def memory_limit(root: Path = ROOT, own: Path = OWN) -> MemoryLimit | None:
    """The tightest of our group and those above it; None: there is none."""
    found = []
    for group in _groups(root, own, "memory"):
        names = ("memory.max", "memory.limit_in_bytes")
        limit = _number(group, *names)
        if limit is not None:
            used = _number(group, "memory.current", "memory.usage_in_bytes") or 0
            # Files that the kernel keeps in memory count as used, and leave when asked.
            found.append(MemoryLimit(limit, used - min(used, _cached(group))))
    return min(found, key=lambda limit: limit.num_bytes - limit.used, default=None)


def cpu_limit(root: Path = ROOT, own: Path = OWN) -> float | None:
    """Cores; None: as many as there are."""
    found = []
    for group in _groups(root, own, "cpu"):
        quota, period = _quota(group)
        if quota > 0 and period > 0:
            found.append(quota / period)
    return min(found, default=None)


def _groups(root: Path, own: Path, controller: str) -> Iterator[Path]:
    """Our group's folder and those above it, in version 2 and in version 1."""
    if not own.is_file():
        return
    for line in own.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        names = controllers.split(",")
        if not controllers:
            base = root
        elif controller in names:
            base = root / controller if (root / controller).is_dir() else root / controllers
        else:
            continue
        folder = base / path.strip("/")
        while True:
            yield folder
            if folder == base or base not in folder.parents:
                break
            folder = folder.parent


def _number(group: Path, *names: str) -> int | None:
    for name in names:
        text = _text(group / name)
        if text.isdigit():
            return int(text)
    return None


def _cached(group: Path) -> int:
    for line in _text(group / "memory.stat").splitlines():
        name, _, count = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(count)
    return 0


def _quota(group: Path) -> tuple[int, int]:
    """(microseconds of CPU, per so many); 0 or less: no limit."""
    words = _text(group / "cpu.max").split()
    if len(words) != 2:
        words = [_text(group / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    return tuple(int(word) if word.lstrip("-").isdigit() else 0 for word in words)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
