"""What the instruments cost, as a share of a step without them. Prints CPU seconds and ratios.

    python benchmarks/instrument_cost.py [--preset tiny] [--algorithm opo] [--repeats 15]

Steps with all instruments and steps without any alternate, on the same prompts and weights (the
learning rate is 0), so that a noisy machine meets both alike; medians count. What is not due in
every step is spread over the steps between. The bare step still has what costs nothing apart:
entropy, clip fractions, mismatch, gradient norm, groups.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from opo_cli.config import Config
from opo_cli.data.prompts import make_prompts, resolve_template
from opo_cli.data.sources import TrainingPrompts, load_problems
from opo_cli.grading.pool import Grader
from opo_cli.ledger import Ledger
from opo_cli.model.policy import load_policy
from opo_cli.presets import resolve
from opo_cli.rollout.engine import create_engine, engine_settings
from opo_cli.train.batch import ledger_columns
from opo_cli.train.learner import new_learner
from opo_cli.train.measure import Meter, measure_probe, sample_probe
from opo_cli.train.step import training_step
from opo_cli.train.warmstart import prepare


def medians(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """CPU seconds of each, run in turns after one warm-up."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            start = time.process_time()
            work()
            if repeat:
                found[name].append(time.process_time() - start)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def measured(config: Config, repeats: int) -> tuple[dict[str, float], Config]:
    """Seconds of a bare step, of one with all that is due in every step, and of the rest."""
    problems, path = prepare(config)
    policy, tokenizer = load_policy(path, torch.device("cpu"))
    template = resolve_template(config.data.template, tokenizer, is_embedded=not config.data.source)
    prompts = make_prompts(load_problems(problems), template, tokenizer)
    source = TrainingPrompts(prompts, config.seed)
    learner = new_learner(policy, copy.deepcopy(policy).requires_grad_(False), config)
    for group in learner.optimizer.param_groups:
        group["lr"] = 0.0
    engine = create_engine("transformers", policy, tokenizer, engine_settings(config))
    off = {"every": 0, "probe_every": 0}
    no_probe = config.measure.model_copy(update={"probe_every": 0})
    bare = config.model_copy(update={"measure": config.measure.model_copy(update=off)})
    full = config.model_copy(update={"measure": no_probe})
    with Grader(config.grading) as grader, tempfile.TemporaryDirectory() as folder:
        result = training_step(0, source, full, learner, engine, grader)
        ledger = Ledger(Path(folder))

        def probe() -> None:
            sequences = sample_probe(source, 0, config, engine, policy.device)
            budget = config.train.microbatch_tokens
            measure_probe(sequences, policy, learner.reference, budget, Meter())

        def write() -> None:
            columns = ledger_columns(1, result.batch, result.graded, lambda token: str(token))
            ledger.write(1, columns, 2**30)

        works = {
            "bare step": lambda: training_step(0, source, bare, learner, engine, grader),
            "measured step": lambda: training_step(0, source, full, learner, engine, grader),
            "probe": probe,
            "ledger": write,
        }
        return medians(works, repeats), config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--algorithm", default="opo")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seconds, config = measured(
        resolve(arguments.preset, algorithm=arguments.algorithm), arguments.repeats
    )
    bare, settings = seconds["bare step"], config.measure
    costs = {
        f"KL, shift, noise, diversity, every {settings.every}": (
            (seconds["measured step"] - bare) / (settings.every or float("inf"))
        ),
        f"probe, every {settings.probe_every}": (
            seconds["probe"] / (settings.probe_every or float("inf"))
        ),
        f"ledger, every {config.ledger.every}": (
            seconds["ledger"] / (config.ledger.every or float("inf"))
        ),
    }
    print(f"preset {config.preset}, {config.algorithm.name}, {config.num_rows} responses a step")
    print(f"{'bare step':<40}{bare:>8.3f} CPU s")
    for name, cost in costs.items():
        print(f"{name:<40}{cost:>8.3f} CPU s{cost / bare:>8.1%}")
    total = sum(costs.values())
    print(f"{'all instruments':<40}{total:>8.3f} CPU s{total / bare:>8.1%}")


if __name__ == "__main__":
    main()
