"""Policies and critics in shards over all ranks, by FSDP2 (arXiv 2304.11277; `fully_shard`).

Of every weight each rank keeps a part, in float32, with its gradient and moments. A layer is put
together when its turn comes, in the compute dtype, and what is outside of the layers (embedding,
last norm, head) for a whole forward pass. Gradients are summed over ranks in float32.

In a process of its own nothing is sharded, and all that is here hands through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import MethodType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from opo_cli.model.attention import mend_attention
from opo_cli.model.folder import hush_transformers, model_source
from opo_cli.model.parallel import from_main, largest, on_all_ranks, whole
from opo_cli.model.policy import FLOAT32, load_policy, load_tokenizer
from opo_cli.model.precision import Precision, set_precision
from opo_cli.model.trust import trusted_config
from opo_cli.ranks import is_joined, is_main

Item = TypeVar("Item")
DEVICE = "opo_device"


def load_to_shard(path: str, device: torch.device, precision: Precision = FLOAT32):
    """As `load_policy`; where ranks share the work, rank 0 has the weights, in host memory, and the
    others a model without any, until `shard` deals them out."""
    if not is_joined():
        return load_policy(path, device, precision)
    loaded: list[Any] = []

    def load() -> None:
        if is_main():
            loaded.extend(load_policy(path, torch.device("cpu"), precision))
        else:
            loaded.extend((_skeleton(path, precision), load_tokenizer(path)))

    on_all_ranks(load)
    model, tokenizer = loaded
    # A file beside the config may say more of where responses end.
    model.generation_config = from_main(lambda: model.generation_config)
    return model, tokenizer


def _skeleton(path: str, precision: Precision) -> nn.Module:
    """A model without weights."""
    from transformers import AutoModelForCausalLM

    hush_transformers()
    mend_attention()
    config = trusted_config(model_source(path))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.config.name_or_path = path
    set_precision(model.eval(), precision)
    return model


def shard(
    model: nn.Module,
    backbone: nn.Module,
    device: torch.device,
    precision: Precision,
    *,
    is_trained: bool = True,
    use_offload: bool = False,
) -> None:
    """Deals the weights that rank 0 holds out to all ranks; does nothing where there are none.

    Args:
        model: as `load_to_shard` has it, or made from that.
        backbone: its decoder.
        is_trained: a frozen one keeps nothing together between forward passes.
        use_offload: the parts lie in host memory.
    """
    if not is_joined():
        return
    state = dict(model.state_dict()) if is_main() else {}
    buffers = dict(model.named_buffers())
    mesh = dist.device_mesh.init_device_mesh(device.type, (dist.get_world_size(),))
    offload = CPUOffloadPolicy(device.type == "cuda") if use_offload else OffloadPolicy()
    dtype = None if precision.compute == torch.float32 else precision.compute
    common = {"mesh": mesh, "offload_policy": offload}
    for layer in backbone.layers:
        policy = MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False)
        fully_shard(layer, mp_policy=policy, **common)
    policy = MixedPrecisionPolicy(None, torch.float32, cast_forward_inputs=False)
    fully_shard(model, mp_policy=policy, reshard_after_forward=not is_trained, **common)
    for part in _parts(model):
        part.set_gradient_divide_factor(1.0)  # Shares of one loss: their gradients add up.
        part.set_force_sum_reduction_for_comms(True)
    model.compute = MethodType(_compute, model)
    register_fsdp_forward_method(model, "compute")
    setattr(model, DEVICE, device)
    if not is_main():
        model.to_empty(device="cpu" if use_offload else device)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, state, options=options)
    _broadcast_buffers(model, buffers, device)


def _broadcast_buffers(model: nn.Module, kept: dict[str, Tensor], device: torch.device) -> None:
    """Rank 0's, such as rotary frequencies, which no state holds."""
    for name, buffer in model.named_buffers():
        value = kept[name].to(device) if is_main() else torch.empty_like(buffer, device=device)
        dist.broadcast(value, 0)
        buffer.data = value


def _compute(self, compute: Callable[..., tuple[Tensor, ...]], *inputs: Any):
    """No views: FSDP2 warns of them, as writing into one would part it from its hook."""
    return tuple(each.clone() if each._is_view() else each for each in compute(*inputs))


def _parts(model: nn.Module) -> list[FSDPModule]:
    return [part for part in model.modules() if isinstance(part, FSDPModule)]


def is_sharded(model: nn.Module) -> bool:
    return isinstance(model, FSDPModule)


def device_of(model: nn.Module) -> torch.device:
    """Where it computes, wherever its weights lie."""
    return getattr(model, DEVICE, None) or next(model.parameters()).device


def with_weights(
    model: nn.Module, compute: Callable[..., tuple[Tensor, ...]], *inputs: Any
) -> tuple[Tensor, ...]:
    """`compute(*inputs)`, which reads weights of `model` other than by calling it: inside they are
    whole. Every rank has to come along."""
    return model.compute(compute, *inputs) if is_sharded(model) else compute(*inputs)


def rounds(model: nn.Module, microbatches: Sequence[Item]) -> list[Item | None]:
    """A rank's microbatches; where `model` is in shards, followed by None until every rank has had
    its last, so that all of them call it equally often."""
    if not is_sharded(model):
        return list(microbatches)
    count = max(1, largest(len(microbatches)))
    return [*microbatches, *[None] * (count - len(microbatches))]


def put_away(model: nn.Module) -> None:
    """Drops what is kept whole; before weights are changed other than by training."""
    for part in _parts(model):
        part.reshard()


def whole_state(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) as in its state dict, one after the other: never all at once. Every rank has
    to take them all."""
    for name, tensor in model.state_dict().items():
        yield name, whole(tensor)
