"""Losses, reductions and KL estimators: constants, gradient identities, every row of the tables."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opo_cli.rl.objectives import (
    KL_ESTIMATORS,
    LOSSES,
    REDUCTIONS,
    StepCounts,
    is_clipped,
    k2,
    policy_gradient,
    ppo_clip,
    probability_ratio,
    token_weights,
    value_loss,
)

quick = settings(deadline=None, derandomize=True)
LOG_RATIOS = torch.tensor([0.0, 0.3, -0.3, 0.3, -0.3, 2.0], dtype=torch.float64)
ADVANTAGES = torch.tensor([1.0, 1, 1, -1, -1, -1], dtype=torch.float64)


def gradient_of(per_token, log_ratios, advantages, low=0.2, high=0.2) -> torch.Tensor:
    logprobs = log_ratios.clone().requires_grad_()
    ratio = probability_ratio(logprobs, torch.zeros_like(logprobs))
    per_token(ratio, advantages, low, high).sum().backward()
    return logprobs.grad


# --- losses -----------------------------------------------------------------------------------


def test_ppo_clip_constants():
    loss = ppo_clip(LOG_RATIOS.exp(), ADVANTAGES, 0.2, 0.2)
    assert loss.tolist() == pytest.approx([-1, -1.2, -0.740818, 1.349859, 0.8, 7.389056], abs=1e-6)


def test_ppo_clip_gradient_constants():
    gradient = gradient_of(ppo_clip, LOG_RATIOS, ADVANTAGES).tolist()
    assert gradient == pytest.approx([-1, 0, -0.740818, 1.349859, 0, 7.389056], abs=1e-6)


def test_clip_higher_raises_the_upper_bound_alone():
    loss = ppo_clip(LOG_RATIOS.exp(), ADVANTAGES, 0.2, 0.28)
    assert loss.tolist() == pytest.approx([-1, -1.28, -0.740818, 1.349859, 0.8, 7.389056], abs=1e-6)


tokens = st.lists(
    st.tuples(st.floats(-2, 2), st.one_of(st.floats(-3, -0.1), st.floats(0.1, 3))), min_size=1
)


@quick
@given(tokens, st.floats(0.05, 0.9), st.floats(0.05, 0.9))
def test_ppo_clip_has_no_gradient_exactly_where_clipped(pairs, low: float, high: float):
    log_ratios, advantages = torch.tensor(pairs, dtype=torch.float64).unbind(1)
    gradient = gradient_of(ppo_clip, log_ratios, advantages, low, high)
    clipped = is_clipped(log_ratios.exp(), advantages, low, high)
    assert gradient.eq(0).equal(clipped)
    torch.testing.assert_close(gradient[~clipped], (-advantages * log_ratios.exp())[~clipped])


def test_policy_gradient_is_the_score_function_gradient():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    tokens = torch.tensor([0, 2, 4, 2])
    advantages = torch.tensor([1.0, -0.5, 2.0, 0.0], dtype=torch.float64)
    logprobs = logits.log_softmax(-1)[torch.arange(4), tokens]
    ratio = probability_ratio(logprobs, logprobs.detach())
    loss = policy_gradient(ratio, advantages, 0.2, 0.2).sum()
    score = torch.nn.functional.one_hot(tokens, 5) - logits.softmax(-1)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, (-advantages[:, None] * score).detach())


def test_probability_ratio_is_bounded():
    ratio = probability_ratio(torch.tensor([1000.0, -1000, 0.5]), torch.zeros(3))
    assert ratio.tolist() == pytest.approx([math.exp(20), math.exp(-20), math.exp(0.5)])


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_on_policy_has_the_score_function_gradient(name: str):
    advantages = torch.tensor([[1.0, -2.0, 0.0], [0.5, 3.0, -1.0]])
    gradient = gradient_of(LOSSES[name].per_token, torch.zeros(2, 3), advantages)
    torch.testing.assert_close(gradient, -advantages)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_finite_and_uses_clipping_as_declared(name: str):
    log_ratios = torch.tensor([[-1000.0, -1, 0], [0.1, 1, 1000]])
    ratio, advantages = probability_ratio(log_ratios, torch.zeros(2, 3)), torch.ones(2, 3)
    narrow, wide = (LOSSES[name].per_token(ratio, advantages, c, c) for c in (0.1, 0.5))
    assert narrow.shape == ratio.shape
    assert narrow.isfinite().all()
    assert narrow.equal(wide) != LOSSES[name].uses_clipping


# --- reductions -------------------------------------------------------------------------------

COUNTS = StepCounts(num_tokens=6, num_rows=2, max_length=8)
MASK = torch.tensor([[True, True, False, False], [True, True, True, True]])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("token-mean", 16 / 6),
        ("seq-mean-token-mean", 2.5),
        ("seq-mean-token-sum", 8.0),
        ("constant", 1.0),
    ],
)
def test_reduction_constants(name: str, expected: float):
    loss = torch.tensor([[1.0, 3, 99, 99], [2, 2, 2, 6]])
    weights = token_weights(name, MASK, MASK.sum(1), COUNTS)
    assert (loss * weights).sum().item() == pytest.approx(expected)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_every_reduction_weighs_response_tokens_alone(name: str):
    lengths = torch.tensor([3, 0, 5])
    mask = torch.arange(6) < lengths[:, None]
    weights = token_weights(name, mask, lengths, StepCounts(num_tokens=8, num_rows=3, max_length=6))
    assert weights.shape == mask.shape
    assert weights.isfinite().all()
    assert weights[~mask].eq(0).all()
    assert weights[mask].gt(0).all()


@pytest.mark.parametrize("name", REDUCTIONS)
def test_every_reduction_gives_a_row_its_weight_in_any_microbatch(name: str):
    whole = token_weights(name, MASK, MASK.sum(1), COUNTS)
    first = token_weights(name, MASK[:1, :2], MASK[:1].sum(1), COUNTS)
    assert first.equal(whole[:1, :2])


@pytest.mark.parametrize("name", REDUCTIONS)
def test_every_reduction_of_an_empty_step_is_finite(name: str):
    counts = StepCounts(num_tokens=0, num_rows=0, max_length=4)
    weights = token_weights(name, torch.zeros(1, 2, dtype=torch.bool), torch.zeros(1), counts)
    assert weights.eq(0).all()


# --- KL ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"), [("k1", 0.5), ("k2", 0.125), ("k3", math.exp(-0.5) - 0.5)]
)
def test_kl_constants(name: str, expected: float):
    value = KL_ESTIMATORS[name](torch.tensor([[-1.0]]), torch.tensor([[-1.5]]))
    assert value.item() == pytest.approx(expected)


@pytest.fixture
def policies() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a policy and logprobs of a reference over seven tokens."""
    generator = torch.Generator().manual_seed(0)
    logits, reference = torch.randn(2, 7, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), reference.log_softmax(-1)


@pytest.mark.parametrize("name", ["k1", "k3"])
def test_expected_k1_and_k3_are_the_kl(name: str, policies):
    logits, reference = policies
    logprobs = logits.detach().log_softmax(-1)
    kl = torch.nn.functional.kl_div(reference, logprobs, log_target=True, reduction="sum")
    torch.testing.assert_close(
        (logprobs.exp() * KL_ESTIMATORS[name](logprobs, reference)).sum(), kl
    )


def test_expected_gradient_of_k2_is_that_of_the_kl(policies):
    logits, reference = policies
    logprobs = logits.log_softmax(-1)
    kl = (logprobs.exp() * (logprobs - reference)).sum()
    sampled = (logprobs.exp().detach() * k2(logprobs, reference)).sum()
    (expected,) = torch.autograd.grad(kl, logits, retain_graph=True)
    (gradient,) = torch.autograd.grad(sampled, logits)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("name", ["k2", "k3"])
@quick
@given(log_ratio=st.floats(-30, 30))
def test_k2_and_k3_are_never_negative(name: str, log_ratio: float):
    value = KL_ESTIMATORS[name](torch.tensor(log_ratio), torch.tensor(0.0))
    assert value.item() >= 0


@pytest.mark.parametrize("name", KL_ESTIMATORS)
def test_every_kl_estimator(name: str):
    generator = torch.Generator().manual_seed(0)
    logprobs, reference = -10 * torch.rand(2, 3, 4, generator=generator)
    value = KL_ESTIMATORS[name](logprobs, reference)
    assert value.shape == logprobs.shape
    assert value.isfinite().all()
    assert KL_ESTIMATORS[name](logprobs, logprobs).eq(0).all()


# --- critic -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.9, 0.045),  # Clipped to 0.7: the larger error counts.
        (0.6, 0.08),
        (0.1, 0.405),  # Moved away from the return: clipping does not help it.
    ],
)
def test_value_loss_constants(value: float, expected: float):
    loss = value_loss(torch.tensor([[value]]), torch.tensor([[0.5]]), torch.tensor([[1.0]]), 0.2)
    assert loss.item() == pytest.approx(expected)
