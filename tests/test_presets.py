"""The presets: what they name is there, what they say has a source, and what they ask for fits."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from opo_cli.algorithms import ALGORITHMS
from opo_cli.choose import choose
from opo_cli.config import changed
from opo_cli.data.benchmarks import check_names
from opo_cli.data.prompts import check_template
from opo_cli.data.training import check_source
from opo_cli.model.device import GIGABYTE, Device
from opo_cli.model.lookup import find_shape
from opo_cli.presets import preset_names, resolve, validated
from opo_cli.records import RunFolder
from opo_cli.rollout.engine import ENGINES
from opo_cli.train.budget import fits, memory_parts

REAL = ("qwen-math", "qwen-math-7b", "r1-distill-7b")
SOURCED = (*REAL, "qwen-math-smoke")
DOCS = Path(__file__).parent.parent / "docs" / "presets.md"
CARD = Device(name="a GPU of 80 GB", num_bytes=80 * GIGABYTE, is_gpu=True)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_takes_every_algorithm(preset, algorithm):
    config = resolve(preset, algorithm=algorithm)
    assert config.algorithm.name == algorithm
    assert validated(json.loads(config.model_dump_json())) == config


@pytest.mark.parametrize("preset", preset_names())
def test_what_a_preset_names_is_there(preset):
    config = resolve(preset)
    check_names([*config.eval.benchmarks, *config.eval.during, *config.data.audit])
    check_template(config.data.template)
    check_source(config.data)
    for name in config.compare.algorithms:
        choose(name, ALGORITHMS, "algorithm")


def holds_number(value) -> bool:
    if isinstance(value, dict):
        return any(map(holds_number, value.values()))
    if isinstance(value, list):
        return any(map(holds_number, value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def unsourced(text: str) -> list[str]:
    """Lines that set a number without a comment beside or above them."""
    found, above = [], ""
    for line in text.splitlines():
        is_setting = "=" in line and not line.startswith("#")
        if is_setting and holds_number(tomllib.loads(line)):
            after = line.partition(" # ")[2] or line.partition("  #")[2]
            if not after.strip() and not above.startswith("#"):
                found.append(line)
        above = line
    return found


@pytest.mark.parametrize("preset", SOURCED)
def test_every_number_has_its_source_beside_it(preset):
    assert unsourced(preset_names()[preset].read_text()) == []


def test_a_number_without_a_source_is_found():
    text = '# why\na = 1\nb = 2\nc = "3"\nd = [4]  # ours\ne.f = 5e-6\ng = true\n'
    assert unsourced(text) == ["b = 2", "e.f = 5e-6"]


@pytest.mark.parametrize("preset", SOURCED)
def test_prompt_and_response_stay_within_the_models_context(preset):
    config = resolve(preset)
    shape, why = find_shape(config.model)
    assert shape is not None, why
    for longest in (config.rollout.max_new_tokens, config.eval.max_new_tokens):
        assert 0 < config.data.max_prompt_tokens + longest <= shape.max_positions


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_qwen_math_fits_the_card_that_it_names(algorithm, engine):
    config = resolve("qwen-math", algorithm=algorithm)
    assert (config.runtime.num_gpus, config.runtime.gpu_gigabytes) == (1, 80)
    shape, _ = find_shape(config.model)
    assert fits(memory_parts(config, shape, CARD, engine), CARD)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("preset", ["qwen-math-7b", "r1-distill-7b"])
def test_a_model_beyond_one_card_fits_the_eight_that_it_names(preset, algorithm):
    config = resolve(preset, algorithm=algorithm)
    assert (config.runtime.num_gpus, config.runtime.gpu_gigabytes) == (8, 80)
    assert "needs several GPUs: 8 of 80 GB" in config.description
    shape, _ = find_shape(config.model)
    assert fits(memory_parts(config, shape, CARD, "vllm"), CARD)
    alone = changed(config, {"runtime.num_gpus": 1})
    assert not fits(memory_parts(alone, shape, CARD, "vllm"), CARD)


def test_the_smoke_preset_goes_the_way_of_the_real_one():
    smoke, real = resolve("qwen-math-smoke"), resolve("qwen-math")
    for section, key in (
        ("model", "compute_dtype"),
        ("model", "head_dtype"),
        ("data", "template"),
        ("train", "use_activation_checkpointing"),
        ("train", "use_reference_offload"),
        ("runtime", "engine"),
        ("rollout", "dtype"),
    ):
        assert getattr(getattr(smoke, section), key) == getattr(getattr(real, section), key)
    assert smoke.algorithm == real.algorithm


def test_the_smoke_preset_runs(run_opo):
    """Three steps at random weights: all rewards are 0, and the run passes through."""
    result = run_opo("train", "--preset", "qwen-math-smoke", "--out", "run")
    assert result.returncode == 0, result.stderr
    folder = RunFolder(Path("run"))
    assert folder.is_finished
    steps = folder.steps()
    assert [record["reward"] for record in steps] == [0.0] * 3
    assert all(record["gradient_norm"] == 0 for record in steps)
    assert all(record["sampler_mismatch"] > 1e-4 for record in steps)  # It does compute in bf16.
    shape = json.loads((folder.model / "config.json").read_text())
    assert (shape["num_attention_heads"], shape["num_key_value_heads"]) == (6, 1)
    assert shape["vocab_size"] == 2048


def test_with_an_entropy_bonus_its_weights_move(run_opo):
    """What rewards of 0 leave untried: a gradient through bf16, checkpoints and the sync."""
    from safetensors.torch import load_file

    options = ("--steps", "2", "--set", "eval.benchmarks=[]", "--set", "optim.learning_rate=1e-3")
    bonus = ("--set", "algorithm.entropy_coefficient=0.1")
    result = run_opo("train", "--preset", "qwen-math-smoke", "--out", "run", *options, *bonus)
    assert result.returncode == 0, result.stderr
    folder = RunFolder(Path("run"))
    assert all(record["gradient_norm"] > 0 for record in folder.steps())
    before = load_file(Path(folder.environment()["initial_policy"]) / "model.safetensors")
    after = load_file(folder.model / "model.safetensors")
    moved = [not after[name].equal(before[name]) for name in before]
    assert all(moved)


def documented(word: str) -> list[str]:
    """The arguments of the command in the docs that holds `word`."""
    blocks = re.findall(r"^```\n(.*?)^```", DOCS.read_text(), re.DOTALL | re.MULTILINE)
    [block] = [block for block in blocks if word in block]
    return shlex.split(block.replace("\\\n", " "))[1:]


def test_the_documented_command_makes_the_shape_of_qwen(run_opo):
    """1.54 billion parameters, of which 1.31 are no embedding: what Qwen says of Qwen2.5-1.5B."""
    result = run_opo(*documented("runs/qwen-1.5b-shape"), "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "parameters  1,543,714,304" in result.stdout
    assert round((1_543_714_304 - 151_936 * 1536) / 1e9, 2) == 1.31
    for part in ("64 prompts x group of 8 = 512 responses of at most 1024 tokens", ": fits"):
        assert part in result.stdout
