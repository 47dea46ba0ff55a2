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

from opo_cli.certificate import KEY, off_policy_reasons
from opo_cli.config import Config
from opo_cli.data.sources import MINIBATCH_STREAM, SAMPLING_STREAM, TrainingPrompts
from opo_cli.grading.pool import Grader
from opo_cli.model.critic import Critic
from opo_cli.model.parallel import all_max, all_sum
from opo_cli.model.policy import TokenScores, score, token_scores
from opo_cli.rl import objectives
from opo_cli.rl.advantages import ADVANTAGES
from opo_cli.rl.estimate import advantages_of, make_signals
from opo_cli.rollout.engine import Engine, Progress
from opo_cli.train.batch import Batch, collate
from opo_cli.train.measure import (
    HalfBatches,
    Meter,
    measure_advantages,
    measure_critic,
    measure_deviation,
    measure_diversity,
    measure_grades,
    measure_kl,
    measure_probe,
    measure_ratio,
    measure_scores,
    measure_shift,
)
from opo_cli.types import GradedGroup, Mean, Sampling


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
        key = f"{name}_seconds"
        self.seconds[key] = self.seconds.get(key, 0.0) + time.monotonic() - start

    def report(self, num_tokens: float) -> dict[str, float]:
        total = time.monotonic() - self.started
        rate = {"step_seconds": total, "tokens_per_second": num_tokens / total}
        return {key: round(value, 4) for key, value in (self.seconds | rate).items()}


@dataclass(frozen=True, slots=True)
class StepResult:
    record: dict[str, Any]
    """Keyed as `METRICS`, and the certificate's reasons."""
    batch: Batch
    """As trained on, with its scores at rollout weights."""
    graded: list[GradedGroup]
    """The groups behind the batch."""


def training_step(
    step: int,
    prompts: TrainingPrompts,
    config: Config,
    learner: Learner,
    engine: Engine,
    grader: Grader,
    progress: Progress | None = None,
    before_update: Callable[[], None] = lambda: None,
) -> StepResult:
    """Step `step` (from 0).

    Until `before_update` is called, the step can be abandoned: nothing has changed.
    """
    clock, meter = Clock(), Meter()
    measures = bool(config.measure.every) and step % config.measure.every == 0
    graded, sampled = sample_groups(step, prompts, config, engine, grader, clock, progress)
    batch = collate(graded, learner.policy.device)
    if ADVANTAGES[config.algorithm.advantage].needs_greedy:
        batch = with_greedy_rewards(batch, graded, config, engine, grader, clock)
    with clock.phase("score"):
        batch = score_batch(shaped(batch, config), config, learner)
        batch = with_advantages(batch, config)
    with clock.phase("measure"):
        models, budget = (learner.policy, learner.reference), config.train.microbatch_tokens
        first = batch.first_of_groups(config.measure.responses)
        if measures:
            measure_kl(batch.sequences.select(first), *models, budget, meter)
        if config.measure.probe_every and step % config.measure.probe_every == 0:
            probe = prompts.probe(config.measure.probe_prompts)
            measure_probe(probe, step, config, *models, engine, meter)
    before_update()
    with clock.phase("update"):
        batch = update(batch, step, config, learner, meter, measure_noise=measures)
    with clock.phase("measure"):
        measure_grades(sampled, meter)
        measure_scores(batch, meter)
        measure_advantages(batch, meter)
        if measures:
            measure_diversity(graded, meter)
            measure_shift(batch.select(first), learner.policy, budget, meter)
    with clock.phase("sync"):
        engine.load_weights(learner.policy, step + 1)
    values = meter.values()
    reasons = off_policy_reasons(config, step, {g.group.policy_version for g in graded}, values)
    record = {
        "step": step + 1,
        "policy_version": graded[0].group.policy_version,
        "exact_on_policy": int(not reasons),
        **values,
        "learning_rate": config.optim.learning_rate,
        **clock.report(values["num_tokens"]),
        KEY: reasons,
    }
    return StepResult(record, batch, graded)


# --- rollouts ---------------------------------------------------------------------------------


def sampling_of(config: Config) -> Sampling:
    return Sampling(
        num_responses=config.rollout.group_size,
        max_new_tokens=config.rollout.max_new_tokens,
        temperature=config.rollout.temperature,
        top_p=config.rollout.top_p,
    )


def sample_groups(
    step: int,
    prompts: TrainingPrompts,
    config: Config,
    engine: Engine,
    grader: Grader,
    clock: Clock,
    progress: Progress | None = None,
) -> tuple[list[GradedGroup], list[GradedGroup]]:
    """(the step's groups, all that were sampled for it).

    Dynamic sampling (DAPO, arXiv 2503.14476): groups all right or all wrong are replaced by groups
    of other prompts, in at most `algorithm.max_sampling_rounds` rounds; what is still missing then
    is filled up with the groups that were set aside.
    """
    count, rounds = config.rollout.prompts_per_step, config.algorithm.max_sampling_rounds
    telling: list[GradedGroup] = []
    sampled: list[GradedGroup] = []
    for round in range(rounds):
        missing = count - len(telling)
        drawn = prompts.of_step(step, count)
        if round:
            seen = {group.group.prompt.problem.id for group in sampled}
            drawn = prompts.replacements(step, round, missing, seen)
        with clock.phase("rollout"):
            groups = engine.generate(
                drawn,
                sampling_of(config),
                stream=(SAMPLING_STREAM, config.seed, step),
                first_row=len(sampled) * config.rollout.group_size,
                progress=progress,
            )
        with clock.phase("grade"):
            graded = grader.grade(groups)
        sampled += graded
        telling += [group for group in graded if rounds == 1 or has_both_outcomes(group)]
        if len(telling) == count:
            break
    aside = [group for group in sampled if not has_both_outcomes(group)]
    return telling + aside[: count - len(telling)], sampled


def has_both_outcomes(group: GradedGroup) -> bool:
    return len({grade.correct for grade in group.grades}) == 2


def with_greedy_rewards(
    batch: Batch,
    graded: Sequence[GradedGroup],
    config: Config,
    engine: Engine,
    grader: Grader,
    clock: Clock,
) -> Batch:
    """ReMax's baseline: one greedy response per prompt, graded and shaped as the others are."""
    greedy = Sampling(
        num_responses=1, max_new_tokens=config.rollout.max_new_tokens, temperature=0.0
    )
    with clock.phase("rollout"):
        groups = engine.generate([group.group.prompt for group in graded], greedy, stream=(0,))
    with clock.phase("grade"):
        answers = grader.grade(groups)
    rewards = shaped(collate(answers, batch.rewards.device), config).rewards
    return batch.with_(greedy_rewards=rewards[batch.groups])


# --- the batch --------------------------------------------------------------------------------


def shaped(batch: Batch, config: Config) -> Batch:
    """What `algorithm.overlong` makes of truncated and of nearly truncated responses."""
    if config.algorithm.overlong == "mask":
        return batch.with_(is_trained=~batch.truncated)
    if config.algorithm.overlong == "punish":
        longest = config.rollout.max_new_tokens
        buffer = max(1, round(config.algorithm.overlong_buffer * longest))
        punishment = objectives.overlong_punishment(batch.lengths, longest, buffer)
        return batch.with_(rewards=batch.rewards + punishment)
    return batch


def score_batch(batch: Batch, config: Config, learner: Learner) -> Batch:
    """What objective and estimator need at rollout time, without gradient.

    The reference is scored where its KL is in the objective; KL is measured for every algorithm, on
    part of the batch. With one minibatch the old logprobs are the update's own (ratio 1), unless
    the estimator or the reward asks for them earlier.
    """
    budget, algorithm = config.train.microbatch_tokens, config.algorithm
    advantage = ADVANTAGES[algorithm.advantage]
    if algorithm.kl_in != "none":
        reference = score(learner.reference, batch.sequences, budget)
        batch = batch.with_(reference_logprobs=reference.logprobs)
    is_early = algorithm.kl_in == "reward" or advantage.needs_logit_norms
    if is_early or not config.has_one_update:
        batch = with_old_scores(batch, score(learner.policy, batch.sequences, budget))
    if learner.critic is not None:
        batch = batch.with_(values=learner.critic.values(batch.sequences, budget))
    return batch


def with_old_scores(batch: Batch, scores: TokenScores) -> Batch:
    return batch.with_(
        old_logprobs=scores.logprobs,
        old_entropy=scores.entropy,
        logit_norms=scores.logit_norms,
    )


def with_advantages(batch: Batch, config: Config) -> Batch:
    """The estimator of `config.algorithm`, once over the whole batch, before any update."""
    signals = make_signals(
        config.algorithm,
        rewards=batch.rewards,
        lengths=batch.loss_lengths,
        groups=batch.groups,
        width=batch.mask.shape[1],
        old_logprobs=batch.old_logprobs,
        reference_logprobs=batch.reference_logprobs,
        values=batch.values,
        logit_norms=batch.logit_norms,
        greedy_rewards=batch.greedy_rewards,
        all_sum=all_sum,
        all_max=all_max,
    )
    advantages, raw = advantages_of(config.algorithm, signals)
    returns = None if batch.values is None else raw + batch.values
    return batch.with_(advantages=advantages, returns=returns)


# --- the update -------------------------------------------------------------------------------


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


def halves(minibatch: Batch) -> list[tuple[Tensor, int]]:
    """(row indices, number of groups) of each half of the groups; one part for a single group.

    Every other group, as dynamic sampling puts those without signal last.
    """
    groups = minibatch.groups.unique()
    parts = [part for part in (groups[::2], groups[1::2]) if len(part)]
    return [(torch.isin(minibatch.groups, part).nonzero().squeeze(-1), len(part)) for part in parts]


def update(
    batch: Batch,
    step: int,
    config: Config,
    learner: Learner,
    meter: Meter,
    *,
    measure_noise: bool = False,
) -> Batch:
    """One optimizer step per minibatch: exactly one when on-policy.

    Args:
        measure_noise: keep the two halves of each minibatch apart, see `HalfBatches`.

    Returns:
        the batch with its scores at rollout weights, which an update on policy has made itself.
    """
    own = TokenScores.zeros(batch.mask) if batch.old_logprobs is None else None
    budget = config.train.microbatch_tokens
    for minibatch in minibatches(batch, step, config):
        counts, noise = step_counts(minibatch, config), HalfBatches(learner.policy)
        every_row = torch.arange(len(minibatch), device=batch.groups.device)
        parts = halves(minibatch) if measure_noise else [(every_row, 0)]
        for place, (part, num_groups) in enumerate(parts):
            for rows in minibatch.sequences.select(part).microbatches(budget):
                microbatch = minibatch.select(part[rows])
                loss, scores = policy_loss(microbatch, counts, config, learner, meter)
                loss.backward()
                if learner.critic is not None:
                    critic_loss(microbatch, counts, config, learner, meter).backward()
                if own is not None:
                    own.put(part[rows], scores)
            if len(parts) == 2 and place == 0:
                noise.end_of_first(num_groups)
        variance = noise.noise(parts[1][1]) if len(parts) == 2 else None
        norm = apply_gradients(learner.policy, learner.optimizer, config)
        if learner.critic is not None:
            apply_gradients(learner.critic, learner.critic_optimizer, config)
        is_finite = bool(norm.isfinite())
        meter.mean(surrogate_loss=Mean(0.0, 1))
        if config.algorithm.kl_in == "loss":
            meter.mean(kl_loss=Mean(0.0, 1))
        meter.sum(num_optimizer_steps=is_finite, num_skipped_updates=not is_finite)
        if is_finite:
            meter.mean(gradient_norm=Mean(norm.item(), 1))
            if variance is not None:
                meter.mean(
                    gradient_noise=Mean(variance, 1),
                    gradient_noise_share=Mean(variance, norm.item() ** 2),
                )
    return batch if own is None else with_old_scores(batch, own)


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
