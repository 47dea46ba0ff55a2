"""Work and time of a step, by hand."""

from __future__ import annotations

import pytest

from opo_cli.model.device import Device
from opo_cli.model.lookup import KNOWN
from opo_cli.model.shape import shape_of
from opo_cli.presets import resolve
from opo_cli.train.budget import Load
from opo_cli.train.speed import (
    PEAKS,
    flops_per_second,
    peak_of,
    recomputed_flops,
    rollout_bytes,
    rollout_flops,
    score_flops,
    step_seconds,
    update_flops,
)

QWEN = shape_of(KNOWN["Qwen/Qwen2.5-Math-1.5B"])
LOAD = Load(num_rows=512, prompt=24, response=1000, microbatch=16 * 1024)
HEAD = 512 * 1000 * 2 * 151936 * 1536
LAYERS = 512 * QWEN.layer_flops(1024)


def config_of(*overrides: str, algorithm: str = "opo"):
    sizes = ["rollout.prompts_per_step=64", "rollout.group_size=8", "model.compute_dtype=bfloat16"]
    return resolve("tiny", algorithm=algorithm, overrides=[*sizes, *overrides])


def test_the_update_is_six_operations_per_parameter_and_token():
    """But for attention, and for prompts, which do not reach the head."""
    rough = 6 * 1_543_714_304 * 512 * 1024
    assert update_flops(config_of(), QWEN, LOAD) == 3 * (HEAD + LAYERS)
    assert update_flops(config_of(), QWEN, LOAD) == pytest.approx(rough, rel=0.1)


def test_a_critic_and_checkpointing_add_to_it():
    assert update_flops(config_of(algorithm="ppo"), QWEN, LOAD) == 3 * (HEAD + 2 * LAYERS)
    again = config_of("train.use_activation_checkpointing=true")
    assert recomputed_flops(config_of(), QWEN, LOAD) == 0
    assert recomputed_flops(again, QWEN, LOAD) == LAYERS


def test_scoring_is_a_forward_pass_each():
    none = ["measure.every=0"]
    assert score_flops(config_of(*none), QWEN, LOAD) == 0
    kl = ["algorithm.kl_in=loss", "algorithm.kl_estimator=k2", "algorithm.kl_coefficient=0.1"]
    assert score_flops(config_of(*none, *kl), QWEN, LOAD) == HEAD + LAYERS
    several = config_of(*none, algorithm="grpo")  # Reference, and old logprobs.
    assert score_flops(several, QWEN, LOAD) == 2 * (HEAD + LAYERS)
    # Policy and reference on one response of eight, and the policy once more after the update.
    measured = score_flops(config_of("measure.responses=1"), QWEN, LOAD)
    assert measured == pytest.approx(3 / 8 * (HEAD + LAYERS))


def test_a_prompt_is_read_once_for_its_group():
    shared = (512 - 64) * QWEN.layer_flops(24)
    assert rollout_flops(config_of(), QWEN, LOAD) == HEAD + LAYERS - shared


def test_seconds_at_the_stated_shares():
    peak = PEAKS["H100"]
    rollout, score, update = step_seconds(
        config_of("measure.every=0", "rollout.max_rows=256"), QWEN, LOAD, peak, "bfloat16"
    )
    assert score == 0
    assert update == pytest.approx(3 * (HEAD + LAYERS) / (0.4 * 989e12))
    # Two rounds of 256 rows read 3.09 GB of weights a token, and 512 rows of 24 + 500 tokens at
    # 28,672 bytes on average.
    read = 1000 * (2 * 2 * 1_543_714_304 + 512 * 524 * 28_672)
    assert rollout == pytest.approx(read / (0.6 * 3.35e12))


def test_ranks_that_share_an_engine_read_a_part_of_the_weights_each():
    """Two ranks: one engine of 512 rows in two rounds, or two of 256 in one each."""
    alone = config_of("rollout.max_rows=256")
    shared = config_of("rollout.max_rows=256", "rollout.tensor_parallel=2")
    half = Load(num_rows=256, prompt=24, response=1000, microbatch=16 * 1024)
    assert rollout_bytes(shared, QWEN, half, "bfloat16") == rollout_bytes(
        alone, QWEN, half, "bfloat16"
    )
    wide = config_of("rollout.max_rows=512", "rollout.tensor_parallel=2")
    saved = 1000 * 1_543_714_304  # Half of the weights in bf16, for each token.
    assert rollout_bytes(alone, QWEN, half, "bfloat16") - saved == rollout_bytes(
        wide, QWEN, half, "bfloat16"
    )


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100 80 GB"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
    ],
)
def test_gpus_are_known_by_torchs_names(name: str, title: str):
    assert peak_of(Device(name=name, num_bytes=1, is_gpu=True)).title == title


def test_an_unknown_gpu_has_no_peak():
    assert peak_of(Device(name="Some Card", num_bytes=1, is_gpu=True)) is None
    assert flops_per_second(PEAKS["A100"], "float32") < flops_per_second(PEAKS["A100"], "bfloat16")
