"""The work of a step, and a rough time for it on a known GPU. Pure arithmetic, no torch."""

from __future__ import annotations

from dataclasses import dataclass

from opo_cli.config import Config
from opo_cli.model.device import Device
from opo_cli.model.shape import BYTES, Shape
from opo_cli.train.budget import Load

COMPUTE_SHARE, BANDWIDTH_SHARE = 0.4, 0.6  # What well-kept code gets of a GPU's peaks.


@dataclass(frozen=True, slots=True)
class Peak:
    """Of a GPU, from its data sheet: without sparsity, products in bf16 summed in fp32."""

    title: str
    bfloat16: float
    """FLOP/s."""
    float32: float
    """FLOP/s, without TF32, which torch leaves off."""
    bandwidth: float
    """Bytes/s."""


# The first whose key is in torch's name of the GPU.
PEAKS = {
    "H100 PCIe": Peak("H100 PCIe", 756e12, 51e12, 2.0e12),
    "H100": Peak("H100 SXM", 989e12, 67e12, 3.35e12),
    "H200": Peak("H200", 989e12, 67e12, 4.8e12),
    "A100": Peak("A100 80 GB", 312e12, 19.5e12, 2.04e12),
    "L40S": Peak("L40S", 362e12, 91.6e12, 0.864e12),
    "RTX 4090": Peak("RTX 4090", 165e12, 82.6e12, 1.008e12),
}
EXAMPLE = PEAKS["H100"]  # Where the preset's GPU is not here.


def peak_of(device: Device) -> Peak | None:
    """None where there is no such GPU in the table."""
    if not device.is_here:
        return EXAMPLE
    return next((peak for key, peak in PEAKS.items() if key in device.name), None)


def flops_per_second(peak: Peak, dtype: str) -> float:
    return peak.float32 if dtype == "float32" else peak.bfloat16


def forward_flops(shape: Shape, load: Load) -> int:
    """All rows through the layers, and their response tokens through the head."""
    return load.num_rows * (shape.layer_flops(load.length) + shape.head_flops(load.response))


def update_flops(config: Config, shape: Shape, load: Load) -> int:
    """Of the update: forward and backward, what is computed twice counted once, as in the usual
    model FLOPs utilisation (PaLM, arXiv 2204.02311)."""
    layers = load.num_rows * shape.layer_flops(load.length)
    critic = layers if config.algorithm.estimator.needs_critic else 0
    return 3 * (forward_flops(shape, load) + critic)


def recomputed_flops(config: Config, shape: Shape, load: Load) -> int:
    """What activation checkpointing adds to that."""
    if not config.train.use_activation_checkpointing:
        return 0
    num_models = 1 + config.algorithm.estimator.needs_critic
    return num_models * load.num_rows * shape.layer_flops(load.length)


def score_flops(config: Config, shape: Shape, load: Load) -> int:
    """Forward passes before the update: of the reference where its KL is in the objective, of the
    policy where old logprobs are wanted early, of the critic; and the exact KL's, of a few rows."""
    passes = (config.algorithm.kl_in != "none") + config.scores_before_update
    total = passes * forward_flops(shape, load)
    if config.algorithm.estimator.needs_critic:
        total += load.num_rows * shape.layer_flops(load.length)
    if config.measure.every:
        rows = min(config.measure.responses, config.rollout.group_size)
        share = rows / config.rollout.group_size
        total += int(3 * share * forward_flops(shape, load))
    return total


def rollout_flops(config: Config, shape: Shape, load: Load) -> int:
    """Each prompt once for its group, each response token once, each with its logits."""
    shared = load.num_rows - load.num_rows // config.rollout.group_size
    return forward_flops(shape, load) - shared * shape.layer_flops(load.prompt)


def rollout_bytes(config: Config, shape: Shape, load: Load, dtype: str) -> int:
    """Read from memory: the weights for each token that all rows write together, and each row's
    keys and values so far. Ranks that share an engine share its rows and read a part each."""
    sharers = config.rollout.tensor_parallel
    batches = -(-sharers * load.num_rows // max(1, config.rollout.max_rows))
    weights = sum(shape.num_parameters.values()) * BYTES[dtype] // sharers
    mean_length = load.prompt + load.response // 2
    cache = shape.cache_bytes(load.num_rows, mean_length, dtype)
    return load.response * (batches * weights + cache)


def step_seconds(config: Config, shape: Shape, load: Load, peak: Peak, dtype: str):
    """Rough seconds of (rollout, score, update), if every response goes to its limit; those of one
    rank, without what ranks tell each other.

    Args:
        dtype: the engine's.
    """
    sampling = COMPUTE_SHARE * flops_per_second(peak, dtype)
    training = COMPUTE_SHARE * flops_per_second(peak, config.model.compute_dtype)
    rollout = max(
        rollout_flops(config, shape, load) / sampling,
        rollout_bytes(config, shape, load, dtype) / (BANDWIDTH_SHARE * peak.bandwidth),
    )
    update = update_flops(config, shape, load) + recomputed_flops(config, shape, load)
    return rollout, score_flops(config, shape, load) / training, update / training
