"""An embedded task: running-total arithmetic chains, with worked solutions to imitate.

A problem is `7-1+9-7=?`: terms 1..9, every running total in 0..20. Solutions come in four styles
of very different length and correctness, which is what makes baselines differ:

    direct   \\boxed{8}
    worked   7-1=6 / so 6+9=15 / then 15-7=8 / \\boxed{8}
    checked  7-1=6 ok / 6+9=14 no 15 / 15-7=8 ok / \\boxed{8}
    ramble   hmm <chain> wait <the whole chain again> ... \\boxed{8}, or no box at all
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from opo_cli.data.embedded import Task, box, wrong_total

if TYPE_CHECKING:
    from opo_cli.config import Style

MAX_TOTAL = 20
CONNECTORS = ("", "so ", "then ")
CONNECTOR_WEIGHTS = (0.4, 0.3, 0.3)

Chain = tuple[int, ...]
"""Signed terms: 7-1+9-7 is (7, -1, 9, -7)."""


def text_of(chain: Chain) -> str:
    return str(chain[0]) + "".join(f"{term:+d}" for term in chain[1:]) + "=?"


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


def answer_of(chain: Chain) -> str:
    return str(sum(chain))


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


# --- solutions to imitate ---------------------------------------------------------------------


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


CHAINS = Task(
    description="running totals of {terms} terms",
    training="tiny-train",
    tiers={"tiny-easy": (2, 3), "tiny-mid": (4, 5), "tiny-hard": (6, 7), "tiny-ood": (8, 9)},
    validation="tiny-validation",
    validation_terms=(3, 7),  # Of two terms, tiny-easy has 30 of the 35 that are held out.
    draw=draw_chain,
    text_of=text_of,
    key_of=text_of,
    answer_of=answer_of,
    count=num_chains,
    writers={"direct": direct, "worked": worked, "checked": checked, "ramble": ramble},
)
