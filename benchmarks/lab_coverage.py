"""How often the lab's 95 % intervals of a noise ratio hold the truth: ours beside the bootstrap's.
`lower` and `higher`: how often ours lies wholly below, and above it, 2.5 % each if it is right.

    python benchmarks/lab_coverage.py [--repeats 1000] [--population 2000]

A population of prompts is simulated and measured as the lab does (32 responses each, groups of 8);
labs are prompts drawn from it with replacement, so that the truth is the population's own ratio.
The settings differ in difficulty p, in how much longer wrong responses are (kappa_l, lognormal over
prompts) and in the exponent c of ||g||^2 on length.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.special import ndtr, ndtri

from opo_cli.lab.arms import REFERENCE, chosen
from opo_cli.lab.intervals import LOG, Interval, bootstrap_weights, jackknife
from opo_cli.lab.moments import moments_of
from opo_cli.lab.pool import draw, make_pool
from opo_cli.lab.store import LabData, PromptData
from opo_cli.lab.verdict import ratio_sums, relative_noise
from opo_cli.report.estimate import LEVEL

SETTINGS: dict[str, dict] = {
    "p even, c 1": {"beta": (1, 1), "longer": 1.6, "exponent": 1.0},
    "p even, c 1.6": {"beta": (1, 1), "longer": 1.6, "exponent": 1.6},
    "p even, c 0": {"beta": (1, 1), "longer": 1.6, "exponent": 0.0},
    "p at ends, c 1": {"beta": (0.5, 0.5), "longer": 1.6, "exponent": 1.0},
    "p low, c 1.6": {"beta": (1, 4), "longer": 1.6, "exponent": 1.6},
    "short is wrong": {"beta": (2, 2), "longer": 0.7, "exponent": 1.0},
}
ARMS = ("none", "opo", "opo-loo", "grpo", "length-power-1.6", "exact-loo", "oracle", "remax")
SIZE, NUM_RESPONSES, DIMENSIONS = 8, 32, 24


def prompt(rng: np.random.Generator, name: str, beta, longer: float, exponent: float) -> PromptData:
    """Gradients of random directions with a common part that goes with the reward, which is the
    signal; lengths are lognormal (.4)."""
    p, factor = rng.beta(*beta), np.exp(rng.normal(np.log(longer), 0.35))
    rewards = rng.binomial(1, p, NUM_RESPONSES).astype(float)
    lengths = np.exp(0.4 * rng.normal(size=NUM_RESPONSES) + 3) * np.where(rewards == 1, 1, factor)
    lengths = np.maximum(lengths.round(), 1).astype(int)
    norms = (lengths / 20) ** exponent * np.exp(0.3 * rng.normal(size=NUM_RESPONSES))
    own, common = rng.normal(size=(NUM_RESPONSES, DIMENSIONS)), rng.normal(size=DIMENSIONS)
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    common /= np.linalg.norm(common)
    scores = own * np.sqrt(norms)[:, None] + np.where(rewards == 1, 1 - p, -p)[:, None] * common
    return PromptData(
        problem_id=name,
        gram=scores @ scores.T,
        rewards=rewards,
        lengths=lengths,
        correct=rewards > 0,
        truncated=np.zeros(NUM_RESPONSES, bool),
        logit_norms=norms,
        greedy_reward=float(p > 0.5),
        sketch=scores.astype(np.float32),
    )


def population(setting: dict, count: int) -> dict[str, tuple[np.ndarray, bool]]:
    """Arm -> ((count, 4) each prompt's sums, whether its signal is known to be the reference's)."""
    rng = np.random.default_rng(0)
    data = LabData(settings={}, prompts=[prompt(rng, str(i), **setting) for i in range(count)])
    pool = make_pool(data, "token-sum")
    arms, _ = chosen(ARMS, pool, SIZE)
    moments = moments_of(pool, arms, draw(pool, SIZE, seed=0))
    base = moments.pop(REFERENCE)
    return {
        name: (ratio_sums(each, base, is_unbiased=arms[name].is_unbiased), arms[name].is_unbiased)
        for name, each in moments.items()
    }


def bootstraps(sums: np.ndarray, statistic, seed: int) -> list[tuple[float, float]]:
    """Bounds of the percentile and of the BCa interval."""
    with np.errstate(all="ignore"):
        value = statistic(sums.sum(0)[None])[0]
        found = np.nan_to_num(
            statistic(bootstrap_weights(len(sums), 2000, seed) @ sums), nan=np.inf
        )
        left = statistic(sums.sum(0) - sums)
    ends = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    lean = np.nan_to_num(left.mean() - left)
    speed = (lean**3).sum() / (6 * (lean @ lean) ** 1.5 + 1e-300)
    shift = ndtri(np.clip((found < value).mean(), 0.001, 0.999)) + ndtri(ends)
    shift0 = shift - ndtri(ends)
    levels = ndtr(shift0 + shift / (1 - speed * shift))
    return [tuple(np.quantile(found, each, method="lower")) for each in (ends, levels)]


def bounds(found: Interval | None) -> tuple[float, float]:
    return (np.nan, np.nan) if found is None else (found.low, found.high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--population", type=int, default=2000)
    options = parser.parse_args()
    heads = f"{'R':>7}{'ours':>7}{'perc.':>7}{'BCa':>7}{'lower':>7}{'higher':>7}{'±ours':>7}"
    print(f"{'setting':16}{'arm':18}{'prompts':>8}{heads}")
    every = {16: [], 64: [], 256: []}
    for title, setting in SETTINGS.items():
        for name, (sums, is_unbiased) in population(setting, options.population).items():
            statistic = relative_noise(is_unbiased=is_unbiased)
            truth = statistic(sums.sum(0)[None])[0]
            for count in every:
                rng, held, widths = np.random.default_rng(1), np.zeros(5), []
                for repeat in range(options.repeats):
                    lab = sums[rng.integers(0, len(sums), count)]
                    ours = bounds(jackknife(lab, statistic, scale=LOG))
                    ends = [ours, *bootstraps(lab, statistic, repeat)]
                    held += [
                        *(low <= truth <= high for low, high in ends),
                        ours[1] < truth,
                        ours[0] > truth,
                    ]
                    widths.append((ours[1] - ours[0]) / 2)
                held /= options.repeats
                every[count].append(held)
                shares = "".join(f"{share:7.3f}" for share in held)
                width = np.nanmedian(widths)
                print(f"{title:16}{name:18}{count:8}{truth:7.3f}{shares}{width:7.3f}", flush=True)
    for count, found in every.items():
        print(f"{count} prompts: {told(np.array(found))}")


def told(found: np.ndarray) -> str:
    """Of (cases, 5)."""
    parts = [
        f"{name} {each.mean():.3f} ({each.min():.3f} to {each.max():.3f}), "
        f"{((each >= 0.93) & (each <= 0.97)).sum()} of {len(each)} within .93 to .97"
        for name, each in zip(("ours", "percentile", "BCa"), found.T, strict=False)
    ]
    lower, higher = found[:, 3:].max(0)
    return "; ".join([*parts, f"ours falsely lower at most {lower:.3f}, higher {higher:.3f}"])


if __name__ == "__main__":
    main()
