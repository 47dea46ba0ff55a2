"""The embedded model as an ordinary Hugging Face folder."""

from __future__ import annotations

import random

import pytest
import torch

from opo_cli.config import Embedded
from opo_cli.data.prompts import STEP_BY_STEP, resolve_template
from opo_cli.data.tasks import TASKS
from opo_cli.model.tiny import TOKENIZERS, build_model, build_tokenizer
from opo_cli.presets import resolve


def solutions(count: int) -> list[str]:
    rng, styles = random.Random(0), resolve("tiny").warmstart.stages[-1].styles
    found = []
    for task in TASKS.values():
        items = task.draws(rng, (3, 9), heldout=False)
        found += [task.draw_solution(rng, next(items), styles) for _ in range(count)]
    return found


@pytest.mark.parametrize("loader", ["AutoTokenizer", "PreTrainedTokenizerFast", "Qwen2Tokenizer"])
def test_text_survives_every_loader_of_the_prepared_folder(loader, base):
    """With the model's config beside it: by it, loaders choose the tokenizer's class."""
    import transformers

    tokenizer, ours = getattr(transformers, loader).from_pretrained(base), build_tokenizer()
    assert tokenizer.eos_token_id == ours.eos_token_id
    line = resolve_template("line", tokenizer, is_embedded=True)
    tiers = [task.tier_problems(tier) for task in TASKS.values() for tier in task.tiers]
    prompts = [line.render(problems[0].question) for problems in tiers]
    for text in [*solutions(300), *prompts]:
        assert tokenizer.encode(text) == ours.encode(text)
        ids = tokenizer.encode(text, add_special_tokens=True)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_words_are_one_token():
    tokenizer = build_tokenizer()
    assert len(tokenizer.encode("\\boxed{12}")) == 4
    assert tokenizer.encode("x") == []


def test_weights_follow_from_the_seed_alone():
    tokenizer, state = build_tokenizer(), torch.get_rng_state()
    first, again, other = (build_model(Embedded(), tokenizer, seed) for seed in (3, 3, 4))
    weight = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(first.state_dict()[weight], again.state_dict()[weight])
    assert not torch.equal(first.state_dict()[weight], other.state_dict()[weight])
    assert torch.equal(state, torch.get_rng_state())


def test_it_is_about_as_small_as_said():
    model = build_model(Embedded(), build_tokenizer(), 0)
    assert 150_000 < sum(p.numel() for p in model.parameters()) < 180_000


def test_the_default_shape_is_what_it_always_was():
    """Heads of their own, a tied head, no spare ids: the same weights as before there was a
    choice."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=26,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        initializer_range=0.05,
        tie_word_embeddings=True,
        pad_token_id=0,  # Its row starts at zero.
    )
    torch.manual_seed(3)
    expected = Qwen2ForCausalLM(config).state_dict()
    found = build_model(Embedded(), build_tokenizer(), 3).state_dict()
    assert found.keys() == expected.keys()
    assert all(found[name].equal(expected[name]) for name in found)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_number_of_tokens_is_known_without_a_tokenizer(name):
    from opo_cli.model.lookup import embedded_shape

    assert len(build_tokenizer(name)) == TOKENIZERS[name]
    assert embedded_shape(Embedded(tokenizer=name)).vocab_size == TOKENIZERS[name]


QWEN = Embedded(
    hidden_size=192,
    num_heads=6,
    num_key_value_heads=1,
    vocab_size=1000,
    use_tied_embeddings=False,
    tokenizer="bytes",
)
TEXTS = [
    "x\u00b2 + \\boxed{\\frac{1}{2}}\n\n  \u65e5\u672c \U0001f600",
    "  a\t\x00b\r\n'll 123",
    "<|im_start|>user\nQ<|im_end|>\n",
]


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen")
    tokenizer = build_tokenizer("bytes")
    build_model(QWEN, tokenizer, 0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def loaded(qwen_folder):
    from opo_cli.model.policy import load_policy

    return load_policy(str(qwen_folder), torch.device("cpu"))


def test_a_shape_with_all_choices_is_an_ordinary_model(loaded):
    model, _ = loaded
    layer = model.model.layers[0].self_attn
    assert layer.q_proj.weight.shape == (192, 192)
    assert layer.k_proj.weight.shape == (32, 192)
    assert model.lm_head.weight.shape == (1000, 192)
    assert not model.lm_head.weight.equal(model.model.embed_tokens.weight)


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_write_any_text(text, loaded):
    tokenizer = loaded[1]
    ids = tokenizer.encode(text, add_special_tokens=True)
    assert tokenizer.decode(ids) == text
    marks = text.count("<|im_")
    assert (
        len(ids) == len(text.replace("<|im_start|>", "").replace("<|im_end|>", "").encode()) + marks
    )
    plain = text.replace("<|im_start|>", "").replace("<|im_end|>", "")
    assert tokenizer.decode(ids, skip_special_tokens=True) == plain


def test_bytes_speak_qwens_chat(loaded):
    tokenizer = loaded[1]
    assert tokenizer.eos_token == "<|endoftext|>"
    chat = resolve_template("chat", tokenizer, is_embedded=False).render("Q")
    assert chat == (
        f"<|im_start|>system\n{STEP_BY_STEP}<|im_end|>\n"
        f"<|im_start|>user\nQ\n{STEP_BY_STEP}<|im_end|>\n<|im_start|>assistant\n"
    )
    own = resolve_template("qwen-math", tokenizer, is_embedded=False).render("Q")
    assert tokenizer.decode(tokenizer.encode(own)) == own


def test_ids_that_no_token_has_decode_to_nothing(loaded):
    tokenizer = loaded[1]
    assert [tokenizer.decode([i]) for i in (259, 500, 999)] == ["", "", ""]
    inside = [tokenizer.encode("a")[0], 999, tokenizer.encode("b")[0]]
    assert tokenizer.batch_decode([inside, [700]], skip_special_tokens=True) == ["ab", ""]
    assert isinstance(tokenizer.decode([tokenizer.encode("\u00b2")[0]]), str)  # Half a character.
