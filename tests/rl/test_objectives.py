"""Losses, reductions and KL estimators: constants, gradient identities, every row of the tables.

Shape legend: B rows, T tokens.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from opo_cli.rl.advantages import TOKEN_LINEAR, mean, opo
from opo_cli.rl.objectives import (
    KL_ESTIMATORS,
    LOSSES,
    REDUCTIONS,
    Clip,
    StepCounts,
    cispo,
    clipped_gradients,
    clipped_weights,
    importance_weights,
    log_ratio,
    overlong_punishment,
    ppo_clip,
    sequence_ratio,
    token_ratio,
    token_weights,
    value_loss,
)

quick = settings(deadline=None, derandomize=True)
every_loss = pytest.mark.parametrize("name", LOSSES)
every_reduction = pytest.mark.parametrize("name", REDUCTIONS)
every_kl = pytest.mark.parametrize("name", KL_ESTIMATORS)
WITH_CLIPPED_GRADIENTS = [n for n, row in LOSSES.items() if row.clipped is clipped_gradients]


def double(values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def near(expected):
    return pytest.approx(expected, abs=1e-6)


def loss_and_gradient(
    name: str, log_ratios: Tensor, advantages: Tensor, clip: Clip, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Per token, and of their sum with respect to the log-probabilities. The old ones are 0."""
    logprobs = log_ratios.clone().requires_grad_()
    mask = torch.ones(logprobs.shape, dtype=torch.bool) if mask is None else mask
    ratio = LOSSES[name].ratio(logprobs, torch.zeros_like(logprobs), mask)
    loss = LOSSES[name].per_token(logprobs, ratio, advantages, clip)
    loss.sum().backward()
    return loss.detach(), logprobs.grad


# --- ratios -----------------------------------------------------------------------------------


def test_log_ratio_is_bounded():
    ratio = log_ratio(torch.tensor([1000.0, -1000, 0.5]), torch.zeros(3))
    assert ratio.tolist() == [20, -20, 0.5]


def test_token_ratio_is_the_ratio_of_probabilities():
    mask = torch.ones(1, 3, dtype=torch.bool)
    ratio = token_ratio(torch.tensor([[-1.0, -2, 1000]]), torch.tensor([[-1.0, -2.5, 0]]), mask)
    assert ratio[0].tolist() == pytest.approx([1, math.exp(0.5), math.exp(20)])


LONGER = double([[0.1, 0.3, -0.2, 9.0], [1.0, 1.0, 9.0, 9.0]])
LONGER_MASK = torch.tensor([[True, True, True, False], [True, True, False, False]])


def test_sequence_ratio_is_the_geometric_mean_of_the_response():
    ratio = sequence_ratio(LONGER, torch.zeros_like(LONGER), LONGER_MASK)
    assert ratio[0, :3].tolist() == near([math.exp(0.2 / 3)] * 3)
    assert ratio[1, :2].tolist() == near([math.e] * 2)


def test_sequence_ratio_has_its_gradient_under_a_mean_over_tokens():
    logprobs = LONGER.clone().requires_grad_()
    ratio = sequence_ratio(logprobs, torch.zeros_like(logprobs), LONGER_MASK)
    lengths = LONGER_MASK.sum(-1)
    over_tokens = (ratio * LONGER_MASK).sum(-1) / lengths
    whole = ((logprobs * LONGER_MASK).sum(-1) / lengths).exp()
    torch.testing.assert_close(over_tokens, whole)
    gradients = [torch.autograd.grad(x.sum(), logprobs)[0] for x in (over_tokens, whole)]
    torch.testing.assert_close(*gradients)


def test_sequence_ratio_of_an_empty_row_is_one():
    empty = torch.zeros(1, 2, dtype=torch.bool)
    assert sequence_ratio(torch.ones(1, 2), torch.zeros(1, 2), empty).isfinite().all()


RHOS = double([[0.5, 1.0, 3.0], [3.0, 2.0, 9.0]])
RHOS_MASK = torch.tensor([[True, True, True], [True, True, False]])


@pytest.mark.parametrize(
    ("kind", "cap", "expected"),
    [
        ("token", 2.0, [[0.5, 1, 2], [2, 2, 1]]),
        ("sequence", 2.0, [[1.5] * 3, [2] * 3]),
        ("sequence", 10.0, [[1.5] * 3, [6] * 3]),
    ],
)
def test_importance_weights(kind: str, cap: float, expected):
    """min(rho, cap): of a token, or of the product over the response's own tokens."""
    old, sampler = RHOS.log().requires_grad_(), torch.zeros_like(RHOS)
    weights = importance_weights(old, sampler, RHOS_MASK, kind, cap)
    assert not weights.requires_grad
    torch.testing.assert_close(weights, double(expected))


@pytest.mark.parametrize("kind", ["token", "sequence"])
def test_importance_weights_of_a_perfect_sampler_are_one(kind: str):
    logprobs = -torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    assert importance_weights(logprobs, logprobs, RHOS_MASK, kind, 2.0).eq(1).all()


# --- losses -----------------------------------------------------------------------------------

LOG_RATIOS = double([0.0, 0.3, -0.3, 0.3, -0.3, 2.0])
ADVANTAGES = double([1.0, 1, 1, -1, -1, -1])


@pytest.mark.parametrize(
    ("clip", "changed"),
    [
        (Clip(), {}),
        (Clip(high=0.28), {1: (-1.28, 0)}),
        (Clip(dual=3.0), {5: (3, 0)}),
        (Clip(low=1.0), {4: (math.exp(-0.3), math.exp(-0.3))}),
    ],
    ids=["plain", "clip-higher", "dual-clip", "no-lower-bound"],
)
def test_ppo_clip_constants(clip: Clip, changed):
    losses = [-1, -1.2, -0.740818, 1.349859, 0.8, 7.389056]
    gradients = [-1, 0, -0.740818, 1.349859, 0, 7.389056]
    for at, (loss, gradient) in changed.items():
        losses[at], gradients[at] = loss, gradient
    loss, gradient = loss_and_gradient("ppo-clip", LOG_RATIOS, ADVANTAGES, clip)
    assert loss.tolist() == near(losses)
    assert gradient.tolist() == near(gradients)


def test_gspo_clips_whole_responses():
    """Mean log-ratios of 0.0667, which is inside the bounds, and of 1, which is not."""
    clip, advantages = Clip(0.2, 0.2), torch.ones_like(LONGER)
    loss, gradient = loss_and_gradient("gspo", LONGER, advantages, clip, LONGER_MASK)
    ratio = math.exp(0.2 / 3)
    assert loss[LONGER_MASK].tolist() == near([-ratio] * 3 + [-1.2] * 2)
    assert gradient[LONGER_MASK].tolist() == near([-ratio] * 3 + [0] * 2)


@pytest.mark.parametrize(
    ("log_rho", "high", "weight"),
    [(2.0, 4.0, 5.0), (1.0, 4.0, math.e), (-1.0, 4.0, 0.8), (2.0, 0.2, 1.2)],
)
def test_cispo_clips_the_weight_and_keeps_the_gradient(log_rho: float, high: float, weight: float):
    clip, logprobs = Clip(high=high), double([log_rho])
    loss, gradient = loss_and_gradient("cispo", logprobs, double([1.0]), clip)
    assert gradient.item() == pytest.approx(-weight)
    assert loss.item() == pytest.approx(-weight * log_rho)


def test_cispo_without_a_lower_bound():
    weight = -cispo(double([1.0]), double([0.01]), double([1.0]), Clip(low=1.0, high=4.0))
    assert weight.item() == pytest.approx(0.01)


nonzero = st.one_of(st.floats(-3, -0.1), st.floats(0.1, 3))
tokens = st.lists(st.tuples(st.floats(-2, 2), nonzero), min_size=1, max_size=12)
bounds = st.builds(
    Clip,
    low=st.one_of(st.just(1.0), st.floats(0.05, 0.9)),
    high=st.floats(0.05, 0.9),
    dual=st.one_of(st.just(0.0), st.floats(2, 5)),  # It must exceed 1 + high.
)


@pytest.mark.parametrize("name", WITH_CLIPPED_GRADIENTS)
@quick
@given(pairs=tokens, clip=bounds)
def test_gradients_are_gone_exactly_where_clipped(name: str, pairs, clip: Clip):
    log_ratios, advantages = double([pairs]).unbind(-1)
    _, gradient = loss_and_gradient(name, log_ratios, advantages, clip)
    everywhere = torch.ones(log_ratios.shape, dtype=torch.bool)
    ratio = LOSSES[name].ratio(log_ratios, torch.zeros_like(log_ratios), everywhere)
    below, above = LOSSES[name].clipped(ratio, advantages, clip)
    assert not (below & above).any()
    assert gradient.eq(0).equal(below | above)
    kept = ~(below | above)
    torch.testing.assert_close(gradient[kept], (-advantages * ratio)[kept])


@quick
@given(pairs=tokens, clip=bounds)
def test_weights_are_bounded_exactly_where_clipped(pairs, clip: Clip):
    log_ratios, advantages = double(pairs).unbind(-1)
    _, gradient = loss_and_gradient("cispo", log_ratios, advantages, clip)
    below, above = clipped_weights(log_ratios.exp(), advantages, clip)
    weights = log_ratios.exp().where(~below, double(1 - clip.low))
    weights = weights.where(~above, double(1 + clip.high))
    torch.testing.assert_close(gradient, -advantages * weights)


@pytest.mark.parametrize("name", [n for n, row in LOSSES.items() if row.uses_clipping])
def test_nothing_is_clipped_without_a_signal_or_off_the_bounds(name: str):
    ratio, row = double([0.1, 1.0, 10.0]), LOSSES[name]
    for advantages in (torch.zeros(3), torch.ones(3), -torch.ones(3)):
        below, above = row.clipped(ratio, advantages, Clip())
        assert not (below | above)[1]
        assert not (below | above)[advantages == 0].any()
    below, above = row.clipped(ratio, double([-1.0, 1, 1]), Clip())
    assert (below.tolist(), above.tolist()) == ([True, False, False], [False, False, True])


@pytest.mark.parametrize("reduction", REDUCTIONS)
@every_loss
def test_every_loss_on_policy_has_the_score_function_gradient(name: str, reduction: str):
    """-A per token, times its weight: GSPO's ratio spreads over the tokens of its response."""
    advantages = double([[1.0, -2.0, 0.0], [0.5, 3.0, 9.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    weights = token_weights(reduction, mask, mask.sum(-1), StepCounts(**STEP)).double()
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits.requires_grad_()
    drawn = torch.tensor([[0, 2, 4], [2, 1, 3]])
    logprobs = logits.log_softmax(-1).gather(-1, drawn[..., None])[..., 0]
    row = LOSSES[name]
    ratio = row.ratio(logprobs, logprobs.detach(), mask)
    (row.per_token(logprobs, ratio, advantages, Clip()) * weights).sum().backward()
    score = torch.nn.functional.one_hot(drawn, 5) - logits.detach().softmax(-1)
    torch.testing.assert_close(logits.grad, (-advantages * weights)[..., None] * score)


@every_loss
def test_every_loss_is_finite_and_clips_as_declared(name: str):
    row, advantages = LOSSES[name], torch.ones(2, 3)
    log_ratios = torch.tensor([[-1000.0, -1, 0], [0.1, 1, 1000]])
    narrow, wide = (loss_and_gradient(name, log_ratios, advantages, Clip(c, c)) for c in (0.1, 0.5))
    assert narrow[0].shape == log_ratios.shape
    assert all(x.isfinite().all() for x in (*narrow, *wide))
    assert narrow[0].equal(wide[0]) != row.uses_clipping
    assert set(row.reductions or ()) <= set(REDUCTIONS)


@every_loss
def test_no_loss_has_a_gradient_where_the_advantage_is_zero(name: str):
    loss, gradient = loss_and_gradient(name, LOG_RATIOS, torch.zeros(6), Clip(dual=3.0))
    assert loss.eq(0).all()
    assert gradient.eq(0).all()


def test_dual_clip_bounds_the_loss_of_bad_tokens_alone():
    ratio = double([1.5, 100.0])
    for sign, expected in ((-1.0, [1.5, 3.0]), (1.0, [-1.2, -1.2])):
        loss = ppo_clip(ratio, ratio, torch.full_like(ratio, sign), Clip(dual=3.0))
        assert loss.tolist() == pytest.approx(expected)


# --- reductions -------------------------------------------------------------------------------

STEP = {"num_tokens": 6, "num_rows": 2, "max_length": 8}
COUNTS = StepCounts(**STEP)
MASK = torch.tensor([[True, True, False, False], [True, True, True, True]])


@pytest.mark.parametrize(
    ("name", "expected", "of_ones"),
    [
        ("token-mean", 16 / 6, 1),
        ("seq-mean-token-mean", 2.5, 1),
        ("seq-mean-token-sum", 8.0, 3),
        ("constant", 1.0, 3 / 8),
    ],
)
def test_reduction_constants(name: str, expected: float, of_ones: float):
    loss = torch.tensor([[1.0, 3, 99, 99], [2, 2, 2, 6]])
    weights = token_weights(name, MASK, MASK.sum(1), COUNTS)
    assert (loss * weights).sum().item() == pytest.approx(expected)
    assert weights.sum().item() == pytest.approx(of_ones)


@every_reduction
def test_every_reduction_weighs_response_tokens_alone(name: str):
    lengths = torch.tensor([3, 0, 5])
    mask = torch.arange(6) < lengths[:, None]
    weights = token_weights(name, mask, lengths, StepCounts(num_tokens=8, num_rows=3, max_length=6))
    assert weights.shape == mask.shape
    assert weights.isfinite().all()
    assert weights[~mask].eq(0).all()
    assert weights[mask].gt(0).all()


@every_reduction
def test_a_reduction_is_linear_in_tokens_where_it_ignores_the_response_length(name: str):
    weights = token_weights(name, MASK, MASK.sum(1), COUNTS)
    assert (weights[0, 0] == weights[1, 0]).item() == (name in TOKEN_LINEAR)


@every_reduction
def test_every_reduction_gives_a_row_its_weight_in_any_microbatch(name: str):
    whole = token_weights(name, MASK, MASK.sum(1), COUNTS)
    first = token_weights(name, MASK[:1, :2], MASK[:1].sum(1), COUNTS)
    assert first.equal(whole[:1, :2])


@every_reduction
def test_every_reduction_of_an_empty_step_is_finite(name: str):
    counts = StepCounts(num_tokens=0, num_rows=0, max_length=4)
    weights = token_weights(name, torch.zeros(1, 2, dtype=torch.bool), torch.zeros(1), counts)
    assert weights.eq(0).all()


@pytest.mark.parametrize(
    ("estimator", "reduction", "is_zero"),
    [
        (opo, "token-mean", True),
        (opo, "seq-mean-token-mean", False),
        (mean, "token-mean", False),
        (mean, "seq-mean-token-mean", True),
    ],
)
def test_the_loss_of_a_fitting_baseline_is_zero_on_policy(estimator, reduction: str, is_zero: bool):
    """Its value says nothing, then; only its gradient does."""
    lengths = MASK.sum(1)
    result = estimator(double([1.0, 0.0]), lengths, torch.zeros(2, dtype=torch.int64))
    loss = (-result[:, None] * token_weights(reduction, MASK, lengths, COUNTS)).sum().item()
    assert (abs(loss) < 1e-6) == is_zero


# --- KL ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [("k1", 0.5), ("k2", 0.125), ("k3", math.exp(-0.5) - 0.5), ("k3+", math.exp(-0.5) - 0.5)],
)
def test_kl_constants(name: str, expected: float):
    assert KL_ESTIMATORS[name](torch.tensor([[0.5]])).item() == pytest.approx(expected)


class Policies:
    """A policy and a reference over three tokens."""

    def __init__(self):
        self.logits = double([0.2, -0.4, 1.0]).requires_grad_()
        self.logprobs = self.logits.log_softmax(-1)
        self.chances = self.logprobs.exp().detach()
        self.reference = double([0.5, 0.3, 0.2])
        self.log_ratio = self.logprobs - self.reference.log()
        self.kl = (self.logprobs.exp() * self.log_ratio).sum()
        self.forward_kl = -(self.reference * self.log_ratio).sum()

    def gradient(self, value: Tensor) -> Tensor:
        return torch.autograd.grad(value, self.logits, retain_graph=True)[0]

    def expected(self, per_token: Tensor) -> Tensor:
        return (self.chances * per_token).sum()


@pytest.fixture
def policies() -> Policies:
    return Policies()


@pytest.mark.parametrize(
    ("name", "expected", "deviation"),
    [
        ("k1", 0.36396, 0.860216),
        ("k2", 0.43622, 0.178722),
        ("k3", 0.36396, 0.072694),
        ("k3+", 0.36396, 0.072694),
    ],
)
def test_moments_of_kl_estimators(name: str, expected: float, deviation: float, policies: Policies):
    """All but k2 are unbiased; k3 with the least variance."""
    values = KL_ESTIMATORS[name](policies.log_ratio)
    average = policies.expected(values)
    assert average.item() == near(expected)
    assert policies.expected((values - average).square()).sqrt().item() == near(deviation)
    assert policies.kl.item() == near(0.36396)


@pytest.mark.parametrize(
    ("name", "of"), [("k1", None), ("k2", "kl"), ("k3", "forward_kl"), ("k3+", "kl")]
)
def test_expected_gradient_of_kl_estimators_in_the_loss(name: str, of, policies: Policies):
    """Of k1 it is 0, of k3 that of the other direction: only k2 penalises KL(pi || ref)."""
    gradient = policies.gradient(policies.expected(KL_ESTIMATORS[name](policies.log_ratio)))
    if of is None:
        assert gradient.abs().max() < 1e-12
    else:
        torch.testing.assert_close(gradient, policies.gradient(getattr(policies, of)))


def test_k1_in_the_reward_penalises_the_kl(policies: Policies):
    penalty = KL_ESTIMATORS["k1"](policies.log_ratio).detach()
    gradient = policies.gradient(policies.expected(penalty * policies.logprobs))
    torch.testing.assert_close(gradient, policies.gradient(policies.kl))


@pytest.mark.parametrize("name", ["k2", "k3", "k3+"])
@quick
@given(x=st.floats(-20, 20))
def test_all_but_k1_are_never_negative(name: str, x: float):
    assert KL_ESTIMATORS[name](torch.tensor(x)).item() >= 0


@every_kl
def test_every_kl_estimator(name: str):
    x = 20 * torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    value = KL_ESTIMATORS[name](x)
    assert value.shape == x.shape
    assert value.isfinite().all()
    assert KL_ESTIMATORS[name](torch.zeros(3)).eq(0).all()


# --- the rest ---------------------------------------------------------------------------------


def test_overlong_punishment_constants():
    lengths = torch.tensor([1, 80, 81, 90, 100, 110])
    expected = [0, 0, -0.05, -0.5, -1, -1]
    assert overlong_punishment(lengths, 100, 20).tolist() == pytest.approx(expected)


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
