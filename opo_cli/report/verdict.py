"""Verdicts: win, worse, tie, or how much more it takes to tell.

Which level belongs to what: an interval is that of its own comparison (95 %); `win` and `worse` are
decisions about the whole family that is passed (Holm). So an interval may leave 0 out while the
verdict is `cannot tell`; a win whose interval holds 0 does not happen. A `tie` is decided by the
interval shown: of comparisons whose true difference is the margin or more, each taken by itself, up
to about 2.5 % are called a tie. A significant difference that is surely within the margin is a tie.

The level is that of one look at one family. Whoever looks, adds the seeds advised and looks again
errs more often (up to .08 of pairs in benchmarks/verdict_rates.py); seeds fixed beforehand do not.
Of several families shown together each has the level: see `verdicts`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri, nctdtr

from opo_cli.report.statistics import Components, Difference, holm, quantile, satterthwaite

ALPHA = 0.05
"""Chance of any false win or worse in a family."""
POWER = 0.8
"""Chance to find a true difference of the margin that planning aims at."""
MOST_SEEDS = 100
"""Seeds to add; more are not counted: nobody trains them."""
MOST_PROBLEMS = 1000
"""Times the present ones, likewise."""
SPARE = 1.5
"""Where problems are the limit: seeds planned, of those that would do with endless problems. With
just those the problems needed would be endless; so a third of the variance is left to them."""
LEAST_KNOWN = 2
"""Degrees of freedom behind a variance between seeds, for planning."""
QUANTILES = (np.arange(32) + 0.5) / 32


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of the first arm against the second."""

    word: str
    """win, worse, tie or cannot tell."""
    difference: Difference
    margin: float
    """The smallest difference that matters."""
    p_holm: float | None
    """Corrected for the family; None where the difference has no p value."""
    num_more_seeds: int | None
    """Per arm, to find a difference of the margin; over `MOST_SEEDS`: more than that. None where
    the verdict stands, or where one cannot know."""
    num_problems_needed: int | None
    """In all, where seeds alone cannot tell; else None."""

    @property
    def text(self) -> str:
        """For a cell of a table."""
        return self.word if self.word != "cannot tell" else f"{self.word}: {self._needed('~')}"

    def sentence(self, a: str, b: str) -> str:
        """For people; `a` and `b` name the arms."""
        found = self.difference
        if self.word in ("win", "worse"):
            verb = "beats" if self.word == "win" else "is worse than"
            bounds = (found.low, found.high) if self.word == "win" else (-found.high, -found.low)
            shown = f"{abs(found.mean):.3f} [{bounds[0]:.3f}, {bounds[1]:.3f}] (95 %)"
            return f"{a} {verb} {b} by {shown}, Holm p {_p(self.p_holm)}"
        shown = _signed(found.mean)
        if found.low is not None:
            shown += f" [{_signed(found.low)}, {_signed(found.high)}] (95 %)"
        if self.word == "tie":
            return f"{a} and {b} tie: {shown}, within the margin of {self.margin:g}"
        return f"cannot tell {a} from {b}: {shown}; {self._advice()}"

    def _advice(self) -> str:
        needed = self._needed("about ")
        if self.difference.p is None:
            return f"{needed} are needed for an interval"
        if self.num_more_seeds > MOST_SEEDS:
            return f"a margin of {self.margin:g} needs {needed}"
        if self.num_problems_needed is None:
            return f"{needed} would resolve a margin of {self.margin:g}"
        return f"seeds alone cannot resolve a margin of {self.margin:g}, {needed} would"

    def _needed(self, about: str) -> str:
        if self.difference.num_seeds < 2:
            return "at least 2 seeds"
        if self.difference.p is None:
            return "at least 2 problems"
        seeds, problems = self.num_more_seeds, self.num_problems_needed
        if seeds > MOST_SEEDS:
            return f"over {MOST_SEEDS} more seeds"
        told = f"{about}{seeds} more seed{'s' if seeds > 1 else ''}" if seeds else ""
        if problems is None:
            return told
        total = f"{about}{_rounded_up(problems)} problems in all"
        return f"{total} and {told}" if told else total


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"  # Without + 0.0 a rounded -0.0002 is -0.000.


def _rounded_up(count: int) -> int:
    """To two digits: an estimate of how many has no more."""
    unit = 10 ** max(len(str(count)) - 2, 0)
    return math.ceil(count / unit) * unit


def verdicts(differences: Sequence[Difference], margin: float) -> list[Verdict]:
    """A verdict on each of a family: the differences passed, and no others.

    Whoever shows several families (pairs over all benchmarks; pairs x benchmarks; of a sweep both,
    at each value) has a false win in any of them more often than in one: at most in the sum of
    their levels. In either of the two for three arms on four benchmarks: in .00 to .10 of pages
    (benchmarks/verdict_rates.py --pages).

    Args:
        margin: the smallest difference that matters; positive.

    Raises:
        ValueError: the margin is not positive.
    """
    if not margin > 0:
        raise ValueError(f"a margin of {margin} tells nothing apart")
    known = [found.p for found in differences if found.p is not None]
    corrected = iter(holm(known))
    return [
        Verdict("cannot tell", found, margin, None, None, None)
        if found.p is None
        else _verdict(found, next(corrected), margin, len(known))
        for found in differences
    ]


def _verdict(found: Difference, p_holm: float, margin: float, family: int) -> Verdict:
    if -margin < found.low and found.high < margin:
        return Verdict("tie", found, margin, p_holm, None, None)
    if p_holm < ALPHA:
        word = "win" if found.mean > 0 else "worse"
        return Verdict(word, found, margin, p_holm, None, None)
    seeds, problems = plan(found, margin, ALPHA / family)
    return Verdict("cannot tell", found, margin, p_holm, seeds - found.num_seeds, problems)


def plan(found: Difference, margin: float, level: float) -> tuple[int, int | None]:
    """(seeds per arm in all, problems in all or None) that would resolve the margin.

    The smallest number of seeds with which a true difference of the margin is found with power .8
    at `level`. Where the present number would do and still nothing was told, the difference lies
    between 0 and the margin: then the smallest number whose interval at `level` is narrower than
    the margin, and cannot hold both. Where no number of seeds up to `MOST_SEEDS` more would do, the
    problems that would; where endless problems would not, the number of seeds beyond `MOST_SEEDS`.
    More than there are, of seeds or of problems.

    Args:
        found: with components.
        level: that of Holm's first step, family level / comparisons.
    """
    parts, present, most = found.components, found.num_seeds, found.num_seeds + MOST_SEEDS

    def is_enough(seeds: int, factor: float = 1) -> bool:
        return power(parts, seeds, factor, margin, level) >= POWER

    def is_narrow(seeds: int, factor: float = 1) -> bool:
        return 2 * half_width(parts, seeds, factor, level) < margin

    resolves = is_narrow if is_enough(present) else is_enough
    enough = _first(resolves, present + 1, most)
    if enough:
        return enough, None
    endless = _first(lambda seeds: resolves(seeds, MOST_PROBLEMS), 2, most)
    if endless is None:
        return most + 1, None
    seeds, problems = min(max(math.ceil(SPARE * endless), present), most), found.num_problems
    wanted = _first(lambda n: resolves(seeds, n / problems), problems + 1, MOST_PROBLEMS * problems)
    return seeds, wanted


def _first(holds: Callable[[int], bool], low: int, high: int) -> int | None:
    """The smallest number in [low, high] for which it holds, as for all larger ones; or None."""
    if not holds(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def power(parts: Components, seeds: int, factor: float, margin: float, level: float) -> float:
    """Chance that a true difference of `margin` gives p < `level`.

    Noncentral t, in the mean over what the variance between seeds may be, given its estimate: few
    seeds say little about it, and planning as if three told the truth finds .6 of what it promises
    to find .8 of (Julious and Owen 2006). Two seeds count as three here, as they would ask for
    hundreds. An approximation, measured in benchmarks/verdict_rates.py.

    Args:
        parts: of the present comparison.
        seeds: planned, per arm.
        factor: times the present problems.
    """
    known = max(parts.seed_degrees, LEAST_KNOWN)
    between = parts.between * known / chdtri(known, QUANTILES)
    variances, degrees = _expected(parts, between, seeds, factor)
    ratio, total = margin / np.sqrt(sum(variances)), satterthwaite(variances, degrees)
    missed = nctdtr(total, ratio, quantile(level, variances, degrees))
    return float(1 - np.nan_to_num(missed).mean())  # nan near 0: ratios around 37 underflow.


def half_width(parts: Components, seeds: int, factor: float, level: float) -> float:
    """Expected, with `seeds` per arm, of an interval that misses with chance `level`.

    Args:
        factor: times the present problems.
    """
    variances, degrees = _expected(parts, parts.between, seeds, factor)
    return float(quantile(level, variances, degrees) * math.sqrt(sum(variances)))


def _expected(parts: Components, between, seeds: int, factor: float) -> tuple[tuple, tuple]:
    """(variances, degrees of freedom) of the seed and the problem part."""
    seed = np.maximum(between - parts.residual, 0)
    variances = ((seed + parts.residual / factor) / seeds, parts.problem / factor)
    return variances, (parts.degrees_per_seed * (seeds - 1), parts.problem_degrees * factor)
