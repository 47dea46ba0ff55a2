"""The embedded model: a from-scratch Qwen2 with a tokenizer of its own, in Hugging Face form.

Both tokenizers are genuine Qwen2 ones (byte-level, here without merges) rather than of our own
make: `AutoTokenizer` puts Qwen2's in the place of any other that lies beside a Qwen2 model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opo_cli.data.embedded import CHARACTERS, WORDS
from opo_cli.data.prompts import CHATML, STEP_BY_STEP
from opo_cli.errors import OpoError

if TYPE_CHECKING:
    from opo_cli.config import Embedded

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
BYTE_SYMBOLS = {"\n": "Ċ"}  # How a byte-level vocabulary spells what is not printable.
END = "<|endoftext|>"  # Ends responses and pads, as in Qwen2.5-Math; Instruct ends with <|im_end|>.
TURN_MARKS = ("<|im_start|>", "<|im_end|>")
NUM_BYTES = 256

TOKENIZERS = {
    "task": 3 + len(CHARACTERS) + len(WORDS),
    "bytes": NUM_BYTES + 1 + len(TURN_MARKS),
}
"""Name -> number of tokens, which needs no transformers to tell."""


def build_tokenizer(name: str = "task"):
    """A row of `TOKENIZERS`."""
    return {"task": _of_task, "bytes": _of_bytes}[name]()


def _of_task():
    """One token per word of the embedded tasks, else per character; others are dropped.
    No spare ids: an undertrained model would sample them."""
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


def _of_bytes():
    """One token per byte of UTF-8, so that it writes any text; special tokens behind the bytes in
    Qwen's order."""
    from tokenizers import AddedToken
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    special = [AddedToken(text, normalized=False, special=True) for text in (END, *TURN_MARKS)]
    tokenizer = Qwen2Tokenizer(
        vocab={symbol: i for i, symbol in enumerate(sorted(ByteLevel.alphabet()))},
        merges=[],
        pad_token=END,
        eos_token=END,
        unk_token=END,
    )
    tokenizer.add_tokens(special, special_tokens=True)
    tokenizer.chat_template = _chat_template()
    return tokenizer


def _chat_template() -> str:
    """ChatML with Qwen2.5-Math's system prompt, where the conversation brings none."""
    system, turn = CHATML.split("<|im_start|>user")[0], "<|im_start|>{{ m.role }}\n{{ m.content }}"
    return (
        "{% if messages[0].role != 'system' %}"
        + system.replace("{system}", STEP_BY_STEP)
        + "{% endif %}{% for m in messages %}"
        + turn
        + "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def check_vocabulary(shape: Embedded) -> None:
    """Raises OpoError where the embedding has fewer rows than the tokenizer has tokens."""
    tokens = TOKENIZERS[shape.tokenizer]
    if 0 < shape.vocab_size < tokens:
        raise OpoError(
            f"model.embedded.vocab_size = {shape.vocab_size}: the '{shape.tokenizer}' tokenizer "
            f"has {tokens} tokens",
            f"--set model.embedded.vocab_size={tokens} or more, or 0 for just as many",
        )


def build_model(shape: Embedded, tokenizer, seed: int):
    """A Qwen2 with random weights, a function of the seed; 162k parameters by default.

    Ids beyond the tokenizer's, of which Qwen2.5 has some too, are sampled like others and decode to
    nothing.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=shape.vocab_size or len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_key_value_heads or shape.num_heads,
        max_position_embeddings=shape.max_position_embeddings,
        initializer_range=shape.initializer_range,
        tie_word_embeddings=shape.use_tied_embeddings,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)
