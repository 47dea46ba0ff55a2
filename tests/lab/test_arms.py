"""Arms are the estimators that train, and those that only a lab can have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from opo_cli.errors import OpoError
from opo_cli.lab.arms import ARMS, REFERENCE, chosen
from opo_cli.lab.pool import Groups, draw, make_pool
from opo_cli.lab.store import LabData, PromptData
from opo_cli.rl.advantages import ADVANTAGES


def prompt(rewards, lengths, norms=None, greedy=0.5) -> PromptData:
    rewards = np.asarray(rewards, float)
    norms = np.ones(len(rewards)) if norms is None else np.asarray(norms, float)
    return PromptData(
        problem_id="p",
        gram=np.diag(norms),
        rewards=rewards,
        lengths=np.asarray(lengths),
        correct=rewards > 0,
        truncated=np.zeros(len(rewards), bool),
        logit_norms=norms,
        greedy_reward=greedy,
        sketch=np.zeros((len(rewards), 2), np.float32),
    )


A = prompt([1, 0, 1, 0] * 4, [100, 300, 200, 400] * 4, norms=[1, 3, 2, 4] * 4)


def pool_of(*prompts, reduction: str = "token-sum"):
    return make_pool(LabData(settings={}, prompts=prompts), reduction)


def first_four(pool) -> Groups:
    num_prompts = len(pool.prompts)
    rows = np.tile(np.arange(4), (1, num_prompts, 1))
    return Groups(rows=rows, rest=[np.arange(8, 16)[None]] * num_prompts)


KNOWN = {
    "none": [1, 0, 1, 0],
    "mean": [0.5, -0.5, 0.5, -0.5],
    "rloo": [2 / 3, -2 / 3, 2 / 3, -2 / 3],
    "opo": [0.7, -0.3, 0.7, -0.3],
    "opo-loo": [0.777778, -0.428571, 0.875, -0.5],
    "opo-batch": [0.7, -0.3, 0.7, -0.3],
    "grpo": [0.866024, -0.866024, 0.866024, -0.866024],
    "remax": [0.5, -0.5, 0.5, -0.5],
    "exact": [0.7, -0.3, 0.7, -0.3],
    "exact-loo": [0.777778, -0.428571, 0.875, -0.5],
    "logit-proxy": [0.7, -0.3, 0.7, -0.3],
    "logit-proxy-loo": [0.777778, -0.428571, 0.875, -0.5],
    "length-power-1.6": [1 - 0.211951, -0.211951, 1 - 0.211951, -0.211951],
    "oracle": [0.7, -0.3, 0.7, -0.3],
    "oracle-mean": [0.5, -0.5, 0.5, -0.5],
}


@pytest.mark.parametrize("name", list(KNOWN))
def test_advantages_by_hand(name: str):
    pool = pool_of(A, A)
    groups = first_four(pool)
    if name.startswith("oracle"):  # Each half of the rest is one whole turn of the four.
        groups = Groups(rows=groups.rows, rest=[np.array([[8, 12, 9, 13, 10, 14, 11, 15]])] * 2)
    found = ARMS[name].estimate(pool, groups)
    assert found[:, 0, 0] == pytest.approx(np.tile(KNOWN[name], (len(found), 1)), abs=2e-6)


def test_every_estimator_that_needs_no_critic_is_an_arm():
    needed = {name for name, row in ADVANTAGES.items() if not row.needs_critic}
    assert needed - {"length-power"} <= set(ARMS)
    assert "gae" not in ARMS


def test_weights_of_the_exact_baseline_are_those_of_the_reduction():
    """w / l^2 under a mean over tokens: here 1/l, as w = l."""
    one = prompt([1, 0, 1, 0] * 4, [1, 3, 2, 4] * 4, norms=[1, 3, 2, 4] * 4)
    found = ARMS["exact"].estimate(
        pool_of(one, one, reduction="seq-mean"), first_four(pool_of(A, A))
    )
    weights = 1 / np.array([1, 3, 2, 4])
    baseline = weights @ [1, 0, 1, 0] / weights.sum()
    assert found[0, 0, 0] == pytest.approx(np.array([1, 0, 1, 0]) - baseline)


def test_the_fitted_exponent_has_not_seen_its_prompt():
    lengths = np.array([10, 20, 40, 80] * 4)
    steep, flat = (prompt([1, 0] * 8, lengths, lengths**c) for c in (2.0, 0.0))
    assert pool_of(steep, flat).exponents == pytest.approx([0, 2])


def test_what_was_not_measured_is_left_out_and_why():
    pool = pool_of(replace(A, greedy_reward=None), A)
    arms, left_out = chosen(None, pool, 6)
    assert left_out == {
        "remax": "not every prompt has a greedy response with a reward",
        **dict.fromkeys(
            ("otb", "otb-token"),
            "gradients of single tokens were not measured (--token-gradients)",
        ),
        **dict.fromkeys(("oracle", "oracle-mean"), "it takes 20 responses per prompt, not 16"),
    }
    assert set(arms) | set(left_out) == set(ARMS)
    assert "remax" in chosen(["remax"], pool_of(replace(A, greedy_reward=np.nan), A), 4)[1]


def test_the_reference_is_always_there():
    arms, _ = chosen(["opo"], pool_of(A, A), 4)
    assert list(arms) == [REFERENCE, "opo"]


def test_rows_that_do_not_count_have_no_advantage():
    broken = prompt([np.nan, 0, 1, 0] * 4, [100, 0, 200, 400] * 4)
    pool = pool_of(broken, broken)
    for name, arm in chosen(None, pool, 4)[0].items():
        found = arm.estimate(pool, first_four(pool))
        assert found[:, 0, 0, :2] == pytest.approx(0), name
        assert np.isfinite(found).all(), name


def test_draws_are_disjoint_and_repeat():
    pool = pool_of(A, A, A)
    first, second = draw(pool, 5, seed=1, num_draws=30)
    both = np.concatenate([first.rows, second.rows], axis=2)
    for x in range(3):
        whole = np.sort(np.concatenate([both[:, x], first.rest[x]], axis=1), axis=1)
        assert (whole == np.arange(16)).all()
    again, _ = draw(pool_of(A, A), 5, seed=1, num_draws=30)
    assert (again.rows == first.rows[:, :2]).all()  # A prompt's draws know of no other prompt.


@pytest.mark.parametrize(
    ("act", "message", "hint"),
    [
        (
            lambda: chosen(["opoo"], pool_of(A, A), 4),
            "unknown estimator of the lab 'opoo'",
            "'opo'",
        ),
        (
            lambda: pool_of(A, A, reduction="token-mean"),
            "unknown reduction 'token-mean'",
            "token-sum",
        ),
        (lambda: pool_of(A), "a lab of 1 prompts has no spread between them", "at least 2"),
        (
            lambda: draw(pool_of(A, A), 9, seed=0),
            "group size 9 needs 18 responses per prompt, this lab has 16",
            "--group-size 8 or less",
        ),
        (lambda: draw(pool_of(A, A), 1, seed=0), "a group of 1 has no baseline", "2 or more"),
    ],
)
def test_mistakes_are_named(act, message: str, hint: str):
    with pytest.raises(OpoError) as error:
        act()
    assert message in error.value.message
    assert hint in error.value.hint
