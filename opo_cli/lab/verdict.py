"""How noisy each arm's gradient is at equal signal, relative to `rloo`, and whether that is sure.

R = V_m (Q_0 / C_m)^2 / V_0, each summed over prompts first. Scaling a gradient is free (the
optimizer does it), so that an arm is scaled until its signal is that of `rloo`; then R < 1 means
less noise, and a group of G is worth one of G / R. Of an unbiased arm the signal is known to be
that of `rloo`, and is not estimated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from opo_cli.lab.arms import REFERENCE, Arm
from opo_cli.lab.intervals import LOG, Interval, bootstrap_weights, jackknife, percentiles
from opo_cli.lab.moments import Moments, share_of_noise
from opo_cli.report.statistics import holm

ALPHA = 0.05
"""Chance of any false `lower` or `higher` among the arms of one group size of one policy, and of
any false `materially lower` among them."""
MATERIAL = 0.95
"""A ratio below it is worth a change: a group of 8 then does what 8.4 do."""
SAME = 0.01
"""An interval within 1 ± this is `same`: whatever the difference, nobody would choose by it."""
SURE_SIGNAL = 2.0
"""Standard errors that the signal has to be above 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What is known of one arm."""

    name: str
    is_practical: bool
    is_unbiased: bool
    noise: Interval | None
    """R with its own 95 % interval; None where it cannot be told."""
    p_holm: float | None
    word: str
    """reference, same, materially lower, lower, higher, not resolved or unknown."""
    signal: float
    """C / Q_0: how much of the reference's signal it has before it is scaled."""
    cosine: float
    """Between the expected gradients of arm and reference; 1: they differ by a factor alone. An
    estimate, which noise may put above 1; nan without a signal."""
    variance: float
    """V, in the mean over prompts, before it is scaled."""
    bias: float
    """||E g - E g of the reference||^2 in the mean over prompts, likewise; 0 is no bias, and an
    unbiased estimate of 0 may be below it."""

    @property
    def text(self) -> str:
        if self.word == "not resolved":
            return f"not resolved ±{self.noise.half_width:.2f}"
        return self.word


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeResult:
    """Of one group size."""

    size: int
    results: Sequence[Result]
    """The reference first, then by R."""
    left_out: Mapping[str, str]
    """Arm -> why."""
    share: Interval
    """f: what a baseline can touch of the variance of a step's gradient."""
    has_signal: bool
    """Without it only unbiased arms are compared."""
    signal: float
    """Q_0: ||E g||^2 of the reference, in the mean over prompts."""
    signal_error: float

    def of(self, name: str) -> Result | None:
        return next((result for result in self.results if result.name == name), None)


def judge(
    size: int,
    arms: Mapping[str, Arm],
    moments: Mapping[str, Moments],
    products: np.ndarray,
    *,
    left_out: Mapping[str, str],
    knows_unbiased: bool,
    resamples: int,
    seed: int,
) -> SizeResult:
    """Verdicts on all arms of a group size.

    Args:
        products: (M, M) of `cross_products`.
        knows_unbiased: `Arm.is_unbiased` holds: the reduction is a sum over tokens, and no response
            is left out of the loss.
    """
    base = moments[REFERENCE]
    signal, error = _mean_and_error(base.square)
    has_signal = signal > SURE_SIGNAL * error
    known = {name: arm.is_unbiased and knows_unbiased for name, arm in arms.items()}
    # The reference has its own signal by name, whatever is known of its bias.
    free = {name: known[name] or name == REFERENCE for name in arms}
    noises = {
        name: noise_of(each, base, is_unbiased=free[name]) if has_signal or free[name] else None
        for name, each in moments.items()
    }
    judged = {n: noise for n, noise in noises.items() if noise and n != REFERENCE}
    tested = [name for name, noise in judged.items() if not _is_same(noise)]
    p_values = dict(zip(tested, holm([judged[name].p for name in tested]), strict=True))
    against = [noise_of(moments[n], base, is_unbiased=free[n], than=MATERIAL).p for n in tested]
    material = dict(zip(tested, holm(against), strict=True))
    results = [
        _result(
            name,
            arm,
            moments[name],
            base,
            noises[name],
            p_values.get(name),
            material.get(name),
            known[name],
        )
        for name, arm in arms.items()
    ]
    return SizeResult(
        size=size,
        results=sorted(results, key=_order),
        left_out=left_out,
        share=_share(base, products, resamples, seed),
        has_signal=bool(has_signal),
        signal=signal,
        signal_error=error,
    )


def _share(base: Moments, products: np.ndarray, resamples: int, seed: int) -> Interval:
    """f; with the bounds of any share where one prompt alone has a gradient."""
    count = len(base.second)
    weights = np.vstack([np.ones(count), bootstrap_weights(count, resamples, seed)])
    value, *resampled = share_of_noise(base.variance, base.square, products, weights)
    if np.count_nonzero(base.second) < 2:
        return Interval(float(value), 0.0, 1.0)
    return percentiles(value, np.array(resampled))


def noise_of(
    moments: Moments, base: Moments, *, is_unbiased: bool, than: float = 1.0
) -> Interval | None:
    """R of an arm over `than`; None where variance or signal came out at or below 0."""
    relative = relative_noise(is_unbiased=is_unbiased)
    sums = ratio_sums(moments, base, is_unbiased=is_unbiased)
    return jackknife(sums, lambda s: relative(s) / than, scale=LOG)


def ratio_sums(moments: Moments, base: Moments, *, is_unbiased: bool) -> np.ndarray:
    """(M, 4) V_m, V_0, Q_0 and C_m of each prompt."""
    signal = base.square if is_unbiased else moments.signal
    return np.stack([moments.variance, base.variance, base.square, signal], axis=1)


def relative_noise(*, is_unbiased: bool) -> Callable[[np.ndarray], np.ndarray]:
    """R as a function of sums over prompts, (..., 4) -> (...)."""

    def relative(s: np.ndarray) -> np.ndarray:
        # An unknown sign of the signal is no ratio, though its square would be one.
        scale = 1.0 if is_unbiased else np.where(s[..., 3] > 0, s[..., 2] / s[..., 3], np.nan)
        return s[..., 0] / s[..., 1] * scale**2

    return relative


def _mean_and_error(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def _is_same(noise: Interval) -> bool:
    """A multiple of the reference: no sample could tell them apart."""
    return abs(noise.low - 1) < 1e-6 and abs(noise.high - 1) < 1e-6


def _result(
    name: str,
    arm: Arm,
    moments: Moments,
    base: Moments,
    noise: Interval | None,
    p_holm: float | None,
    p_material: float | None,
    is_unbiased: bool,
) -> Result:
    square, signal, target = moments.square.sum(), moments.signal.sum(), base.square.sum()
    bias = (moments.square - 2 * moments.signal + base.square).mean()
    is_known = square > 0 and target > 0
    return Result(
        name=name,
        is_practical=arm.is_practical,
        is_unbiased=is_unbiased,
        noise=noise,
        p_holm=p_holm,
        word=_word(name, noise, p_holm, p_material),
        signal=float(signal / target) if target > 0 else float("nan"),
        cosine=float(signal / np.sqrt(square * target)) if is_known else float("nan"),
        variance=float(moments.variance.mean()),
        bias=0.0 if name == REFERENCE else float(bias),
    )


def _word(name: str, noise: Interval | None, p_holm: float | None, p_material: float | None) -> str:
    if name == REFERENCE:
        return "reference"
    if noise is None:
        return "unknown"
    if p_holm is None or max(1 - noise.low, noise.high - 1) < SAME:
        return "same"
    if p_holm >= ALPHA:
        return "not resolved"
    if noise.value > 1:
        return "higher"
    is_material = noise.value < MATERIAL and p_material < ALPHA
    return "materially lower" if is_material else "lower"


def _order(result: Result) -> tuple:
    value = float("inf") if result.noise is None else result.noise.value
    return result.name != REFERENCE, value, result.name
