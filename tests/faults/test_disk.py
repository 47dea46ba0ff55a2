"""A real disk that is full, or read-only, from a write on: two lines, nothing half written, and the
very same result once there is room again."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from opo_cli.faults.child import Doom
from opo_cli.faults.equal import differences
from opo_cli.faults.trials import Bench

SIZE = "32m"
FAULTS = (("fill", 0.3), ("readonly", 0.4), ("fill", 0.5), ("fill", 1.0))
"""What happens to one run, one process after the other, and below which share of all writes."""

REASONS = {"fill": "No space left on device", "readonly": "Read-only file system"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no command mount")
    if done.returncode:
        pytest.skip(f"no small file system may be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_disk_that_is_full_or_read_only_from_a_write_on(disk: Path, checked):
    bench, rng, stopped = checked.bench_in(disk, {"run": "prepared"}), random.Random(0), 0
    for action, share in FAULTS:
        at = rng.randint(1, int(share * len(checked.reference.writes)))
        stopped += with_fault(bench, action, at)
        if bench.run("run").is_finished:
            break
    was_finished = bench.run("run").is_finished
    ending = bench.train("run")
    assert ending.code == (2 if was_finished else 0), ending.stderr
    assert stopped >= len(FAULTS) - 1, "too few writes failed: the points lie too far behind"
    found = differences(checked.bench.place("reference/files"), bench.place("run/files"))
    assert list(found) == []


def with_fault(bench: Bench, action: str, at: int) -> bool:
    """Trains until the fault, and mends it; whether it stopped the run."""
    files, filler = bench.place("run/files"), bench.place("filler")
    target = files if action == "readonly" else filler
    before = set(files.rglob(".*"))
    ending = bench.train("run", Doom(action=action, at=at, filler=str(target)))
    where = f"{action} at write {at}: {ending.stderr}"
    assert ending.code in (0, 2), where
    assert "Traceback" not in ending.stderr, where
    if ending.code:
        error, hint = ending.stderr.splitlines()[-2:]
        assert error.startswith("error: "), where
        assert REASONS[action] in error, where
        assert hint.startswith("hint: "), where
    if action == "readonly":
        subprocess.run(["umount", str(files)], check=True)  # What is there could not be removed.
    else:
        assert ending.code == 0 or set(files.rglob(".*")) <= before, where
        filler.unlink()
    return ending.code == 2
