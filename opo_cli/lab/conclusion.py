"""What the numbers say, in sentences: is OPO's baseline better here, can any matter, which to take.

A sentence gives the reason that its own numbers show, and says so where they show none.
"""

from __future__ import annotations

from opo_cli.lab.analysis import Analysis
from opo_cli.lab.arms import REFERENCE
from opo_cli.lab.intervals import Interval
from opo_cli.lab.mechanism import Mechanism
from opo_cli.lab.verdict import Result, SizeResult

LITTLE_SPREAD = 0.2
"""Of lengths within a prompt: their weights then move a baseline by less than its own noise."""
BREAK_EVEN = 0.5
"""The exponent below which the mean is nearer to the best baseline than length weights are, to
first order in the spread of lengths."""
CLOSE = 1.25
"""Lengths of wrong and right responses surely within this factor say little about correctness."""
LITTLE = 0.02
"""A share of a step's variance that no run would notice."""
LOWER = ("lower", "materially lower")


def conclusion(analysis: Analysis) -> list[str]:
    """One sentence each: on length weights, on what can matter, on what to choose."""
    size = analysis.sizes[0]
    found = [about_length(size, analysis.mechanism, analysis.reduction), about_share(size)]
    return [sentence for sentence in (*found, about_choice(size)) if sentence]


# --- length weights -----------------------------------------------------------------------------


def about_length(size: SizeResult, why: Mechanism, reduction: str) -> str:
    """ "" where `opo` was not tried."""
    opo = size.of("opo")
    if opo is None:
        return ""
    if opo.noise is None:
        return f"Whether length weights lower the noise cannot be told: {_unknown(size)}."
    told = f"noise {shown(opo.noise)} of {REFERENCE}'s"
    if opo.word in LOWER:
        return f"Length weighting (opo) lowers the gradient's noise ({told}): {_better(size, why)}."
    if opo.word == "higher":
        reason = _worse(why, reduction)
        return f"Length weighting (opo) is noisier than {REFERENCE} ({told}) because {reason}."
    if opo.word == "same":
        return f"Length weighting (opo) makes no difference ({told}): {_neutral(why)}."
    if not opo.noise.low <= 1 <= opo.noise.high:
        told += ", which is not sure among so many estimators tried"
    return (
        f"Whether length weighting (opo) helps is not resolved ({told}): {_neutral(why)}; more "
        "prompts would tell."
    )


def _unknown(size: SizeResult) -> str:
    if not size.has_signal:
        return (
            "the signal is not surely above 0, and without it only unbiased estimators are compared"
        )
    return "variance or signal came out at or below 0, with or without one of the prompts"


def _better(size: SizeResult, why: Mechanism) -> str:
    alone = size.of("opo-loo")
    if alone and alone.noise and alone.word not in LOWER and alone.noise.value > 1:
        return (
            "its weights are not shown to be the reason, as without a response's own part they do "
            f"no better (opo-loo {shown(alone.noise)}); that part damps long responses"
        )
    if _is_towards_best(why) and _surely(why.exponent, above=BREAK_EVEN):
        return (
            f"longer responses have larger gradients (exponent {shown(why.exponent)}) and "
            f"{_lengths(why)}, so that its baseline lies {_baselines(why)}"
        )
    if _is_towards_best(why):
        return f"its baseline lies {_baselines(why)}"
    return "the reason is in none of the numbers measured here"


def _worse(why: Mechanism, reduction: str) -> str:
    is_away = bool(why.baselines) and not _is_towards_best(why)
    if is_away and _surely(why.norm_ratio, above=1) and _surely(why.length_ratio, below=1):
        return (
            f"short answers are wrong. Wrong responses are {why.length_ratio.value:.2f} times as "
            f"long as right ones and have {why.norm_ratio.value:.2f} times their squared gradient, "
            f"so that its baseline lies {_baselines(why)}"
        )
    if _surely(why.exponent, below=BREAK_EVEN):
        under = "" if reduction == "token-sum" else f" under {reduction}"
        return f"the squared gradient does not grow with length{under} as the weights do" + (
            f" (exponent {shown(why.exponent)})"
        )
    if is_away:
        return f"its baseline lies {_baselines(why)}"
    return (
        "a weighted mean of so few responses is noisier than a plain one, and none of the numbers "
        "measured here shows another reason"
    )


def _neutral(why: Mechanism) -> str:
    if why.spread is None:
        return "no two prompts have responses whose lengths could be compared"
    if why.spread.value < LITTLE_SPREAD:
        spread = f"by {why.spread.value:.0%} of their mean"
        return (
            f"lengths hardly vary within a prompt ({spread}), so that its baseline is nearly the "
            "mean"
        )
    if why.num_mixed == 0:
        return "no prompt has both right and wrong responses"
    if _surely(why.length_ratio, above=1 / CLOSE, below=CLOSE):
        return (
            f"lengths say little about correctness (wrong ones are {shown(why.length_ratio)} times "
            "as long as right ones), so that its baseline is nearly the mean"
        )
    return f"its baseline lies {_baselines(why)}"


def _is_towards_best(why: Mechanism) -> bool:
    found = why.baselines
    return bool(found) and abs(found["length"] - found["best"]) < abs(found["mean"] - found["best"])


def _baselines(why: Mechanism) -> str:
    found, side = why.baselines, "nearer to" if _is_towards_best(why) else "further from"
    return (
        f"at {found['length']:.2f}, {side} the best constant ({found['best']:.2f}) than the mean "
        f"({found['mean']:.2f})"
    )


def _lengths(why: Mechanism) -> str:
    if why.length_ratio is None:
        return "lengths go with rewards"
    side = "longer" if why.length_ratio.value > 1 else "shorter"
    return f"wrong ones are {side} ({shown(why.length_ratio)} times right ones)"


def _surely(found: Interval | None, *, above: float = -1e300, below: float = 1e300) -> bool:
    return found is not None and found.low > above and found.high < below


# --- what can matter, and what to choose --------------------------------------------------------


def reach(size: SizeResult) -> Interval | None:
    """The share of a step's variance that the best constant baseline would take off `rloo`'s, with
    the bounds that those of both its factors make; None where the lab had too few responses for
    it."""
    best = size.of("oracle")
    if best is None or best.noise is None:
        return None
    share, noise = size.share, best.noise
    value = _clipped(share.value) * _clipped(1 - noise.value)
    low = _clipped(share.low) * _clipped(1 - noise.high)
    return Interval(value, low, _clipped(share.high) * _clipped(1 - noise.low))


def _clipped(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def about_share(size: SizeResult) -> str:
    share, best = size.share, reach(size)
    value, low, high = (_clipped(each) for each in (share.value, share.low, share.high))
    text = (
        f"A baseline touches {value:.0%} [{low:.0%}, {high:.0%}] of the variance of a step's "
        f"gradient with groups of {size.size}; the rest is that prompts differ"
    )
    if best is None:
        return f"{text}."
    if best.high < LITTLE:
        return (
            f"{text}. The best constant baseline would take off {best.high:.1%} at most: no "
            "constant can matter here."
        )
    if size.of("oracle").word not in LOWER:
        return f"{text}. Whether the best constant baseline takes off any of it is not resolved."
    bounds = f"{best.value:.0%} [{best.low:.0%}, {best.high:.0%}]"
    return f"{text}. The best constant baseline would take off {bounds} of the whole."


def about_choice(size: SizeResult) -> str:
    tried = [r for r in size.results if r.is_practical and r.name != REFERENCE and r.noise]
    if not tried:
        return "No estimator that training can use could be compared: no advice."
    lower = [result for result in tried if result.word in LOWER]
    if not lower:
        return (
            f"No estimator that training can use is shown to be less noisy than {REFERENCE}: "
            f"{_stay(size)}."
        )
    first = min(lower, key=lambda result: result.noise.value)
    worth = f"{size.size / first.noise.value:.1f}"
    text = (
        f"Of the estimators that training can use {_named(first.name)} is the least noisy "
        f"({shown(first.noise)} of {REFERENCE}'s noise): a group of {size.size} does what "
        f"{worth} would with {REFERENCE}{_turned(first)}"
    )
    if _clipped(size.share.high) * (1 - first.noise.low) < LITTLE:
        return f"{text}; in a whole step's gradient that is too little to choose by."
    return f"{text}. Less noise is no promise of higher accuracy: train both to see."


def _named(name: str) -> str:
    return "'none' (no baseline)" if name == "none" else name


def _stay(size: SizeResult) -> str:
    mean = size.of("mean")
    if mean is None or mean.word != "same":
        return "stay with it"
    return "stay with it, or with the mean, which is the same up to a factor"


def _turned(result: Result) -> str:
    """A warning where the arm follows another direction."""
    if not result.is_unbiased and result.cosine < 0.98:
        return f", but its gradient points elsewhere (cosine {result.cosine:.2f})"
    return ""


def shown(found: Interval) -> str:
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
