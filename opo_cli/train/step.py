"""The training step: one rollout batch from prompts to new weights.

Every rank samples a share of the step's prompts, learns of all groups, and trains on those that are
dealt to it: whole ones, divided by sums over all ranks (`all_sum`). Nothing here assumes that it
has every group of the step, or any.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from opo_cli.certificate import KEY, off_policy_reasons
from opo_cli.config import Config
from opo_cli.data.sources import TrainingPrompts
from opo_cli.errors import NotFiniteError
from opo_cli.grading.pool import Grader
from opo_cli.model.device import GIGABYTE, peak_bytes
from opo_cli.model.memory import out_of_memory
from opo_cli.model.parallel import all_max, all_sum, gathered, largest, num_ranks
from opo_cli.model.policy import name_of_not_finite
from opo_cli.model.scores import score
from opo_cli.model.sharding import device_of
from opo_cli.ranks import rank
from opo_cli.rl.estimate import advantages_of, make_signals
from opo_cli.rollout.engine import Engine, Progress
from opo_cli.train.batch import Batch, collate
from opo_cli.train.clock import Clock
from opo_cli.train.learner import Learner
from opo_cli.train.measure import (
    Meter,
    measure_advantages,
    measure_cost,
    measure_diversity,
    measure_grades,
    measure_kl,
    measure_probe,
    measure_scores,
    measure_shift,
    sample_probe,
)
from opo_cli.train.rollouts import (
    deal,
    greedy_answers,
    sample_groups,
    shaped,
    with_greedy_rewards,
)
from opo_cli.train.update import update
from opo_cli.types import GradedGroup


@dataclass(frozen=True, slots=True)
class StepResult:
    record: dict[str, Any]
    """Keyed as `METRICS`, and the certificate's reasons."""
    batch: Batch
    """This rank's, as trained on, with its scores at rollout weights."""
    graded: list[GradedGroup]
    """The groups behind it."""


def training_step(
    step: int,
    prompts: TrainingPrompts,
    config: Config,
    learner: Learner,
    engine: Engine,
    grader: Grader,
    progress: Progress | None = None,
    before_update: Callable[[], None] = lambda: None,
    before_optimizer: Callable[[], None] = lambda: None,
) -> StepResult:
    """Step `step` (from 0).

    Until `before_optimizer` is called, the step can be abandoned: nothing has changed.

    Raises:
        NotFiniteError: nothing can be sampled, or the update has overflowed.
        OpoError: see `Engine.generate`; memory does not suffice.
    """
    clock, meter, device = Clock(), Meter(), device_of(learner.policy)
    measures = bool(config.measure.every) and step % config.measure.every == 0
    groups, sampled = sample_groups(step, prompts, config, engine, grader, clock, progress)
    answers = []
    if config.algorithm.estimator.needs_greedy:
        answers = greedy_answers(groups, config, engine, grader, clock)
    mine = deal(groups, step, config)[rank()]
    graded = [groups[i] for i in mine]
    batch = collate(graded, device, mine, len(groups))
    if answers:
        batch = with_greedy_rewards(batch, [answers[i] for i in mine], config)
    probe = None
    if config.measure.probe_every and step % config.measure.probe_every == 0:
        with clock.phase("measure"):
            probe = sample_probe(prompts, step, config, engine, device)
    engine.sleep()
    hint = what_to_lower(batch, config)
    with clock.phase("score"), out_of_memory("scoring", hint):
        batch = score_batch(shaped(batch, config), config, learner)
        batch = with_advantages(batch, config)
    with clock.phase("measure"), out_of_memory("measuring", hint):
        models, budget = (learner.policy, learner.reference), config.train.microbatch_tokens
        first = batch.first_of_groups(config.measure.responses)
        if measures:
            measure_kl(batch.sequences.select(first), *models, budget, meter)
        if probe is not None:
            measure_probe(probe, *models, budget, meter)
    before_update()
    with clock.phase("update"), out_of_memory("the update", what_to_lower(batch, config, True)):
        batch = update(
            batch,
            step,
            config,
            learner,
            meter,
            measure_noise=measures,
            before_optimizer=before_optimizer,
        )
        _check_weights(learner)
    with clock.phase("measure"), out_of_memory("measuring", hint):
        measure_grades(sampled[rank() :: num_ranks()], meter)
        measure_cost([*sampled, *answers][rank() :: num_ranks()], meter)
        measure_scores(batch, meter)
        measure_advantages(batch, meter)
        if measures:
            measure_diversity(graded, meter)
            measure_shift(batch.select(first), learner.policy, budget, meter)
    with clock.phase("sync"):
        engine.load_weights(learner.policy, step + 1)
    values = meter.values()
    reasons = off_policy_reasons(config, step, {g.group.policy_version for g in groups}, values)
    record = {
        "step": step + 1,
        "policy_version": groups[0].group.policy_version,
        "exact_on_policy": int(not reasons),
        **values,
        "learning_rate": config.optim.learning_rate,
        **clock.report(values["num_tokens"]),
        "memory_gigabytes": round(largest(peak_bytes(device)) / GIGABYTE, 4),
        KEY: reasons,
    }
    return StepResult(record, batch, graded)


def _check_weights(learner: Learner) -> None:
    """Raises NotFiniteError where an update of finite gradients has left weights that are not."""
    for module in filter(None, (learner.policy, learner.critic)):
        name = next(filter(None, gathered(name_of_not_finite(module))), None)
        if name is not None:
            raise NotFiniteError(f"the update left {name} not finite", "another learning rate")


def what_to_lower(batch: Batch, config: Config, has_gradient: bool = False) -> str:
    """Where a forward pass, or with it a backward pass, ran out of memory."""
    budget, settings = config.train.microbatch_tokens, []
    if has_gradient and not config.train.use_activation_checkpointing:
        settings.append("--set train.use_activation_checkpointing=true")
    if budget > batch.sequences.input_ids.shape[1]:
        settings.append(f"--set train.microbatch_tokens={budget // 2}")
    else:  # A microbatch is one row already.
        half = max(1, config.rollout.max_new_tokens // 2)
        settings.append(f"another run with --set rollout.max_new_tokens={half}")
    return ", or ".join(settings)


def score_batch(batch: Batch, config: Config, learner: Learner) -> Batch:
    """What objective and estimator need at rollout time, without gradient.

    The reference is scored where its KL is in the objective; KL is measured for every algorithm, on
    part of the batch. With one minibatch the old logprobs are the update's own (ratio 1), unless
    the estimator or the reward asks for them earlier.
    """
    budget = config.train.microbatch_tokens
    if config.algorithm.kl_in != "none":
        reference = score(learner.reference, batch.sequences, budget)
        batch = batch.with_(reference_logprobs=reference.logprobs)
    if config.scores_before_update:
        batch = batch.with_scores(score(learner.policy, batch.sequences, budget))
    if learner.critic is not None:
        batch = batch.with_(values=learner.critic.values(batch.sequences, budget))
    return batch


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
