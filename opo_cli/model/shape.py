"""The shape of a decoder, and what follows from it: parameters, floating point operations, bytes.
No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

PROMPT_ROOM = 1024  # Tokens; no prompt of the benchmarks that we know is longer.
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
    has_qkv_bias: bool = True
    """As Qwen2 has and Llama has not."""
    architecture: str = ""
    """Its class in transformers; empty where the config does not say."""

    @property
    def query_width(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def key_width(self) -> int:
        """Of keys, and of values."""
        return self.num_key_value_heads * self.head_dim

    @property
    def num_parameters(self) -> dict[str, int]:
        """By part; a tied head is part of the embedding. Exact for Qwen2 and Llama."""
        width, queries, keys = self.hidden_size, self.query_width, self.key_width
        biases = (queries + 2 * keys) if self.has_qkv_bias else 0
        table = self.vocab_size * width
        return {
            "embedding": table,
            "attention": self.num_layers * (2 * width * (queries + keys) + biases),
            "mlp": self.num_layers * 3 * width * self.intermediate_size,
            "norms": (2 * self.num_layers + 1) * width,
            "head": 0 if self.is_tied else table,
        }

    @property
    def num_multiplied(self) -> int:
        """Weights of the layers' matrix products, biases left out."""
        width = self.hidden_size
        attention = 2 * width * (self.query_width + self.key_width)
        return self.num_layers * (attention + 3 * width * self.intermediate_size)

    def layer_flops(self, length: int) -> int:
        """Floating point operations of the layers, forward, for one row of `length` tokens: two per
        weight and token, and for queries, keys and values four per width and causal pair (PaLM,
        arXiv 2204.02311, appendix B). Backward takes twice that."""
        pairs = length * (length + 1) // 2
        return 2 * self.num_multiplied * length + 4 * self.num_layers * self.query_width * pairs

    def head_flops(self, num_tokens: int) -> int:
        """Likewise of the output embedding, for tokens that are scored or sampled."""
        return 2 * self.vocab_size * self.hidden_size * num_tokens

    def cache_bytes_per_token(self, dtype: str) -> int:
        """Keys and values of all layers."""
        return 2 * self.num_layers * self.key_width * BYTES[dtype]

    def cache_bytes(self, num_rows: int, length: int, dtype: str) -> int:
        """Of `num_rows` rows of `length` tokens, nothing shared among them."""
        return num_rows * length * self.cache_bytes_per_token(dtype)


def shape_of(config: Any) -> Shape:
    """From a transformers config, or the dict of a `config.json`.

    Raises:
        AttributeError: it lacks what every decoder has.
    """
    if isinstance(config, Mapping):
        config = SimpleNamespace(**{**config, **(config.get("text_config") or {})})
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    heads = config.num_attention_heads
    is_qwen2 = getattr(config, "model_type", "") == "qwen2"
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
        has_qkv_bias=is_qwen2 or bool(getattr(config, "attention_bias", False)),
        architecture=(getattr(config, "architectures", None) or [""])[0],
    )
