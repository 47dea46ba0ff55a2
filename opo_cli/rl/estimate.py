"""From a step's rewards and scores to its advantages: what training does, and what a replay of the
rollouts repeats.

Shape legend: B rows (responses), T response tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opo_cli.rl.advantages import ADVANTAGES, Signals
from opo_cli.rl.objectives import KL_ESTIMATORS, log_ratio
from opo_cli.rl.stats import AllMax, AllSum, one_rank, whiten

if TYPE_CHECKING:
    from torch import Tensor

    from opo_cli.config import Algorithm


def make_signals(
    algorithm: Algorithm,
    *,
    rewards: Tensor,
    lengths: Tensor,
    groups: Tensor,
    width: int,
    old_logprobs: Tensor | None,
    reference_logprobs: Tensor | None,
    values: Tensor | None,
    logit_norms: Tensor | None,
    greedy_rewards: Tensor | None,
    all_sum: AllSum = one_rank,
    all_max: AllMax = one_rank,
) -> Signals:
    """What the estimators may look at; a KL penalty in the reward is taken off here.

    Args:
        rewards, lengths, groups: (B,); a length of 0 masks the row.
        width: T.
        old_logprobs, reference_logprobs: (B, T), where KL is in the reward.
        values, logit_norms: (B, T), greedy_rewards: (B,), where an estimator asks for them.
    """
    place = groups.new_ones(width).cumsum(0) - 1
    mask, is_last = place < lengths[:, None], place == lengths[:, None] - 1
    token_rewards = rewards[:, None].where(is_last, rewards.new_zeros(()))
    if algorithm.kl_in == "reward":
        kl = KL_ESTIMATORS[algorithm.kl_estimator](log_ratio(old_logprobs, reference_logprobs))
        token_rewards = token_rewards - algorithm.kl_coefficient * kl * mask
    spread = rewards.new_tensor([float("-inf")] * 2)
    if len(graded := rewards[(lengths > 0) & rewards.isfinite()]):
        spread = graded.new_tensor([graded.max().item(), -graded.min().item()])
    return Signals(
        rewards=token_rewards.sum(-1),
        lengths=lengths.float(),
        groups=groups,
        mask=mask,
        token_rewards=token_rewards,
        values=values,
        logit_norms=logit_norms,
        greedy_rewards=greedy_rewards,
        is_constant=not bool(all_max(spread).sum() > 0),
        gamma=algorithm.gamma,
        gae_lambda=algorithm.gae_lambda,
        length_exponent=algorithm.length_exponent,
        all_sum=all_sum,
    )


def advantages_of(algorithm: Algorithm, signals: Signals) -> tuple[Tensor, Tensor]:
    """(B, T) the algorithm's advantages, whitened where it says so, and before that.

    Nothing is whitened where all rewards of the step are equal: what is left is the critic's error
    and the KL penalty, which are not to be blown up.
    """
    raw = ADVANTAGES[algorithm.advantage].estimate(signals)
    if algorithm.whiten_advantages and not signals.is_constant:
        return whiten(raw, signals.live, signals.all_sum), raw
    return raw, raw
