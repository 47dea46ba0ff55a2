"""The lab against exact sums over all sequences of a policy: what it estimates is what it says."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from opo_cli.lab.analysis import analyse
from opo_cli.lab.arms import ARMS, REFERENCE, chosen
from opo_cli.lab.intervals import LOG, jackknife
from opo_cli.lab.moments import moments_of
from opo_cli.lab.pool import Groups, draw, make_pool
from opo_cli.lab.store import LabData
from opo_cli.lab.trained import _probe, kind_of
from opo_cli.rl.advantages import ADVANTAGES, Signals
from tests.lab.toy import Toy, exact_of, lab_of, make_toy, prompt_of

SIZE = 3
GROUP_LEVEL = [name for name in ADVANTAGES if name in ARMS and not kind_of(name).needs_step]
STEP_LEVEL = [name for name in ADVANTAGES if name in ARMS and kind_of(name).needs_step]


def signals_of(toys: list[Toy], groups: np.ndarray) -> Signals:
    """Of (c, G) sequences, group c answered by the policy toys[c % len(toys)]; full tokens."""
    owners = [toys[i % len(toys)] for i in range(len(groups))]
    rows = [(toy, i) for toy, group in zip(owners, groups, strict=True) for i in group]
    lengths = torch.tensor([int(toy.lengths[i]) for toy, i in rows])
    width = int(max(toy.lengths.max() for toy in toys))
    norms = torch.zeros(len(rows), width, dtype=torch.float64)
    for row, (toy, i) in enumerate(rows):
        norms[row, : len(toy.logits[i])] = torch.tensor(toy.logits[i])
    mask = torch.arange(width) < lengths[:, None]
    rewards = torch.tensor([float(toy.rewards[i]) for toy, i in rows]).double()
    last = torch.arange(width) == lengths[:, None] - 1
    return Signals(
        rewards=rewards,
        lengths=lengths.double(),
        groups=torch.arange(len(groups)).repeat_interleave(groups.shape[1]),
        mask=mask,
        token_rewards=rewards[:, None] * last,
        logit_norms=norms,
        greedy_rewards=torch.tensor(
            [float(t.rewards[t.chances.argmax()]) for t, _ in rows]
        ).double(),
        is_constant=bool((rewards == rewards[0]).all()),
    )


def trained(name: str, toy: Toy, groups: np.ndarray) -> np.ndarray:
    """(c, G, T) advantages of groups, as training computes them."""
    signals = signals_of([toy], groups)
    return ADVANTAGES[name].estimate(signals).numpy().reshape(*groups.shape, -1)


def weighted(toy: Toy, groups: np.ndarray, weights: np.ndarray, *, leave_one_out: bool):
    """(c, G) the weighted baseline, written a second time; (n,) weights of sequences."""
    r, w = toy.rewards[groups], weights[groups]
    total, sums = w.sum(1, keepdims=True), (w * r).sum(1, keepdims=True)
    if leave_one_out:
        total, sums = total - w, sums - w * r
    return np.where((r == r[:, :1]).all(1, keepdims=True), 0.0, r - sums / total)


def constant(toy: Toy, baseline: float):
    return lambda groups: toy.rewards[groups] - baseline


def slope_of(toy: Toy) -> float:
    """Of log ||g||^2 on log l over the policy's responses, as an endless pool would give."""
    x, y = np.log(toy.lengths), np.log((toy.scores**2).sum(1))
    x, y = x - toy.chances @ x, y - toy.chances @ y
    return (toy.chances * x) @ y / ((toy.chances * x) @ x)


def exact_arm(name: str, toy: Toy, size: int):
    """The exact moments of an arm in a lab of endless prompts like this one, each with endless
    responses: there a step's mean is an expectation, and what is fitted is known."""
    w, chances, r = (toy.scores**2).sum(1), toy.chances, toy.rewards
    logit = np.array([each.sum() for each in toy.logits])
    mean_length = (chances * toy.lengths * r).sum() / (chances * toy.lengths).sum()
    told = {
        "opo-batch": constant(toy, mean_length),
        "reinforce++": constant(toy, mean_length),
        "oracle-mean": constant(toy, chances @ r),
        "shrinkage": lambda g: _half_shrunk(toy, g),
        "oracle": constant(toy, (chances * w * r).sum() / (chances * w).sum()),
        "logit-proxy-loo": lambda g: weighted(toy, g, logit, leave_one_out=True),
        "exact": lambda g: weighted(toy, g, w, leave_one_out=False),
        "exact-loo": lambda g: weighted(toy, g, w, leave_one_out=True),
        "gpg": lambda g: weighted(toy, g, np.ones(len(r)), leave_one_out=False),
        "reinforce++-baseline": lambda g: _shifted(toy, g, size),
        **{
            f"length-power-{c or 'fit'}{'-loo' if alone else ''}": _powered(toy, c, alone)
            for c in (0.5, 1.6, None)
            for alone in (False, True)
        },
    }
    return exact_of(toy, size, told.get(name) or (lambda g: trained(name, toy, g)))


def _powered(toy: Toy, exponent: float | None, leave_one_out: bool):
    weights = toy.lengths ** float(slope_of(toy) if exponent is None else exponent)
    return lambda groups: weighted(toy, groups, weights, leave_one_out=leave_one_out)


def _half_shrunk(toy: Toy, groups: np.ndarray) -> np.ndarray:
    """lambda = v / (v + s) is 1/2 where prompts are alike: s, the spread of means, is noise."""
    r = toy.rewards[groups]
    others = (r.sum(1, keepdims=True) - r) / (groups.shape[1] - 1)
    return r - (others + toy.chances @ toy.rewards) / 2


def _shifted(toy: Toy, groups: np.ndarray, size: int) -> np.ndarray:
    """r - mean(r), less its mean over the tokens of an endless step."""
    every = np.array(list(product(range(len(toy.chances)), repeat=size)))
    chances = toy.chances[every].prod(1)
    centred = weighted(toy, every, np.ones(len(toy.rewards)), leave_one_out=False)
    lengths = toy.lengths[every]
    shift = (chances @ (centred * lengths).sum(1)) / (chances @ lengths.sum(1))
    return weighted(toy, groups, np.ones(len(toy.rewards)), leave_one_out=False) - shift


def test_the_toy_is_a_policy():
    toy = make_toy(0)
    assert len(toy.chances) == 15
    assert toy.chances.sum() == pytest.approx(1)
    assert toy.chances @ toy.scores == pytest.approx(0, abs=1e-12)
    assert [each.sum() for each in toy.logits] == pytest.approx((toy.scores**2).sum(1))


@pytest.mark.parametrize(
    "name", [*GROUP_LEVEL, "logit-proxy-loo", "length-power-1.6-loo", "exact", "exact-loo"]
)
def test_moments_are_unbiased_whatever_the_pool(name: str):
    """The mean over all 7^4 pools of four responses is the exact value, to rounding: nothing is
    lost by drawing disjoint groups of one pool, nor by draws that share it."""
    toy, size = make_toy(3, longest=2), 2
    pools = list(product(range(len(toy.chances)), repeat=4))
    chances = toy.chances[np.array(pools)].prod(1)
    pool = make_pool(LabData(settings={}, prompts=[prompt_of(toy, p) for p in pools]), "token-sum")
    arms, left_out = chosen([name], pool, size)
    assert not left_out
    order = np.array([[0, 1, 2, 3], [1, 3, 0, 2]])[:, None].repeat(len(pools), axis=1)
    rest = [np.zeros((2, 0), int)] * len(pools)
    halves = Groups(rows=order[..., :2], rest=rest), Groups(rows=order[..., 2:], rest=rest)
    found = moments_of(pool, arms, halves)[name]
    exact = exact_arm(name, toy, size)
    assert chances @ found.second == pytest.approx(exact.second, rel=1e-9)
    assert chances @ found.square == pytest.approx(exact.square, rel=1e-9, abs=1e-12)
    assert chances @ found.signal == pytest.approx(exact.signal, rel=1e-9, abs=1e-12)


@pytest.fixture(scope="module")
def sampled():
    """160 prompts of one policy, 16 responses each."""
    toy = make_toy(1)
    return toy, make_pool(lab_of([toy] * 160, 16, seed=5), "token-sum")


@pytest.fixture(scope="module")
def found(sampled):
    arms, left_out = chosen(None, sampled[1], SIZE)
    assert not left_out
    return moments_of(sampled[1], arms, draw(sampled[1], SIZE, seed=0, num_draws=60))


SCALED = ("reinforce++", "reinforce++-baseline", "gpg")
"""Their scale is the step's; the exact values above leave it out."""


@pytest.mark.parametrize("name", list(ARMS))
def test_every_arm_is_within_its_interval_of_the_exact_value(name: str, sampled, found):
    """V, signal and R, by intervals widened to four standard errors, as so many arms are tried."""
    exact, base = exact_arm(name, sampled[0], SIZE), exact_arm(REFERENCE, sampled[0], SIZE)
    own, other = found[name], found[REFERENCE]
    if name not in SCALED:
        assert_near(own.variance, exact.variance)
        assert_near(own.signal, exact.signal)
        assert_near(own.square, exact.square)
    sums = np.stack([own.variance, other.variance, other.square, own.signal], axis=1)
    noise = jackknife(
        sums, lambda s: s[..., 0] / s[..., 1] * (s[..., 2] / s[..., 3]) ** 2, scale=LOG
    )
    ratio = exact.variance / base.variance * (base.square / exact.signal) ** 2
    assert abs(np.log(ratio / noise.value)) < 2 * np.log(noise.high / noise.low) / 2 + 0.01


def assert_near(values: np.ndarray, exact: float) -> None:
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean() - exact) < 4 * error + 0.01 * abs(exact)


@pytest.mark.parametrize("name", STEP_LEVEL)
def test_estimators_that_see_the_whole_step(name: str):
    """Two prompts are a step: all 7^4 steps of two groups of two, against labs of two prompts."""
    toys, size = [make_toy(3, longest=2), make_toy(4, longest=2)], 2
    steps = np.array(list(product(range(7), repeat=4))).reshape(-1, 2, 2)
    chances = toys[0].chances[steps[:, 0]].prod(1) * toys[1].chances[steps[:, 1]].prod(1)
    estimate = ADVANTAGES[name].estimate
    advantages = [estimate(signals_of(toys, s))[:, 0].view(2, 2).numpy() for s in steps]
    gradients = np.einsum("sg,sgd->sd", np.array(advantages)[:, 0], toys[0].scores[steps[:, 0]]) / 2
    exact = chances @ (gradients**2).sum(1), (chances @ gradients) @ (chances @ gradients)
    values = []
    for seed in range(40):
        pool = make_pool(lab_of(toys, 16, seed), "token-sum")
        arms, _ = chosen([name], pool, size)
        moments = moments_of(pool, arms, draw(pool, size, seed=seed, num_draws=12))[name]
        values.append((moments.second[0], moments.square[0]))
    for each, true in zip(np.array(values).T, exact, strict=True):
        assert abs(each.mean() - true) < 4 * each.std(ddof=1) / np.sqrt(len(each))


def test_mean_lengths_give_the_same_noise_under_either_reduction():
    """Where all responses are as long, seq-mean is token-sum over a constant."""
    toy = make_toy(1)
    same = [i for i, length in enumerate(toy.lengths) if length == 3]
    rng = np.random.default_rng(0)
    prompts = [prompt_of(toy, rng.choice(same, 8)) for _ in range(12)]
    lab = LabData(settings={}, prompts=prompts)
    both = [
        analyse(lab, group_sizes=[3], estimators=["opo", "mean"], reduction=each, resamples=50)
        for each in ("token-sum", "seq-mean")
    ]
    sums, means = (each.sizes[0].of("opo") for each in both)
    assert means.variance == pytest.approx(sums.variance / 9)
    assert means.noise.value == pytest.approx(1)  # Of equal lengths opo is the mean.


def test_kinds_are_found_by_trying():
    assert {n for n in ADVANTAGES if n in ARMS and kind_of(n).is_token_level} == {
        "otb",
        "otb-token",
    }
    assert set(STEP_LEVEL) == {
        *("opo-batch", "gpg", "shrinkage", "reinforce++", "reinforce++-baseline")
    }
    assert not kind_of("opo").needs_tokens
    assert kind_of("reinforce++").needs_tokens
    assert _probe((1, 2), 1).logit_norms.shape == (2, 1)
