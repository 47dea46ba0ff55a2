"""The embedded task whose responses stay of different length: which two terms make the total?

A problem is `5+3+8+12=11?`: different terms 1..12, of which just one pair adds to the total. Its
answer is that pair, the smaller term first, written as one number: 38. Solutions try pairs in an
order drawn by chance, so that their length is chance even to a policy that makes no mistake; those
that give up or come to the limit of tokens are wrong:

    direct   5+8=13 no hmm \\boxed{58}        a few trials, then a guess
    worked   5+8=13 no 8+3=11 ok\\boxed{38}    each pair once, until one fits
    checked  5+8=12\\nwait 13 no 8+3=11 ok\\boxed{38}
    ramble   5+8=13 no 8+5=13 no ...          as if no pair had been tried before; perhaps no box

Problems of the same terms and total are one problem, in whatever order the terms stand.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING

from opo_cli.data.embedded import Task, box, wrong_total

if TYPE_CHECKING:
    from opo_cli.config import Style

MAX_TERM = 12
MAX_TRIALS = 16  # More than the 96 tokens hold that the preset lets a response take.

Search = tuple[tuple[int, ...], int]
"""Terms as they stand, and the total of one pair of them."""
Pair = tuple[int, int]


def text_of(search: Search) -> str:
    terms, total = search
    return "+".join(map(str, terms)) + f"={total}?"


def key_of(search: Search) -> str:
    terms, total = search
    return text_of((tuple(sorted(terms)), total))


def totals_of(terms: Iterable[int]) -> list[int]:
    """The totals that just one pair makes."""
    totals = [sum(pair) for pair in combinations(terms, 2)]
    return [total for total in totals if totals.count(total) == 1]


def draw_search(rng: random.Random, num_terms: int) -> Search:
    terms = tuple(rng.sample(range(1, MAX_TERM + 1), num_terms))
    return terms, rng.choice(totals_of(terms))


@cache
def num_searches(num_terms: int) -> int:
    """How many distinct searches have `num_terms` terms, on both sides of the split."""
    return sum(len(totals_of(s)) for s in combinations(range(1, MAX_TERM + 1), num_terms))


def solution_of(search: Search) -> Pair:
    terms, total = search
    return next(pair for pair in combinations(terms, 2) if sum(pair) == total)


def answer_from(pair: Pair) -> str:
    return f"{min(pair)}{max(pair)}"


def answer_of(search: Search) -> str:
    return answer_from(solution_of(search))


# --- solutions to imitate ---------------------------------------------------------------------


def draw_pair(rng: random.Random, search: Search) -> Pair:
    first, second = rng.sample(search[0], 2)
    return first, second


def every_pair(rng: random.Random, search: Search) -> list[Pair]:
    """Each once, in any order, and either term first."""
    pairs = [tuple(rng.sample(pair, 2)) for pair in combinations(search[0], 2)]
    rng.shuffle(pairs)
    return pairs


def write_trials(
    rng: random.Random, search: Search, pairs: Iterable[Pair], style: Style, *, checks: bool = False
) -> tuple[str, Pair | None]:
    """Trials until one seems to fit, with the mistakes that the style makes, and that pair."""
    text, total = "", search[1]
    for first, second in pairs:
        right = first + second
        said = wrong_total(rng, right) if rng.random() < style.error_rate else right
        text += f"{first}+{second}={said}"
        if checks and said != right and rng.random() < style.fix_rate:
            text, said = f"{text}\nwait {right}", right
        if said == total:
            return text + " ok", (first, second)
        text += " no "
    return text, None


def guess(rng: random.Random, search: Search) -> str:
    return "hmm " + box(answer_from(draw_pair(rng, search)))


def direct(rng: random.Random, search: Search, style: Style) -> str:
    """`error_rate` is the guess's: how often it is any pair, instead of the right one."""
    pairs = [draw_pair(rng, search) for _ in range(rng.choice(style.repeats))]
    text = "".join(f"{a}+{b}={a + b} no " for a, b in pairs if a + b != search[1])
    if rng.random() < style.error_rate:
        return text + guess(rng, search)
    return text + "hmm " + box(answer_of(search))


def worked(rng: random.Random, search: Search, style: Style, *, checks: bool = False) -> str:
    text, found = write_trials(rng, search, every_pair(rng, search), style, checks=checks)
    return text + (box(answer_from(found)) if found else guess(rng, search))


def checked(rng: random.Random, search: Search, style: Style) -> str:
    return worked(rng, search, style, checks=True)


def ramble(rng: random.Random, search: Search, style: Style) -> str:
    pairs = (draw_pair(rng, search) for _ in range(MAX_TRIALS))
    text, found = write_trials(rng, search, pairs, style)
    has_box = found and rng.random() >= style.no_answer_rate
    return text + (box(answer_from(found)) if has_box else "")


SEARCH = Task(
    description="the two of {terms} terms that make a total",
    training="search-train",
    tiers={
        "search-easy": (3, 3),
        "search-mid": (4, 4),
        "search-hard": (5, 5),
        "search-ood": (6, 6),
    },
    validation="search-validation",
    validation_terms=(3, 5),
    draw=draw_search,
    text_of=text_of,
    key_of=key_of,
    answer_of=answer_of,
    count=num_searches,
    writers={"direct": direct, "worked": worked, "checked": checked, "ramble": ramble},
)
