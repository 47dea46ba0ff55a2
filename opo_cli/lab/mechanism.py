"""Why an arm is noisy or not: what the norm of a response's gradient goes with.

The best constant baseline is E[w r] / E[w], w = ||g||^2. Length weights stand for w where w grows
with length; they move the baseline away from the mean where lengths go with rewards. All statistics
are within prompts, pooled over them; intervals are over prompts.

Shape legend: M prompts, N responses of a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from opo_cli.lab.intervals import FISHER, PLAIN, Interval, Scale, jackknife, ratio
from opo_cli.lab.pool import Pool

MOST_POINTS = 3000
"""Responses that the chart shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mechanism:
    """None where it cannot be told: no prompt has right and wrong responses, equal lengths."""

    exponent: Interval | None
    """Slope of log ||g||^2 on log l, with an intercept per prompt."""
    exponent_given_correct: Interval | None
    """The same with correctness beside length."""
    norm_ratio: Interval | None
    """kappa = E[w | wrong] / E[w | right], over prompts with both (Mantel and Haenszel)."""
    length_ratio: Interval | None
    """kappa_l, the same of lengths."""
    rank_length: Interval | None
    """Spearman's correlation of w with length, in the mean over prompts."""
    rank_logit: Interval | None
    """The same of w with the logit proxy."""
    length_reward: Interval | None
    """Pearson's correlation of length and reward within prompts."""
    spread: Interval | None
    """Standard deviation of length over its mean, in the mean over prompts."""
    baselines: dict[str, float]
    """mean, length, logit, best -> the baseline with those weights, in the mean over prompts with
    the sums of w as weights: the nearer to `best`, the less noise."""
    accuracy: float
    num_mixed: int
    """Prompts with right and wrong responses."""
    truncated: float
    """Share of responses that were cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """The responses of one prompt that have a length, a gradient and a reward."""

    norm: np.ndarray
    length: np.ndarray
    logit: np.ndarray
    reward: np.ndarray
    correct: np.ndarray


def _rows(pool: Pool) -> list[_Rows]:
    found = []
    for prompt, norm in zip(pool.prompts, pool.norms, strict=True):
        known = (prompt.lengths > 0) & (norm > 0) & np.isfinite(prompt.rewards)
        found.append(
            _Rows(
                norm=norm[known],
                length=prompt.lengths[known].astype(float),
                logit=prompt.logit_norms[known],
                reward=prompt.rewards[known],
                correct=prompt.correct[known].astype(float),
            )
        )
    return found


def mechanism_of(pool: Pool) -> Mechanism:
    rows = [each for each in _rows(pool) if len(each.norm) > 1]
    truncated = np.concatenate([prompt.truncated for prompt in pool.prompts])
    correct = np.concatenate([prompt.correct for prompt in pool.prompts])
    return Mechanism(
        exponent=_pooled(rows, _length_and_norm, lambda s: s[..., 1] / s[..., 0]),
        exponent_given_correct=_pooled(rows, _with_correct, _slope_given),
        norm_ratio=_wrong_over_right(rows, lambda each: each.norm),
        length_ratio=_wrong_over_right(rows, lambda each: each.length),
        rank_length=_mean_rank_correlation(rows, lambda each: each.length),
        rank_logit=_mean_rank_correlation(rows, lambda each: each.logit),
        length_reward=_pooled(rows, _length_and_reward, _correlation, FISHER),
        spread=_pooled(rows, _spread, lambda s: s[..., 1] / s[..., 0]),
        baselines=_baselines(rows),
        accuracy=float(correct.mean()),
        num_mixed=sum(0 < int(p.correct.sum()) < len(p.correct) for p in pool.prompts),
        truncated=float(truncated.mean()),
    )


def points_of(pool: Pool, seed: int) -> list[tuple[int, float, bool]]:
    """(length, ||g||^2, correct) of up to `MOST_POINTS` responses, drawn by the seed."""
    rows = _rows(pool)
    columns = [
        np.concatenate([getattr(each, name) for each in rows])
        for name in ("length", "norm", "correct")
    ]
    order = np.random.default_rng(seed).permutation(len(columns[0]))[:MOST_POINTS]
    triples = zip(*(column[order] for column in columns), strict=True)
    return [(int(length), float(norm), bool(correct)) for length, norm, correct in triples]


def _pooled(
    rows: Sequence[_Rows],
    sums_of: Callable[[_Rows], Sequence[float]],
    statistic: Callable[[np.ndarray], np.ndarray],
    scale: Scale = PLAIN,
) -> Interval | None:
    if not rows:
        return None
    return jackknife(np.array([sums_of(each) for each in rows]), statistic, scale=scale)


def _centred(*columns: np.ndarray) -> list[np.ndarray]:
    """Exactly 0 where nothing varies: of a mean's rounding error a slope would be made."""
    return [(column - column.mean()) * (np.ptp(column) > 0) for column in columns]


def _length_and_norm(each: _Rows) -> tuple[float, float]:
    x, y = _centred(np.log(each.length), np.log(each.norm))
    return x @ x, x @ y


def _with_correct(each: _Rows) -> tuple[float, ...]:
    x, c, y = _centred(np.log(each.length), each.correct, np.log(each.norm))
    return x @ x, x @ c, c @ c, x @ y, c @ y


def _slope_given(s: np.ndarray) -> np.ndarray:
    """Least squares on two columns: that of the first."""
    xx, xc, cc, xy, cy = np.moveaxis(s, -1, 0)
    return (xy * cc - cy * xc) / (xx * cc - xc**2)


def _length_and_reward(each: _Rows) -> tuple[float, float, float]:
    x, y = _centred(each.length, each.reward)
    return x @ y, x @ x, y @ y


def _correlation(s: np.ndarray) -> np.ndarray:
    return s[..., 0] / np.sqrt(s[..., 1] * s[..., 2])


def _spread(each: _Rows) -> tuple[float, float]:
    return 1.0, each.length.std(ddof=1) / each.length.mean()


def _wrong_over_right(rows: Sequence[_Rows], of) -> Interval | None:
    """sum_x h mean(wrong) / sum_x h mean(right), h = n_wrong n_right / n: consistent however few
    responses of a kind a prompt has, where a mean of the prompts' ratios is not."""
    sums = []
    for each in rows:
        right = each.correct > 0
        if 0 < right.sum() < len(right):
            weight, values = right.sum() * (~right).sum() / len(right), of(each)
            sums.append((weight * values[~right].mean(), weight * values[right].mean()))
    return ratio(np.array(sums)) if sums else None


def _mean_rank_correlation(rows: Sequence[_Rows], of) -> Interval | None:
    """Prompts in which either does not vary say nothing, and do not count."""
    found = []
    for each in rows:
        x, y = _centred(rankdata(of(each)), rankdata(each.norm))
        if x.any() and y.any():
            found.append((1.0, x @ y / np.sqrt((x @ x) * (y @ y))))
    if not found:
        return None
    return jackknife(np.array(found), lambda s: s[..., 1] / s[..., 0], scale=FISHER)


def _baselines(rows: Sequence[_Rows]) -> dict[str, float]:
    weights = {
        "mean": lambda each: np.ones(len(each.norm)),
        "length": lambda each: each.length,
        "logit": lambda each: each.logit,
        "best": lambda each: each.norm,
    }
    total = sum(each.norm.sum() for each in rows)
    if not total:
        return {}

    def of(weight) -> float:
        parts = [each.norm.sum() * _average(each.reward, weight(each)) for each in rows]
        return float(sum(parts) / total)

    return {name: of(weight) for name, weight in weights.items()}


def _average(values: np.ndarray, weights: np.ndarray) -> float:
    total = weights.sum()
    return float(weights @ values / total) if total > 0 else float(values.mean())
