"""A whole copy of a policy whose own weights lie in shards: those can only be used by all ranks at
once, and ranks decode different numbers of tokens."""

from __future__ import annotations

import copy

import torch
from torch import nn

from opo_cli.model.precision import precision_of, set_precision
from opo_cli.model.sharding import device_of
from opo_cli.rollout.delivery import Delivery


def replica_of(policy: nn.Module) -> nn.Module:
    """Without weights, see `fill`. They are said to need a gradient, and never get one: autocast
    keeps its casts of no others."""
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(policy.config)
    with torch.device("meta"):
        replica = AutoModelForCausalLM.from_config(
            config,
            dtype=next(policy.parameters()).dtype,
            attn_implementation=config._attn_implementation,
        )
    replica.generation_config = copy.deepcopy(policy.generation_config)
    set_precision(replica.eval(), precision_of(policy))
    return replica


@torch.no_grad()
def fill(replica: nn.Module, policy: nn.Module) -> None:
    """The policy's weights, bit for bit. Every rank has to come along.

    Raises:
        EngineError: see `Delivery.check`.
    """
    if replica.device.type == "meta":
        replica.to_empty(device=device_of(policy))
        replica.tie_weights()
    for name, buffer in policy.named_buffers():  # Some, such as rotary frequencies, in no state.
        replica.get_buffer(name).copy_(buffer)
    state, weights = replica.state_dict(), Delivery(policy)
    for name, tensor in weights:
        state[name].copy_(tensor)
    weights.check()


def empty(replica: nn.Module) -> None:
    """Gives back its memory until the next `fill`."""
    replica.to("meta")
