"""Shapes against real models: parameters, floating point operations, and where they are found."""

from __future__ import annotations

import json
from dataclasses import replace
from inspect import signature
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from opo_cli.config import Embedded, Model
from opo_cli.model.lookup import KNOWN, find_shape
from opo_cli.model.shape import shape_of
from opo_cli.model.tiny import build_model, build_tokenizer

EMBEDDED = [
    Embedded(),
    Embedded(num_layers=5, num_heads=8, num_key_value_heads=2, use_tied_embeddings=False),
    Embedded(hidden_size=96, num_heads=3, num_key_value_heads=1, vocab_size=151936),
    Embedded(tokenizer="bytes", intermediate_size=100),
]


@pytest.mark.parametrize("embedded", EMBEDDED)
def test_parameters_by_part_are_the_models(embedded: Embedded):
    model = build_model(embedded, build_tokenizer(embedded.tokenizer), seed=0)
    shape, source = find_shape(Model(embedded=embedded))
    assert shape == replace(shape_of(model.config), architecture=type(model).__name__)
    assert source == "model.embedded"
    counted = {"embedding": 0, "attention": 0, "mlp": 0, "norms": 0, "head": 0}
    marks = {"embed": "embedding", "attn.": "attention", "mlp": "mlp", "norm": "norms"}
    for name, parameter in model.named_parameters():
        part = next((part for mark, part in marks.items() if mark in name), "head")
        counted[part] += parameter.numel()
    assert shape.num_parameters == counted


def test_parameters_of_a_decoder_without_biases():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    expected = sum(p.numel() for p in LlamaForCausalLM(config).parameters())
    assert sum(shape_of(config).num_parameters.values()) == expected


def test_published_numbers_of_the_presets_models():
    """As the hub counts them."""
    numbers = {name: sum(find_shape(Model(path=name))[0].num_parameters.values()) for name in KNOWN}
    assert numbers == {
        "Qwen/Qwen2.5-Math-1.5B": 1_543_714_304,
        "Qwen/Qwen2.5-Math-7B": 7_615_616_512,
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": 7_615_616_512,
    }


def test_operations_are_those_that_torch_counts():
    """Eager attention computes all pairs; a causal kernel those of the past, which we count."""
    model = build_model(EMBEDDED[1], build_tokenizer(), seed=0)
    model.set_attn_implementation("eager")
    shape, length = shape_of(model.config), 40
    ids = torch.zeros(1, length, dtype=torch.long)
    future = 4 * shape.num_layers * shape.query_width * (length * (length - 1) // 2)
    with FlopCounterMode(display=False) as counter:
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        assert counter.get_total_flops() == shape.layer_flops(length) + future
        hidden.sum().backward()
        assert counter.get_total_flops() == 3 * (shape.layer_flops(length) + future)
    with FlopCounterMode(display=False) as counter:
        model.lm_head(torch.zeros(7, shape.hidden_size))
    assert counter.get_total_flops() == shape.head_flops(7)


def test_cache_bytes_are_the_caches():
    from transformers import DynamicCache

    model = build_model(EMBEDDED[1], build_tokenizer(), seed=0)
    cache = DynamicCache()
    name = "cache" if "cache" in signature(model.forward).parameters else "past_key_values"
    with torch.no_grad():
        model(torch.zeros(3, 7, dtype=torch.long), use_cache=True, **{name: cache})
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert shape_of(model.config).cache_bytes(3, 7, "float32") == held


def test_a_shape_from_a_folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(KNOWN["Qwen/Qwen2.5-Math-7B"]))
    shape, source = find_shape(Model(path=str(tmp_path)))
    assert (shape.head_dim, shape.is_tied, shape.max_positions) == (128, False, 4096)
    assert source == str(tmp_path / "config.json")


@pytest.mark.parametrize("text", ["{", "[]", '{"hidden_size": 4}'])
def test_a_broken_config_has_no_shape(text: str, tmp_path):
    (tmp_path / "config.json").write_text(text)
    shape, why = find_shape(Model(path=str(tmp_path)))
    assert shape is None
    assert "config.json" in why


@pytest.mark.parametrize("path", ["some/model", "nowhere", "a/b/c"])
def test_an_unknown_model_has_no_shape(path: str, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert find_shape(Model(path=path)) == (None, "its config.json is not on this machine")


def test_a_shape_from_the_hubs_cache(monkeypatch, tmp_path):
    snapshot = tmp_path / "models--some--model" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    refs = tmp_path / "models--some--model" / "refs"
    refs.mkdir()
    (refs / "main").write_text("a" * 40)
    (snapshot / "config.json").write_text(json.dumps(KNOWN["Qwen/Qwen2.5-Math-7B"]))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    shape, _ = find_shape(Model(path="some/model"))
    assert shape == shape_of(KNOWN["Qwen/Qwen2.5-Math-7B"])


def test_dict_and_config_object_say_the_same():
    known = KNOWN["Qwen/Qwen2.5-Math-1.5B"]
    assert shape_of(known) == shape_of(SimpleNamespace(**known))
    nested = {"model_type": "vision", "text_config": known}
    assert shape_of(nested) == shape_of(known)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("[]", "holds no table"),
        ('{"model_type": "gpt2", "n_embd": 64}', "sizes of model_type 'gpt2' are not foreseen"),
        ('{"model_type": "mixtral", "num_local_experts": 4}', "'mixtral' are not foreseen"),
        ("{", "Expecting property name"),
    ],
)
def test_a_config_that_says_no_sizes_is_told(config, told, tmp_path):
    (tmp_path / "config.json").write_text(config)
    shape, why = find_shape(Model(path=str(tmp_path)))
    assert shape is None
    assert told in why
