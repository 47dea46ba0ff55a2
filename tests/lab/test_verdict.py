"""Intervals, corrected verdicts, and how often they are right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import stdtrit

from opo_cli.lab.arms import ARMS, REFERENCE, chosen
from opo_cli.lab.intervals import LOG, Interval, bootstrap_weights, jackknife, percentiles, ratio
from opo_cli.lab.moments import Moments, cross_products, moments_of, share_of_noise
from opo_cli.lab.pool import draw, make_pool
from opo_cli.lab.verdict import judge, noise_of, ratio_sums, relative_noise
from tests.lab.toy import lab_of, make_toy


def moments(second, square, signal) -> Moments:
    return Moments(second=np.array(second), square=np.array(square), signal=np.array(signal))


def mean_of(values) -> Interval:
    sums = np.stack([values, np.ones(len(values))], axis=1)
    return jackknife(sums, lambda s: s[..., 0] / s[..., 1])


def test_a_mean_has_students_textbook_interval():
    """Deviations -2, -1, 1, 2: without skewness, and with no more kurtosis than normal ones."""
    found = mean_of([1.0, 2.0, 4.0, 5.0])
    half = stdtrit(3, 0.975) * np.sqrt(10 / 3 / 4)
    assert (found.low, found.value, found.high) == pytest.approx((3 - half, 3, 3 + half))


def test_heavy_tails_have_fewer_degrees():
    """Fisher's G2 of deviations -3, 3 and six times 0 is (7 / 30) (9 * 1 + 6) = 3.5."""
    found = mean_of([-3.0, 0, 0, 0, 0, 0, 0, 3])
    degrees = 2 / (3.5 / 8 + 2 / 7)
    assert found.half_width == pytest.approx(stdtrit(degrees, 0.975) * np.sqrt(18 / 7 / 8))


def test_a_long_tail_leans_the_interval():
    """G1 of deviations -2.5, -1.5, .5, 3.5 is 6 / 5.25^1.5 * sqrt(12) / 2 = .863914, so that Hall's
    cubic has a = G1 / (3 sqrt 4) = .143986; it holds the bounds against t of 3 degrees."""
    found = mean_of([1.0, 2.0, 4.0, 7.0])
    error, a = np.sqrt(7 / 4), 0.143986
    for bound, t in ((found.low, stdtrit(3, 0.975)), (found.high, -stdtrit(3, 0.975))):
        x = (3.5 - bound) / error
        assert x + a * x**2 + a**2 * x**3 / 3 + a / 2 == pytest.approx(t, rel=1e-4)
    assert found.high - 3.5 > 3.5 - found.low


@pytest.mark.parametrize("bound", ["low", "high"])
def test_a_bound_at_no_effect_has_a_p_of_five_in_a_hundred(bound: str):
    values = np.random.default_rng(0).lognormal(size=20)
    assert mean_of(values - getattr(mean_of(values), bound)).p == pytest.approx(0.05)


def test_a_ratio_is_symmetric_on_a_logarithmic_scale():
    sums = np.array([[1.0, 2.0], [3.0, 2.5], [2.0, 2.0], [1.5, 3.0]])
    there, back = ratio(sums), ratio(sums[:, ::-1])
    assert there.value == pytest.approx(1 / back.value)
    assert there.low == pytest.approx(1 / back.high)
    assert there.p == pytest.approx(back.p)


def test_what_has_no_ratio_has_no_interval():
    assert ratio(np.array([[1.0, 2.0]])) is None
    assert ratio(np.array([[-1.0, 2.0], [-2.0, 1.0]])) is None
    assert jackknife(np.zeros((3, 2)), lambda s: s[..., 0] / s[..., 1]) is None


def test_equal_signal_undoes_a_factor():
    """Twice the gradient is four times the variance, twice the signal, and no more noise."""
    base = moments([5.0, 7.0, 6.0], [1.0, 2.0, 1.5], [1.0, 2.0, 1.5])
    twice = moments([20.0, 28.0, 24.0], [4.0, 8.0, 6.0], [2.0, 4.0, 3.0])
    found = noise_of(twice, base, is_unbiased=False)
    assert (found.low, found.value, found.high) == pytest.approx((1, 1, 1))
    turned = moments([20.0, 28.0, 24.0], [4.0, 8.0, 6.0], [-2.0, -4.0, -3.0])
    assert noise_of(turned, base, is_unbiased=False) is None


def test_the_share_of_noise_by_hand():
    """V 2, E||g_x||^2 3, <g_x, g_y> 1 between prompts: f = 2 / (2 + 3 - 1)."""
    products = np.ones((4, 4)) - np.eye(4)
    found = share_of_noise(np.full(4, 2.0), np.full(4, 3.0), products, np.ones((1, 4)))
    assert found == pytest.approx([0.5])
    # A resample of one prompt alone has no pair of different prompts.
    alone = share_of_noise(np.full(4, 2.0), np.full(4, 3.0), products, np.array([[2.0, 2.0, 0, 0]]))
    assert alone == pytest.approx([0.5])


def test_cross_products_are_those_of_the_gradients():
    toys = [make_toy(seed) for seed in range(3)] * 60
    pool = make_pool(lab_of(toys, 16, seed=2), "token-sum")
    products = cross_products(pool)
    assert not np.diagonal(products).any()
    gradients = np.stack([toy.gradient for toy in toys])
    true = gradients @ gradients.T
    different = ~np.eye(len(toys), dtype=bool)
    found = products[different].mean()
    # Standard error over prompts: the sketch is exact here, so only sampling is left.
    error = (products * different).sum(1).std() / (len(toys) - 1) / np.sqrt(len(toys))
    assert abs(found - true[different].mean()) < 8 * error


def judged(toys, names=None, **changes):
    pool = make_pool(lab_of(toys, 16, seed=3), "token-sum")
    arms, left_out = chosen(names, pool, 3)
    found = moments_of(pool, arms, draw(pool, 3, seed=0, num_draws=40))
    options = {"left_out": left_out, "knows_unbiased": True, "resamples": 200, "seed": 0}
    return judge(3, arms, found, cross_products(pool), **(options | changes))


def test_words_follow_the_corrected_p_and_the_bounds():
    size = judged([make_toy(1)] * 150)
    assert size.results[0].name == REFERENCE
    assert size.of("mean").word == "same"
    assert size.of("nothing") is None
    words = {result.word for result in size.results}
    assert words >= {"reference", "same", "higher"}
    for result in size.results:
        noise = result.noise
        if result.word in ("lower", "materially lower"):
            assert result.p_holm < 0.05
            assert noise.high < 1
            assert result.word == "lower" or noise.high < 0.95
        elif result.word == "higher":
            assert result.p_holm < 0.05
            assert noise.low > 1
        elif result.word == "not resolved":
            assert result.p_holm >= 0.05
            assert result.text == f"not resolved ±{noise.half_width:.2f}"


def test_material_is_corrected_for_the_number_of_arms_too():
    """Arms whose own interval ends shortly below .95: one alone is material, twenty are not."""
    rng = np.random.default_rng(0)
    base = moments(np.full(40, 1.1), np.full(40, 0.1), np.full(40, 0.1))
    second = 0.1 + 0.92 * np.exp(0.136 * rng.permutation(np.linspace(-1, 1, 40)))
    arm = moments(second, np.full(40, 0.1), np.full(40, 0.1))
    assert 0.93 < noise_of(arm, base, is_unbiased=True).high < 0.95

    def words(count: int) -> set[str]:
        found = {REFERENCE: base, **{f"arm {i}": arm for i in range(count)}}
        arms = {name: replace(ARMS[REFERENCE]) for name in found}
        size = judge(
            8,
            arms,
            found,
            np.zeros((40, 40)),
            left_out={},
            knows_unbiased=True,
            resamples=20,
            seed=0,
        )
        return {result.word for result in size.results} - {"reference"}

    assert words(1) == {"materially lower"}
    assert words(20) == {"lower"}


def test_without_a_signal_only_unbiased_estimators_compare():
    toy = make_toy(1)
    blind = type(toy)(toy.chances, toy.lengths, toy.rewards, toy.tokens, toy.logits)
    rng = np.random.default_rng(0)
    lab = lab_of([blind] * 20, 16, seed=3)
    for prompt in lab.prompts:  # Rewards that know nothing of the response.
        prompt.rewards[:] = rng.integers(0, 2, len(prompt.rewards))
    pool = make_pool(lab, "token-sum")
    arms, left_out = chosen(["none", "opo", "opo-loo"], pool, 3)
    found = moments_of(pool, arms, draw(pool, 3, seed=0, num_draws=40))
    size = judge(
        3,
        arms,
        found,
        cross_products(pool),
        left_out=left_out,
        knows_unbiased=True,
        resamples=50,
        seed=0,
    )
    assert not size.has_signal
    assert size.of("opo").word == "unknown"
    assert size.of("opo").noise is None
    assert size.of("opo-loo").noise is not None
    # The reference is itself, though its signal may come out below 0 and nothing be known of bias.
    found[REFERENCE] = replace(found[REFERENCE], signal=-np.abs(found[REFERENCE].signal))
    blank = judge(
        3,
        arms,
        found,
        cross_products(pool),
        left_out=left_out,
        knows_unbiased=False,
        resamples=50,
        seed=0,
    )
    assert blank.of(REFERENCE).noise.value == 1
    assert blank.of("opo-loo").word == "unknown"


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Labs of 16 and 64 prompts drawn from 600 toy policies, whose own ratio is the truth; a
    smaller version of benchmarks/lab_coverage.py. Of 16 they are rather too wide than too narrow;
    the binomial standard error of .95 in 800 is .008."""
    toys = [make_toy(seed) for seed in range(600)]
    pool = make_pool(lab_of(toys, 16, seed=4), "token-sum")
    arms, _ = chosen(["none", "opo", "oracle-mean"], pool, 4)
    found = moments_of(pool, arms, draw(pool, 4, seed=0, num_draws=30))
    rng = np.random.default_rng(0)
    for name in ("none", "opo", "oracle-mean"):
        is_unbiased = arms[name].is_unbiased
        sums = ratio_sums(found[name], found[REFERENCE], is_unbiased=is_unbiased)
        statistic = relative_noise(is_unbiased=is_unbiased)
        truth = statistic(sums.sum(0))
        for count in (16, 64):
            labs = [sums[rng.integers(0, len(sums), count)] for _ in range(800)]
            intervals = [jackknife(lab, statistic, scale=LOG) for lab in labs]
            held = np.mean([i is not None and i.low <= truth <= i.high for i in intervals])
            assert 0.92 < held < 0.995, (name, count, held)


def test_bootstrap_weights_are_whole_samples_and_repeat():
    weights = bootstrap_weights(7, 50, 1)
    assert (weights.sum(1) == 7).all()
    assert (weights == bootstrap_weights(7, 50, 1)).all()
    bounds = percentiles(0.5, np.linspace(0, 1, 1001))
    assert (bounds.low, bounds.high) == pytest.approx((0.025, 0.975))
    assert Interval(1.0, 0.5, 1.5).half_width == 0.5
