"""Allocations that fail, told as what to lower."""

from __future__ import annotations

import pytest
import torch

from opo_cli.errors import OpoError
from opo_cli.model.memory import host_copy, on_device, out_of_memory

TOO_MUCH = 2**60


def test_an_allocation_that_fails_is_told_with_phase_size_and_hint():
    with pytest.raises(OpoError) as told, out_of_memory("the update", "lower it"):
        torch.empty(TOO_MUCH, dtype=torch.uint8)
    assert told.value.message == (
        f"out of host memory in the update: {TOO_MUCH} bytes could not be had"
    )
    assert told.value.hint == "lower it"


def test_a_gpus_error_is_told():
    """The words of torch's CUDA allocator; its class is the one that it raises."""
    words = "CUDA out of memory. Tried to allocate 2.32 GiB. GPU 0 has a total capacity of 79 GiB"
    with pytest.raises(OpoError, match=r"out of GPU memory in scoring: 2\.32 GiB could not be had"):
        with out_of_memory("scoring", ""):
            raise torch.OutOfMemoryError(words)


@pytest.mark.parametrize(
    "words",
    [
        "CUDA Error: out of memory at /workspace/csrc/cumem_allocator.cpp:121",  # vLLM's.
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
    ],
    ids=["cumem", "pinned"],
)
def test_what_has_no_class_of_its_own_is_told_by_its_words(words: str):
    with pytest.raises(OpoError) as told, out_of_memory("rollouts", "lower it"):
        raise RuntimeError(words)
    assert told.value.message == "out of memory in rollouts"


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="size of tensor"), out_of_memory("the update", ""):
        torch.ones(2) + torch.ones(3)


def test_a_host_copy_is_frozen_and_the_model_untouched(make_model):
    model = make_model(tie_word_embeddings=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    copied = host_copy(model)
    assert not any(p.requires_grad for p in copied.parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert copied.lm_head.weight is copied.base_model.embed_tokens.weight
    with torch.no_grad():
        model.lm_head.weight.zero_()
    for name, tensor in copied.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_model_visits_a_device_and_is_back_as_it_was(make_model):
    """Without a GPU the other device is cpu:0, to which torch copies from cpu."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu", 0)
    model = make_model(tie_word_embeddings=True).requires_grad_(False)
    ids = torch.arange(4)[None]
    places = {name: t.data_ptr() for name, t in model.state_dict().items()}
    expected = model(ids).logits
    with pytest.raises(RuntimeError, match="inside"), on_device(model, device):
        moved = {name: t.data_ptr() for name, t in model.state_dict().items()}
        assert not set(moved.values()) & set(places.values())
        assert moved["lm_head.weight"] == moved["model.embed_tokens.weight"]
        assert torch.allclose(model(ids.to(device)).logits.cpu(), expected, atol=1e-4)
        raise RuntimeError("inside")
    assert {name: t.data_ptr() for name, t in model.state_dict().items()} == places
    assert torch.equal(model(ids).logits, expected)


def test_a_model_that_is_there_stays_where_it_is(make_model):
    model = make_model()
    place = model.lm_head.weight.data_ptr()
    with on_device(model, torch.device("cpu")):
        assert model.lm_head.weight.data_ptr() == place
