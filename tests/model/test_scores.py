"""Scores, their gradients and their memory, against plain forward passes."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch

from opo_cli.model import scores as scores_module
from opo_cli.model.critic import Critic
from opo_cli.model.precision import Precision, precision_of, set_precision
from opo_cli.model.recompute import recompute_layers
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


# --- gradients ----------------------------------------------------------------------------------


def gradients_of(model) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def loss_of(scores, entropy_weight: float) -> torch.Tensor:
    """Another weight on each token."""
    weights = torch.linspace(-1, 2, scores.logprobs.numel()).reshape(scores.logprobs.shape)
    return (weights * scores.logprobs - entropy_weight * weights.square() * scores.entropy).sum()


def plain_gradients(model, sequences: Sequences, entropy_weight: float) -> torch.Tensor:
    """Row by row, with all logits."""
    width = sequences.mask.shape[1]
    weights = torch.linspace(-1, 2, 3 * width).reshape(3, width)
    model.zero_grad()
    for row, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        logprobs = model(torch.tensor([prompt + response])).logits[0].log_softmax(-1)
        logprobs, w = logprobs[len(prompt) - 1 : -1], weights[row, : len(response)]
        drawn = logprobs[torch.arange(len(response)), torch.tensor(response)]
        entropy = -(logprobs.exp() * logprobs).sum(-1)
        (w * drawn - entropy_weight * w.square() * entropy).sum().backward()
    return gradients_of(model)


@pytest.mark.parametrize("num_tokens", [1, 2, 4, 8, 9])
@pytest.mark.parametrize("entropy_weight", [0.0, 0.3])
@pytest.mark.parametrize("is_tied", [True, False], ids=["tied", "untied"])
def test_gradients_equal_the_plain_ones(
    make_model, sequences, monkeypatch, is_tied, entropy_weight, num_tokens
):
    """Nine response tokens meet the head in chunks; the bound rounds down."""
    model = make_model(tie_word_embeddings=is_tied)
    expected = plain_gradients(model, sequences, entropy_weight)
    monkeypatch.setitem(scores_module.MAX_LOGITS, "cpu", num_tokens * 50 + 49)
    model.zero_grad()
    scores = token_scores(model, sequences, entropy_gradient=entropy_weight > 0)
    loss_of(scores, entropy_weight).backward()
    ours = gradients_of(model)
    assert (ours - expected).norm() < 2e-6 * expected.norm()


def test_chunks_of_a_lower_precision_are_summed_in_float32(make_model, sequences, monkeypatch):
    """Chunk by chunk or whole, the head's gradient is the same up to its products' rounding."""
    model = make_model(tie_word_embeddings=False)
    set_precision(model, Precision(torch.bfloat16, torch.bfloat16))
    found = []
    for num_tokens in (1, 100):
        monkeypatch.setitem(scores_module.MAX_LOGITS, "cpu", num_tokens * 50)
        model.zero_grad()
        loss_of(token_scores(model, sequences), 0.0).backward()
        found.append(model.lm_head.weight.grad.clone())
    assert found[0].dtype == torch.float32
    is_rounded = found[0].bfloat16().float() == found[0]
    assert is_rounded.float().mean() < 0.5  # Sums of nine products are no bf16 numbers.
    assert (found[0] - found[1]).norm() < 2**-8 * found[1].norm()


# --- memory -------------------------------------------------------------------------------------

CHUNK = 2**22  # Logits; 16 MiB in fp32.


def peak_of_head(make_model, most_allocated, monkeypatch, vocab_size: int, is_chunked: bool) -> int:
    """Bytes, of logprobs and entropy with their gradients, for 256 response tokens."""
    monkeypatch.setitem(scores_module.MAX_LOGITS, "cpu", CHUNK if is_chunked else 2**40)
    model = make_model(vocab_size=vocab_size, hidden_size=8, num_hidden_layers=1)
    rows = Sequences.pack([[1]], [[i % vocab_size for i in range(256)]], CPU)

    def run() -> None:
        model.zero_grad()
        scores = token_scores(model, rows, entropy_gradient=True)
        (scores.logprobs.sum() + scores.entropy.sum()).backward()

    return most_allocated(run)


def test_peak_memory_is_flat_in_the_vocabulary(make_model, most_allocated, monkeypatch):
    """Forward and backward; what is left of V is the head's own gradient."""
    measure = (make_model, most_allocated, monkeypatch)
    small, large = (peak_of_head(*measure, size, True) for size in (38_000, 152_000))
    plain = peak_of_head(*measure, 152_000, False)
    heads = 4 * 8 * (152_000 - 38_000)  # fp32 gradients of the weight, of which two may be alive.
    assert large - small < 2.5 * heads
    assert large < 7 * 4 * CHUNK + 3 * heads
    assert plain > 4 * 256 * 152_000 * 4 > 5 * large


# --- precision ----------------------------------------------------------------------------------

BF16 = Precision(torch.bfloat16, torch.bfloat16)
FP32_HEAD = Precision(torch.bfloat16, torch.float32)


@pytest.mark.parametrize("precision", [BF16, FP32_HEAD], ids=["bf16", "fp32-head"])
def test_gradients_of_bfloat16_are_close_and_weights_stay_float32(
    policy_and_tokenizer, sequences, precision
):
    model, found = policy_and_tokenizer[0], []
    for each in (Precision(), precision):
        set_precision(model, each)
        model.zero_grad()
        loss_of(token_scores(model, sequences, entropy_gradient=True), 0.1).backward()
        found.append(gradients_of(model))
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in model.parameters())
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.99
    assert not torch.allclose(*found, rtol=1e-4)  # It does compute in bf16.


def test_a_precision_is_that_of_a_plain_forward_pass_under_autocast(make_model, sequences):
    model = make_model(tie_word_embeddings=False)
    set_precision(model, BF16)
    found = {BF16: score(model, sequences, 100).logprobs}
    set_precision(model, FP32_HEAD)
    found[FP32_HEAD] = score(model, sequences, 100).logprobs
    for row, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        ids = sequences.input_ids[row : row + 1]
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            logits = {BF16: model(ids).logits.float()}
            hidden = model.base_model(ids).last_hidden_state
        logits[FP32_HEAD] = model.lm_head(hidden).detach()
        places = slice(len(prompt) - 1, len(prompt) + len(response) - 1)
        for precision, values in logits.items():
            logprobs = values[0, places].log_softmax(-1)
            expected = logprobs[torch.arange(len(response)), torch.tensor(response)]
            # Batched products may be summed in another order: a few roundings of bf16.
            assert torch.allclose(found[precision][row, : len(response)], expected, atol=0.1)
    assert not torch.equal(found[BF16], found[FP32_HEAD])


def test_copies_and_the_critic_keep_the_precision(make_model, sequences):
    model = make_model()
    set_precision(model, BF16)
    assert precision_of(copy.deepcopy(model)) == BF16
    critic = Critic(model)
    with torch.no_grad():
        critic.head.weight.fill_(1.0)
    values = critic.values(sequences, 100)
    critic.precision = Precision()
    assert values.dtype == torch.float32
    assert 0 < (values - critic.values(sequences, 100)).abs().max() < 0.5


# --- activation checkpointing -------------------------------------------------------------------


@pytest.mark.parametrize("precision", [Precision(), BF16], ids=["fp32", "bf16"])
def test_recomputed_layers_give_the_same_gradients(make_model, sequences, precision):
    found = []
    for is_recomputed in (False, True):
        model = make_model(num_hidden_layers=4)
        set_precision(model, precision)
        if is_recomputed:
            recompute_layers(model.base_model)
        loss_of(token_scores(model, sequences), 0.0).backward()
        found.append(gradients_of(model))
    assert torch.allclose(*found, rtol=0, atol=1e-6 * float(found[0].abs().max()))


def test_recomputed_layers_hold_less(make_model, most_allocated):
    rows = Sequences.pack([[1]] * 4, [[i % 50 for i in range(100)]] * 4, CPU)
    peaks = []
    for is_recomputed in (False, True):
        model = make_model(num_hidden_layers=12)
        if is_recomputed:
            recompute_layers(model.base_model)

        def run(model=model) -> None:
            token_scores(model, rows).logprobs.sum().backward()

        peaks.append(most_allocated(run))
    assert peaks[1] < 0.4 * peaks[0]


def test_a_copy_recomputes_its_own_layers(make_model, sequences):
    model = make_model()
    recompute_layers(model.base_model)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    plain = make_model()
    plain.load_state_dict(other.state_dict())
    for each in (other, plain):
        loss_of(token_scores(each, sequences), 0.0).backward()
    assert torch.allclose(gradients_of(other), gradients_of(plain), atol=1e-6)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_generation_keeps_its_cache_beside_recomputed_layers(make_model):
    """In training mode, too, where transformers' own checkpointing would drop it."""
    model = make_model()
    ids = torch.arange(6)[None]
    with torch.no_grad():
        expected = model(ids).logits[:, -1]
        recompute_layers(model.base_model)
        output = model.train()(ids[:, :5], use_cache=True)
        name = "cache" if "cache" in output else "past_key_values"
        cache = output[name]
        again = model(ids[:, 5:], use_cache=True, **{name: cache}).logits[:, -1]
    assert cache.get_seq_length() == 6
    assert torch.allclose(again, expected, atol=1e-5)
