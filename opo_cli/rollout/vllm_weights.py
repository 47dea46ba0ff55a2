"""Whether vLLM's model holds the trainer's weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of a few tensors of vLLM's model, the first and the last of each kind."""

    equal: list[str]
    differing: list[str]
    repacked: list[str]
    """In a form of its own that nobody can read."""


def compare_weights(weights: dict[str, Tensor], model) -> Comparison:
    """vLLM's `model` against the trainer's `weights`, bit for bit in vLLM's dtype."""
    chosen = {}
    for name, parameter in model.named_parameters():
        kind = "".join(character for character in name if not character.isdigit())
        chosen.setdefault((kind, "first"), (name, parameter))
        chosen[kind, "last"] = name, parameter
    found = Comparison([], [], [])
    for name, theirs in dict(chosen.values()).items():
        parts = [weights[part] for part in parts_of(name) if part in weights]
        if not theirs.numel() or len(parts) != len(parts_of(name)):
            found.repacked.append(name)
            continue
        ours = (torch.cat(parts) if len(parts) > 1 else parts[0]).to(theirs.dtype)
        theirs = theirs[: len(ours)].detach()  # Beyond it: rows that pad the vocabulary.
        (found.equal if torch.equal(ours, theirs) else found.differing).append(name)
    return found


def parts_of(name: str) -> list[str]:
    """The trainer's names of what vLLM keeps as one tensor."""
    for fused, parts in FUSED.items():
        if f".{fused}." in name:
            return [name.replace(fused, part) for part in parts]
    return [name]
