"""Scores against a plain forward pass; loading, right and wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch

from opo_cli.errors import OpoError
from opo_cli.model import scores as scores_module
from opo_cli.model.folder import policy_id
from opo_cli.model.policy import choose_device, end_token_ids, load_policy
from opo_cli.model.scores import divergence, score, token_scores
from opo_cli.model.sequences import Sequences

CPU = torch.device("cpu")
PROMPTS = [[10, 11, 12], [10, 11, 12, 13, 14], [20]]
RESPONSES = [[5, 6, 1], [7], [8, 9, 10, 11, 1]]


@pytest.fixture
def sequences() -> Sequences:
    return Sequences.pack(PROMPTS, RESPONSES, CPU)


def test_scores_equal_a_plain_forward_pass(policy_and_tokenizer, sequences):
    model, _ = policy_and_tokenizer
    scores = token_scores(model, sequences)
    for row, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        logprobs = logits.log_softmax(-1)
        expected = logprobs[torch.arange(len(response)), torch.tensor(response)]
        entropy = torch.distributions.Categorical(logits=logits).entropy()
        assert torch.allclose(scores.logprobs[row, : len(response)], expected, atol=1e-5)
        assert torch.allclose(scores.entropy[row, : len(response)], entropy, atol=1e-5)
        assert not scores.logprobs[row, len(response) :].any()
        assert not scores.entropy[row, len(response) :].any()


@pytest.mark.parametrize("most", [1, 100])
def test_scores_do_not_depend_on_slices_of_the_head(
    policy_and_tokenizer, sequences, most, monkeypatch
):
    """A long response of a large vocabulary meets the head slice by slice."""
    model, _ = policy_and_tokenizer
    whole, compared = score(model, sequences, 100), divergence(model, model, sequences, 100)
    monkeypatch.setitem(scores_module.MAX_LOGITS, "cpu", most)
    parts, again = score(model, sequences, 100), divergence(model, model, sequences, 100)
    for name in ("logprobs", "entropy", "logit_norms"):
        assert torch.allclose(getattr(parts, name), getattr(whole, name), atol=1e-6)
    for name in ("kl", "reverse_kl", "entropy", "log_ratio"):
        assert torch.allclose(getattr(again, name), getattr(compared, name), atol=1e-6)


def test_no_more_logits_than_a_bound_are_held(base):
    """Peak memory of a process that scores one long response of a vocabulary of 100k."""
    result = subprocess.run(
        [sys.executable, "-c", PEAK], capture_output=True, text=True, timeout=120, check=True
    )
    before, after = map(int, result.stdout.split())
    whole = 1500 * 100_000 * 4
    assert (after - before) * 1024 < 1.5 * whole  # Held whole, there are three copies and more.


PEAK = """
import resource, torch
from transformers import Qwen2Config, Qwen2ForCausalLM
from opo_cli.model.scores import score
from opo_cli.model.sequences import Sequences

torch.set_num_threads(1)
shape = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
model = Qwen2ForCausalLM(Qwen2Config(vocab_size=100_000, num_key_value_heads=2, **shape))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
score(model, Sequences.pack([[1]], [[2] * 10], torch.device("cpu")), 10_000)
print(peak())
score(model, Sequences.pack([[1]], [[2] * 1500], torch.device("cpu")), 10_000)
print(peak())
"""


@pytest.mark.parametrize("budget", [1, 7, 100])
def test_scores_do_not_depend_on_microbatches(policy_and_tokenizer, sequences, budget):
    model, _ = policy_and_tokenizer
    whole, parts = score(model, sequences, 10**6), score(model, sequences, budget)
    assert torch.allclose(whole.logprobs, parts.logprobs, atol=1e-5)
    assert torch.allclose(whole.entropy, parts.entropy, atol=1e-5)


def test_entropy_has_a_gradient_only_when_asked(policy_and_tokenizer, sequences):
    model, _ = policy_and_tokenizer
    assert not token_scores(model, sequences).entropy.requires_grad
    assert token_scores(model, sequences, entropy_gradient=True).entropy.requires_grad


def test_microbatches_hold_every_row_once_within_the_budget(sequences):
    totals = sequences.prompt_lengths + sequences.lengths
    for budget in (1, 8, 12, 1000):
        parts = sequences.microbatches(budget)
        assert sorted(torch.cat(parts).tolist()) == [0, 1, 2]
        for rows in parts:
            assert len(rows) == 1 or len(rows) * int(totals[rows].max()) <= budget


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


def test_a_broken_folder_is_told(base, tmp_path):
    for name, spoil in [
        ("model.safetensors", lambda path: path.write_bytes(path.read_bytes()[:100])),
        ("config.json", lambda path: path.write_text("{")),
        ("tokenizer.json", lambda path: path.write_text("[]")),
    ]:
        folder = tmp_path / name.replace(".", "-")
        shutil.copytree(base, folder)
        spoil(folder / name)
        with pytest.raises(OpoError, match="does not load"):
            load_policy(str(folder), CPU)


def test_a_model_that_lacks_weights_is_refused(base, tmp_path):
    folder = tmp_path / "deeper"
    shutil.copytree(base, folder)
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
        ids.append(policy_id(str(place)))
        (place / "model.safetensors").write_bytes(b"other weights")
        assert policy_id(str(place)) != ids[-1]
    assert "mine" not in ids


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
