"""What `opo check resume --keep` leaves of a short run, once per session: a prepared cache, an
uninterrupted run, and runs that were killed and resumed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from opo_cli.faults.draw import Reference
from opo_cli.faults.trials import Bench, reference_of

SHORT = [
    *("--preset", "smoke"),
    *("--set", "train.steps=4"),
    *("--set", "eval.benchmarks=['tiny-easy']"),
    *("--set", "eval.validation=[]"),
    *("--set", "eval.limit=4"),
]


@dataclass(frozen=True, slots=True)
class Checked:
    """The command's answer, and what it worked with."""

    code: int
    records: list[dict[str, Any]]
    talk: str
    bench: Bench
    reference: Reference

    def bench_in(self, scratch: Path, copies: Mapping[str, str], *options: str) -> Bench:
        """Another place.

        Args:
            copies: folder there -> of which folder here it is a copy.
            options: of the training, besides.
        """
        for name, source in copies.items():
            shutil.copytree(self.bench.place(source), scratch / name)
        return Bench(scratch, [*self.bench.start, *options], self.bench.prepare)


@pytest.fixture(scope="session")
def checked(tmp_path_factory) -> Checked:
    """Two runs: one is killed at writes, one by time."""
    scratch = tmp_path_factory.mktemp("check")
    command = ["check", "resume", *SHORT, "--kills", "2", "--seed", "2", "--keep", "-f", "json"]
    done = subprocess.run(
        [sys.executable, "-m", "opo_cli", *command],
        env=os.environ | {"TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stderr
    (kept,) = scratch.glob("opo-check-*")
    bench = Bench(kept, ["train", *SHORT], ["prepare", *SHORT])
    reference = reference_of(kept / "writes.txt", 60.0)  # Which bounds how long others may take.
    return Checked(done.returncode, json.loads(done.stdout), done.stderr, bench, reference)
