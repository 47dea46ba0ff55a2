"""What of the trainer's tensors a vLLM among several has, where it can be read: on a GPU. Cut here
as its layers cut them (vllm/model_executor/layers/linear.py, vocab_parallel_embedding.py)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from opo_cli.rollout.vllm_weights import compare_weights, compared_names

PADDED = 64  # Rows of the vocabulary are padded to a multiple of it.
COLUMNS = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


class Named(nn.Module):
    def __init__(self, tensors: dict[str, torch.Tensor]):
        super().__init__()
        self.tensors = tensors

    def named_parameters(self):
        yield from self.tensors.items()


def as_vllm(weights: dict[str, torch.Tensor], part: int, num_parts: int) -> dict:
    """One of `num_parts` neighbours."""
    found = {}
    for name, tensor in weights.items():
        if "embed_tokens" in name or "lm_head" in name:
            rows = -(-len(tensor) // PADDED) * PADDED
            padded = torch.cat([tensor, tensor.new_zeros(rows - len(tensor), *tensor.shape[1:])])
            found[name] = padded.chunk(num_parts)[part]
        elif "o_proj" in name or "down_proj" in name:
            found[name] = tensor.chunk(num_parts, dim=1)[part]
        elif "norm" in name:
            found[name] = tensor
        elif "q_proj" in name or "gate_proj" in name:
            first = name.split(".")[-2]
            fused = next(f for f, parts in COLUMNS.items() if parts[0] == first)
            tensors = [weights[name.replace(first, each)] for each in COLUMNS[fused]]
            cut = [each.chunk(num_parts)[part] for each in tensors]
            found[name.replace(first, fused)] = torch.cat(cut)
    return found


@pytest.mark.parametrize("num_parts", [1, 2])
def test_each_part_is_compared_with_its_own(num_parts, policy_and_tokenizer):
    weights = dict(policy_and_tokenizer[0].state_dict())
    generator = torch.Generator().manual_seed(0)  # Parts of norms and biases would be alike.
    weights = {n: torch.randn(w.shape, generator=generator) for n, w in weights.items()}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = torch.randn(90, weights[name].shape[1], generator=generator)
    for part in range(num_parts):
        theirs = as_vllm(weights, part, num_parts)
        found = compare_weights(weights, part, num_parts, Named(theirs))
        assert (found.differing, found.repacked) == ([], [])
        assert found.equal == compared_names(Named(theirs))
        for name in found.equal:
            changed = theirs | {name: theirs[name].clone()}
            changed[name].view(-1)[0] += 1
            assert compare_weights(weights, part, num_parts, Named(changed)).differing == [name]
        if num_parts > 1:
            other = compare_weights(weights, 1 - part, num_parts, Named(theirs))
            assert {name for name in other.equal if "norm" not in name} == set()
