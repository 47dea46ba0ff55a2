"""The search: its problems, and the solutions to imitate. What all tasks share: `test_tasks.py`."""

from __future__ import annotations

import random
import re
import statistics
from itertools import combinations

import pytest

from opo_cli.config import Data, Style
from opo_cli.data import search
from opo_cli.data.embedded import HELDOUT_SHARE, is_heldout
from opo_cli.data.search import SEARCH
from opo_cli.data.store import problem_set
from opo_cli.grading.extract import last_box
from opo_cli.types import Problem

ITEM = ((5, 3, 8, 12), 11)
"""5+3=8, 5+8=13, 5+12=17, 3+8=11, 3+12=15, 8+12=20."""


def numbers_of(problem: Problem) -> tuple[tuple[int, ...], int]:
    terms, total = problem.question.removesuffix("?").split("=")
    return tuple(map(int, terms.split("+"))), int(total)


# --- problems ---------------------------------------------------------------------------------


def test_spelling_key_and_answer():
    assert search.text_of(ITEM) == "5+3+8+12=11?"
    assert search.key_of(ITEM) == "3+5+8+12=11?"
    assert search.answer_of(ITEM) == "38"
    assert search.answer_of(((12, 1, 7), 13)) == "112"


def test_totals_that_two_pairs_make_are_not_asked_for():
    """1+4 = 2+3."""
    assert sorted(search.totals_of((1, 2, 3, 4))) == [3, 4, 6, 7]


@pytest.mark.parametrize("name", [*SEARCH.tiers, SEARCH.validation])
def test_every_problem_has_one_answer(name):
    terms = SEARCH.tiers.get(name, SEARCH.validation_terms)
    is_tier = name in SEARCH.tiers
    problems = SEARCH.tier_problems(name) if is_tier else SEARCH.validation_problems()
    keys = set()
    for problem in problems:
        shown, total = numbers_of(problem)
        keys.add((tuple(sorted(shown)), total))
        assert set(shown) <= set(range(1, 13))
        assert len(set(shown)) == len(shown)
        fitting = [sorted(pair) for pair in combinations(shown, 2) if sum(pair) == total]
        assert ["".join(map(str, pair)) for pair in fitting] == [problem.answer]
        assert is_heldout("+".join(map(str, sorted(shown))) + f"={total}?")
    assert len(keys) == len(problems)
    assert {len(numbers_of(p)[0]) for p in problems} == set(range(terms[0], terms[1] + 1))


def test_another_order_of_a_held_out_problem_is_not_trained_on():
    """As many training problems of three terms as there are: none is a permuted tier problem."""
    data = Data(task="search", num_problems=369, min_terms=3, max_terms=3)
    found = [numbers_of(problem) for problem in SEARCH.training_problems(data)]
    trained = {(tuple(sorted(terms)), total) for terms, total in found}
    assert len(trained) == 369
    tier = [numbers_of(problem) for problem in SEARCH.tier_problems("search-easy")]
    assert trained.isdisjoint((tuple(sorted(terms)), total) for terms, total in tier)


HASHES = {
    "search-easy": "95d76070b5fa70b3fd32ce5ba28a9b46b73fddbdeee16075a88725c5c10c4460",
    "search-mid": "15595c14723278bcca857107672f4be3a88500bb015175aee6aeed52751fa49e",
    "search-hard": "8cdcf807a8a40b8fb2e052a0ff6742eec5085cb177fffcfbf1c281833128fbce",
    "search-ood": "01e7661f090aa935f6b5b1e113e67a2754e5f2b506dd67862bde2fbf18acf3f4",
}
"""Other problems would be other benchmarks."""


@pytest.mark.parametrize("tier", SEARCH.tiers)
def test_a_tier_keeps_its_problems(tier):
    found = problem_set(tier, SEARCH.tier_problems(tier), source="embedded")
    assert found.sha256 == HASHES[tier]


def test_a_third_or_so_of_all_searches_is_held_out():
    keys = [
        search.text_of((terms, total))
        for terms in combinations(range(1, 13), 5)
        for total in search.totals_of(terms)
    ]
    assert sum(map(is_heldout, keys)) / len(keys) == pytest.approx(HELDOUT_SHARE, abs=0.02)


@pytest.mark.parametrize(("num_terms", "expected"), [(2, 66), (3, 660), (4, 2780)])
def test_number_of_searches(num_terms, expected):
    """Two terms: 12 x 11 / 2. Three: 220 sets, whose three totals always differ."""
    assert search.num_searches(num_terms) == expected


# --- solutions --------------------------------------------------------------------------------


def solutions(name: str, style: Style, count: int = 2000) -> list[str]:
    rng = random.Random(0)
    return [SEARCH.writers[name](rng, ITEM, style) for _ in range(count)]


def accuracy(texts: list[str]) -> float:
    return sum(last_box(text) == "38" for text in texts) / len(texts)


def trials_of(text: str) -> list[tuple[int, ...]]:
    return [tuple(map(int, trial)) for trial in re.findall(r"(\d+)\+(\d+)=(\d+)", text)]


@pytest.mark.parametrize("name", SEARCH.writers)
def test_without_errors_every_trial_is_true_and_the_last_alone_fits(name):
    for text in solutions(name, Style(repeats=(1, 3)), 200):
        trials = trials_of(text)
        assert all(first + second == said for first, second, said in trials)
        fits = [said == 11 for *_, said in trials]
        assert not any(fits[:-1])
        assert text.count(" ok") == sum(fits)
        assert text.count(" no ") == len(fits) - sum(fits)


def test_worked_tries_each_pair_once_so_that_every_length_is_as_likely():
    counts = []
    for text in solutions("worked", Style()):
        pairs = [frozenset(trial[:2]) for trial in trials_of(text)]
        assert len(set(pairs)) == len(pairs)
        counts.append(len(pairs))
    shares = [counts.count(n) / len(counts) for n in range(1, 7)]
    assert shares == pytest.approx([1 / 6] * 6, abs=0.03)  # Their standard error is 0.008.


def test_ramble_forgets_what_it_tried():
    """The number of trials is geometric: mean 6, and a sixth of them end at the first."""
    counts = [len(trials_of(text)) for text in solutions("ramble", Style())]
    assert max(counts) == search.MAX_TRIALS
    assert counts.count(1) / len(counts) == pytest.approx(1 / 6, abs=0.03)
    cut = 6 * (1 - (5 / 6) ** search.MAX_TRIALS)
    assert statistics.mean(counts) == pytest.approx(cut, abs=0.35)  # Three standard errors.
    assert any(
        len(set(map(frozenset, trials))) < len(trials)
        for trials in map(trials_of, solutions("ramble", Style(), 50))
    )


def test_ramble_without_an_answer():
    """The search is cut short in (5/6)^16 = 5 % of cases besides."""
    found = accuracy(solutions("ramble", Style(no_answer_rate=0.4)))
    assert found == pytest.approx(0.6 * (1 - (5 / 6) ** search.MAX_TRIALS), abs=0.045)


def test_direct_guesses():
    """A wrong guess is one of the six pairs, and so right now and then."""
    texts = solutions("direct", Style(error_rate=0.9, repeats=(2,)))
    assert accuracy(texts) == pytest.approx(0.1 + 0.9 / 6, abs=0.04)
    assert {text.count(" no ") for text in texts} == {0, 1, 2}  # A pair that fits is left out.
    assert all("hmm \\boxed{" in text and " ok" not in text for text in texts)


def test_worked_goes_wrong_where_a_wrong_total_fits():
    style = Style(error_rate=0.3)
    texts = solutions("worked", style)
    accepted = [text for text in texts if " ok" in text and last_box(text) != "38"]
    assert accepted
    assert all(trials_of(text)[-1][2] == 11 for text in accepted)
    assert 0.4 < accuracy(texts) < 0.85


def test_checked_puts_sums_right():
    texts = solutions("checked", Style(error_rate=1.0, fix_rate=1.0), 200)
    assert accuracy(texts) == 1
    for text in texts:
        sums = re.findall(r"(\d+)\+(\d+)=-?\d+\nwait (\d+)(?: no | ok)", text)
        assert len(sums) == text.count("=") >= 1
        assert all(int(first) + int(second) == int(said) for first, second, said in sums)


def test_right_sums_are_never_corrected():
    assert "wait" not in "".join(solutions("checked", Style(fix_rate=1.0), 100))
