"""In which precision a policy computes. It goes with the model, so that whoever evaluates it, to
train, to score or to sample, gets the same numbers.

Weights, gradients and whatever is summed over a vocabulary are float32 in any case.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from opo_cli.config import Model

ATTRIBUTE = "opo_precision"


@dataclass(frozen=True, slots=True)
class Precision:
    compute: torch.dtype = torch.float32
    """Of the layers' matrix products and attention; norms and the residual stream are float32."""
    head: torch.dtype = torch.float32
    """Of the output embedding's product."""

    @staticmethod
    def of(settings: Model) -> Precision:
        """`model.compute_dtype` and `model.head_dtype`."""
        head = settings.head_dtype
        head = settings.compute_dtype if head == "compute" else head
        return Precision(getattr(torch, settings.compute_dtype), getattr(torch, head))

    def autocast(self, device: torch.device) -> torch.autocast:
        """For the layers. While an outer one is open, and no gradient is wanted, weights are cast
        once for all that happens inside."""
        is_lower = self.compute != torch.float32
        return torch.autocast(
            device.type, dtype=self.compute if is_lower else None, enabled=is_lower
        )


def set_precision(model: nn.Module, precision: Precision) -> None:
    """Copies of the model keep it."""
    setattr(model, ATTRIBUTE, precision)


def precision_of(model: nn.Module) -> Precision:
    """float32 where nobody has set another."""
    return getattr(model, ATTRIBUTE, Precision())


def run_layers(backbone: nn.Module, precision: Precision, input_ids: Tensor, **inputs):
    """The output of a decoder without its head."""
    with precision.autocast(input_ids.device):
        return backbone(input_ids=input_ids, **inputs)


def logits_of(model, hidden: Tensor) -> Tensor:
    """(..., H) -> (..., V) in float32.

    The weight is cast here rather than by autocast, which would keep the copy and sum its gradients
    over several calls in the lower precision.
    """
    head, dtype = model.get_output_embeddings(), precision_of(model).head
    bias = getattr(head, "bias", None)
    with torch.autocast(hidden.device.type, enabled=False):
        return nn.functional.linear(
            hidden.to(dtype), head.weight.to(dtype), None if bias is None else bias.to(dtype)
        ).float()
