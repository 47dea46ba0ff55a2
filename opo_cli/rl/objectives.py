"""Objectives: a loss per token times a reduction over tokens, plus KL and entropy terms.

Everything is per token; a reduction is a weight per token, so that the loss is a plain sum. Its
denominators are counts over the whole optimizer step, which makes gradients the same for any
microbatch size and any number of ranks.

Shape legend: B rows (responses), T response tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

MAX_LOG_RATIO = 20.0  # exp(20) is 5e8: a ratio beyond it is a broken batch, not a signal.


# --- ratios -----------------------------------------------------------------------------------


def log_ratio(logprobs: Tensor, others: Tensor) -> Tensor:
    """log pi - log pi_other per token, clamped to +-20: for losses, never for metrics."""
    return (logprobs - others).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def token_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """rho_t = pi / pi_old per token. (B, T) each -> (B, T)."""
    del mask
    return log_ratio(logprobs, old_logprobs).exp()


def sequence_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """s = exp(mean over the response of log rho), on each of its tokens. (B, T) -> (B, T).

    GSPO, arXiv 2507.18071, in the token's form sg(s) pi_t / sg(pi_t): each token carries its own
    gradient, and under a mean over tokens they add up to that of s.
    """
    own = log_ratio(logprobs, old_logprobs) * mask
    lengths = mask.sum(-1, keepdim=True).clamp(min=1)
    whole = own.detach().sum(-1, keepdim=True) / lengths
    return (own - own.detach() + whole).exp()


def importance_weights(
    old_logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor, kind: str, cap: float
) -> Tensor:
    """min(pi_old / pi_sampler, cap), detached: truncated importance sampling. (B, T) -> (B, T).

    The trainer's probabilities at rollout weights over those that the sampler drew from; it mends
    numerics and sampling settings that differ, at the price of a bias where it truncates.

    Args:
        kind: "token" takes each token's ratio; "sequence" their product over the response, on each
            token (unbiased before truncation).
        cap: upper bound of a weight, C; 2 is common.
    """
    own = (old_logprobs - sampler_logprobs).detach()
    own = own.where(mask, own.new_zeros(()))
    if kind == "sequence":
        own = own.sum(-1, keepdim=True).expand(mask.shape)
    return own.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp().clamp(max=cap)


# --- losses -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Clip:
    """Bounds on a ratio."""

    low: float = 0.2
    """It is clipped below at 1 - low."""
    high: float = 0.2
    """It is clipped above at 1 + high."""
    dual: float = 0.0
    """Where A < 0 the loss is at most -A dual; 0: no such bound."""

    def ratio(self, ratio: Tensor) -> Tensor:
        return ratio.clamp(1 - self.low, 1 + self.high)


def policy_gradient(logprobs: Tensor, ratio: Tensor, advantages: Tensor, clip: Clip) -> Tensor:
    """-A rho. On policy rho is 1 and its gradient that of log pi: the score-function gradient.

    (B, T) each -> (B, T), here and in every loss.
    """
    del logprobs, clip
    return -advantages * ratio


def ppo_clip(logprobs: Tensor, ratio: Tensor, advantages: Tensor, clip: Clip) -> Tensor:
    """max(-A rho, -A clip(rho, 1 - low, 1 + high)). PPO, arXiv 1707.06347.

    With low < high it is DAPO's clip-higher (arXiv 2503.14476), with `clip.dual` dual-clip PPO
    (arXiv 1912.09729): where A < 0, at most -A dual. With `sequence_ratio` it is GSPO's loss.
    """
    del logprobs
    loss = (-advantages * ratio).maximum(-advantages * clip.ratio(ratio))
    if clip.dual:
        loss = loss.minimum(-advantages * clip.dual).where(advantages < 0, loss)
    return loss


def cispo(logprobs: Tensor, ratio: Tensor, advantages: Tensor, clip: Clip) -> Tensor:
    """-sg(clip(rho, 1 - low, 1 + high)) A log pi. CISPO, arXiv 2506.13585.

    The weight is clipped and the gradient kept. `low` = 1 leaves no lower bound, as the papers use
    it. (TRL's epsilon_high is the bound itself, 1 + high here; verl's is high.)
    """
    return -clip.ratio(ratio).detach() * advantages * logprobs


Sides = tuple["Tensor", "Tensor"]


def never_clipped(ratio: Tensor, advantages: Tensor, clip: Clip) -> Sides:
    """(B, T) bool, twice: no token, on either side."""
    del advantages, clip
    return (ratio.new_zeros(ratio.shape).bool(),) * 2


def clipped_gradients(ratio: Tensor, advantages: Tensor, clip: Clip) -> Sides:
    """(B, T) bool: tokens whose gradient `ppo_clip` removes, (below, above) the bounds."""
    below = (advantages < 0) & (ratio < 1 - clip.low)
    above = (advantages > 0) & (ratio > 1 + clip.high)
    if clip.dual:
        above = above | ((advantages < 0) & (ratio > clip.dual))
    return below, above


def clipped_weights(ratio: Tensor, advantages: Tensor, clip: Clip) -> Sides:
    """(B, T) bool: tokens whose weight `cispo` clips, (below, above) the bounds."""
    is_signal = advantages != 0
    return (ratio < 1 - clip.low) & is_signal, (ratio > 1 + clip.high) & is_signal


SEQ_MEAN = ("seq-mean-token-mean",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    per_token: Callable[[Tensor, Tensor, Tensor, Clip], Tensor]
    """(logprobs, ratio, advantages, clip) -> (B, T)."""
    formula: str
    source: str
    clipped: Callable[[Tensor, Tensor, Clip], Sides] = never_clipped
    ratio: Callable[[Tensor, Tensor, Tensor], Tensor] = token_ratio
    """(logprobs, old_logprobs, mask) -> (B, T)."""
    reductions: tuple[str, ...] | None = None
    """The only ones under which it is what it is called; None: any."""

    @property
    def uses_clipping(self) -> bool:
        return self.clipped is not never_clipped


LOSSES: dict[str, Loss] = {
    "policy-gradient": Loss(
        per_token=policy_gradient, formula="A rho", source="REINFORCE, Williams 1992"
    ),
    "ppo-clip": Loss(
        per_token=ppo_clip,
        formula="min(A rho, A clip(rho))",
        source="PPO, arXiv 1707.06347",
        clipped=clipped_gradients,
    ),
    "gspo": Loss(
        per_token=ppo_clip,
        formula="min(A s, A clip(s)), s = exp(mean log rho)",
        source="GSPO, arXiv 2507.18071",
        clipped=clipped_gradients,
        ratio=sequence_ratio,
        reductions=SEQ_MEAN,
    ),
    "cispo": Loss(
        per_token=cispo,
        formula="sg(clip(rho)) A log(pi)",
        source="CISPO, arXiv 2506.13585",
        clipped=clipped_weights,
    ),
}


# --- reductions -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCounts:
    """Counts over the whole optimizer step: all microbatches of all ranks."""

    num_tokens: float
    num_rows: float
    max_length: float
    """The setting `rollout.max_new_tokens`, tokens."""


@dataclass(frozen=True, slots=True)
class Reduction:
    """A weight per token from (lengths (B, 1), counts): the loss is the weighted sum."""

    weight: Callable[[Tensor, StepCounts], Tensor]
    formula: str


REDUCTIONS: dict[str, Reduction] = {
    "token-mean": Reduction(
        lambda lengths, n: lengths.new_full(lengths.shape, 1 / max(n.num_tokens, 1)),
        "sum over tokens / tokens of the step",
    ),
    "seq-mean-token-mean": Reduction(
        lambda lengths, n: 1 / (lengths.clamp(min=1) * max(n.num_rows, 1)),
        "mean over responses of the mean over tokens",
    ),
    "seq-mean-token-sum": Reduction(
        lambda lengths, n: lengths.new_full(lengths.shape, 1 / max(n.num_rows, 1)),
        "mean over responses of the sum over tokens",
    ),
    "constant": Reduction(
        lambda lengths, n: lengths.new_full(lengths.shape, 1 / (max(n.num_rows, 1) * n.max_length)),
        "sum over tokens / (responses x max_new_tokens)",
    ),
}


def token_weights(reduction: str, mask: Tensor, lengths: Tensor, counts: StepCounts) -> Tensor:
    """(B, T) weights: sum(loss * weights) is the reduced loss's share of these rows.

    Args:
        reduction: a key of `REDUCTIONS`.
        mask: (B, T) bool.
        lengths: (B,) loss tokens per row.
        counts: of the whole optimizer step.
    """
    return REDUCTIONS[reduction].weight(lengths[:, None].float(), counts) * mask


# --- KL to the reference ----------------------------------------------------------------------


def k1(log_ratio: Tensor) -> Tensor:
    """x = log pi - log pi_ref: unbiased for KL(pi || ref), may be negative. Schulman 2020.

    (B, T) nats -> (B, T) nats, tokens drawn from pi, here and in every estimator.
    """
    return log_ratio


def k2(log_ratio: Tensor) -> Tensor:
    """x^2 / 2: biased value, but its gradient is that of KL(pi || ref)."""
    return log_ratio.square() / 2


def k3(log_ratio: Tensor) -> Tensor:
    """exp(-x) - 1 + x: unbiased for KL(pi || ref), never negative, lower variance.

    Its gradient is that of the other direction, KL(ref || pi).
    """
    return (-log_ratio).expm1() + log_ratio


def k3_value_k2_gradient(log_ratio: Tensor) -> Tensor:
    """k3's value with k2's gradient, that of KL(pi || ref): verl's `k3+`."""
    straight = k2(log_ratio)
    return straight - straight.detach() + k3(log_ratio).detach()


KL_ESTIMATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "k1": k1,
    "k2": k2,
    "k3": k3,
    "k3+": k3_value_k2_gradient,
}


# --- the rest ---------------------------------------------------------------------------------


def overlong_punishment(lengths: Tensor, max_length: int, buffer: int) -> Tensor:
    """Soft overlong punishment, added to the reward. DAPO, arXiv 2503.14476. (B,) -> (B,).

    0 up to max_length - buffer tokens, then falling in a straight line to -1 at max_length. It
    makes the reward depend on the length, so that baselines differ even at equal correctness.
    """
    return ((max_length - buffer - lengths) / buffer).clamp(-1, 0)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Half the larger squared error of V and of V clipped to old_values +- clip. (B, T) -> (B, T).

    PPO's clipped value loss, as in verl and the original code.
    """
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    return (values - returns).square().maximum((clipped - returns).square()) / 2
