"""Second moment, signal and bias of the gradient that an arm would have used, without bias.

Of a prompt's pool two disjoint groups S and S' are drawn; each is a sample of the policy like any
other, and they are independent. With a_S the arm's advantages over the group's size (0 elsewhere)
and K the pool's Gram matrix, averages over draws of
    P = a_S' K a_S            estimate  E||g||^2,
    Q = a_S' K a_S'           estimate  ||E g||^2,      so that  V = P - Q  is the variance's trace,
    C = a_S' K rloo_S'        estimate  <E g, E g of rloo>,  the signal,
each exactly unbiased (incomplete U-statistics). Draws share the pool, so that more draws take away
their own noise and no more: what counts is the number of prompts.

Shape legend: M prompts, N responses of a prompt, D draws, G responses of a group, F folds of a
baseline, k entries of a sketch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from opo_cli.lab.arms import REFERENCE, Arm
from opo_cli.lab.pool import Groups, Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Of one arm, per prompt."""

    second: np.ndarray
    """(M,) P."""
    square: np.ndarray
    """(M,) Q."""
    signal: np.ndarray
    """(M,) C."""

    @property
    def variance(self) -> np.ndarray:
        """(M,) V, of one group's gradient."""
        return self.second - self.square


def moments_of(
    pool: Pool,
    arms: Mapping[str, Arm],
    halves: tuple[Groups, Groups],
    on_arm: Callable[[], object] = lambda: None,
) -> dict[str, Moments]:
    """By name; all arms are tried on the same draws, a costly one on the first of them.

    Args:
        arms: with the reference among them.
        halves: of `draw`.
        on_arm: called after each of them.
    """
    reference = [arms[REFERENCE].estimate(pool, half) for half in halves]
    found = {}
    for name, arm in arms.items():
        count = arm.most_draws(pool, halves[0].rows.shape[2])
        parts = [_first(half, count) for half in halves]
        found[name] = _moments(pool, arm, parts, [each[:, :count] for each in reference])
        on_arm()
    return found


def _first(groups: Groups, count: int | None) -> Groups:
    return Groups(rows=groups.rows[:count], rest=[each[:count] for each in groups.rest])


def _moments(
    pool: Pool, arm: Arm, halves: Sequence[Groups], reference: Sequence[np.ndarray]
) -> Moments:
    sums = np.zeros((len(pool.prompts), 3))
    for x, own in enumerate(_advantages(pool, arm, halves)):
        gram = _token_gram(pool, x) if arm.is_token_level else pool.grams[x]
        first, second = (
            _coefficients(pool, half, each, x, arm.is_token_level)
            for half, each in zip(halves, own, strict=True)
        )
        others = (
            _coefficients(pool, half, each[:, :, x], x, arm.is_token_level)[0]
            for half, each in zip(halves, reference, strict=True)
        )
        sums[x] = _products(gram, first, second, *others)
    return Moments(second=sums[:, 0], square=sums[:, 1], signal=sums[:, 2])


def _advantages(pool: Pool, arm: Arm, halves: Sequence[Groups]) -> Iterator[list[np.ndarray]]:
    """Per prompt, of both groups: (F, D, G) or (F, D, G, T). Those of tokens are made a prompt at a
    time where they may be: of all prompts at once they would not fit."""
    if arm.is_token_level and not arm.needs_step:
        for x in range(len(pool.prompts)):
            alone = pool.only(x)
            yield [arm.estimate(alone, half.only(x))[:, :, 0] for half in halves]
    else:
        found = [arm.estimate(pool, half) for half in halves]
        for x in range(len(pool.prompts)):
            yield [each[:, :, x] for each in found]


def _products(gram, first, second, first_other, second_other) -> tuple[float, float, float]:
    """P, Q and C of one prompt, either group in either role.

    Args:
        gram: (n, n) of responses or of tokens.
        first, second: (F, D, n) the arm's, on S and on S'.
        first_other, second_other: (D, n) the reference's.
    """

    def mean(a, b) -> float:
        return float(np.einsum("dn,dn->", a, b)) / len(a)

    in_first, in_second = first @ gram, second @ gram
    p = (mean(in_first[0], first[-1]) + mean(in_second[0], second[-1])) / 2
    q = (mean(in_first[0], second[-1]) + mean(in_first[-1], second[0])) / 2
    c = mean(in_first.mean(0), second_other) + mean(in_second.mean(0), first_other)
    return p, q, c / 2


def _coefficients(
    pool: Pool, groups: Groups, advantages: np.ndarray, x: int, is_token_level: bool
) -> np.ndarray:
    """(F, D, N) what multiplies each score of the prompt in the gradient of a group; of a
    token-level arm (F, D, sum of lengths) of tokens, to which a response's advantage is spread.

    Args:
        advantages: (F, D, G) or (F, D, G, T) the prompt's.
    """
    rows, lengths = groups.rows[:, x], pool.prompts[x].lengths
    part = advantages / rows.shape[1]
    found = np.zeros((len(part), len(rows), len(lengths), *part.shape[3:]))
    np.put_along_axis(found, _wide(rows[None], found), part, axis=2)
    if not is_token_level:
        return found
    if found.ndim == 3:
        return np.repeat(found, lengths, axis=2)
    return found[:, :, np.arange(found.shape[3]) < lengths[:, None]]


def _wide(rows: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(1, D, G) -> with as many axes as `found`."""
    return rows.reshape(*rows.shape, *[1] * (found.ndim - rows.ndim))


def _token_gram(pool: Pool, x: int) -> np.ndarray:
    scale = np.repeat(pool.scales[x], pool.prompts[x].lengths)
    return pool.prompts[x].token_gram * np.outer(scale, scale)


# --- between prompts ----------------------------------------------------------------------------


def cross_products(pool: Pool) -> np.ndarray:
    """(M, M) <g_x, g_y> of the prompts' `rloo` gradients over all their responses, by the sketches;
    the diagonal, which would be biased, is 0."""
    gradients = np.stack(
        [
            _pool_gradient(p.rewards, p.lengths, s, p.sketch)
            for p, s in zip(pool.prompts, pool.scales, strict=True)
        ]
    )
    products = gradients @ gradients.T
    np.fill_diagonal(products, 0.0)
    return products


def _pool_gradient(rewards, lengths, scales, sketch) -> np.ndarray:
    """(k,)"""
    usable = np.isfinite(rewards) & (lengths > 0)
    kept, count = np.where(usable, rewards, 0.0), max(usable.sum(), 2)
    advantages = np.where(usable, kept - kept.sum() / count, 0.0) * count / (count - 1)
    return (advantages * scales) @ sketch.astype(float) / len(rewards)


def share_of_noise(
    variance: np.ndarray, square: np.ndarray, products: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """(R,) f = E V / (E V + Var of the prompts' own gradients): what a baseline can touch.

    A step's gradient varies because its groups are samples (V) and because its prompts are. The
    second is E||E g_x||^2 - ||E g||^2, from products of different prompts; it may come out below 0
    by chance, and f above 1. nan where nothing varies, as in a resample of prompts without signal.

    Args:
        variance, square: (M,) V and Q of the reference.
        products: (M, M) of `cross_products`.
        weights: (R, M) how often each prompt is in each resample; ones for the sample itself.
    """
    total = weights.sum(1)
    pairs = total**2 - (weights**2).sum(1)
    common = np.einsum("rx,rx->r", weights @ products, weights) / np.where(pairs > 0, pairs, 1)
    noise, between = weights @ variance / total, weights @ square / total - common
    whole = noise + between
    return np.divide(noise, whole, out=np.full_like(noise, np.nan), where=whole != 0)
