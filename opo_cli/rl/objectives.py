"""Objectives: a loss per token times a reduction over tokens, plus KL and entropy terms.

Everything is per token; a reduction is a weight per token, so that the loss is a plain sum. Its
denominators are counts over the whole optimizer step, which makes gradients the same for any
microbatch size and any number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

MAX_LOG_RATIO = 20.0  # exp(20) is 5e8: a ratio beyond it is a broken batch, not a signal.


def probability_ratio(logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """rho = pi / pi_old per token, the log-ratio clamped to +-20. (B, T) each -> (B, T)."""
    return (logprobs - old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def policy_gradient(ratio: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """-A rho. On policy rho is 1 and its gradient that of log pi: the score-function gradient.

    (B, T) each -> (B, T); the clip bounds are not used.
    """
    del low, high
    return -advantages * ratio


def ppo_clip(ratio: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """max(-A rho, -A clip(rho, 1 - low, 1 + high)). PPO, arXiv 1707.06347. (B, T) -> (B, T)."""
    return (-advantages * ratio).maximum(-advantages * ratio.clamp(1 - low, 1 + high))


def is_clipped(ratio: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """(B, T) bool: tokens whose gradient `ppo_clip` removes (sign-aware)."""
    return ((advantages > 0) & (ratio > 1 + high)) | ((advantages < 0) & (ratio < 1 - low))


@dataclass(frozen=True, slots=True)
class Loss:
    per_token: Callable[[Tensor, Tensor, float, float], Tensor]
    formula: str
    uses_clipping: bool


LOSSES: dict[str, Loss] = {
    "policy-gradient": Loss(policy_gradient, "A log(pi)", uses_clipping=False),
    "ppo-clip": Loss(ppo_clip, "min(A rho, A clip(rho))", uses_clipping=True),
}


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


def k1(logprobs: Tensor, reference: Tensor) -> Tensor:
    """log pi - log pi_ref: unbiased for KL(pi || ref), may be negative. Schulman 2020."""
    return logprobs - reference


def k2(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Half the squared log-ratio: biased value, but its gradient is KL(pi || ref)'s."""
    return (logprobs - reference).square() / 2


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """exp(-k1) - 1 + k1: unbiased for KL(pi || ref), never negative, lower variance."""
    log_ratio = reference - logprobs
    return log_ratio.expm1() - log_ratio


KL_ESTIMATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"k1": k1, "k2": k2, "k3": k3}
"""(B, T) logprobs of sampled tokens under policy and reference -> (B, T), nats."""


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Half the larger squared error of V and of V clipped to old_values +- clip. (B, T) -> (B, T).

    PPO's clipped value loss, as in verl and the original code.
    """
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    return (values - returns).square().maximum((clipped - returns).square()) / 2
