"""Advantage estimators: one pure function and one row of `ADVANTAGES` each.

A group estimator answers: how much better was this response than its group's baseline? The
baseline of most is a weighted mean b = sum w r / sum w, so that they differ in the weights and in
whether a response counts in its own baseline.

Degenerate cases, the same for every group estimator:
  - all rewards of the group equal -> advantage 0;
  - a group of one -> its own reward is its baseline, advantage 0 (as LMOps' OPO; verl returns the
    raw reward, which turns a group estimator into plain REINFORCE unasked);
  - a reward that is not finite, or a response without a loss token -> the row counts neither in
    the numerator nor in the denominator, and gets advantage 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opo_cli.rl.stats import group_is_constant, group_sum

if TYPE_CHECKING:
    from torch import Tensor


def group_advantage(
    rewards: Tensor, lengths: Tensor, groups: Tensor, weights: Tensor, *, leave_one_out: bool
) -> Tensor:
    """A_i = r_i - sum_j w_j r_j / sum_j w_j, the sums over i's group.

    Args:
        rewards: (B,) float.
        lengths: (B,) loss tokens per response; 0 drops the row.
        groups: (B,) int64.
        weights: (B,) non-negative baseline weights.
        leave_one_out: leave i itself out of its baseline, which makes the estimator unbiased
            (theory: Weaver & Tao 2001; the self-inclusive bias is -1/G times the gradient of the
            expected baseline).

    Returns:
        (B,)
    """
    zero = rewards.new_zeros(())
    valid = rewards.isfinite() & (lengths > 0)
    rewards = rewards.where(valid, zero)
    weights = weights.to(rewards.dtype).where(valid, zero)
    total, weighted = group_sum(weights, groups), group_sum(weights * rewards, groups)
    if leave_one_out:
        total, weighted = total - weights, weighted - weights * rewards
    # Exactly 0 without signal (a group of one included), not the mean's rounding error, which a
    # division by the group's spread would blow up.
    usable = valid & ~group_is_constant(rewards, groups, valid) & (total > 0)
    return (rewards - weighted / total.where(usable, zero + 1)).where(usable, zero)


def reinforce(rewards: Tensor, lengths: Tensor) -> Tensor:
    """A = r: no baseline. Williams 1992. (B,), (B,) -> (B,)."""
    return rewards.where(rewards.isfinite() & (lengths > 0), rewards.new_zeros(()))


def mean(rewards: Tensor, lengths: Tensor, groups: Tensor) -> Tensor:
    """A = r - mean(r) of the group. Dr. GRPO, arXiv 2503.20783. (B,) each -> (B,)."""
    return group_advantage(
        rewards, lengths, groups, rewards.new_ones(rewards.shape), leave_one_out=False
    )


def rloo(rewards: Tensor, lengths: Tensor, groups: Tensor) -> Tensor:
    """A_i = r_i - mean of the others of the group. arXiv 2402.14740. (B,) each -> (B,)."""
    return group_advantage(
        rewards, lengths, groups, rewards.new_ones(rewards.shape), leave_one_out=True
    )


def opo(rewards: Tensor, lengths: Tensor, groups: Tensor) -> Tensor:
    """A = r - sum l r / sum l over the group: the length-weighted optimal baseline.

    It minimises the variance of the token-summed gradient where the squared norm of a response's
    score grows as its length l. OPO, arXiv 2505.23585. Self-inclusive, as published: sum l A = 0
    in every group. (B,) each -> (B,).
    """
    return group_advantage(rewards, lengths, groups, lengths, leave_one_out=False)


def opo_leave_one_out(rewards: Tensor, lengths: Tensor, groups: Tensor) -> Tensor:
    """OPO's baseline from the other responses alone; unbiased. (B,) each -> (B,)."""
    return group_advantage(rewards, lengths, groups, lengths, leave_one_out=True)


def grpo(rewards: Tensor, lengths: Tensor, groups: Tensor, epsilon: float = 1e-6) -> Tensor:
    """A = (r - mean) / (std + epsilon), std with ddof 1. DeepSeekMath, arXiv 2402.03300.

    epsilon is verl's. (B,) each -> (B,).
    """
    centred = mean(rewards, lengths, groups)
    valid = (rewards.isfinite() & (lengths > 0)).to(centred.dtype)
    count = group_sum(valid, groups)
    variance = group_sum(centred.square(), groups) / (count - 1).clamp(min=1)
    return centred / (variance.sqrt() + epsilon)


def gae(
    token_rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, gae_lambda: float
) -> Tensor:
    """Generalised advantage estimation. arXiv 1506.02438.

    delta_t = r_t + gamma V_{t+1} - V_t;  A_t = delta_t + gamma lambda A_{t+1}. The value after the
    last token is 0; masked tokens are skipped, what follows them is carried through.

    Args:
        token_rewards, values: (B, T) float.
        mask: (B, T) bool.

    Returns:
        (B, T), zero where masked; A + V is the value target.
    """
    advantages = values.new_zeros(values.shape)
    next_value = values.new_zeros(values.shape[0])
    carried = values.new_zeros(values.shape[0])
    for t in reversed(range(values.shape[1])):
        delta = token_rewards[:, t] + gamma * next_value - values[:, t]
        here = delta + gamma * gae_lambda * carried
        carried = here.where(mask[:, t], carried)
        next_value = values[:, t].where(mask[:, t], next_value)
        advantages[:, t] = here.where(mask[:, t], here.new_zeros(()))
    return advantages


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """What an estimator may look at."""

    rewards: Tensor
    """(B,) the sequence reward."""
    lengths: Tensor
    """(B,) loss tokens."""
    groups: Tensor
    """(B,) int64."""
    mask: Tensor
    """(B, T) bool, response tokens."""
    token_rewards: Tensor
    """(B, T) the reward on the last token, less a KL penalty where one is in the reward."""
    values: Tensor | None
    """(B, T) the critic's, where there is one."""
    gamma: float
    gae_lambda: float

    def over_tokens(self, row_advantages: Tensor) -> Tensor:
        """(B,) -> (B, T): the same advantage on each of the row's tokens."""
        return row_advantages[:, None] * self.mask


TOKEN_LINEAR = ("token-mean", "seq-mean-token-sum", "constant")
"""Reductions under which a response's gradient is a sum over its tokens, not their mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advantage:
    """A row of the table."""

    estimate: Callable[[Signals], Tensor]
    """Signals -> (B, T)."""
    formula: str
    source: str
    needs_group: bool = True
    """It compares the responses of a prompt, so one response is not enough."""
    needs_critic: bool = False
    reductions: tuple[str, ...] | None = None
    """The only reductions that it is meant for; None: any."""


ADVANTAGES: dict[str, Advantage] = {
    "none": Advantage(
        estimate=lambda s: s.over_tokens(reinforce(s.rewards, s.lengths)),
        formula="A = r",
        source="REINFORCE, Williams 1992",
        needs_group=False,
    ),
    "mean": Advantage(
        estimate=lambda s: s.over_tokens(mean(s.rewards, s.lengths, s.groups)),
        formula="A = r - mean(r)",
        source="Dr. GRPO, arXiv 2503.20783",
    ),
    "rloo": Advantage(
        estimate=lambda s: s.over_tokens(rloo(s.rewards, s.lengths, s.groups)),
        formula="A = r - mean(r of the others)",
        source="RLOO, arXiv 2402.14740",
    ),
    "opo": Advantage(
        estimate=lambda s: s.over_tokens(opo(s.rewards, s.lengths, s.groups)),
        formula="A = r - sum(l r)/sum(l)",
        source="OPO, arXiv 2505.23585",
        reductions=TOKEN_LINEAR,
    ),
    "opo-loo": Advantage(
        estimate=lambda s: s.over_tokens(opo_leave_one_out(s.rewards, s.lengths, s.groups)),
        formula="A = r - sum(l r)/sum(l) of the others",
        source="leave-one-out form of OPO, arXiv 2505.23585",
        reductions=TOKEN_LINEAR,
    ),
    "grpo": Advantage(
        estimate=lambda s: s.over_tokens(grpo(s.rewards, s.lengths, s.groups)),
        formula="A = (r - mean(r))/std(r)",
        source="GRPO, arXiv 2402.03300",
    ),
    "gae": Advantage(
        estimate=lambda s: gae(
            s.token_rewards, s.values, s.mask, gamma=s.gamma, gae_lambda=s.gae_lambda
        ),
        formula="A = GAE(r, V)",
        source="PPO, arXiv 1707.06347; GAE, arXiv 1506.02438",
        needs_group=False,
        needs_critic=True,
    ),
}
