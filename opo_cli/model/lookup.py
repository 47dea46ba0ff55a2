"""A model's shape before it is there: nothing is downloaded, no weight is read."""

from __future__ import annotations

import json
import os
from pathlib import Path

from opo_cli.config import Embedded, Model
from opo_cli.model.shape import Shape, shape_of
from opo_cli.model.tiny import TOKENIZERS

# Of the presets' models, as in the config.json of their hub repositories. Written down from memory,
# where their sums are the parameters that the hub counts, 1,543,714,304 and 7,615,616,512; once a
# config.json is in the hub's cache, it goes before.
QWEN2_7B = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
}
KNOWN = {
    "Qwen/Qwen2.5-Math-1.5B": {
        "model_type": "qwen2",
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
        "max_position_embeddings": 4096,
    },
    "Qwen/Qwen2.5-Math-7B": QWEN2_7B | {"max_position_embeddings": 4096},
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": QWEN2_7B | {"max_position_embeddings": 131072},
}


def find_shape(model: Model) -> tuple[Shape | None, str]:
    """(shape, where it is from); (None, why not)."""
    if not model.path:
        return embedded_shape(model.embedded), "model.embedded"
    folder = Path(os.path.expanduser(model.path))
    found = folder / "config.json" if folder.is_dir() else _cached(model.path)
    if found is not None:
        return _read(found)
    if model.path in KNOWN:
        return shape_of(KNOWN[model.path]), "known; not downloaded yet"
    return None, "its config.json is not on this machine"


def embedded_shape(shape: Embedded) -> Shape:
    """See `model.tiny.build_model`."""
    return Shape(
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_layers=shape.num_layers,
        num_heads=shape.num_heads,
        num_key_value_heads=shape.num_key_value_heads or shape.num_heads,
        head_dim=shape.hidden_size // shape.num_heads,
        vocab_size=shape.vocab_size or TOKENIZERS[shape.tokenizer],
        is_tied=shape.use_tied_embeddings,
        max_positions=shape.max_position_embeddings,
        architecture="Qwen2ForCausalLM",
    )


def _cached(name: str) -> Path | None:
    """A hub id's config.json in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def _read(path: Path) -> tuple[Shape | None, str]:
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        return None, f"{path}: {error}"
    if not isinstance(config, dict):
        return None, f"{path} holds no table"
    kind = f"{path}: sizes of model_type '{config.get('model_type', '')}' are not foreseen"
    if any("expert" in key for key in config):
        return None, kind
    try:
        return shape_of(config), str(path)
    except (AttributeError, TypeError):
        return None, kind
