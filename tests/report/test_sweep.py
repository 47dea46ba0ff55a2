"""Each algorithm at its own best value, chosen without a look at the test."""

from __future__ import annotations

import pytest

from opo_cli.errors import OpoError
from opo_cli.report.runs import make_arms, read_run
from opo_cli.report.sweep import read_sweep

KEY = "optim.learning_rate"


@pytest.fixture
def swept(make_run):
    """Two values x two algorithms x two seeds; validation prefers .1 for opo and .3 for grpo, the
    test would choose the reverse."""

    def make(algorithm: str, value: float, seed: int):
        is_best = (algorithm, value) in (("opo", 0.1), ("grpo", 0.3))
        return make_run(
            f"{algorithm}-{value}-{seed}",
            [1, 1 + seed] if is_best else [3, 3 + seed],
            seed=seed,
            algorithm=algorithm,
            sets=[f"{KEY}={value}"],
            validation=[4, 3] if is_best else [1, 1],
        )

    folders = [make(a, v, s) for a in ("opo", "grpo") for v in (0.1, 0.3) for s in (0, 1)]
    return make_arms([read_run(folder, []) for folder in folders])


def test_validation_chooses_and_the_test_does_not(swept):
    sweep = read_sweep(KEY, swept)
    assert [arm.label for arm in sweep.best] == ["opo 0.1", "grpo 0.3"]
    best = {each.algorithm: each for each in sweep.tried if each.is_best}
    assert best["opo"].validation.mean == pytest.approx(7 / 8)
    assert best["opo"].test.mean == pytest.approx((2 / 8 + 3 / 8) / 2)


def test_arms_of_one_value_are_compared_too(swept):
    found = read_sweep(KEY, swept).at_each_value
    assert {value: len(arms) for value, arms in found.items()} == {"0.1": 2, "0.3": 2}


def test_the_table_marks_the_choice(swept):
    table = read_sweep(KEY, swept).table()
    assert [(row[0], row[1], row[-1]) for row in table.rows] == [
        ("opo", "0.1", "chosen"),
        ("", "0.3", ""),
        ("grpo", "0.1", ""),
        ("", "0.3", "chosen"),
    ]
    assert "best on validation (held)" in table.note


def test_of_equals_the_first_is_chosen(make_run):
    folders = [make_run(f"{v}", [1, 1], sets=[f"{KEY}={v}"], validation=[2, 2]) for v in (0.3, 0.1)]
    sweep = read_sweep(KEY, make_arms([read_run(folder, []) for folder in folders]))
    assert [each.is_best for each in sweep.tried] == [True, False]


def test_without_validation_nothing_is_chosen(make_run):
    arms = make_arms([read_run(make_run("x"), [])])
    with pytest.raises(OpoError, match="not evaluated on a validation split"):
        read_sweep(KEY, arms)


def test_a_value_that_lacks_a_seed_is_not_chosen(make_run):
    """The lucky seed that is left of a value whose other runs failed must not win."""
    counts = {0.1: [4, 4], 0.3: [1, 1]}
    folders = [
        make_run(f"{v}-{seed}", [1, 1], seed=seed, sets=[f"{KEY}={v}"], validation=counts[v])
        for v, seed in ((0.1, 0), (0.3, 0), (0.3, 1))
    ]
    sweep = read_sweep(KEY, make_arms([read_run(folder, []) for folder in folders]))
    assert [arm.label for arm in sweep.best] == ["opo 0.3"]
    assert [row[-1] for row in sweep.table().rows] == ["seeds missing", "chosen"]
    assert "not chosen from, as seeds are missing: opo 0.1" in sweep.notes


def test_an_algorithm_without_a_complete_value_is_told(make_run):
    folders = [make_run(f"opo{s}", seed=s, validation=[1]) for s in (0, 1)]
    folders.append(make_run("ppo0", algorithm="ppo", validation=[1]))
    with pytest.raises(OpoError, match="no value of 'ppo' has all 2 seeds"):
        read_sweep(KEY, make_arms([read_run(folder, []) for folder in folders]))


def test_a_validation_of_the_tests_own_problems_is_refused(make_run):
    run = make_run("x", validation=[1, 1])
    run.write_evals(r | {"settings": {"problems_sha256": "0"}} for r in run.evals())
    with pytest.raises(OpoError, match="'held' and 'easy' are the same problems"):
        read_sweep(KEY, make_arms([read_run(run, [])]))
