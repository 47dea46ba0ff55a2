"""Attention with keys and values repeated, which float32 takes on a GPU."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from opo_cli.config import Embedded
from opo_cli.model import attention as attention_module
from opo_cli.model.attention import keeps_scores, mend_attention
from opo_cli.model.scores import token_scores
from opo_cli.model.sequences import Sequences
from opo_cli.model.tiny import build_model, build_tokenizer

ROWS = Sequences.pack([[10, 11, 12], [20]], [[5, 6, 1], [7, 8]], torch.device("cpu"))


def heads(count: int, *, length: int = 5, dtype=torch.float32, is_cuda: bool = True):
    return SimpleNamespace(shape=(2, count, length, 16), dtype=dtype, is_cuda=is_cuda)


@pytest.mark.parametrize(
    ("query", "key", "expected"),
    [
        (heads(4), heads(2), True),
        (heads(4), heads(4), False),
        (heads(4, length=1), heads(2), False),
        (heads(4, dtype=torch.bfloat16), heads(2), False),
        (heads(4, is_cuda=False), heads(2), False),
    ],
)
def test_where_scores_would_be_kept(query, key, expected: bool):
    assert keeps_scores(query, key) == expected


def test_repeated_keys_and_values_give_the_same(monkeypatch):
    """Scores and gradients; and SDPA is told of nothing that is shared."""
    mend_attention()
    shape = Embedded(num_heads=4, num_key_value_heads=2)
    model = build_model(shape, build_tokenizer(), seed=0)
    plain = results(model)
    monkeypatch.setattr(attention_module, "keeps_scores", lambda query, key: True)
    sdpa, calls = torch.nn.functional.scaled_dot_product_attention, []

    def seen(query, key, value, **settings):
        calls.append((query.shape[1], key.shape[1], value.shape[1], settings.get("enable_gqa")))
        return sdpa(query, key, value, **settings)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", seen)
    repeated = results(model)
    assert set(calls) == {(4, 4, 4, None)}
    for ours, expected in zip(repeated, plain, strict=True):
        assert torch.allclose(ours, expected, atol=1e-5)


def results(model) -> list[torch.Tensor]:
    scores = token_scores(model, ROWS).logprobs
    model.zero_grad()
    scores.sum().backward()
    return [scores.detach(), *(p.grad.clone() for p in model.parameters())]
