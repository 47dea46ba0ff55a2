"""How often 95 % intervals hold the truth: ours beside a t-interval, on simulated problems.

    python benchmarks/interval_coverage.py [--repeats 4000]

Each repeat draws new problems from a population of chances and new samples of each; the truth is
the population's mean of pass@k.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from opo_cli.evaluate.estimators import interval, most_trials_of, standard_error
from opo_cli.report.estimate import pass_at_k, t_quantile

Draw = Callable[[np.random.Generator, int], np.ndarray]
POPULATIONS: dict[str, Draw] = {
    "beta(.5, .5)": lambda rng, n: rng.beta(0.5, 0.5, n),
    "beta(.3, 2)": lambda rng, n: rng.beta(0.3, 2, n),
    "beta(2, 2)": lambda rng, n: rng.beta(2, 2, n),
    "beta(5, .5)": lambda rng, n: rng.beta(5, 0.5, n),
    "all .3": lambda rng, n: np.full(n, 0.3),
    ".9 or 0, 1 in 10": lambda rng, n: (rng.random(n) < 0.1) * 0.9,
}
DESIGNS = (
    *((30, 16, 1), (30, 64, 1), (30, 16, 4), (30, 64, 16)),
    *((100, 8, 1), (100, 8, 4), (500, 4, 1), (500, 4, 4)),
)
"""(problems, samples, k)."""


def t_interval(values: np.ndarray) -> tuple[float, float]:
    mean, half = values.mean(), t_quantile(len(values) - 1) * standard_error(values)
    return mean - half, mean + half


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=4000)
    repeats = parser.parse_args().repeats
    print(f"{'population':18}{'problems':>9}{'samples':>9}{'k':>3}{'truth':>8}{'ours':>8}{'t':>8}")
    for name, draw in POPULATIONS.items():
        chances = draw(np.random.default_rng(1), 1_000_000)
        for problems, samples, k in DESIGNS:
            rng, truth = np.random.default_rng(0), (1 - (1 - chances) ** k).mean()
            held = np.zeros(2)
            for _ in range(repeats):
                correct = rng.binomial(samples, draw(rng, problems))
                values = pass_at_k([samples] * problems, correct, k)
                most = most_trials_of(problems * samples, k)
                bounds = (interval(values, most), t_interval(values))
                held += [low <= truth <= high for low, high in bounds]
            ours, student = held / repeats
            print(
                f"{name:18}{problems:9}{samples:9}{k:3}{truth:8.3f}{ours:8.3f}{student:8.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
