"""PyTorch's attention (SDPA), as transformers calls it, but for one case on GPUs.

Where several heads share keys and values, transformers leaves the sharing to SDPA. In float32 the
only kernel for that on a GPU keeps the scores of all pairs of tokens, for every head of every
layer; with keys and values repeated there is one that keeps none (torch 2.13,
`scaled_dot_product_attention`, on `enable_gqa`).
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor


def mend_attention() -> None:
    """For all models that ask for `sdpa`, which is what they do by themselves."""
    from transformers import AttentionInterface

    AttentionInterface.register("sdpa", attention)


def attention(module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **settings):
    """(B, heads, T, width) each, fewer heads in `key` and `value`; see transformers."""
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

    if mask is None and keeps_scores(query, key):
        times = query.shape[1] // key.shape[1]
        key, value = repeat_kv(key, times), repeat_kv(value, times)
        module = SimpleNamespace(is_causal=getattr(module, "is_causal", True))  # Nothing shared.
    return sdpa_attention_forward(module, query, key, value, mask, **settings)


def keeps_scores(query: Tensor, key: Tensor) -> bool:
    """One token alone has few of them."""
    is_shared = key.shape[1] < query.shape[1]
    return is_shared and query.is_cuda and query.dtype == torch.float32 and query.shape[2] > 1
