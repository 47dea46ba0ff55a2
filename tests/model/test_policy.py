"""Loading a policy, right and wrong."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from opo_cli.errors import OpoError
from opo_cli.files import MANIFEST, make_folder, remove_folder
from opo_cli.model.folder import policy_id
from opo_cli.model.policy import choose_device, end_token_ids, load_policy

CPU = torch.device("cpu")


def test_a_saved_policy_reloads_with_identical_logits(policy_and_tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM

    model, tokenizer = policy_and_tokenizer
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    ids = torch.tensor([tokenizer.encode("7-1+9=?\n")])
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(model(ids).logits, again(ids).logits)


def test_the_end_token_is_the_tokenizers(policy_and_tokenizer):
    model, tokenizer = policy_and_tokenizer
    assert end_token_ids(model, tokenizer) == (tokenizer.eos_token_id,)


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(OpoError, match="does not exist"):
        load_policy(str(tmp_path / "nothing"), CPU)
    with pytest.raises(OpoError, match=r"has no config\.json"):
        load_policy(str(tmp_path), CPU)


def _copy_unsealed(base, folder):
    """As a model folder of somebody else's, without our checksums."""
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns(MANIFEST))


def test_a_broken_folder_is_told(base, tmp_path):
    for name, spoil in [
        ("model.safetensors", lambda path: path.write_bytes(path.read_bytes()[:100])),
        ("config.json", lambda path: path.write_text("{")),
        ("tokenizer.json", lambda path: path.write_text("[]")),
    ]:
        folder = tmp_path / name.replace(".", "-")
        _copy_unsealed(base, folder)
        spoil(folder / name)
        with pytest.raises(OpoError, match="does not load"):
            load_policy(str(folder), CPU)


def test_a_model_that_lacks_weights_is_refused(base, tmp_path):
    folder = tmp_path / "deeper"
    _copy_unsealed(base, folder)
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] += 1
    config.pop("layer_types", None)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(OpoError, match="lacks weights"):
        load_policy(str(folder), CPU)


def test_a_model_that_caps_its_logits_is_refused(tmp_path, policy_and_tokenizer):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    _, tokenizer = policy_and_tokenizer
    tokenizer.save_pretrained(tmp_path)
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        final_logit_softcapping=0.01,
    )
    Gemma2ForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(OpoError, match="caps its logits"):
        load_policy(str(tmp_path), CPU)


def test_a_gpu_that_is_not_there_is_told():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(OpoError, match="no GPU"):
        choose_device("cuda")
    assert choose_device("auto")[0] == CPU


def test_a_model_is_told_by_its_files_wherever_it_lies(base, cache, tmp_path):
    """A folder in the cache, too, but for prepared bases, whose name holds their hash."""
    assert policy_id(str(base)) == base.name
    ids = []
    for place in (tmp_path / "mine", cache / "mine"):
        shutil.copytree(base, place)
        (place / MANIFEST).unlink()  # Else it is a sealed one, as below.
        ids.append(policy_id(str(place)))
        (place / "model.safetensors").write_bytes(b"other weights")
        assert policy_id(str(place)) != ids[-1]
    assert "mine" not in ids


def test_copies_of_a_sealed_folder_are_one_model(base, tmp_path):
    """Its manifest has the checksums of all files, and loading compares them."""
    places = [tmp_path / "one", tmp_path / "two"]
    for place in places:
        shutil.copytree(base, place, copy_function=shutil.copy)  # With times of their own.
    first, second = (policy_id(str(place)) for place in places)
    assert first == second != base.name
    remove_folder(places[1])
    make_folder(places[1], lambda new: (new / "config.json").write_text("{}"))
    assert policy_id(str(places[1])) != first


def test_a_hub_model_is_told_by_its_commit(tmp_path, monkeypatch):
    """The hub's cache names the commit that was loaded."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def load(commit: str) -> str:
        model = tmp_path / "models--owner--name"
        (model / "snapshots" / commit).mkdir(parents=True)
        (model / "snapshots" / commit / "config.json").write_text("{}")
        (model / "refs").mkdir(exist_ok=True)
        (model / "refs" / "main").write_text(commit)
        return policy_id("owner/name")

    unknown = policy_id("owner/name")
    assert len({unknown, load("1" * 40), load("2" * 40)}) == 3
