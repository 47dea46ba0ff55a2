"""The embedded model: a from-scratch Qwen2 with a tokenizer of its own, in Hugging Face form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from opo_cli.data.tiny import CHARACTERS, WORDS

if TYPE_CHECKING:
    from opo_cli.config import Embedded

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
BYTE_SYMBOLS = {"\n": "Ċ"}  # How a byte-level vocabulary spells what is not printable.


def build_tokenizer():
    """One token per word of the task, else per character; characters of no use to it are dropped.

    A genuine Qwen2 tokenizer (byte-level, here without merges) rather than one of our own make:
    `AutoTokenizer` puts Qwen2's in the place of any other that lies beside a Qwen2 model. No spare
    ids: an undertrained model would sample them.
    """
    from tokenizers import AddedToken
    from transformers import Qwen2Tokenizer

    symbols = [BYTE_SYMBOLS.get(character, character) for character in CHARACTERS]
    tokenizer = Qwen2Tokenizer(
        vocab={token: i for i, token in enumerate([PAD, EOS, UNKNOWN, *symbols])},
        merges=[],
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
    )
    tokenizer.add_tokens([AddedToken(word, normalized=False, special=False) for word in WORDS])
    return tokenizer


def build_model(shape: Embedded, tokenizer, seed: int):
    """A Qwen2 with random weights, a function of the seed; 162k parameters by default."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_heads,
        max_position_embeddings=shape.max_position_embeddings,
        initializer_range=shape.initializer_range,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)
