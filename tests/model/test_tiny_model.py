"""The embedded model as an ordinary Hugging Face folder."""

from __future__ import annotations

import random

import torch

from opo_cli.config import Embedded
from opo_cli.data import tiny
from opo_cli.model.tiny import build_model, build_tokenizer
from opo_cli.presets import resolve


def solutions(count: int) -> list[str]:
    rng, styles = random.Random(0), resolve("tiny").warmstart.stages[-1].styles
    chains = tiny.draw_chains(rng, (2, 9), heldout=False)
    return [tiny.draw_solution(rng, next(chains), styles) for _ in range(count)]


def test_solutions_survive_the_tokenizer(tmp_path):
    build_tokenizer().save_pretrained(tmp_path)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for text in solutions(300):
        ids = tokenizer.encode(text, add_special_tokens=True)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_words_are_one_token():
    tokenizer = build_tokenizer()
    assert len(tokenizer.encode("\\boxed{12}")) == 4
    assert tokenizer.encode("x") == [tokenizer.unk_token_id]


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
