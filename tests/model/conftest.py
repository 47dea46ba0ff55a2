"""Small models with random weights, and what they allocate."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
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


@pytest.fixture
def peak_bytes() -> Callable[[Callable[[], object]], int]:
    """What PyTorch's allocator holds at most while `run` runs, beyond what it held before."""

    def measure(run: Callable[[], object]) -> int:
        run()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
            run()
        events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
        now = most = 0
        for event in sorted(events, key=lambda event: event.start_ns()):
            now += event.nbytes()
            most = max(most, now)
        return most

    return measure
