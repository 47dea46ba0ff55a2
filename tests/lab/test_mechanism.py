"""What the squared gradient goes with, on data whose answer is known; and the sentences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from opo_cli.lab.conclusion import about_choice, about_length, about_share, reach
from opo_cli.lab.intervals import Interval
from opo_cli.lab.mechanism import Mechanism, mechanism_of, points_of
from opo_cli.lab.pool import make_pool
from opo_cli.lab.store import LabData, PromptData
from opo_cli.lab.verdict import Result, SizeResult


def prompt(norms, lengths, correct) -> PromptData:
    """Orthogonal gradients."""
    norms, correct = np.asarray(norms, float), np.asarray(correct, bool)
    return PromptData(
        problem_id="p",
        gram=np.diag(norms),
        rewards=correct.astype(float),
        lengths=np.asarray(lengths),
        correct=correct,
        truncated=np.zeros(len(norms), bool),
        logit_norms=norms * 2,
        greedy_reward=None,
        sketch=np.zeros((len(norms), 2), np.float32),
    )


def mechanism(prompts: list[PromptData], reduction: str = "token-sum") -> Mechanism:
    return mechanism_of(make_pool(LabData(settings={}, prompts=prompts), reduction))


LENGTHS = np.array([10, 20, 40, 80])


def test_the_exponent_is_found_within_prompts():
    """Norms of l^1.5, larger by a factor of its own in each prompt with its own lengths: between
    prompts the slope is another."""
    prompts = [
        prompt(100.0**-k * (LENGTHS * (k + 1)) ** 1.5, LENGTHS * (k + 1), [1, 1, 0, 0])
        for k in range(4)
    ]
    found = mechanism(prompts)
    assert found.exponent.value == pytest.approx(1.5)
    assert found.rank_length.value == pytest.approx(1)
    assert found.rank_logit.value == pytest.approx(1)
    assert mechanism(prompts, "seq-mean").exponent.value == pytest.approx(-0.5)


def test_correctness_and_length_are_told_apart():
    """||g||^2 = l^.5, five times that where wrong; wrong ones are longer."""
    rng = np.random.default_rng(0)
    prompts = []
    for _ in range(30):
        correct = rng.random(16) < 0.5
        lengths = np.maximum((30 * np.exp(rng.normal(0, 0.4, 16) + ~correct)).astype(int), 1)
        prompts.append(prompt(lengths**0.5 * np.where(correct, 1, 5), lengths, correct))
    found = mechanism(prompts)
    assert found.exponent_given_correct.value == pytest.approx(0.5)
    assert found.exponent.value > 1
    assert found.length_reward.high < 0


def test_bounds_of_a_correlation_stay_within_one():
    """Four prompts of rank correlation .2, .2, .8, .8. Fisher's z of the mean is .549306; without
    one prompt the means are .6 (.693147) or .4 (.423649), .134749 off their own mean, so that the
    standard error is sqrt(3/4 x 4) x .134749 = .233392, and Student's quantile of 3 is 3.182446:
    -.193450 and 1.292061. Plainly, the bounds would be -.05 and 1.05."""
    order = {0.2: [3, 4, 1, 2, 5], 0.8: [2, 1, 4, 3, 5]}  # 1 - 16/20 and 1 - 4/20.
    lengths = np.arange(10, 60, 10)
    prompts = [prompt(order[rank], lengths, [1, 0, 1, 0, 1]) for rank in (0.2, 0.2, 0.8, 0.8)]
    found = mechanism(prompts).rank_length
    assert found.value == pytest.approx(0.5)
    assert (found.low, found.high) == pytest.approx(
        (np.tanh(-0.193450), np.tanh(1.292061)), abs=1e-5
    )
    two = mechanism(prompts[1:3]).rank_length
    assert -1 <= two.low < two.high <= 1
    rewards = mechanism([prompt([1, 2], [10, 20], [1, 0]), prompt([1, 2], [10, 11], [0, 1])])
    assert -1 <= rewards.length_reward.low < rewards.length_reward.high <= 1


def test_wrong_over_right_by_hand():
    """Weights n_wrong n_right / n: 3/4 of (4 over 2), 1 of (6 over 1); the third has one kind."""
    prompts = [
        prompt([4, 2, 2, 2], [8, 4, 4, 4], [0, 1, 1, 1]),
        prompt([6, 6, 1, 1], [10, 10, 10, 10], [0, 0, 1, 1]),
        prompt([9, 9, 9, 9], [1, 2, 3, 4], [1, 1, 1, 1]),
    ]
    found = mechanism(prompts)
    assert found.norm_ratio.value == pytest.approx((0.75 * 4 + 6) / (0.75 * 2 + 1))
    assert found.length_ratio.value == pytest.approx((0.75 * 8 + 10) / (0.75 * 4 + 10))
    assert found.num_mixed == 2
    assert found.accuracy == pytest.approx(9 / 12)


def test_baselines_by_hand():
    """r (0, 1), w (3, 1), l (1, 3): mean 1/2, by length 3/4, best 1/4."""
    found = mechanism([prompt([3, 1], [1, 3], [0, 1])] * 2)
    assert found.baselines == pytest.approx(
        {"mean": 0.5, "length": 0.75, "logit": 0.25, "best": 0.25}
    )


def test_what_does_not_vary_is_not_told():
    found = mechanism([prompt([1, 2, 3], [5, 5, 5], [1, 1, 1])] * 3)
    assert found.exponent is None
    assert found.exponent_given_correct is None
    assert found.norm_ratio is None
    assert found.rank_length is None
    assert found.length_reward is None
    assert found.spread.value == 0
    # Five times log 7 has a mean that is not log 7, and no slope on what is left.
    assert mechanism([prompt([1, 2, 3, 4, 5], [7] * 5, [1, 1, 1, 0, 0])] * 3).exponent is None


def test_responses_without_a_token_do_not_count():
    whole = mechanism([prompt([4, 2, 2], [8, 4, 4], [0, 1, 1])] * 2)
    empty = mechanism([prompt([4, 2, 2, 7], [8, 4, 4, 0], [0, 1, 1, 0])] * 2)
    assert empty.norm_ratio == whole.norm_ratio
    pool = make_pool(
        LabData(settings={}, prompts=[prompt([4, 7], [8, 0], [0, 1])] * 2), "token-sum"
    )
    assert points_of(pool, 0) == [(8, 4.0, False)] * 2


# --- sentences ----------------------------------------------------------------------------------


def interval(value: float, half: float = 0.02) -> Interval:
    return Interval(value, value - half, value + half, 0.001)


def result(name: str, noise: float | None, word: str, half: float = 0.02, **changes) -> Result:
    fields = {
        "name": name,
        "is_practical": name not in ("oracle", "exact"),
        "is_unbiased": False,
        "noise": None if noise is None else interval(noise, half),
        "p_holm": 0.001,
        "word": word,
        "signal": 1.0,
        "cosine": 1.0,
        "variance": 1.0,
        "bias": 0.0,
    }
    return Result(**(fields | changes))


def size_of(*results: Result, share: float = 0.5) -> SizeResult:
    return SizeResult(
        size=8,
        results=[result("rloo", 1.0, "reference", 0.0), *results],
        left_out={},
        share=interval(share),
        has_signal=True,
        signal=1.0,
        signal_error=0.1,
    )


LONGER_WRONG = Mechanism(
    exponent=interval(1.0),
    exponent_given_correct=interval(1.0),
    norm_ratio=interval(2.0),
    length_ratio=interval(1.8),
    rank_length=interval(0.8),
    rank_logit=interval(0.9),
    length_reward=interval(-0.4),
    spread=interval(0.4),
    baselines={"mean": 0.5, "length": 0.4, "logit": 0.35, "best": 0.3},
    accuracy=0.5,
    num_mixed=60,
    truncated=0.0,
)
SHORTER_WRONG = replace(
    LONGER_WRONG,
    length_ratio=interval(0.7),
    norm_ratio=interval(3.7),
    baselines={"mean": 0.26, "length": 0.31, "logit": 0.2, "best": 0.11},
)


@pytest.mark.parametrize(
    ("opo", "why", "told"),
    [
        (result("opo", 0.88, "materially lower"), LONGER_WRONG, "longer responses have larger"),
        (result("opo", 0.88, "lower"), replace(LONGER_WRONG, exponent=None), "at 0.40, nearer to"),
        (result("opo", 0.88, "lower"), SHORTER_WRONG, "none of the numbers"),
        (result("opo", 1.2, "higher"), SHORTER_WRONG, "because short answers are wrong"),
        (
            result("opo", 1.2, "higher"),
            replace(SHORTER_WRONG, norm_ratio=None, exponent=interval(0.1)),
            "does not grow with length as the weights do (exponent 0.10",
        ),
        (
            result("opo", 1.2, "higher"),
            replace(SHORTER_WRONG, norm_ratio=None),
            "at 0.31, further from the best",
        ),
        (result("opo", 1.2, "higher"), LONGER_WRONG, "noisier than a plain one"),
        (
            result("opo", 0.99, "not resolved", 0.05),
            replace(LONGER_WRONG, spread=interval(0.13)),
            "lengths hardly vary within a prompt (by 13% of their mean)",
        ),
        (
            result("opo", 0.99, "not resolved", 0.05),
            replace(LONGER_WRONG, length_ratio=interval(1.01, 0.1)),
            "lengths say little about correctness",
        ),
        (
            result("opo", 0.99, "not resolved", 0.05),
            replace(LONGER_WRONG, length_ratio=interval(1.4, 0.9)),  # It may say much.
            "its baseline lies at 0.40",
        ),
        (
            result("opo", 0.99, "not resolved", 0.05),
            replace(LONGER_WRONG, num_mixed=0),
            "no prompt has both",
        ),
        (result("opo", 0.99, "not resolved", 0.05), LONGER_WRONG, "more prompts would tell"),
        (result("opo", 0.9, "not resolved", 0.05), LONGER_WRONG, "not sure among so many"),
        (result("opo", 1.0, "same", 0.005), replace(LONGER_WRONG, spread=None), "no two prompts"),
        (result("opo", None, "unknown"), LONGER_WRONG, "cannot be told"),
    ],
)
def test_the_reason_is_that_of_the_numbers(opo: Result, why: Mechanism, told: str):
    assert told in about_length(size_of(opo), why, "token-sum")


def test_a_gain_of_the_own_part_is_not_put_down_to_the_weights():
    size = size_of(result("opo", 0.9, "lower"), result("opo-loo", 1.03, "not resolved"))
    text = about_length(size, LONGER_WRONG, "token-sum")
    assert "its weights are not shown to be the reason" in text


def test_no_sentence_contradicts_the_table():
    same = about_length(size_of(result("opo", 1.0, "same", 0.005)), LONGER_WRONG, "token-sum")
    assert "makes no difference" in same
    assert "more prompts" not in same
    # A signal is there, so that its lack is no reason.
    unknown = about_length(size_of(result("opo", None, "unknown")), LONGER_WRONG, "token-sum")
    assert "signal is not surely above 0" not in unknown
    # The oracle's own interval reaches 1: nothing is known to be taken off, nor that nothing is.
    wide = size_of(result("oracle", 0.99, "not resolved", 0.2), result("opo", 0.8, "lower"))
    assert about_share(wide).endswith("is not resolved.")
    # Others than constants may matter where no constant does.
    small = size_of(result("oracle", 0.99, "not resolved", 0.01), result("opo", 0.8, "lower"))
    assert "no constant can matter here" in about_share(small)
    assert "Less noise is no promise" in about_choice(small)
    # What is unbiased points nowhere else, however its estimated cosine comes out.
    noisy = result("opo-loo", 0.8, "lower", is_unbiased=True, cosine=0.9)
    assert "elsewhere" not in about_choice(size_of(noisy))
    # Where groups have rows that do not count, the mean is not rloo times one factor.
    uneven = size_of(result("mean", 1.01, "not resolved"))
    assert "the mean" not in about_choice(uneven)
    assert "or with the mean" in about_choice(size_of(result("mean", 1.0, "same", 0.0)))


def test_no_sentence_on_what_was_not_tried():
    assert about_length(size_of(), LONGER_WRONG, "token-sum") == ""


def test_what_can_matter_is_the_share_times_the_best_gain():
    size = size_of(result("oracle", 0.8, "lower"), share=0.5)
    found = reach(size)
    assert found.value == pytest.approx(0.1)
    assert (found.low, found.high) == pytest.approx((0.48 * 0.18, 0.52 * 0.22))
    assert "take off 10% [9%, 11%] of the whole" in about_share(size)
    little = size_of(result("oracle", 0.9, "lower"), share=0.1)
    assert "take off 1.4% at most: no constant can matter here" in about_share(little)
    odd = replace(little, share=Interval(0.2, -0.1, 1.3))
    assert "touches 20% [0%, 100%]" in about_share(odd)
    assert reach(size_of()) is None
    assert about_share(size_of()).endswith("prompts differ.")


def test_the_choice_is_the_least_noisy_that_training_can_have():
    best, other = result("logit-proxy", 0.8, "lower"), result("opo", 0.9, "lower")
    text = about_choice(size_of(result("exact", 0.5, "lower"), best, other))
    assert "logit-proxy is the least noisy (0.80" in text
    assert "a group of 8 does what 10.0 would" in text
    assert "stay with it" in about_choice(size_of(result("opo", 0.9, "not resolved")))
    assert "no advice" in about_choice(size_of(result("opo", None, "unknown")))
    bare = about_choice(size_of(result("none", 0.5, "materially lower")))
    assert "use 'none' (no baseline) is the least noisy (0.50" in bare
    turned = result("grpo", 0.8, "lower", cosine=0.9)
    assert "points elsewhere (cosine 0.90)" in about_choice(size_of(turned))
    small = size_of(best, result("oracle", 0.9, "lower"), share=0.05)
    assert "too little to choose by" in about_choice(small)
