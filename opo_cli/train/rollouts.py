"""A step's rollouts: what is sampled, what is sampled again, and what the reward becomes."""

from __future__ import annotations

from collections.abc import Sequence

from opo_cli.config import Config
from opo_cli.data.sources import SAMPLING_STREAM, TrainingPrompts
from opo_cli.grading.pool import Grader
from opo_cli.rl.objectives import overlong_punishment
from opo_cli.rollout.engine import Engine, Progress
from opo_cli.train.batch import Batch, collate
from opo_cli.train.clock import Clock
from opo_cli.types import GradedGroup, Sampling


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
) -> tuple[Batch, list[GradedGroup]]:
    """ReMax's baseline: one greedy response per prompt, graded and shaped as the others are; and
    the groups of one that they are."""
    greedy = Sampling(
        num_responses=1, max_new_tokens=config.rollout.max_new_tokens, temperature=0.0
    )
    with clock.phase("rollout"):
        groups = engine.generate([group.group.prompt for group in graded], greedy, stream=(0,))
    with clock.phase("grade"):
        answers = grader.grade(groups)
    rewards = shaped(collate(answers, batch.rewards.device), config).rewards
    return batch.with_(greedy_rewards=rewards[batch.groups]), answers


def shaped(batch: Batch, config: Config) -> Batch:
    """What `algorithm.overlong` makes of truncated and of nearly truncated responses."""
    if config.algorithm.overlong == "mask":
        return batch.with_(is_trained=~batch.truncated)
    if config.algorithm.overlong == "punish":
        longest = config.rollout.max_new_tokens
        buffer = max(1, round(config.algorithm.overlong_buffer * longest))
        punishment = overlong_punishment(batch.lengths, longest, buffer)
        return batch.with_(rewards=batch.rewards + punishment)
    return batch
