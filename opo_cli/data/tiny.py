"""The embedded task: running-total arithmetic chains, with worked solutions to imitate.

A problem is `7-1+9-7=?`: terms 1..9, every running total in 0..20. Solutions come in four styles
of very different length and correctness, which is what makes baselines differ:

    direct   \\boxed{8}
    worked   7-1=6 / so 6+9=15 / then 15-7=8 / \\boxed{8}
    checked  7-1=6 ok / 6+9=14 no 15 / 15-7=8 ok / \\boxed{8}
    ramble   hmm <chain> wait <the whole chain again> ... \\boxed{8}, or no box at all

Problems are split by a hash of their text, so that no tier holds a training problem, whatever the
seed. Everything here is a function of its arguments; nothing reads a global random state.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from opo_cli.errors import OpoError
from opo_cli.types import Problem

if TYPE_CHECKING:
    from opo_cli.config import Data, Style, Styles

MAX_TOTAL = 20
HELDOUT_SHARE = 0.3  # Of all chains of any length; never trained on, in warm start or after.
PROBLEMS_PER_TIER = 100
FILLABLE_SHARE = 0.8  # Drawing distinct chains by chance gets slow as they run out.
TIERS: dict[str, tuple[int, int]] = {
    "tiny-easy": (2, 3),
    "tiny-mid": (4, 5),
    "tiny-hard": (6, 7),
    "tiny-ood": (8, 9),
}
"""Tier -> fewest and most terms. tiny-ood is longer than any problem that the presets train on."""
VALIDATION = "tiny-validation"
VALIDATION_TERMS = (3, 7)  # Of two terms, tiny-easy has 30 of the 35 that are held out.
"""Held out as well, and none of the tiers' problems: what is chosen by them is not reported on."""

WORDS = ("\\boxed{", "so ", "then ", "hmm ", "wait ", " ok", " no ")
CHARACTERS = "0123456789+-=?}\n"
CONNECTORS = ("", "so ", "then ")
CONNECTOR_WEIGHTS = (0.4, 0.3, 0.3)

Chain = tuple[int, ...]
"""Signed terms: 7-1+9-7 is (7, -1, 9, -7)."""


def text_of(chain: Chain) -> str:
    return str(chain[0]) + "".join(f"{term:+d}" for term in chain[1:]) + "=?"


def is_heldout(text: str) -> bool:
    """Whether the problem belongs to the benchmarks; a property of its text alone."""
    bucket = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
    return bucket < HELDOUT_SHARE * 2**32


def draw_chain(rng: random.Random, num_terms: int) -> Chain:
    chain = [rng.randint(1, 9)]
    total = chain[0]
    while len(chain) < num_terms:
        term = rng.choice((-1, 1)) * rng.randint(1, 9)
        if not 0 <= total + term <= MAX_TOTAL:
            term = -term
        if not 0 <= total + term <= MAX_TOTAL:
            continue
        chain.append(term)
        total += term
    return tuple(chain)


def draw_chains(rng: random.Random, terms: tuple[int, int], *, heldout: bool) -> Iterator[Chain]:
    """Endless chains on one side of the split, their length even over `terms`; with repeats."""
    while True:
        num_terms = rng.randint(*terms)
        chain = draw_chain(rng, num_terms)
        while is_heldout(text_of(chain)) != heldout:
            chain = draw_chain(rng, num_terms)
        yield chain


def _distinct(
    name: str,
    rng: random.Random,
    terms: tuple[int, int],
    count: int,
    *,
    heldout: bool,
    taken: Collection[str] = (),
) -> list[Problem]:
    """The first `count` different chains that are drawn, but for those `taken`."""
    problems: dict[str, Problem] = {}
    for chain in draw_chains(rng, terms, heldout=heldout):
        if len(problems) == count:
            break
        question = text_of(chain)
        if question in taken:
            continue
        problems.setdefault(
            question,
            Problem(
                id=f"{name}/{len(problems):04d}",
                question=question,
                answer=str(sum(chain)),
                benchmark=name,
            ),
        )
    return list(problems.values())


def tier_problems(tier: str) -> list[Problem]:
    """The held-out problems of a tier, always the same ones."""
    return _distinct(tier, random.Random(tier), TIERS[tier], PROBLEMS_PER_TIER, heldout=True)


def validation_problems() -> list[Problem]:
    """Held-out problems of no tier, always the same ones."""
    taken = {problem.question for tier in TIERS for problem in tier_problems(tier)}
    rng = random.Random(VALIDATION)
    terms, count = VALIDATION_TERMS, PROBLEMS_PER_TIER
    return _distinct(VALIDATION, rng, terms, count, heldout=True, taken=taken)


def num_chains(num_terms: int) -> int:
    """How many distinct chains have `num_terms` terms, on both sides of the split."""
    ways = dict.fromkeys(range(1, 10), 1)
    for _ in range(num_terms - 1):
        longer: dict[int, int] = {}
        for total, count in ways.items():
            for term in (*range(-9, 0), *range(1, 10)):
                if 0 <= total + term <= MAX_TOTAL:
                    longer[total + term] = longer.get(total + term, 0) + count
        ways = longer
    return sum(ways.values())


def training_problems(data: Data) -> list[Problem]:
    """`data.num_problems` distinct training problems.

    Raises:
        OpoError: there are not that many.
    """
    known = sum(num_chains(n) for n in range(data.min_terms, data.max_terms + 1))
    most = int(known * (1 - HELDOUT_SHARE) * FILLABLE_SHARE)
    if data.num_problems > most:
        raise OpoError(
            f"data.num_problems = {data.num_problems}: only {most} distinct chains of "
            f"{data.min_terms} to {data.max_terms} terms can be had",
            "lower data.num_problems or raise data.max_terms",
        )
    rng = random.Random(f"train/{data.seed}")
    terms = (data.min_terms, data.max_terms)
    return _distinct("tiny-train", rng, terms, data.num_problems, heldout=False)


# --- solutions to imitate ---------------------------------------------------------------------


def wrong_total(rng: random.Random, total: int) -> int:
    """A near miss, or now and then anything."""
    offset = rng.choice((1, 2, 10, rng.randint(3, 9)))
    return total + rng.choice((-1, 1)) * offset


def write_chain(
    rng: random.Random, chain: Chain, style: Style, *, checks: bool = False
) -> tuple[str, int]:
    """The chain line by line, with the mistakes that the style makes, and the last total."""
    lines, total = [], chain[0]
    for term in chain[1:]:
        right = total + term
        shown = wrong_total(rng, right) if rng.random() < style.error_rate else right
        remark = ""
        if checks:
            is_noticed = shown != right and rng.random() < style.fix_rate
            remark = f" no {right}" if is_noticed else " ok"
            said, shown = shown, right if is_noticed else shown
        else:
            said = shown
        connector = rng.choices(CONNECTORS, CONNECTOR_WEIGHTS)[0]
        lines.append(f"{connector}{total}{term:+d}={said}{remark}\n")
        total = shown
    return "".join(lines), total


def box(value: int) -> str:
    return f"\\boxed{{{value}}}"


def direct(rng: random.Random, chain: Chain, style: Style) -> str:
    answer = sum(chain)
    return box(wrong_total(rng, answer) if rng.random() < style.error_rate else answer)


def worked(rng: random.Random, chain: Chain, style: Style) -> str:
    text, total = write_chain(rng, chain, style)
    return text + box(total)


def checked(rng: random.Random, chain: Chain, style: Style) -> str:
    text, total = write_chain(rng, chain, style, checks=True)
    return text + box(total)


def ramble(rng: random.Random, chain: Chain, style: Style) -> str:
    parts = []
    for attempt in range(rng.choice(style.repeats)):
        text, total = write_chain(rng, chain, style)
        parts.append(("wait " if attempt else "hmm ") + text)
    ending = "" if rng.random() < style.no_answer_rate else box(total)
    return "".join(parts) + ending


WRITERS = {"direct": direct, "worked": worked, "checked": checked, "ramble": ramble}


def draw_solution(rng: random.Random, chain: Chain, styles: Styles) -> str:
    """A solution in one of the styles, drawn by their shares."""
    names = list(WRITERS)
    name = rng.choices(names, [getattr(styles, n).share for n in names])[0]
    return WRITERS[name](rng, chain, getattr(styles, name))
