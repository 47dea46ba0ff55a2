"""The embedded model: a from-scratch Qwen2 with a tokenizer of its own, in Hugging Face form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from opo_cli.data.tiny import CHARACTERS, WORDS

if TYPE_CHECKING:
    from opo_cli.config import Embedded

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"


def build_tokenizer():
    """One token per word of the task, else per character; any other character is `<unk>`.

    No spare ids: an undertrained model would sample them.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = [PAD, EOS, UNKNOWN, *WORDS, *CHARACTERS]
    tokenizer = Tokenizer(
        models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token=UNKNOWN)
    )
    words = "|".join(word.replace("\\", "\\\\").replace("{", "\\{") for word in WORDS)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(rf"{words}|[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


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
