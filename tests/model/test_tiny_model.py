"""The embedded model as an ordinary Hugging Face folder."""

from __future__ import annotations

import random

import pytest
import torch

from opo_cli.config import Embedded
from opo_cli.data import tiny
from opo_cli.data.prompts import resolve_template
from opo_cli.model.tiny import build_model, build_tokenizer
from opo_cli.presets import resolve


def solutions(count: int) -> list[str]:
    rng, styles = random.Random(0), resolve("tiny").warmstart.stages[-1].styles
    chains = tiny.draw_chains(rng, (2, 9), heldout=False)
    return [tiny.draw_solution(rng, next(chains), styles) for _ in range(count)]


@pytest.mark.parametrize("loader", ["AutoTokenizer", "PreTrainedTokenizerFast", "Qwen2Tokenizer"])
def test_text_survives_every_loader_of_the_prepared_folder(loader, base):
    """With the model's config beside it: by it, loaders choose the tokenizer's class."""
    import transformers

    tokenizer, ours = getattr(transformers, loader).from_pretrained(base), build_tokenizer()
    assert tokenizer.eos_token_id == ours.eos_token_id
    line = resolve_template("line", tokenizer, is_embedded=True)
    prompts = [line.render(tiny.tier_problems(tier)[0].question) for tier in tiny.TIERS]
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
