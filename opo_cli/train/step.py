"""The training step: one rollout batch from prompts to new weights.

It reads its batch as whole groups and divides by sums over all ranks (`all_sum`), so nothing here
assumes that it sees every group of the step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opo_cli.config import Config
from opo_cli.data.sources import MINIBATCH_STREAM, SAMPLING_STREAM
from opo_cli.grading.pool import Grader
from opo_cli.model.critic import Critic
from opo_cli.model.parallel import all_max, all_sum
from opo_cli.model.policy import score, token_scores
from opo_cli.rl import objectives
from opo_cli.rl.advantages import ADVANTAGES, Signals
from opo_cli.rl.stats import whiten
from opo_cli.rollout.engine import Engine, Progress
from opo_cli.train.batch import Batch, collate
from opo_cli.train.measure import Meter, measure_batch, measure_critic, measure_scores
from opo_cli.types import Mean, Prompt, Sampling


@dataclass(slots=True, kw_only=True)
class Learner:
    """Everything that training changes, and the frozen reference."""

    policy: Any
    reference: Any
    """The initial policy; also the reference policy of KL terms."""
    optimizer: torch.optim.Optimizer
    critic: Critic | None = None
    critic_optimizer: torch.optim.Optimizer | None = None


@dataclass(slots=True)
class Clock:
    """Seconds per phase of a step."""

    started: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[f"{name}_seconds"] = time.monotonic() - start

    def report(self, num_tokens: float) -> dict[str, float]:
        total = time.monotonic() - self.started
        rate = {"step_seconds": total, "tokens_per_second": num_tokens / total}
        return {key: round(value, 4) for key, value in (self.seconds | rate).items()}


def training_step(
    step: int,
    prompts: Sequence[Prompt],
    config: Config,
    learner: Learner,
    engine: Engine,
    grader: Grader,
    progress: Progress | None = None,
    before_update: Callable[[], None] = lambda: None,
) -> dict[str, float | None]:
    """Step `step` (from 0); returns its record, keyed as `METRICS`.

    Until `before_update` is called, the step can be abandoned: nothing has changed.
    """
    clock, meter = Clock(), Meter()
    with clock.phase("rollout"):
        groups = engine.generate(
            prompts,
            sampling_of(config),
            stream=(SAMPLING_STREAM, config.seed, step),
            progress=progress,
        )
    with clock.phase("grade"):
        graded = grader.grade(groups)
    with clock.phase("score"):
        batch = score_batch(collate(graded, learner.policy.device), config, learner)
        batch = with_advantages(batch, config)
    before_update()
    with clock.phase("update"):
        update(batch, step, config, learner, meter)
    with clock.phase("sync"):
        engine.load_weights(learner.policy, step + 1)
    measure_batch(batch, graded, meter)
    return {
        "step": step + 1,
        "policy_version": groups[0].policy_version,
        **meter.values(),
        "learning_rate": config.optim.learning_rate,
        **clock.report(float(batch.lengths.sum())),
    }


def sampling_of(config: Config) -> Sampling:
    return Sampling(
        num_responses=config.rollout.group_size,
        max_new_tokens=config.rollout.max_new_tokens,
    )


def score_batch(batch: Batch, config: Config, learner: Learner) -> Batch:
    """Logprobs and values at rollout time, without gradient.

    The reference is scored for every algorithm: KL to the initial policy is measured whether or not
    it is in the objective. With one minibatch the old logprobs are the update's own (ratio 1).
    """
    budget = config.train.microbatch_tokens
    batch = batch.with_(
        reference_logprobs=score(learner.reference, batch.sequences, budget).logprobs
    )
    if not config.is_on_policy or config.algorithm.kl_in == "reward":
        old = score(learner.policy, batch.sequences, budget)
        batch = batch.with_(old_logprobs=old.logprobs, old_entropy=old.entropy)
    if learner.critic is not None:
        batch = batch.with_(values=learner.critic.values(batch.sequences, budget))
    return batch


def with_advantages(batch: Batch, config: Config) -> Batch:
    """The estimator of `config.algorithm`, once over the whole batch, before any update."""
    algorithm, mask = config.algorithm, batch.mask
    last_token = torch.arange(mask.shape[1], device=mask.device) == batch.lengths[:, None] - 1
    token_rewards = batch.rewards[:, None] * last_token
    if algorithm.kl_in == "reward":
        kl = objectives.KL_ESTIMATORS[algorithm.kl_estimator]
        penalty = kl(batch.old_logprobs, batch.reference_logprobs) * mask
        token_rewards -= algorithm.kl_coefficient * penalty
    signals = Signals(
        rewards=token_rewards.sum(-1),
        lengths=batch.lengths.float(),
        groups=batch.groups,
        mask=mask,
        token_rewards=token_rewards,
        values=batch.values,
        gamma=algorithm.gamma,
        gae_lambda=algorithm.gae_lambda,
    )
    advantages = ADVANTAGES[algorithm.advantage].estimate(signals)
    returns = None if batch.values is None else advantages + batch.values
    # Without any difference in reward, what is left is the critic's error: not to be blown up.
    spread = all_max(torch.stack([batch.rewards.max(), -batch.rewards.min()])).sum()
    if algorithm.whiten_advantages and spread > 0:
        advantages = whiten(advantages, mask, all_sum)
    return batch.with_(advantages=advantages, returns=returns)


def minibatches(batch: Batch, step: int, config: Config) -> Iterator[Batch]:
    """Whole groups, shuffled by (seed, step), one minibatch per optimizer step."""
    count = config.algorithm.minibatches_per_step
    if count == 1:
        yield batch
        return
    num_groups = int(batch.groups.max()) + 1
    order = torch.from_numpy(
        np.random.default_rng([MINIBATCH_STREAM, config.seed, step]).permutation(num_groups)
    )
    for groups in order.to(batch.groups.device).chunk(count):
        yield batch.select(torch.isin(batch.groups, groups).nonzero().squeeze(-1))


def update(batch: Batch, step: int, config: Config, learner: Learner, meter: Meter) -> None:
    """One optimizer step per minibatch: exactly one when on-policy."""
    for minibatch in minibatches(batch, step, config):
        counts = step_counts(minibatch, config)
        for rows in minibatch.sequences.microbatches(config.train.microbatch_tokens):
            microbatch = minibatch.select(rows)
            policy_loss(microbatch, counts, config, learner, meter).backward()
            if learner.critic is not None:
                critic_loss(microbatch, counts, config, learner, meter).backward()
        norm = apply_gradients(learner.policy, learner.optimizer, config)
        if learner.critic is not None:
            apply_gradients(learner.critic, learner.critic_optimizer, config)
        is_finite = bool(norm.isfinite())
        meter.sum(num_optimizer_steps=is_finite, num_skipped_updates=not is_finite)
        if is_finite:
            meter.mean(gradient_norm=Mean(norm.item(), 1))


def step_counts(minibatch: Batch, config: Config) -> objectives.StepCounts:
    """The denominators of an optimizer step, over all ranks."""
    counts = all_sum(torch.stack([minibatch.lengths.sum(), (minibatch.lengths > 0).sum()]).double())
    return objectives.StepCounts(
        num_tokens=counts[0].item(),
        num_rows=counts[1].item(),
        max_length=config.rollout.max_new_tokens,
    )


def policy_loss(
    batch: Batch, counts: objectives.StepCounts, config: Config, learner: Learner, meter: Meter
) -> Tensor:
    """This microbatch's share of the objective, to minimise. Scalar."""
    algorithm, mask = config.algorithm, batch.mask
    scores = token_scores(
        learner.policy, batch.sequences, entropy_gradient=algorithm.entropy_coefficient > 0
    )
    old = scores.logprobs.detach() if batch.old_logprobs is None else batch.old_logprobs
    ratio = objectives.probability_ratio(scores.logprobs, old)
    bounds = (algorithm.clip_low, algorithm.clip_high)
    loss = objectives.LOSSES[algorithm.loss]
    per_token = loss.per_token(ratio, batch.advantages, *bounds)
    if algorithm.kl_in == "loss":
        kl = objectives.KL_ESTIMATORS[algorithm.kl_estimator]
        per_token = per_token + algorithm.kl_coefficient * kl(
            scores.logprobs, batch.reference_logprobs
        )
    if algorithm.entropy_coefficient:
        per_token = per_token - algorithm.entropy_coefficient * scores.entropy
    clipped = objectives.is_clipped(ratio, batch.advantages, *bounds) & mask & loss.uses_clipping
    measure_scores(batch, scores, ratio, clipped, meter)
    weights = objectives.token_weights(algorithm.reduction, mask, batch.lengths, counts)
    return (per_token * weights).sum()


def critic_loss(
    batch: Batch, counts: objectives.StepCounts, config: Config, learner: Learner, meter: Meter
) -> Tensor:
    """This microbatch's share of the value loss, a token mean. Scalar."""
    values = learner.critic(batch.sequences)
    per_token = objectives.value_loss(
        values, batch.values, batch.returns, config.algorithm.value_clip
    )
    loss = (per_token * batch.mask).sum()
    measure_critic(batch, loss, meter)
    return loss / max(counts.num_tokens, 1)


def apply_gradients(module, optimizer: torch.optim.Optimizer, config: Config) -> Tensor:
    """Clips, steps (unless the norm is not finite) and clears; returns the norm before clipping."""
    norm = torch.nn.utils.clip_grad_norm_(module.parameters(), config.optim.max_gradient_norm)
    if norm.isfinite():
        optimizer.step()
    optimizer.zero_grad()
    return norm


def new_learner(policy, reference, config: Config) -> Learner:
    """Optimizers, and the critic where the estimator needs one."""
    optim = config.optim

    def adamw(module, learning_rate: float) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            module.parameters(),
            lr=learning_rate,
            betas=(optim.beta1, optim.beta2),
            weight_decay=optim.weight_decay,
        )

    learner = Learner(
        policy=policy, reference=reference, optimizer=adamw(policy, optim.learning_rate)
    )
    if ADVANTAGES[config.algorithm.advantage].needs_critic:
        learner.critic = Critic(policy)
        learner.critic_optimizer = adamw(learner.critic, config.algorithm.critic_learning_rate)
    return learner
