"""Pairs of arms held against each other."""

from __future__ import annotations

import numpy as np
import pytest

from opo_cli.errors import OpoError
from opo_cli.report.contrasts import ALL, make_contrasts, pairs_of, per_problem
from opo_cli.report.runs import make_arms, read_run
from opo_cli.report.statistics import difference


def arms_of(*folders):
    return make_arms([read_run(folder, []) for folder in folders])


def two(make_run, first, second, *, seeds=(0, 1, 2), other_seeds=None):
    """Arms opo and ppo; `first`, `second`: right samples of each problem, per seed."""
    folders = []
    for name, counts, numbers in (
        ("opo", first, seeds),
        ("ppo", second, other_seeds or seeds),
    ):
        folders += [
            make_run(f"{name}{seed}", correct, seed=seed, algorithm=name)
            for seed, correct in zip(numbers, counts, strict=True)
        ]
    return arms_of(*folders)


HIGH, LOW = [[4, 3, 4, 3], [3, 4, 4, 4], [4, 4, 3, 4]], [[1, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 0]]


def test_the_first_less_the_second_in_pairs_of_seed_and_problem(make_run):
    (found,) = make_contrasts([tuple(two(make_run, HIGH, LOW))], "avg", 0.02).overall
    expected = difference([np.array(HIGH) / 4], [np.array(LOW) / 4])
    assert found.difference == expected
    assert found.difference.mean == pytest.approx((44 - 8) / 48)
    assert found.labels == ("opo", "ppo")
    assert found.verdict.word == "win"
    assert found.permutation.p == found.permutation.least == 0.25  # 2 of 2^3 signs.
    assert found.improvement.value == 1
    assert "opo beats ppo" in found.sentence


def test_the_same_the_other_way_round_is_worse(make_run):
    (found,) = make_contrasts([tuple(two(make_run, LOW, HIGH))], "avg", 0.02).overall
    assert (found.verdict.word, found.improvement.value) == ("worse", 0)


def test_equal_runs_do_not_win(make_run):
    (found,) = make_contrasts([tuple(two(make_run, HIGH, HIGH))], "avg", 0.02).overall
    assert found.difference.mean == 0
    assert found.verdict.word in ("tie", "cannot tell")


def test_one_seed_tells_nothing(make_run):
    (found,) = make_contrasts(
        [tuple(two(make_run, HIGH[:1], LOW[:1], seeds=(0,)))], "avg", 0.02
    ).overall
    assert found.verdict.word == "cannot tell"
    assert found.permutation is None
    assert "2 seeds" in found.verdict.text


def test_seeds_that_only_the_larger_arm_has_drop_out_and_are_told(make_run):
    folders = [make_run(f"opo{s}", HIGH[s], seed=s, algorithm="opo") for s in (0, 1, 2)] + [
        make_run(f"ppo{s}", LOW[s], seed=s, algorithm="ppo") for s in (1, 2)
    ]
    found = make_contrasts([tuple(arms_of(*folders))], "avg", 0.02)
    (contrast,) = found.overall
    assert contrast.difference == difference([np.array(HIGH[1:]) / 4], [np.array(LOW[1:]) / 4])
    assert found.notes == [
        "1 run of a seed that another arm lacks: left out of the verdicts against it, not of the "
        "other tables"
    ]


@pytest.mark.parametrize("others", [(5, 6, 7), (2, 5, 6)], ids=["none common", "one common"])
def test_arms_with_other_seeds_are_independent_samples(make_run, others):
    arms = two(make_run, HIGH, LOW, other_seeds=others)
    found = make_contrasts([tuple(arms)], "avg", 0.02)
    assert found.notes[0].startswith("pairs whose arms have other seeds: 1 of 1")
    (contrast,) = found.overall
    assert contrast.difference == difference(
        [np.array(HIGH) / 4], [np.array(LOW) / 4], is_paired=False
    )
    assert contrast.permutation.least == pytest.approx(2 / 20)  # 2 of C(6, 3) labellings.


def test_a_benchmark_that_a_run_lacks_is_in_no_verdict_and_told(make_run):
    folders = [
        make_run("x", {"a": [1, 2], "b": [1, 2]}),
        make_run("y", {"a": [1, 2]}, algorithm="ppo"),
    ]
    found = make_contrasts([tuple(arms_of(*folders))], "avg", 0.02)
    assert [contrast.benchmark for contrast in found.overall] == ["a"]
    assert found.notes[0].startswith("in no verdict: b, which not every run was evaluated on")


def test_benchmarks_weigh_equally_over_all(make_run):
    seeds = (0, 1)
    folders = [
        make_run(f"opo{s}", {"a": [4, 4], "b": [2, 2, 2, 2]}, seed=s, algorithm="opo")
        for s in seeds
    ]
    folders += [
        make_run(f"ppo{s}", {"a": [0, 0], "b": [2, 2, 2, 2]}, seed=s, algorithm="ppo")
        for s in seeds
    ]
    found = make_contrasts([tuple(arms_of(*folders))], "avg", 0.02)
    assert [contrast.benchmark for contrast in found.each] == ["a", "b"]
    (overall,) = found.overall
    assert (overall.benchmark, overall.difference.mean) == (ALL, pytest.approx(0.5))


def test_one_benchmark_is_all_of_them(make_run):
    found = make_contrasts([tuple(two(make_run, HIGH, LOW))], "avg", 0.02)
    assert len(found.overall) == 1
    assert not found.each


def test_problems_are_matched_by_id(make_run):
    arms = two(make_run, HIGH, LOW)
    plain = make_contrasts([tuple(arms)], "avg", 0.02)
    for run in arms[1].runs:
        run.final["easy"]["problems"].reverse()
    assert make_contrasts([tuple(arms)], "avg", 0.02) == plain


def test_problems_of_one_side_alone_are_left_out(make_run):
    arms = two(make_run, HIGH, LOW)
    for run in arms[1].runs:
        run.final["easy"]["problems"].pop()
    (found,) = make_contrasts([tuple(arms)], "avg", 0.02).overall
    assert found.difference.num_problems == 3


def test_runs_without_results_per_problem_get_no_verdict(make_run):
    arms = two(make_run, HIGH, LOW)
    del arms[0].runs[0].final["easy"]["problems"]
    assert make_contrasts([tuple(arms)], "avg", 0.02).overall == []


def test_pass_at_k_is_that_of_each_problem():
    # 1 - C(4 - c, 2)/C(4, 2) = 1 - {6, 3, 1, 0, 0}/6
    values = per_problem(np.arange(5), 4, "pass@2")
    assert values.tolist() == pytest.approx([0, 0.5, 5 / 6, 1, 1])
    assert per_problem(np.array([1, 2]), 4, "avg").tolist() == [0.25, 0.5]


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        ("pass@8", "'easy' has 4 samples per problem"),
        ("pass", "--measure 'pass' is neither avg nor pass@K"),
        ("pass@0", "neither avg nor"),
        ("maj@4", "neither avg nor"),
    ],
)
def test_a_measure_that_cannot_be_is_refused(make_run, measure: str, message: str):
    with pytest.raises(OpoError, match=message):
        make_contrasts([tuple(two(make_run, HIGH, LOW))], measure, 0.02)


def test_all_pairs_of_few_arms_and_of_many_each_against_the_first(make_run):
    names = ("opo", "opo-loo", "rloo", "remax", "otb")
    arms = arms_of(*(make_run(name, algorithm=name) for name in names))

    def labels(pairs):
        return [(a.label, b.label) for a, b in pairs]

    assert len(pairs_of(arms[:4])) == 6
    assert labels(pairs_of(arms)) == [("opo", name) for name in names[1:]]
    assert labels(pairs_of(arms[:3], "rloo")) == [("opo", "rloo"), ("opo-loo", "rloo")]
    with pytest.raises(OpoError, match="'rlo'"):
        pairs_of(arms, "rlo")
