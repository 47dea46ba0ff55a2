"""Small models with random weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM


@pytest.fixture
def make_model() -> Callable[..., Qwen2ForCausalLM]:
    """A Qwen2 whose distributions are far from uniform."""

    def make(**shape) -> Qwen2ForCausalLM:
        defaults = {
            "vocab_size": 50,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "initializer_range": 0.2,
        }
        torch.manual_seed(0)
        return Qwen2ForCausalLM(Qwen2Config(**{**defaults, **shape})).eval()

    return make
