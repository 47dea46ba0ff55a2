"""Which parameters the lab takes gradients of, and by what they are scaled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from opo_cli.errors import OpoError
from opo_cli.lab.settings import CHOICES

RANK = 16  # Of the adapters; one of the usual ones.
LORA = "lora"


@contextmanager
def measured_parameters(model, which: str, seed: int) -> Iterator[dict[str, nn.Parameter]]:
    """Name -> parameter, tied ones once.

    `lm-head` is the output embedding; where it is tied, its gradient has the input's part, too.
    `last-block` is the last decoder layer. `lora`: see `_adapters`; inside, the model has them.

    Raises:
        OpoError: an architecture without such parts.
    """
    named = dict(model.named_parameters())
    if which == LORA:
        with _adapters(model, seed) as found:
            yield found
    elif which == "all":
        yield named
    else:
        part = model.get_output_embeddings() if which == "lm-head" else _layers(model)[-1]
        kept = {id(parameter) for parameter in part.parameters()}
        yield {name: each for name, each in named.items() if id(each) in kept}


def _layers(model) -> nn.ModuleList:
    count = model.config.get_text_config().num_hidden_layers
    for module in model.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise OpoError(
        f"--parameters: {type(model).__name__} has no list of {count} layers",
        "--parameters all, or lm-head",
    )


@contextmanager
def _adapters(model, seed: int) -> Iterator[dict[str, nn.Parameter]]:
    """LoRA (arXiv 2106.09685) at its start: W + B A on every linear layer of the blocks, rank 16,
    A uniform within 1/sqrt(width) as Kaiming's, B zero, without a scale, which would cancel from
    every ratio. The policy stays as it is. A's gradient is then zero, so B's alone is measured: the
    first step of a fresh adapter, not that of one that has been trained."""
    random = torch.Generator().manual_seed(seed)
    found, hooks, changed = {}, [], []
    try:
        for place, layer in enumerate(_layers(model)):
            for name, linear in list(layer.named_modules()):
                if not isinstance(linear, nn.Linear):
                    continue
                bound, weight = linear.in_features**-0.5, linear.weight
                down = torch.rand(RANK, linear.in_features, generator=random) * 2 - 1
                linear.register_buffer("lora_a", (down * bound).to(weight), persistent=False)
                up = nn.Parameter(weight.new_zeros(linear.out_features, RANK))
                linear.register_parameter("lora_b", up)
                changed.append(linear)
                hooks.append(linear.register_forward_hook(_add_adapter))
                found[f"{place}.{name}.lora_b"] = up
        if not found:
            raise OpoError(
                f"--parameters lora: {type(model).__name__} has no linear layers in its blocks",
                f"--parameters {', '.join(name for name in CHOICES['parameters'] if name != LORA)}",
            )
        yield {name: each for name, each in model.named_parameters() if name.endswith("lora_b")}
    finally:
        for hook in hooks:
            hook.remove()
        for linear in changed:
            del linear.lora_a, linear.lora_b


def _add_adapter(linear, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    low = nn.functional.linear(inputs[0], linear.lora_a)
    return output + nn.functional.linear(low, linear.lora_b)


def adam_scales(
    moments: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter], epsilon: float
) -> list[Tensor]:
    """Per parameter (n,): 1 / (sqrt(v) + epsilon), by which AdamW scales each coordinate of its
    step.

    Args:
        moments: name -> second moment, bias-corrected.
    """
    return [
        1 / (moments[name].to(each.device).float().reshape(-1).sqrt() + epsilon)
        for name, each in parameters.items()
    ]
