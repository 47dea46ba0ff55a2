"""From the measured responses to what they say: all arms at all group sizes, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from opo_cli.errors import OpoError
from opo_cli.lab.arms import chosen
from opo_cli.lab.mechanism import Mechanism, mechanism_of, points_of
from opo_cli.lab.moments import cross_products, moments_of
from opo_cli.lab.pool import draw, make_pool
from opo_cli.lab.store import LabData, PromptData
from opo_cli.lab.verdict import SizeResult, judge

RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """Of one policy on one set of prompts."""

    settings: Mapping[str, Any]
    """As measured."""
    reduction: str
    num_prompts: int
    num_responses: int
    """Per prompt; the fewest, where prompts differ."""
    sizes: Sequence[SizeResult]
    """In the order asked for; the first is the one that the conclusion is about."""
    mechanism: Mechanism
    points: Sequence[tuple[int, float, bool]]
    """(length, ||g||^2, correct) of some of the responses."""


def analyse(
    data: LabData,
    *,
    group_sizes: Sequence[int],
    estimators: Sequence[str] | None = None,
    reduction: str = "token-sum",
    seed: int = 0,
    resamples: int = RESAMPLES,
    update: Callable[[float], object] = lambda share: None,
) -> Analysis:
    """All that the lab says of `data`.

    Args:
        group_sizes: each at most half of the responses that every prompt has.
        estimators: names of arms; None or empty: all.
        reduction: one of `REDUCTIONS`.
        seed: of the draws and the resamples.
        update: called with the share that is done, after every arm.

    Raises:
        OpoError: an unknown name, a group size that does not fit, fewer than two prompts, none
            that tells anything, or a gradient that is not a number.
    """
    if not group_sizes:
        raise OpoError("no group size to try", "--group-size 8")
    _check_gradients(data)
    pool = make_pool(data, reduction)
    _check_rewards(data)
    products = cross_products(pool)
    found = {size: chosen(estimators, pool, size) for size in dict.fromkeys(group_sizes)}
    done, total = count(1), sum(len(arms) for arms, _ in found.values())
    sizes = []
    for size, (arms, left_out) in found.items():
        sizes.append(
            judge(
                size,
                arms,
                moments_of(
                    pool, arms, draw(pool, size, seed=seed), lambda: update(next(done) / total)
                ),
                products,
                left_out=left_out,
                knows_unbiased=reduction == "token-sum" and _is_complete(data),
                resamples=resamples,
                seed=seed,
            )
        )
    return Analysis(
        settings=data.settings,
        reduction=reduction,
        num_prompts=len(data.prompts),
        num_responses=min(len(prompt.rewards) for prompt in data.prompts),
        sizes=sizes,
        mechanism=mechanism_of(pool),
        points=points_of(pool, seed),
    )


def _check_gradients(data: LabData) -> None:
    for place, prompt in enumerate(data.prompts):
        broken = np.flatnonzero(~np.isfinite(prompt.gram).all(1))
        if len(broken):
            raise OpoError(
                f"prompt {place} of {len(data.prompts)} ('{prompt.problem_id}'): the gradients of "
                f"{len(broken)} of {len(prompt.gram)} responses are no numbers, or too large",
                "--set model.compute_dtype=float32, which measures anew",
            )


def _check_rewards(data: LabData) -> None:
    if not any(_tells(prompt) for prompt in data.prompts):
        raise OpoError(
            f"none of {len(data.prompts)} prompts has responses of different reward that have a "
            "gradient and count in the loss",
            "more --prompts or --responses, or --problems that the policy solves now and then",
        )


def _tells(prompt: PromptData) -> bool:
    known = _counts(prompt) & (np.diagonal(prompt.gram) > 0)
    return len(np.unique(prompt.rewards[known])) > 1


def _counts(prompt: PromptData) -> np.ndarray:
    """(N,)"""
    return np.isfinite(prompt.rewards) & (prompt.lengths > 0)


def _is_complete(data: LabData) -> bool:
    """No response is left out of the loss. Which ones are hangs on the response, so that over the
    others scores are not 0 on average, and no baseline is free."""
    return all(_counts(prompt).all() for prompt in data.prompts)
