"""Activation checkpointing of a decoder's layers.

transformers has its own, which acts in training mode alone and then takes the cache from whoever
generates. Our policies stay in evaluation mode, and what counts is whether a gradient is wanted.
"""

from __future__ import annotations

from functools import partial
from types import MethodType

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from opo_cli.errors import OpoError


def recompute_layers(backbone: nn.Module) -> None:
    """From now on, a forward pass with gradient keeps each layer's input alone, and the backward
    pass computes the rest again. Copies of the backbone do the same.

    Raises:
        OpoError: an architecture without such layers.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [each for each in backbone.modules() if isinstance(each, GradientCheckpointingLayer)]
    if not layers:
        raise OpoError(
            f"train.use_activation_checkpointing: {type(backbone).__name__} has no layers that "
            "can be computed again",
            "--set train.use_activation_checkpointing=false, with less train.microbatch_tokens",
        )
    for layer in layers:
        layer.forward = MethodType(_forward, layer)


def _forward(layer: nn.Module, *inputs, **keywords):
    forward = partial(type(layer).forward, layer)
    if not torch.is_grad_enabled():
        return forward(*inputs, **keywords)
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, **keywords)
