"""A training on ranks is the training of one process: same prompts, same samples, same numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from opo_cli.ledger import Ledger
from opo_cli.lines import read_lines
from tests.distributed import launch

PROGRAM = ("-m", "tests.distributed.training")
ONLY_COST = ("_seconds", "_per_second", "_gigabytes")
OPO, GRPO, PPO = "opo=opo", "grpo=grpo", "ppo=ppo"
DAPO = "dapo=dapo,rollout.group_size=4"
REMAX = "remax=remax,train.microbatch_tokens=128"
FEW = "few=opo,rollout.prompts_per_step=2"
LEAN = (
    "grpo=grpo,train.use_cpu_offload=true,train.use_activation_checkpointing=true,"
    "train.use_reference_offload=true"
)
HALF = "half=grpo,model.compute_dtype=bfloat16"
TASKS = (OPO, GRPO, PPO, DAPO, REMAX)


@pytest.fixture(scope="module")
def alone(cache: Path, tmp_path_factory) -> Path:
    """Runs of one process."""
    folder = tmp_path_factory.mktemp("alone")
    words = [sys.executable, *PROGRAM, str(folder), "5", *TASKS, FEW, HALF]
    subprocess.run(words, cwd=launch.ROOT, check=True, timeout=600)
    return folder


@pytest.fixture(scope="module")
def on_two(cache: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    code, said = launch.run(*PROGRAM, str(folder), "5", *TASKS, timeout=600)
    assert code == 0, said
    return folder


def differences(a: Path, b: Path) -> dict[str, float]:
    """Metric -> the largest over the steps; infinite where one of them has none."""
    found: dict[str, float] = {}
    steps = [read_lines(run / "steps.jsonl") for run in (a, b)]
    assert len(steps[0]) == len(steps[1]) > 0
    for ours, theirs in zip(*steps, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            if name.endswith(ONLY_COST):
                continue
            x, y = ours[name], theirs[name]
            is_number = isinstance(x, (int, float)) and isinstance(y, (int, float))
            size = abs(x - y) if is_number else (0.0 if x == y else float("inf"))
            found[name] = max(found.get(name, 0.0), size)
    return found


def samples(run: Path) -> list[list[tuple]]:
    """What was sampled in each step, from the ledger."""
    ledger = Ledger(run / "rollouts")
    columns = ("group", "row", "problem_id", "tokens", "reward", "policy_version")
    return [
        [tuple(map(str, (line[name] for name in columns))) for line in ledger.read(step)]
        for step in ledger.steps()
    ]


@pytest.mark.parametrize("name", [task.partition("=")[0] for task in TASKS])
def test_two_ranks_give_one_processs_metrics(name: str, alone: Path, on_two: Path):
    found = differences(alone / name, on_two / name)
    assert {"reward", "gradient_norm", "gradient_noise", "kl_exact_sequence"} <= found.keys()
    assert max(found.values()) < 1e-4, found
    assert samples(alone / name) == samples(on_two / name)


def test_two_ranks_leave_the_weights_of_one_process(alone: Path, on_two: Path):
    """As a folder that transformers loads: names, config and, nearly, values."""
    ours, theirs = (load_file(run / "opo/model/model.safetensors") for run in (alone, on_two))
    assert ours.keys() == theirs.keys()
    assert max(float((ours[k] - theirs[k]).abs().max()) for k in ours) < 1e-4
    configs = [json.loads((run / "opo/model/config.json").read_text()) for run in (alone, on_two)]
    assert configs[0] == configs[1]
    assert [path.name for path in (alone / "opo").rglob("*.parquet")] == [
        path.name for path in (on_two / "opo").rglob("*.parquet")
    ]


def test_ranks_without_any_group_come_along(alone: Path, tmp_path: Path):
    """Two groups on three ranks."""
    code, said = launch.run(*PROGRAM, str(tmp_path), "5", FEW, ranks=3, timeout=300)
    assert code == 0, said
    assert max(differences(alone / "few", tmp_path / "few").values()) < 1e-4


def test_what_saves_memory_changes_nothing(alone: Path, tmp_path: Path):
    """Everything offloaded and computed again; and bfloat16, to its rounding."""
    code, said = launch.run(*PROGRAM, str(tmp_path), "5", LEAN, HALF)
    assert code == 0, said
    assert max(differences(alone / "grpo", tmp_path / "grpo").values()) < 1e-4
    ours, theirs = (read_lines(run / "half/steps.jsonl")[0] for run in (alone, tmp_path))
    assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=0.05)
    assert ours["entropy"] == pytest.approx(theirs["entropy"], rel=0.01)
    assert 1e-4 < theirs["sampler_mismatch"] < 0.3


@pytest.mark.parametrize("algorithm", ["opo", "grpo", "ppo"])
def test_gradients_are_those_of_one_process(algorithm: str, base: Path, tmp_path: Path):
    """However the groups are dealt, to a rank that has none, too."""
    file = tmp_path / "found.json"
    program = ("-m", "tests.distributed.gradients")
    code, said = launch.run(*program, str(base), algorithm, str(file))
    assert code == 0, said
    found = json.loads(file.read_text())
    assert found["all to rank 0"]["microbatches"][1] == 0
    assert found["unevenly"]["microbatches"][0] > found["unevenly"]["microbatches"][1] > 0
    for name, deal in found.items():
        assert deal["size"] > 1e-3
        assert deal["difference"] < 1e-6, name
