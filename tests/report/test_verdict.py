"""Verdicts: words from hand-made differences, plans against power tables, rates by simulation."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from opo_cli.report.statistics import Components, Difference, difference
from opo_cli.report.verdict import (
    ALPHA,
    MOST_SEEDS,
    POWER,
    half_width,
    plan,
    power,
    verdicts,
)

MANY = 1e7
"""Degrees of freedom of what is known."""
SEEDS_ONLY = Components(
    between=0.01,
    problem=0.0,
    residual=0.0,
    seed_degrees=MANY,
    problem_degrees=99,
    degrees_per_seed=1,
)
"""Runs that differ by .1, on any problems."""


def made(mean: float, half: float | None, p: float | None, **changes) -> Difference:
    bounds = (None, None) if half is None else (mean - half, mean + half)
    error = None if half is None else half / 3
    found = Difference(mean, *bounds, p, error, SEEDS_ONLY if half else None, 3, 100)
    return replace(found, **changes)


@pytest.mark.parametrize(
    ("mean", "half", "p", "word"),
    [
        (0.05, 0.03, 0.01, "win"),
        (-0.05, 0.03, 0.01, "worse"),
        (0.005, 0.01, 0.3, "tie"),
        (0.012, 0.005, 0.001, "tie"),  # There is a difference, smaller than what matters.
        (0.012, 0.02, 0.2, "cannot tell"),
        (0.05, 0.06, 0.09, "cannot tell"),
        (0.0, 0.02, 1.0, "cannot tell"),  # The interval ends at the margin, not within.
    ],
)
def test_words(mean: float, half: float, p: float, word: str):
    (verdict,) = verdicts([made(mean, half, p)], margin=0.02)
    assert verdict.word == word
    assert verdict.p_holm == p
    assert (verdict.num_more_seeds is not None) == (word == "cannot tell")


def test_a_family_corrects_its_p_values():
    """.02 wins alone; of three it is .04 as the second smallest, .06 as the smallest."""
    win = made(0.05, 0.04, 0.02)
    assert verdicts([win], 0.02)[0].word == "win"
    clear, open_ = made(0.1, 0.04, 0.001), made(0.01, 0.04, 0.5)
    second = verdicts([open_, win, clear], 0.02)
    assert [v.word for v in second] == ["cannot tell", "win", "win"]
    assert [v.p_holm for v in second] == pytest.approx([0.5, 0.04, 0.003])
    smallest = verdicts([open_, win, open_], 0.02)
    assert smallest[1].word == "cannot tell"
    assert smallest[1].p_holm == pytest.approx(0.06)


def test_differences_without_p_values_do_not_count_in_the_family():
    single = made(0.3, None, None, num_seeds=1)
    found = verdicts([single, made(0.05, 0.03, 0.04), single], 0.02)
    assert [v.word for v in found] == ["cannot tell", "win", "cannot tell"]
    assert found[1].p_holm == 0.04
    assert (found[0].p_holm, found[0].num_more_seeds) == (None, None)
    assert verdicts([], 0.02) == []


def test_no_margin_is_refused():
    with pytest.raises(ValueError, match="margin of 0"):
        verdicts([], 0)


@pytest.mark.parametrize(("effect", "expected"), [(0.5, 34), (0.8, 15), (1.0, 10)])
def test_planned_seeds_are_those_of_the_power_tables(effect: float, expected: int):
    """Paired t-test, power .8 at .05 two-sided: Cohen's d of .5, .8 and 1 take 34, 15 and 10."""
    found = made(0.0, 0.3, 0.9)
    assert plan(found, margin=effect * 0.1, level=0.05) == (expected, None)
    (verdict,) = verdicts([found], margin=effect * 0.1)
    assert verdict.num_more_seeds == expected - 3


def test_a_family_needs_more_seeds():
    """d of 1 at .05/10: normal quantiles 2.807 + .842, squared 13.3, and a t test's extra seeds."""
    seeds, _ = plan(made(0.0, 0.3, 0.9), margin=0.1, level=0.005)
    assert seeds == 18


def test_what_few_seeds_leave_open_takes_more_of_them():
    """Known, 34; of 3 seeds 2.5 times as many (noncentral t, Julious and Owen 2006), of 10 1.2."""
    for degrees, times in ((2, 2.54), (9, 1.21)):
        parts = replace(SEEDS_ONLY, seed_degrees=degrees)
        seeds, _ = plan(made(0.0, 0.3, 0.9, components=parts), margin=0.05, level=0.05)
        assert seeds == pytest.approx(34 * times, rel=0.06)


def test_power_of_a_hopelessly_clear_difference_is_1():
    """The noncentral t of 500 degrees of freedom at a ratio of 39 is nan."""
    parts = replace(SEEDS_ONLY, problem_degrees=500, between=0.0, problem=1.0)
    assert power(parts, 8, 1, margin=39, level=0.05) == 1


def test_power_at_no_difference_is_half_the_level():
    """A wrong direction is not counted."""
    assert power(SEEDS_ONLY, 8, 1, margin=1e-9, level=0.05) == pytest.approx(0.025, abs=1e-3)


def test_where_problems_are_the_limit_seeds_alone_do_not_do():
    """Problems leave .01 of standard error: endless seeds find .02 with power Phi(2 - 1.98) = .5.

    Half of the variance may remain: 2.8 errors in .02 are .0051 = .01/4 and seeds none.
    """
    parts = replace(SEEDS_ONLY, between=1e-9, problem=0.01**2)
    (verdict,) = verdicts([made(0.01, 0.02, 0.3, components=parts)], margin=0.02)
    assert verdict.num_more_seeds == 0
    assert verdict.num_problems_needed == pytest.approx(100 * (2.8 * 0.01 / 0.02) ** 2, rel=0.03)
    assert verdict.text == "cannot tell: ~200 problems in all"
    assert "seeds alone cannot resolve a margin of 0.02" in verdict.sentence("opo", "grpo")


def test_seeds_and_problems_together_resolve():
    parts = replace(SEEDS_ONLY, between=0.02**2, problem=0.01**2)
    seeds, problems = plan(made(0.01, 0.02, 0.3, components=parts), margin=0.02, level=0.05)
    assert power(parts, seeds, problems / 100, 0.02, 0.05) >= POWER
    assert power(parts, seeds, (problems - 1) / 100, 0.02, 0.05) < POWER
    assert power(parts, 3 + MOST_SEEDS, 1, 0.02, 0.05) < POWER


def test_absurd_numbers_are_capped():
    (verdict,) = verdicts([made(0.0, 0.5, 0.9)], margin=0.001)
    assert verdict.num_more_seeds == MOST_SEEDS + 1
    assert verdict.text == "cannot tell: over 100 more seeds"
    told = verdict.sentence("opo", "grpo")
    assert told.endswith("a margin of 0.001 needs over 100 more seeds")


def test_where_the_seeds_would_do_more_still_make_the_interval_narrow():
    """10 seeds find .1, yet +.05 of 10 is neither; an interval narrower than .1 settles it."""
    found = made(0.05, 0.0715, 0.15, num_seeds=10)
    (verdict,) = verdicts([found], margin=0.1)
    assert verdict.word == "cannot tell"
    total = 10 + verdict.num_more_seeds
    assert 2 * half_width(SEEDS_ONLY, total, 1, ALPHA) < 0.1
    assert 2 * half_width(SEEDS_ONLY, total - 1, 1, ALPHA) >= 0.1


def test_where_the_seeds_would_do_and_problems_are_the_limit_more_problems_are_asked_for():
    """4 errors of the problems find the margin; endless seeds leave an interval of 2 x 1.98 / 4."""
    parts = replace(SEEDS_ONLY, between=0.005**2, problem=0.01**2)
    (verdict,) = verdicts([made(0.018, 0.023, 0.12, components=parts, num_seeds=10)], margin=0.039)
    assert power(parts, 10, 1, 0.039, ALPHA) >= POWER
    assert verdict.num_more_seeds == 0
    assert 2 * half_width(parts, 10, verdict.num_problems_needed / 100, ALPHA) < 0.039
    assert 2 * half_width(parts, 10, (verdict.num_problems_needed - 1) / 100, ALPHA) >= 0.039


def test_advice_always_asks_for_more_than_there_is():
    """Standard errors of seeds, problems and samples between .001 and .1, margins of .5 to 6."""
    rng = np.random.default_rng(3)
    for _ in range(300):
        seeds, problems = int(rng.integers(2, 12)), int(rng.integers(10, 500))
        between, problem, residual = (10 ** rng.uniform(-3, -1, 3)) ** 2
        parts = Components(
            between=between,
            problem=problem,
            residual=residual,
            seed_degrees=seeds - 1,
            problem_degrees=problems - 1,
            degrees_per_seed=1,
        )
        found = made(0.0, 0.1, 0.5, components=parts, num_seeds=seeds, num_problems=problems)
        margin = rng.uniform(0.5, 6) * np.sqrt(max(between, residual) / seeds + problem)
        planned, needed = plan(found, margin, ALPHA / rng.integers(1, 7))
        assert planned >= seeds
        assert planned > seeds or needed > problems


def test_sentences():
    win, worse, tie, open_ = verdicts(
        [
            made(0.031, 0.019, 0.001),
            made(-0.031, 0.019, 0.0001),
            made(-0.0002, 0.01, 0.9),
            made(0.01, 0.03, 0.5, components=replace(SEEDS_ONLY, between=0.0004)),
        ],
        margin=0.02,
    )
    assert win.sentence("opo", "grpo") == (
        "opo beats grpo by 0.031 [0.012, 0.050] (95 %), Holm p 0.003"
    )
    assert worse.sentence("ppo", "opo") == (
        "ppo is worse than opo by 0.031 [0.012, 0.050] (95 %), Holm p < 0.001"
    )
    assert tie.sentence("opo", "rloo") == (
        "opo and rloo tie: +0.000 [-0.010, +0.010] (95 %), within the margin of 0.02"
    )
    assert open_.sentence("opo", "grpo") == (
        "cannot tell opo from grpo: +0.010 [-0.020, +0.040] (95 %); "
        "about 12 more seeds would resolve a margin of 0.02"
    )
    assert [v.text for v in (win, worse, tie, open_)] == [
        *("win", "worse", "tie", "cannot tell: ~12 more seeds"),
    ]


def test_one_seed_and_one_problem_say_what_is_missing():
    tables = [np.full((1, 5), 0.5)], [np.full((1, 5), 0.25)]
    (seed,) = verdicts([difference(*tables)], 0.02)
    assert seed.text == "cannot tell: at least 2 seeds"
    assert seed.sentence("opo", "grpo") == (
        "cannot tell opo from grpo: +0.250; at least 2 seeds are needed for an interval"
    )
    (problem,) = verdicts([difference([np.ones((3, 1))], [np.zeros((3, 1))])], 0.02)
    assert problem.text == "cannot tell: at least 2 problems"


def simulated(rng: np.random.Generator, seeds: int, problems: int, effect: float) -> np.ndarray:
    """(3, S, P) shares of 16 samples; the first arm's true accuracy is `effect` above the others'.

    The chances are uniform within .3 and .7, and the seeds' effects normal with .02.
    """
    chances = (
        rng.uniform(0.3, 0.7, (1, 1, problems))
        + 0.02 * rng.normal(size=(3, seeds, 1))
        + 0.03 * rng.normal(size=(3, 1, problems))
        + np.array([effect, 0, 0])[:, None, None]
    )
    return rng.binomial(16, chances.clip(0, 1)) / 16


def family(tables: np.ndarray) -> list[Difference]:
    return [difference([tables[i]], [tables[j]]) for i, j in combinations(range(3), 2)]


def test_equal_arms_win_no_more_often_than_stated():
    """400 families of three: .05 has a standard error of .011."""
    rng, false = np.random.default_rng(0), 0
    for _ in range(400):
        told = verdicts(family(simulated(rng, 4, 80, 0.0)), 0.03)
        false += any(v.word in ("win", "worse") for v in told)
    assert false / 400 < 0.05 + 2 * 0.011


def test_a_true_difference_of_the_planned_size_is_found_as_often_as_planned():
    """Seeds planned from the true components; the rate's standard error is .02."""
    rng, margin = np.random.default_rng(1), 0.03
    parts = difference(*([t] for t in simulated(rng, 400, 5000, 0.0)[:2])).components
    more = 5000 / 200
    known = replace(
        parts,
        between=parts.seed + parts.residual * more,
        residual=parts.residual * more,
        problem=parts.problem * more,
        seed_degrees=MANY,
        problem_degrees=199,
    )
    found = made(0.0, 0.1, 0.9, components=known, num_problems=200)
    seeds, problems = plan(found, margin, ALPHA / 3)
    assert problems is None
    told = [verdicts(family(simulated(rng, seeds, 200, margin)), margin)[:2] for _ in range(400)]
    rate = np.mean([v.word == "win" for pair in told for v in pair])
    assert 0.75 < rate < 0.92


def test_a_true_difference_of_the_margin_is_seldom_called_a_tie():
    """600 comparisons: .025 has a standard error of .0064."""
    rng, ties = np.random.default_rng(2), 0
    for _ in range(600):
        tables = simulated(rng, 10, 200, 0.03)
        ties += verdicts([difference([tables[0]], [tables[1]])], 0.03)[0].word == "tie"
    assert ties / 600 < 0.025 + 2 * 0.0064
