"""What cannot be analysed is said; what is left out of the loss changes what is known."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from opo_cli.errors import OpoError
from opo_cli.lab import trained
from opo_cli.lab.analysis import Analysis, analyse
from opo_cli.lab.arms import ARMS
from opo_cli.lab.foreseen import Tokens
from opo_cli.lab.moments import moments_of
from opo_cli.lab.pool import Groups, draw, make_pool
from opo_cli.lab.settings import Request
from opo_cli.lab.store import LabData, PromptData
from opo_cli.presets import resolve
from tests.lab.toy import exact_of, lab_of, make_toy

LAB = lab_of([make_toy(seed) for seed in range(12)], 16, seed=3)


def analysed(change=lambda place, prompt: prompt, **options) -> Analysis:
    prompts = [change(place, prompt) for place, prompt in enumerate(LAB.prompts)]
    options = {"group_sizes": [4], "resamples": 50} | options
    return analyse(LabData(settings={}, prompts=prompts), **options)


def without_first(prompt: PromptData, count: int) -> PromptData:
    """The first responses left out of the loss."""
    kept = np.arange(len(prompt.rewards)) >= count
    return replace(prompt, lengths=prompt.lengths * kept, token_gram=None, token_norms=None)


def broken(place: int, prompt: PromptData) -> PromptData:
    gram = prompt.gram.copy()
    if place == 3:
        gram[2, :] = gram[:, 2] = np.nan
    return replace(prompt, gram=gram)


def equal_but(first: int):
    return lambda place, p: p if place < first else replace(p, rewards=np.ones(len(p.rewards)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (equal_but(0), "none of 12 prompts has responses of different reward"),
        (lambda place, p: without_first(p, 16), "none of 12 prompts"),
        (lambda place, p: replace(p, gram=0 * p.gram), "none of 12 prompts"),
        (broken, "prompt 3 of 12 ('toy/3'): the gradients of 16 of 16 responses"),
    ],
    ids=["all equal", "all left out", "no gradient", "not a number"],
)
def test_what_tells_nothing_is_said(change, message: str):
    with pytest.raises(OpoError) as error:
        analysed(change)
    assert message in error.value.message


def test_one_estimator_and_two_prompts_are_enough():
    found = analysed(equal_but(2), estimators=["none"]).sizes[0]
    assert [result.name for result in found.results] == ["rloo", "none"]
    assert 0 < found.share.low < found.share.high < 1


def test_what_is_done_is_told_after_each_estimator():
    shares: list[float] = []
    analysed(group_sizes=[2, 4], estimators=["opo"], update=shares.append)
    assert shares == [0.25, 0.5, 0.75, 1]  # With the reference, at both sizes.


def test_one_prompt_alone_bounds_nothing():
    found = analysed(equal_but(1)).sizes[0]
    assert (found.share.low, found.share.high) == (0, 1)
    assert {r.word for r in found.results} == {"reference", "unknown"}


def test_no_baseline_is_free_where_responses_are_left_out():
    """Those of two tokens, as truncated ones may be: what an unbiased estimator and `rloo` expect
    is then not the same, by enumeration."""
    toy = make_toy(3, longest=2)
    kept = toy.lengths == 1

    def loo(groups: np.ndarray) -> np.ndarray:
        one, r = kept[groups].astype(float), toy.rewards[groups] * kept[groups]
        others = (one.sum(1, keepdims=True) - one) > 0
        means = (r.sum(1, keepdims=True) - r) / np.maximum(one.sum(1, keepdims=True) - one, 1)
        return one * others * (r - means)

    alone = exact_of(toy, 2, lambda groups: toy.rewards[groups] * kept[groups])
    assert alone.square != pytest.approx(exact_of(toy, 2, loo).square, rel=0.05)

    assert analysed().sizes[0].of("none").is_unbiased
    partly = analysed(lambda place, p: without_first(p, place % 2)).sizes[0]
    assert not any(result.is_unbiased for result in partly.results)
    assert not any(result.is_unbiased for result in analysed(reduction="seq-mean").sizes[0].results)


def test_a_response_that_no_group_has_is_no_trouble():
    """The longest of the pool, which tokens are laid out by."""
    toy = make_toy(3)
    lab = lab_of([toy] * 2, 16, seed=0)
    pool = make_pool(lab, "token-sum")
    order = np.array([prompt.lengths.argsort(kind="stable") for prompt in pool.prompts])
    assert all(p.lengths[o[3]] < p.lengths.max() for p, o in zip(pool.prompts, order, strict=True))
    rest = [each[None, 4:] for each in order]
    halves = Groups(rows=order[None, :, :2], rest=rest), Groups(rows=order[None, :, 2:4], rest=rest)
    arms = {name: ARMS[name] for name in ("rloo", "otb", "reinforce++")}
    for found in moments_of(pool, arms, halves).values():
        assert np.isfinite(found.second).all()


def test_long_responses_are_tried_on_fewer_draws(monkeypatch):
    """Where each draw is a call over all tokens; others keep theirs. 12 prompts, groups of 4."""
    pool = make_pool(LAB, "token-sum")
    longest = max(int(prompt.lengths.max()) for prompt in LAB.prompts)
    halves = draw(pool, 4, seed=0, num_draws=40)
    monkeypatch.setattr(trained, "MOST_TOKENS", 20 * 2 * 12 * 4 * longest)
    arms = {name: ARMS[name] for name in ("rloo", "opo-batch", "reinforce++")}
    assert [arm.most_draws(pool, 4) for arm in arms.values()] == [None, None, 20]
    found = moments_of(pool, arms, halves)
    few = tuple(Groups(rows=h.rows[:20], rest=[r[:20] for r in h.rest]) for h in halves)
    expected = moments_of(pool, arms, few)
    for field in ("second", "square", "signal"):
        same = getattr(found["reinforce++"], field) == getattr(expected["reinforce++"], field)
        assert same.all()
        assert (getattr(found["rloo"], field) != getattr(expected["rloo"], field)).any()
    monkeypatch.setattr(trained, "MOST_TOKENS", 1)
    assert ARMS["reinforce++"].most_draws(pool, 4) == trained.LEAST_DRAWS


def long_prompt(seed: int, num_responses: int, length: int) -> PromptData:
    """Single tokens with gradients of 8 coordinates."""
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=(num_responses, length, 8)).astype(np.float32)
    scores = tokens.sum(1).astype(float)
    rewards = np.arange(num_responses) % 2.0
    return PromptData(
        problem_id=str(seed),
        gram=scores @ scores.T,
        rewards=rewards,
        lengths=np.full(num_responses, length),
        correct=rewards > 0,
        truncated=np.zeros(num_responses, bool),
        logit_norms=np.full(num_responses, 0.5 * length),
        greedy_reward=0.0,
        sketch=scores.astype(np.float32),
        token_gram=np.tensordot(tokens, tokens, (2, 2)).reshape([num_responses * length] * 2),
        token_norms=np.full(num_responses * length, 0.5),
    )


def test_single_tokens_take_what_is_foretold_however_many_prompts():
    """Tokens of 16 prompts at once would be 20 MB and more."""
    count, length = 8, 50
    lab = LabData(settings={}, prompts=[long_prompt(seed, count, length) for seed in range(16)])
    pool = make_pool(lab, "token-sum")
    halves = draw(pool, 4, seed=0)
    tracemalloc.start()
    try:
        moments_of(pool, {name: ARMS[name] for name in ("rloo", "otb", "otb-token")}, halves)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    config = resolve("smoke", overrides=[f"rollout.max_new_tokens={length}"])
    asked = Request(prompts=16, responses=count, token_gradients=True)
    foretold = Tokens.of(config, asked).analysis_bytes
    assert 0.7 * foretold < taken < 1.1 * foretold
