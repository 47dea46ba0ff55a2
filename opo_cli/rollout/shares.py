"""Sampling and grading by all ranks: each takes its share of the prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from opo_cli.grading.pool import Grader
from opo_cli.model.parallel import num_ranks, on_all_ranks, share_of
from opo_cli.ranks import rank
from opo_cli.rollout.engine import Engine, Progress
from opo_cli.types import GradedGroup, Group, Prompt, Sampling


def own_groups(
    prompts: Sequence[Prompt],
    sampling: Sampling,
    engine: Engine,
    *,
    stream: Sequence[int],
    first_row: int = 0,
    ranks_per_engine: int = 1,
    progress: Progress | None = None,
) -> list[Group]:
    """This rank's share, one group per prompt, in order; of ranks that share an engine the first
    has them all. Responses do not depend on the number of ranks.

    Args:
        stream, first_row: see `Engine.generate`.
        ranks_per_engine: neighbours that share an engine, and so the prompts.
        progress: of this rank's share.

    Raises:
        OpoError: see `Engine.generate`; OtherRankError where another rank raised.
    """
    place, follower = divmod(rank(), ranks_per_engine)
    rows = share_of(len(prompts), place, max(1, num_ranks() // ranks_per_engine))
    groups: list[Group] = []

    def sample() -> None:
        if rows:
            groups.extend(
                engine.generate(
                    prompts[rows.start : rows.stop],
                    sampling,
                    stream=stream,
                    first_row=first_row + rows.start * sampling.num_responses,
                    progress=progress,
                )
            )

    on_all_ranks(sample)
    return [] if follower else groups


def graded_groups(
    prompts: Sequence[Prompt],
    sampling: Sampling,
    engine: Engine,
    grader: Grader,
    *,
    require_stop: bool | None = None,
    phase: Callable[[str], AbstractContextManager] = lambda name: nullcontext(),
    **keys,
) -> list[GradedGroup]:
    """All of them, on every rank.

    Args:
        require_stop: see `Grader.grade`.
        phase: around "rollout" and "grade", the wait for other ranks included.
        keys: see `own_groups`.

    Raises:
        OpoError: see `own_groups`.
    """
    with phase("rollout"):
        groups = own_groups(prompts, sampling, engine, **keys)
    with phase("grade"):
        shares = on_all_ranks(lambda: grader.grade(groups, require_stop=require_stop))
    return [group for share in shares for group in share]
