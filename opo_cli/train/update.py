"""The update: minibatches, the objective, the optimizer's steps.

Denominators are sums over all ranks (`all_sum`), taken before the first backward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from opo_cli.config import Config
from opo_cli.model.parallel import all_sum, whole
from opo_cli.model.scores import TokenScores, token_scores
from opo_cli.model.sequences import Sequences
from opo_cli.model.sharding import rounds
from opo_cli.ranks import is_main
from opo_cli.rl import objectives
from opo_cli.train.batch import Batch, minibatch_places
from opo_cli.train.learner import Learner
from opo_cli.train.measure import (
    HalfBatches,
    Meter,
    measure_critic,
    measure_deviation,
    measure_ratio,
)
from opo_cli.types import Mean


def minibatches(batch: Batch, step: int, config: Config) -> Iterator[tuple[Batch, Tensor]]:
    """This rank's rows of each minibatch, and the places of all its groups."""
    for places in minibatch_places(batch.num_groups, step, config):
        is_all = len(places) == batch.num_groups
        yield batch if is_all else batch.select(_rows(batch, places)), places


def _rows(batch: Batch, places: Tensor) -> Tensor:
    """(b,) rows of the groups at these places."""
    return torch.isin(batch.places, places.to(batch.places.device)).nonzero().squeeze(-1)


def halves(minibatch: Batch, places: Tensor) -> list[tuple[Tensor, int]]:
    """(this rank's row indices, number of groups) of each half of the groups; one part for a single
    group.

    Every other group, as dynamic sampling puts those without signal last.
    """
    parts = [part for part in (places[::2], places[1::2]) if len(part)]
    return [(_rows(minibatch, part), len(part)) for part in parts]


def update(
    batch: Batch,
    step: int,
    config: Config,
    learner: Learner,
    meter: Meter,
    *,
    measure_noise: bool = False,
    before_optimizer: Callable[[], None] = lambda: None,
) -> Batch:
    """One optimizer step per minibatch: exactly one when on-policy.

    Args:
        measure_noise: keep the two halves of each minibatch apart, see `HalfBatches`.
        before_optimizer: called before each optimizer step.

    Returns:
        the batch with its scores at rollout weights, which an update on policy has made itself.
    """
    own = TokenScores.zeros(batch.mask) if batch.old_logprobs is None else None
    for optimizer in filter(None, (learner.optimizer, learner.critic_optimizer)):
        optimizer.zero_grad()  # A step that was abandoned may have left some.
    for minibatch, places in minibatches(batch, step, config):
        counts, noise = step_counts(minibatch, config), HalfBatches(learner.policy)
        every_row = torch.arange(len(minibatch), device=batch.groups.device)
        parts = halves(minibatch, places) if measure_noise else [(every_row, 0)]
        losses = torch.zeros(2, device=batch.groups.device)
        for place, (rows, num_groups) in enumerate(parts):
            losses = losses + add_gradients(minibatch, rows, counts, config, learner, meter, own)
            if len(parts) == 2 and place == 0:
                noise.end_of_first(num_groups)
        variance = noise.noise(parts[1][1]) if len(parts) == 2 else None
        policys, critics = all_sum(losses)
        before_optimizer()
        norm = apply_gradients(learner.policy, learner.optimizer, policys, config)
        num_skipped = norm is None
        if learner.critic is not None:
            num_skipped += (
                apply_gradients(learner.critic, learner.critic_optimizer, critics, config) is None
            )
        if is_main():  # These are of all ranks together.
            _count(meter, norm, num_skipped, variance, has_kl=config.algorithm.kl_in == "loss")
    return batch if own is None else batch.with_scores(own)


def _count(
    meter: Meter, norm: float | None, num_skipped: int, variance: float | None, *, has_kl: bool
) -> None:
    """An optimizer step, whose losses' shares are in the meter already."""
    meter.mean(surrogate_loss=Mean(0.0, 1))
    if has_kl:
        meter.mean(kl_loss=Mean(0.0, 1))
    meter.sum(num_optimizer_steps=norm is not None, num_skipped_updates=num_skipped)
    if norm is not None:
        meter.mean(gradient_norm=Mean(norm, 1))
        if variance is not None:
            meter.mean(
                gradient_noise=Mean(variance, 1), gradient_noise_share=Mean(variance, norm**2)
            )


def add_gradients(
    minibatch: Batch,
    rows: Tensor,
    counts: objectives.StepCounts,
    config: Config,
    learner: Learner,
    meter: Meter,
    own: TokenScores | None,
) -> Tensor:
    """Forward and backward over some rows, microbatch by microbatch; their scores go to `own`.

    Returns:
        (2,) their share of the policy's and of the critic's loss.
    """
    losses = torch.zeros(2, device=minibatch.groups.device)
    parts = minibatch.sequences.select(rows).microbatches(config.train.microbatch_tokens)
    for part in rounds(learner.policy, parts):
        if part is None:
            _come_along(learner, losses.device)
            continue
        microbatch = minibatch.select(rows[part])
        loss, scores = policy_loss(microbatch, counts, config, learner, meter)
        loss.backward()
        losses[0] += loss.detach()
        if learner.critic is not None:
            loss = critic_loss(microbatch, counts, config, learner, meter)
            loss.backward()
            losses[1] += loss.detach()
        if own is not None:
            own.put(rows[part], scores)
    return losses


def _come_along(learner: Learner, device: torch.device) -> None:
    """Through a round in which only other ranks have a microbatch; gradients gain zeros."""
    filler = Sequences.filler(device)
    (0 * token_scores(learner.policy, filler).logprobs.sum()).backward()
    if learner.critic is not None:
        (0 * learner.critic(filler).sum()).backward()


def step_counts(minibatch: Batch, config: Config) -> objectives.StepCounts:
    """The denominators of an optimizer step, over all ranks."""
    lengths = minibatch.loss_lengths
    counts = all_sum(torch.stack([lengths.sum(), (lengths > 0).sum()]).double())
    return objectives.StepCounts(
        num_tokens=counts[0].item(),
        num_rows=counts[1].item(),
        max_length=config.rollout.max_new_tokens,
    )


def policy_loss(
    batch: Batch, counts: objectives.StepCounts, config: Config, learner: Learner, meter: Meter
) -> tuple[Tensor, TokenScores]:
    """This microbatch's share of the objective, to minimise (a scalar), and its scores."""
    algorithm, mask = config.algorithm, batch.loss_mask
    scores = token_scores(
        learner.policy, batch.sequences, entropy_gradient=algorithm.entropy_coefficient > 0
    )
    # On policy the ratio is 1 by construction, not up to the rounding of another forward pass.
    old = scores.logprobs.detach() if config.has_one_update else batch.old_logprobs
    loss = objectives.LOSSES[algorithm.loss]
    clip = objectives.Clip(algorithm.clip_low, algorithm.clip_high, algorithm.dual_clip)
    ratio = loss.ratio(scores.logprobs, old, mask)
    per_token = loss.per_token(scores.logprobs, ratio, batch.advantages, clip)
    if algorithm.tis != "none":
        per_token = per_token * objectives.importance_weights(
            old, batch.sampler_logprobs, mask, algorithm.tis, algorithm.tis_cap
        )
    weights = objectives.token_weights(algorithm.reduction, mask, batch.loss_lengths, counts)
    surrogate = (per_token * weights).sum()
    meter.mean(surrogate_loss=Mean(surrogate.item(), 0))  # Counted once per optimizer step.
    measure_ratio(batch, ratio, loss.clipped(ratio.detach(), batch.advantages, clip), meter)
    measure_deviation(batch, scores.logprobs, meter)
    total = surrogate
    if algorithm.kl_in == "loss":
        kl = objectives.KL_ESTIMATORS[algorithm.kl_estimator]
        log_ratio = objectives.log_ratio(scores.logprobs, batch.reference_logprobs)
        kl_loss = algorithm.kl_coefficient * (kl(log_ratio) * weights).sum()
        meter.mean(kl_loss=Mean(kl_loss.item(), 0))
        total = total + kl_loss
    if algorithm.entropy_coefficient:
        total = total - algorithm.entropy_coefficient * (scores.entropy * weights).sum()
    return total, scores


def critic_loss(
    batch: Batch, counts: objectives.StepCounts, config: Config, learner: Learner, meter: Meter
) -> Tensor:
    """This microbatch's share of the value loss, a token mean. Scalar."""
    values = learner.critic(batch.sequences)
    per_token = objectives.value_loss(
        values, batch.values, batch.returns, config.algorithm.value_clip
    )
    loss = (per_token * batch.loss_mask).sum()
    measure_critic(batch, loss, meter)
    return loss / max(counts.num_tokens, 1)


def apply_gradients(
    module, optimizer: torch.optim.Optimizer, loss: Tensor, config: Config
) -> float | None:
    """Clips, steps and clears.

    Args:
        loss: a scalar, whose gradients they are.

    Returns:
        the norm before clipping; None where it or the loss is not finite: then there is no step,
        weights and optimizer are as they were.
    """
    limit = config.optim.max_gradient_norm
    norm = whole(torch.nn.utils.clip_grad_norm_(module.parameters(), limit))
    is_finite = bool((norm + loss.to(norm.device)).isfinite())
    if is_finite:
        optimizer.step()
    optimizer.zero_grad()
    return norm.item() if is_finite else None
