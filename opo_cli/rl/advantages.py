"""Advantage estimators: one pure function and one row of `ADVANTAGES` each.

A group estimator answers: how much better was this response than its group's baseline? The
baseline of most is a weighted mean b = sum w r / sum w, so that they differ in the weights and in
whether a response counts in its own baseline.

Degenerate cases, the same for every estimator unless its own docstring says otherwise:
  - all rewards of the group equal -> advantage 0 (a KL penalty in the reward makes them differ);
  - a group of one -> its own reward is its baseline, advantage 0 (as LMOps' OPO; verl returns the
    raw reward, which turns a group estimator into plain REINFORCE unasked);
  - a reward that is not finite, or a response without a loss token (empty, or masked whole) -> the
    row counts neither in the numerator nor in the denominator, and gets advantage 0;
  - a truncated response counts with the reward and length that it has; where truncated responses
    are masked (`algorithm.overlong`) it has no loss token.

`opo-batch`, `reinforce++`, `reinforce++-baseline`, `gpg` and `shrinkage` look at the whole step and
take an `all_sum` over ranks; the others look at the group alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opo_cli.rl.stats import (
    AllSum,
    group_is_constant,
    group_sum,
    group_totals,
    one_rank,
    whiten,
)

if TYPE_CHECKING:
    from torch import Tensor


def counts(rewards: Tensor, lengths: Tensor) -> Tensor:
    """(B,) bool: rows with a finite reward and a loss token."""
    return rewards.isfinite() & (lengths > 0)


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
    valid = counts(rewards, lengths)
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
    """A = r: no baseline, no comparison. Williams 1992. (B,), (B,) -> (B,)."""
    return rewards.where(counts(rewards, lengths), rewards.new_zeros(()))


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


def opo_batch(rewards: Tensor, lengths: Tensor, all_sum: AllSum = one_rank) -> Tensor:
    """A = r - sum l r / sum l over the whole step: LMOps' `optimal_batch`. (B,), (B,) -> (B,).

    Its baseline does not know the prompt: a group of equal rewards keeps an advantage, and so does
    a group of one. Only a step of equal rewards has none.
    """
    valid = counts(rewards, lengths)
    kept = rewards.where(valid, rewards.new_zeros(())).double()
    weights = lengths.double() * valid
    sums = kept.new_tensor([weights.sum().item(), (weights * kept).sum().item()])
    total, weighted = all_sum(sums).unbind()
    return ((kept - weighted / total.clamp(min=1)) * valid).to(rewards.dtype)


def length_power(rewards: Tensor, lengths: Tensor, groups: Tensor, exponent: float) -> Tensor:
    """A = r - sum l^c r / sum l^c over the group. (B,) each -> (B,).

    c = 0 is the mean, c = 1 OPO. Where the norm of a response's score grows as l^alpha, c = 2 alpha
    minimises the variance (alpha about 0.8 was measured on R1-Distill-Qwen-1.5B:
    faabian.github.io/blog/alpha.html). Under a mean over each response's tokens the weights that
    fit are l^(2 alpha - 2), so that c is at most 0.
    """
    weights = lengths.double().clamp(min=1) ** exponent
    return group_advantage(rewards, lengths, groups, weights, leave_one_out=False)


def logit_proxy(rewards: Tensor, lengths: Tensor, groups: Tensor, norms: Tensor) -> Tensor:
    """A = r - sum W r / sum W over the group, W = sum_t (1 - 2 pi_t + sum_v pi_v^2).

    1 - 2 pi_t + sum_v pi_v^2 is the squared norm of d log pi_t / d logits, so W stands for the
    squared norm of the response's score: exactly for a tabular policy, else leaving out the hidden
    states and the layers below. It needs a forward pass and no gradient. The weights are OTB's
    (arXiv 2602.07078), one per response.

    Args:
        rewards, lengths, groups: (B,).
        norms: (B, T) the terms of W, zero beyond a row's length.

    Returns:
        (B,); zero where all weights of a group are 0 (every token was certain: there is no score).
    """
    return group_advantage(rewards, lengths, groups, norms.sum(-1), leave_one_out=False)


def optimal_token_baseline(
    returns: Tensor, norms: Tensor, mask: Tensor, groups: Tensor, *, cumulative: bool
) -> Tensor:
    """A_t = R_t - B_t, B_t = sum_i W_it R_it / sum_i W_it over the group's rows alive at token t.

    OTB, arXiv 2602.07078: W_t = sum of w_j over j <= t, w_j = 1 - 2 pi_j + sum_v pi_v^2. Without
    `cumulative` W_t = w_t, which is optimal where scores of different tokens are orthogonal.

    Args:
        returns: (B, T) reward from token t on; a row where it is not finite does not count.
        norms: (B, T) the w_t.
        mask: (B, T) bool, tokens that count.
        groups: (B,) int64.

    Returns:
        (B, T). Zero where a row is the last of its group alive (its baseline is its own return;
        verl can be told to leave the return there), in a group of equal rewards, and where all
        weights are 0 (certain tokens have no score).
    """
    zero = returns.new_zeros(())
    mask = mask & returns.where(mask, zero).isfinite().all(-1, keepdim=True)
    returns = returns.where(mask, zero)
    norms = norms.where(mask, zero)
    weights = (norms.cumsum(-1) if cumulative else norms) * mask
    total, weighted = group_sum(weights, groups), group_sum(weights * returns, groups)
    is_constant = group_is_constant(returns[:, 0], groups, mask[:, 0])[:, None]
    num_alive = group_sum(mask.to(returns.dtype), groups)
    usable = mask & ~is_constant & (num_alive > 1) & (total > 0)
    return (returns - weighted / total.where(usable, zero + 1)).where(usable, zero)


def grpo(rewards: Tensor, lengths: Tensor, groups: Tensor, epsilon: float = 1e-6) -> Tensor:
    """A = (r - mean) / (std + epsilon), std with ddof 1. DeepSeekMath, arXiv 2402.03300.

    epsilon is verl's. (B,) each -> (B,).
    """
    centred = mean(rewards, lengths, groups)
    count = group_sum(counts(rewards, lengths).to(centred.dtype), groups)
    variance = group_sum(centred.square(), groups) / (count - 1).clamp(min=1)
    return centred / (variance.sqrt() + epsilon)


def gpg(rewards: Tensor, lengths: Tensor, groups: Tensor, all_sum: AllSum = one_rank) -> Tensor:
    """A = alpha (r - mean), alpha = rows of the step / rows in groups with a signal.

    GPG, arXiv 2504.02546, with its F = 1: alpha makes up for groups of equal rewards, which are in
    the loss's denominator and add nothing to the gradient. verl divides by the rows of non-zero
    reward instead, so that there a shift of all rewards changes alpha. (B,) each -> (B,).
    """
    valid = counts(rewards, lengths)
    has_signal = valid & ~group_is_constant(rewards, groups, valid)
    sums = rewards.new_tensor([float(valid.sum()), float(has_signal.sum())]).double()
    num_rows, num_telling = all_sum(sums).tolist()
    return mean(rewards, lengths, groups) * (num_rows / max(num_telling, 1))


def shrinkage(
    rewards: Tensor, lengths: Tensor, groups: Tensor, all_sum: AllSum = one_rank
) -> Tensor:
    """A = r - [(1 - lambda) mean of the prompt's others + lambda mean of the other prompts].

    The leave-one-out mean, shrunk towards the other prompts' means (James and Stein). arXiv
    2511.03710: lambda = (n-1)/n v/(v+s), from the other n - 1 prompts alone; v is their mean of
    var(r)/m, the noise of a mean of m responses, s the mean squared distance of their means from
    those means' mean. Neither baseline nor lambda sees the response itself: unbiased. (The authors'
    code leaves (n-1)/n out.)

    A group of equal rewards keeps an advantage (the other prompts say what to expect); a step of
    equal rewards has none. A single prompt has lambda 0: RLOO. A group of one takes the other
    prompts' mean. (B,) each -> (B,).
    """
    valid = counts(rewards, lengths)
    kept, one = rewards.where(valid, rewards.new_zeros(())).double(), valid.double()
    size, total = group_totals(one, groups), group_totals(kept, groups)
    average = total / size.clamp(min=1)
    deviations = (kept - average[groups]).square() * one
    noise = group_totals(deviations, groups) / ((size - 1) * size).clamp(min=1)

    def over_others(x: Tensor) -> Tensor:
        return all_sum(x.sum()) - x

    num, num_noise = over_others((size > 0).double()), over_others((size > 1).double())
    target = over_others(average) / num.clamp(min=1)
    s = (over_others(average.square()) / num.clamp(min=1) - target.square()).clamp(min=0)
    v = over_others(noise) / num_noise.clamp(min=1)
    shrink = num / (num + 1) * v / (v + s).where(v > 0, v.new_ones(()))
    shrink = shrink.where(size > 1, (num > 0).double())[groups]

    leave_one_out = (total[groups] - kept) / (size[groups] - 1).clamp(min=1)
    baseline = (1 - shrink) * leave_one_out + shrink * target[groups]
    usable = valid & ((size[groups] > 1) | (shrink > 0))
    return ((kept - baseline) * usable).to(rewards.dtype)


def remax(rewards: Tensor, lengths: Tensor, greedy_rewards: Tensor) -> Tensor:
    """A = r - r(greedy response to the same prompt). ReMax, arXiv 2310.10505. (B,) each -> (B,).

    Unbiased: the baseline does not depend on the sampled response. It compares with no other
    sample, so a group of one is whole, and a group of equal rewards keeps an advantage where the
    greedy response earned another. A greedy reward that is not finite drops the row.
    """
    usable = counts(rewards, lengths) & greedy_rewards.isfinite()
    return (rewards - greedy_rewards).where(usable, rewards.new_zeros(()))


def gae(
    token_rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, gae_lambda: float
) -> Tensor:
    """Generalised advantage estimation. arXiv 1506.02438.

    delta_t = r_t + gamma V_{t+1} - V_t;  A_t = delta_t + gamma lambda A_{t+1}. The value after the
    last token is 0; masked tokens are skipped, what follows them is carried through. It compares
    with no other response: groups do not matter.

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


def returns_to_go(token_rewards: Tensor, mask: Tensor, gamma: float = 1.0) -> Tensor:
    """R_t = sum of gamma^(t'-t) r_t' over t' >= t. (B, T), (B, T) -> (B, T), zero where masked."""
    return gae(token_rewards, token_rewards.new_zeros(mask.shape), mask, gamma=gamma, gae_lambda=1)


def reinforce_plus_plus(
    token_rewards: Tensor,
    mask: Tensor,
    gamma: float,
    all_sum: AllSum = one_rank,
    *,
    is_constant: bool = False,
) -> Tensor:
    """Rewards to go, whitened over all tokens of the step. arXiv 2501.03262, as in verl.

    A mean over tokens weights each response by its length, so with gamma = 1 and no KL in the
    reward it is `opo-batch` over the tokens' standard deviation. It knows no groups: only a step of
    equal rewards to go has advantage 0. (LMOps whitens over responses instead.)

    Args:
        token_rewards: (B, T), the KL penalty included where it is in the reward.
        mask: (B, T) bool, tokens that count.
        is_constant: no response of the step was graded better than another. Then only the mean is
            taken off: what differs is the KL penalty, which is not to be blown up.

    Returns:
        (B, T), zero where masked.
    """
    returns = returns_to_go(token_rewards, mask, gamma)
    return whiten(returns, mask, all_sum, scale=not is_constant)


def reinforce_plus_plus_baseline(
    rewards: Tensor,
    lengths: Tensor,
    groups: Tensor,
    mask: Tensor,
    all_sum: AllSum = one_rank,
    *,
    is_constant: bool = False,
) -> Tensor:
    """r - mean(r) of the group, whitened over all tokens of the step. arXiv 2501.03262, as in verl.

    The whitening takes off the mean over tokens, so that a group of equal rewards, or of one, keeps
    a small advantage; only a step of such groups has none. `is_constant` as in
    `reinforce_plus_plus`. (B,) each, mask (B, T) -> (B, T).
    """
    centred = mean(rewards, lengths, groups)[:, None] * mask
    mask = mask & counts(rewards, lengths)[:, None]
    return whiten(centred, mask, all_sum, scale=not is_constant)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """What an estimator may look at."""

    rewards: Tensor
    """(B,) the sequence reward, less a KL penalty where one is in the reward."""
    lengths: Tensor
    """(B,) loss tokens; 0 for a row that is masked whole."""
    groups: Tensor
    """(B,) int64."""
    mask: Tensor
    """(B, T) bool, loss tokens."""
    token_rewards: Tensor
    """(B, T) the reward on the last token, less a KL penalty per token likewise."""
    values: Tensor | None = None
    """(B, T) the critic's, where there is one."""
    logit_norms: Tensor | None = None
    """(B, T) 1 - 2 pi_t + sum_v pi_v^2 at rollout weights, where an estimator needs them."""
    greedy_rewards: Tensor | None = None
    """(B,) of the greedy response to the row's prompt, likewise."""
    is_constant: bool = False
    """No response of the step was graded better than another (whatever a KL penalty adds)."""
    gamma: float = 1.0
    gae_lambda: float = 1.0
    length_exponent: float = 1.0
    all_sum: AllSum = one_rank

    @property
    def live(self) -> Tensor:
        """(B, T) bool: loss tokens of the rows that count."""
        return self.mask & counts(self.rewards, self.lengths)[:, None]

    @property
    def live_rewards(self) -> Tensor:
        """(B, T) token rewards, zero elsewhere: a NaN would poison sums over tokens."""
        return self.token_rewards.where(self.live, self.token_rewards.new_zeros(()))

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
    needs_logit_norms: bool = False
    needs_greedy: bool = False
    uses_gamma: bool = False
    """It discounts rewards to go."""
    takes_kl_in_reward: bool = True
    """False: it would scale a KL penalty up to the size of a reward."""
    is_unbiased: bool = False
    """E[A grad log pi] is the gradient of the expected reward; a mean over tokens spoils that."""
    length_exponent: float | None = None
    """The power of the length by which its baseline weights responses; None: it has no such
    weights. (`length-power` takes it from `algorithm.length_exponent`.)"""


def _otb(s: Signals, *, cumulative: bool) -> Tensor:
    returns = returns_to_go(s.live_rewards, s.live)
    return optimal_token_baseline(returns, s.logit_norms, s.live, s.groups, cumulative=cumulative)


ADVANTAGES: dict[str, Advantage] = {
    "none": Advantage(
        estimate=lambda s: s.over_tokens(reinforce(s.rewards, s.lengths)),
        formula="A = r",
        source="REINFORCE, Williams 1992",
        needs_group=False,
        is_unbiased=True,
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
        is_unbiased=True,
    ),
    "opo": Advantage(
        estimate=lambda s: s.over_tokens(opo(s.rewards, s.lengths, s.groups)),
        formula="A = r - sum(l r)/sum(l)",
        source="OPO, arXiv 2505.23585",
        length_exponent=1,
    ),
    "opo-loo": Advantage(
        estimate=lambda s: s.over_tokens(opo_leave_one_out(s.rewards, s.lengths, s.groups)),
        formula="A = r - sum(l r)/sum(l) of the others",
        source="leave-one-out form of OPO, arXiv 2505.23585",
        is_unbiased=True,
        length_exponent=1,
    ),
    "opo-batch": Advantage(
        estimate=lambda s: s.over_tokens(opo_batch(s.rewards, s.lengths, s.all_sum)),
        formula="A = r - sum(l r)/sum(l) over the step",
        source="LMOps' optimal_batch, by the authors of arXiv 2505.23585",
        needs_group=False,
        length_exponent=1,
    ),
    "length-power": Advantage(
        estimate=lambda s: s.over_tokens(
            length_power(s.rewards, s.lengths, s.groups, s.length_exponent)
        ),
        formula="A = r - sum(l^c r)/sum(l^c)",
        source="faabian.github.io/blog/alpha.html, c = 2 alpha",
    ),
    "logit-proxy": Advantage(
        estimate=lambda s: s.over_tokens(
            logit_proxy(s.rewards, s.lengths, s.groups, s.logit_norms)
        ),
        formula="A = r - sum(W r)/sum(W), W = sum_t(1 - 2 pi_t + sum_v pi_v^2)",
        source="weights of arXiv 2602.07078, one per response",
        needs_logit_norms=True,
        length_exponent=1,
    ),
    "otb": Advantage(
        estimate=lambda s: _otb(s, cumulative=True),
        formula="A_t = R_t - sum(W_t R_t)/sum(W_t), W_t = sum_{j<=t}(1 - 2 pi_j + sum_v pi_v^2)",
        source="OTB, arXiv 2602.07078",
        needs_logit_norms=True,
        length_exponent=1,
    ),
    "otb-token": Advantage(
        estimate=lambda s: _otb(s, cumulative=False),
        formula="A_t = R_t - sum(w_t R_t)/sum(w_t), w_t = 1 - 2 pi_t + sum_v pi_v^2",
        source="OTB, arXiv 2602.07078, with each token's own weight",
        needs_logit_norms=True,
        length_exponent=1,
    ),
    "grpo": Advantage(
        estimate=lambda s: s.over_tokens(grpo(s.rewards, s.lengths, s.groups)),
        formula="A = (r - mean(r))/std(r)",
        source="GRPO, arXiv 2402.03300",
        takes_kl_in_reward=False,
    ),
    "gpg": Advantage(
        estimate=lambda s: s.over_tokens(gpg(s.rewards, s.lengths, s.groups, s.all_sum)),
        formula="A = (r - mean(r)) rows/rows with signal",
        source="GPG, arXiv 2504.02546",
    ),
    "shrinkage": Advantage(
        estimate=lambda s: s.over_tokens(shrinkage(s.rewards, s.lengths, s.groups, s.all_sum)),
        formula="A = r - [(1-lambda) mean(r of the others) + lambda mean(other prompts)]",
        source="shrinkage baselines, arXiv 2511.03710",
        is_unbiased=True,
    ),
    "reinforce++": Advantage(
        estimate=lambda s: reinforce_plus_plus(
            s.live_rewards, s.live, s.gamma, s.all_sum, is_constant=s.is_constant
        ),
        formula="A_t = R_t, whitened over the step's tokens",
        source="REINFORCE++, arXiv 2501.03262",
        needs_group=False,
        uses_gamma=True,
        length_exponent=1,
    ),
    "reinforce++-baseline": Advantage(
        estimate=lambda s: reinforce_plus_plus_baseline(
            s.rewards, s.lengths, s.groups, s.mask, s.all_sum, is_constant=s.is_constant
        ),
        formula="A = r - mean(r), whitened over the step's tokens",
        source="REINFORCE++-baseline, arXiv 2501.03262",
        length_exponent=1,
    ),
    "remax": Advantage(
        estimate=lambda s: s.over_tokens(remax(s.rewards, s.lengths, s.greedy_rewards)),
        formula="A = r - r(greedy)",
        source="ReMax, arXiv 2310.10505",
        is_unbiased=True,
        needs_group=False,
        needs_greedy=True,
    ),
    "gae": Advantage(
        estimate=lambda s: gae(
            s.live_rewards, s.values, s.live, gamma=s.gamma, gae_lambda=s.gae_lambda
        ),
        formula="A = GAE(r, V)",
        source="PPO, arXiv 1707.06347; GAE, arXiv 1506.02438",
        needs_group=False,
        needs_critic=True,
        uses_gamma=True,
    ),
}
