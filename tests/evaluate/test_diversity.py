"""Diversity of a group: constants, slow references, bounds."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opo_cli.evaluate.diversity import answer_entropy, distinct, ngrams, repetition, self_bleu
from opo_cli.types import Mean

quick = settings(deadline=None, derandomize=True)

LOOP, RISE, OTHER = (0, 1, 0, 1, 0, 1), (0, 1, 2, 3, 4, 5), (6, 7, 8, 9, 10, 11)

# Three tokens and short responses, so that n-grams are shared, repeated and missing.
responses = st.lists(st.lists(st.integers(0, 2), max_size=7).map(tuple), max_size=6)
orders = st.integers(1, 4)


# --- constants --------------------------------------------------------------------------------


def test_ngrams():
    assert ngrams((1, 2, 3), 2) == [(1, 2), (2, 3)]
    assert ngrams((1, 2), 2) == [(1, 2)]
    assert ngrams((1, 2), 3) == []


@pytest.mark.parametrize(
    ("pool", "expected"), [([LOOP], 0.6), ([RISE], 0.0), ([LOOP, RISE], 0.3), ([LOOP, (1,)], 0.6)]
)
def test_repetition_constants(pool, expected: float):
    assert repetition(pool, 2).value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("pool", "expected"), [([LOOP, RISE], 0.6), ([RISE, OTHER], 1.0), ([LOOP, LOOP], 0.2)]
)
def test_distinct_constants(pool, expected: float):
    assert distinct(pool, 2).value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ([RISE, RISE, OTHER], 2 / 3),
        ([RISE, RISE], 1.0),
        ([RISE, OTHER], 0.0),
        # Two tokens against three: precisions 1, 1 and brevity exp(-1/2); three against two:
        # precisions 2/3 and (1 + 1)/(2 + 1), no brevity penalty.
        ([(0, 1), (0, 1, 2)], (math.exp(-1 / 2) + 2 / 3) / 2),
    ],
)
def test_self_bleu_constants(pool, expected: float):
    assert self_bleu(pool, max_n=2).value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ("aabb", math.log(2)),
        ("aaaa", 0.0),
        (["a", "a", None, None], math.log(2)),  # "None" is an answer like any other.
        ("abcd", math.log(4)),
        ("aaab", -0.75 * math.log(0.75) - 0.25 * math.log(0.25)),
    ],
)
def test_answer_entropy_constants(answers, expected: float):
    assert answer_entropy(answers).value == pytest.approx(expected)


@pytest.mark.parametrize("answers", ["a", "aaaa", [None]])
def test_one_answer_has_an_entropy_that_prints_as_zero(answers):
    assert f"{answer_entropy(answers).value:.1f}" == "0.0"


@pytest.mark.parametrize("pool", [[], [()], [(), ()]])
def test_nothing_is_counted_where_there_is_nothing(pool):
    for found in (distinct(pool, 2), repetition(pool, 2), self_bleu(pool)):
        assert found == Mean(0, 0)
        assert found.value is None
    assert answer_entropy([]).value is None


def test_one_response_has_no_self_bleu():
    assert self_bleu([RISE]).value is None
    assert self_bleu([RISE, ()]).value is None


# --- slow references --------------------------------------------------------------------------


def slow_bleu(candidate, references, max_n: int) -> float:
    """One response against all references, each n-gram looked up in every one of them."""
    log = 0.0
    for n in range(1, max_n + 1):
        own = Counter(ngrams(candidate, n))
        matched = sum(
            min(count, max(Counter(ngrams(other, n))[gram] for other in references))
            for gram, count in own.items()
        )
        total = own.total()
        if n > 1:
            matched, total = matched + 1, total + 1
        if not matched:
            return 0.0
        log += math.log(matched / total) / max_n
    length = len(candidate)
    closest = sorted((abs(len(other) - length), len(other)) for other in references)[0][1]
    return math.exp(log + min(0.0, 1 - closest / length))


@quick
@given(responses, orders)
def test_self_bleu_against_all_pairs(pool, max_n: int):
    kept = [tokens for tokens in pool if tokens]
    scores = [slow_bleu(x, kept[:i] + kept[i + 1 :], max_n) for i, x in enumerate(kept) if kept[1:]]
    found = self_bleu(pool, max_n)
    assert found.count == len(scores)
    assert found.total == pytest.approx(sum(scores))


@quick
@given(responses, orders)
def test_distinct_and_repetition_against_loops(pool, n: int):
    grams = [[x[i : i + n] for i in range(len(x) - n + 1)] for x in pool]
    everything = [gram for own in grams for gram in own]
    shares = [1 - len(set(own)) / len(own) for own in grams if own]
    assert repetition(pool, n).count == len(shares)
    assert repetition(pool, n).total == pytest.approx(sum(shares))
    if everything:
        assert distinct(pool, n).value == pytest.approx(len(set(everything)) / len(everything))


# --- invariants -------------------------------------------------------------------------------


@quick
@given(responses, orders, st.randoms(use_true_random=False))
def test_neither_order_nor_names_of_tokens_matter(pool, n: int, random):
    shuffled = random.sample(pool, len(pool))
    renamed = [tuple(7 - 3 * token for token in tokens) for tokens in shuffled]
    for measure in (distinct, repetition, self_bleu):
        before, after = measure(pool, n), measure(renamed, n)
        assert (after.total, after.count) == pytest.approx((before.total, before.count))


@quick
@given(responses, orders)
def test_all_are_shares(pool, n: int):
    for measure in (distinct, repetition, self_bleu):
        value = measure(pool, n).value
        assert value is None or 0 <= value <= 1 + 1e-12


@quick
@given(st.lists(st.integers(0, 2), min_size=1, max_size=7).map(tuple), st.integers(2, 5))
def test_equal_responses_are_as_alike_as_can_be(tokens, size: int):
    assert self_bleu([tokens] * size).value == pytest.approx(1)


@quick
@given(st.lists(st.sampled_from(("1", "2", None)), min_size=1, max_size=8))
def test_answer_entropy_is_within_its_bounds(answers):
    value = answer_entropy(answers).value
    assert -1e-12 <= value <= math.log(len(set(answers))) + 1e-12
