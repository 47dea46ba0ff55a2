"""Whether vLLM's model holds the trainer's weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of a few tensors of vLLM's model, see `compared_names`."""

    equal: list[str]
    differing: list[str]
    repacked: list[str]
    """In a form of its own that nobody can read."""


def compared_names(model) -> list[str]:
    """The first and the last tensor of each kind in vLLM's `model`."""
    chosen = {}
    for name, _ in model.named_parameters():
        kind = "".join(character for character in name if not character.isdigit())
        chosen.setdefault((kind, "first"), name)
        chosen[kind, "last"] = name
    return list(dict.fromkeys(chosen.values()))


def compare_weights(weights: Mapping[str, Tensor], part: int, num_parts: int, model) -> Comparison:
    """vLLM's `model` against the trainer's `weights`, bit for bit in vLLM's dtype.

    Args:
        weights: those of `compared_names`, as far as the trainer has them.
        part: which of `num_parts` neighbours this model is: each has a part of every matrix.
    """
    parameters = dict(model.named_parameters())
    found = Comparison([], [], [])
    for name in compared_names(model):
        theirs = parameters[name].detach()
        parts = [weights[part] for part in parts_of(name) if part in weights]
        if not theirs.numel() or len(parts) != len(parts_of(name)):
            found.repacked.append(name)
            continue
        ours = _part_of(parts, theirs, part, num_parts).to(theirs.device, theirs.dtype)
        theirs = theirs[: len(ours)]  # Beyond it: rows that pad the vocabulary.
        (found.equal if torch.equal(ours, theirs) else found.differing).append(name)
    return found


def _part_of(tensors: list[Tensor], theirs: Tensor, part: int, num_parts: int) -> Tensor:
    """What of the trainer's tensors is in `theirs`, whose shape tells where it was cut."""
    if len(tensors) > 1:
        return torch.cat([each.chunk(num_parts)[part] for each in tensors])
    ours = tensors[0]
    if num_parts == 1 or ours.shape == theirs.shape:
        return ours
    if ours.dim() == 2 and ours.shape[1] != theirs.shape[1]:
        return ours.chunk(num_parts, dim=1)[part]
    return ours[part * len(theirs) : (part + 1) * len(theirs)]  # Padded, if at all, before the cut.


def parts_of(name: str) -> list[str]:
    """The trainer's names of what vLLM keeps as one tensor."""
    for fused, parts in FUSED.items():
        if f".{fused}." in name:
            return [name.replace(fused, part) for part in parts]
    return [name]
