"""The chains: problems, and the solutions to imitate. What all tasks share: `test_tasks.py`."""

from __future__ import annotations

import random
import re
from itertools import product

import pytest

from opo_cli.config import Style, Styles
from opo_cli.data import tiny
from opo_cli.data.embedded import HELDOUT_SHARE, is_heldout
from opo_cli.data.store import problem_set
from opo_cli.data.tiny import CHAINS
from opo_cli.grading.extract import last_box
from opo_cli.types import Problem


def terms_of(problem: Problem) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"[+-]?\d+", problem.question.removesuffix("=?"))))


def totals_of(chain: tuple[int, ...]) -> list[int]:
    return [sum(chain[:n]) for n in range(1, len(chain) + 1)]


def all_chains(num_terms: int) -> list[tuple[int, ...]]:
    signed = [term for term in range(-9, 10) if term]
    chains = product(range(1, 10), *[signed] * (num_terms - 1))
    return [c for c in chains if all(0 <= total <= 20 for total in totals_of(c))]


# --- problems ---------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", CHAINS.tiers)
def test_every_problem_is_well_formed(tier: str):
    fewest, most = CHAINS.tiers[tier]
    problems = CHAINS.tier_problems(tier)
    for problem in problems:
        chain = terms_of(problem)
        assert problem.question == tiny.text_of(chain)
        assert all(1 <= abs(term) <= 9 for term in chain)
        assert all(0 <= total <= 20 for total in totals_of(chain))
        assert problem.answer == str(sum(chain))
    assert {len(terms_of(problem)) for problem in problems} == set(range(fewest, most + 1))


HASHES = {
    "tiny-easy": "6fd831023ed9a83e0bb136be443eca159dbeb3c6826edbb59bbd16c9fed57ddb",
    "tiny-mid": "e5c38c3cdbae8db81fe23269678bf75a2b4ce5ff16d8c25446d0b8ee6b18845b",
    "tiny-hard": "0e36c95a56279e3d7ddfea6bd18344094b0cf86bc2f6cd1aae3286371dbbb11f",
    "tiny-ood": "540a2b4d9ff8f6dbbf0187aac17277c120d071ac42810b218fbc2d55e2c6f366",
}
"""As published with the first results: other problems would be other benchmarks."""


@pytest.mark.parametrize("tier", CHAINS.tiers)
def test_a_tier_keeps_its_problems(tier: str):
    found = problem_set(tier, CHAINS.tier_problems(tier), source="embedded")
    assert found.sha256 == HASHES[tier]


def test_a_third_or_so_of_all_chains_is_held_out():
    held_out = [is_heldout(tiny.text_of(chain)) for chain in all_chains(3)]
    assert sum(held_out) / len(held_out) == pytest.approx(HELDOUT_SHARE, abs=0.03)


@pytest.mark.parametrize(("num_terms", "expected"), [(1, 9), (2, 126), (3, 1815), (4, 25992)])
def test_number_of_chains(num_terms: int, expected: int):
    assert tiny.num_chains(num_terms) == expected == len(all_chains(num_terms))


# --- solutions --------------------------------------------------------------------------------

CHAIN = (7, -1, 9, -7)
NUM_STEPS = len(CHAIN) - 1


def solutions(name: str, style: Style, count: int = 2000) -> list[str]:
    rng = random.Random(0)
    return [CHAINS.writers[name](rng, CHAIN, style) for _ in range(count)]


def accuracy(texts: list[str]) -> float:
    return sum(last_box(text) == str(sum(CHAIN)) for text in texts) / len(texts)


@pytest.mark.parametrize("name", CHAINS.writers)
def test_without_errors_every_solution_is_right(name: str):
    rng = random.Random(0)
    chains = CHAINS.draws(rng, (2, 9), heldout=True)
    style = Style(repeats=(1, 2, 3))
    for _ in range(200):
        chain = next(chains)
        assert last_box(CHAINS.writers[name](rng, chain, style)) == str(sum(chain))


@pytest.mark.parametrize("name", ["worked", "checked", "ramble"])
def test_without_errors_every_line_is_true(name: str):
    lines = re.findall(r"(\d+)([+-]\d)=(\d+)", "".join(solutions(name, Style(repeats=(1, 3)), 50)))
    assert len(lines) >= 50 * NUM_STEPS
    assert all(int(before) + int(term) == int(after) for before, term, after in lines)


# Two errors may cancel, and 2000 samples have a standard error of 0.011.
TOLERANCE = 0.045


@pytest.mark.parametrize(
    ("name", "style", "expected"),
    [
        ("direct", Style(error_rate=0.3), 0.7),
        ("worked", Style(error_rate=0.2), 0.8**NUM_STEPS),
        ("checked", Style(error_rate=0.2), 0.8**NUM_STEPS),
        ("checked", Style(error_rate=0.4, fix_rate=0.5), 0.8**NUM_STEPS),
        ("ramble", Style(error_rate=0.2), 0.8**NUM_STEPS),
        ("ramble", Style(no_answer_rate=0.4), 0.6),
        ("ramble", Style(error_rate=0.2, no_answer_rate=0.5), 0.5 * 0.8**NUM_STEPS),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_error_rates_show_in_the_accuracy(name: str, style: Style, expected: float):
    assert accuracy(solutions(name, style)) == pytest.approx(expected, abs=TOLERANCE)


def test_errors_that_are_all_noticed_leave_every_answer_right():
    texts = solutions("checked", Style(error_rate=1.0, fix_rate=1.0), 100)
    assert accuracy(texts) == 1
    assert all(text.count(" no ") == NUM_STEPS and " ok" not in text for text in texts)


def test_right_lines_are_never_corrected():
    assert " no " not in "".join(solutions("checked", Style(fix_rate=1.0), 100))


def test_ramble_repeats_the_whole_chain():
    texts = solutions("ramble", Style(repeats=(1, 3)), 200)
    assert {text.count("=") for text in texts} == {NUM_STEPS, 3 * NUM_STEPS}
    assert all(text.startswith("hmm ") for text in texts)
    assert all(text.count("wait ") == text.count("=") // NUM_STEPS - 1 for text in texts)


def test_styles_are_drawn_by_their_shares():
    styles = Styles(direct=Style(share=0.25), checked=Style(share=0.75))
    rng = random.Random(0)
    texts = [CHAINS.draw_solution(rng, CHAIN, styles) for _ in range(2000)]
    assert sum(text == "\\boxed{8}" for text in texts) / 2000 == pytest.approx(0.25, abs=0.04)
    assert sum(text.count(" ok") == NUM_STEPS for text in texts) / 2000 == pytest.approx(
        0.75, abs=0.04
    )
