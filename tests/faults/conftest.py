"""A short run, real and whole, and the folder in which it is made again and again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from opo_cli.faults.trials import Bench

SHORT = [
    *("--preset", "smoke"),
    *("--set", "train.steps=4"),
    *("--set", "eval.benchmarks=['tiny-easy']"),
    *("--set", "eval.validation=[]"),
    *("--set", "eval.limit=4"),
]


@pytest.fixture
def new_bench(cache: Path, base: Path) -> Callable[..., Bench]:
    """A bench whose base is that of the session."""

    def make(scratch: Path, *options: str) -> Bench:
        prepared = scratch / "prepared/files/cache"
        for folder in (*cache.glob("base-*"), *cache.glob("data-*")):
            shutil.copytree(folder, prepared / folder.name)
        return Bench(scratch, ["train", *SHORT, *options], ["prepare", *SHORT])

    return make
