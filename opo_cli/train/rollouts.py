"""A step's rollouts: what is sampled, what is sampled again, and what the reward becomes."""

from __future__ import annotations

from collections.abc import Sequence

from opo_cli.config import Config
from opo_cli.data.sources import SAMPLING_STREAM, TrainingPrompts
from opo_cli.grading.pool import Grader
from opo_cli.model.parallel import balanced, num_ranks
from opo_cli.rl.objectives import overlong_punishment
from opo_cli.rollout.engine import Engine, Progress
from opo_cli.rollout.shares import graded_groups
from opo_cli.train.batch import Batch, collate, minibatch_places
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
        graded = graded_groups(
            drawn,
            sampling_of(config),
            engine,
            grader,
            stream=(SAMPLING_STREAM, config.seed, step),
            first_row=len(sampled) * config.rollout.group_size,
            ranks_per_engine=config.rollout.tensor_parallel,
            progress=progress,
            phase=clock.phase,
        )
        sampled += graded
        telling += [group for group in graded if rounds == 1 or has_both_outcomes(group)]
        if len(telling) == count:
            break
    aside = [group for group in sampled if not has_both_outcomes(group)]
    return telling + aside[: count - len(telling)], sampled


def has_both_outcomes(group: GradedGroup) -> bool:
    return len({grade.correct for grade in group.grades}) == 2


def greedy_answers(
    groups: Sequence[GradedGroup], config: Config, engine: Engine, grader: Grader, clock: Clock
) -> list[GradedGroup]:
    """For ReMax's baseline: one greedy response to each group's prompt."""
    greedy = Sampling(
        num_responses=1, max_new_tokens=config.rollout.max_new_tokens, temperature=0.0
    )
    return graded_groups(
        [group.group.prompt for group in groups],
        greedy,
        engine,
        grader,
        stream=(0,),
        ranks_per_engine=config.rollout.tensor_parallel,
        phase=clock.phase,
    )


def with_greedy_rewards(batch: Batch, answers: Sequence[GradedGroup], config: Config) -> Batch:
    """`answers`: of the batch's groups, in order; shaped as the others are."""
    rewards = shaped(collate(answers, batch.rewards.device), config).rewards
    return batch.with_(greedy_rewards=rewards[batch.groups])


def deal(groups: Sequence[GradedGroup], step: int, config: Config) -> list[list[int]]:
    """The step's groups over ranks, by place: whole ones, so that each minibatch's tokens are
    near equal on all ranks."""
    tokens = [sum(len(r.token_ids) for r in group.group.rollouts) for group in groups]
    shares: list[list[int]] = [[] for _ in range(num_ranks())]
    for places in minibatch_places(len(groups), step, config):
        chosen = places.tolist()
        for share, part in zip(
            shares, balanced([tokens[i] for i in chosen], num_ranks()), strict=True
        ):
            share += [chosen[i] for i in part]
    return [sorted(share) for share in shares]


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
