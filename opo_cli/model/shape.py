"""The shape of a decoder, and what follows from it. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    is_tied: bool
    """Whether the output embedding is the input's."""
    max_positions: int | None
    """Longest prompt plus response, tokens; None: no limit is stated."""

    def cache_bytes_per_token(self, dtype: str) -> int:
        """Keys and values of all layers."""
        width = self.num_key_value_heads * self.head_dim
        return 2 * self.num_layers * width * BYTES[dtype]


def shape_of(config: Any) -> Shape:
    """From a transformers config, or the dict of a `config.json` wrapped in a namespace."""
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    heads = config.num_attention_heads
    return Shape(
        hidden_size=config.hidden_size,
        intermediate_size=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        num_layers=config.num_hidden_layers,
        num_heads=heads,
        num_key_value_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        vocab_size=config.vocab_size,
        is_tied=bool(getattr(config, "tie_word_embeddings", False)),
        max_positions=getattr(config, "max_position_embeddings", None),
    )
