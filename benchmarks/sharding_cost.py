"""What FSDP2 costs where there is nothing to share: scoring and update of a step with all weights
in the shard of a single rank, against whole ones. Prints seconds and ratios.

    torchrun --standalone --nproc-per-node 1 benchmarks/sharding_cost.py \\
        [--preset qwen-math-smoke] [--algorithm opo] [--set KEY=VALUE]... [--repeats 7]

Both learners take the same batch of random tokens in turns (the learning rate is 0), so that a
noisy machine meets both alike; medians count: CPU seconds on a CPU, seconds on a GPU, which has to
hold both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from dataclasses import replace

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from opo_cli.config import Config
from opo_cli.model.parallel import joined
from opo_cli.model.policy import choose_device, load_policy
from opo_cli.model.precision import Precision
from opo_cli.model.sharding import load_to_shard
from opo_cli.presets import resolve
from opo_cli.ranks import run_to_end
from opo_cli.train.batch import Batch, collate
from opo_cli.train.learner import Learner, make_reference, new_learner
from opo_cli.train.measure import Meter
from opo_cli.train.step import score_batch, with_advantages
from opo_cli.train.update import update
from opo_cli.train.warmstart import prepare
from opo_cli.types import Grade, GradedGroup, Group, Problem, Prompt, Rollout

PROMPT_TOKENS = 64
PHASES = ("score", "update", "both")


def random_batch(config: Config, vocabulary: int, device: torch.device) -> Batch:
    """Responses of every length up to the limit, every other one right."""
    rng = np.random.default_rng(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(rng.integers(0, vocabulary, count).tolist())

    def rollout() -> Rollout:
        ids = tokens(int(rng.integers(1, config.rollout.max_new_tokens + 1)))
        zeros = (0.0,) * len(ids)
        return Rollout(token_ids=ids, sampler_logprobs=zeros, text="", finish_reason="stop")

    def grade(is_right: bool) -> Grade:
        reason = "correct" if is_right else "wrong"
        return Grade(reward=float(is_right), correct=is_right, extracted=None, reason=reason)

    problem = Problem(id="random", question="", answer="", benchmark="random")
    prompt = Prompt(problem=problem, text="", token_ids=())
    size = config.rollout.group_size
    graded = [
        GradedGroup(
            group=Group(
                prompt=replace(prompt, token_ids=tokens(PROMPT_TOKENS)),
                rollouts=tuple(rollout() for _ in range(size)),
                policy_version=0,
            ),
            grades=tuple(grade(i % 2 == 0) for i in range(size)),
        )
        for _ in range(config.rollout.prompts_per_step)
    ]
    return collate(graded, device)


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def step_seconds(batch: Batch, config: Config, learner: Learner, device) -> tuple[float, ...]:
    """In each of `PHASES`."""
    start = clock(device)
    scored = with_advantages(score_batch(batch, config, learner), config)
    middle = clock(device)
    update(scored, 0, config, learner, Meter())
    end = clock(device)
    return middle - start, end - middle, end - start


def still(learner: Learner) -> Learner:
    for optimizer in filter(None, (learner.optimizer, learner.critic_optimizer)):
        for group in optimizer.param_groups:
            group["lr"] = 0.0
    return learner


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", default="qwen-math-smoke")
    parser.add_argument("--algorithm", default="opo")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--repeats", type=int, default=7)
    asked = parser.parse_args()
    config = resolve(asked.preset, algorithm=asked.algorithm, overrides=asked.set)
    path, precision = prepare(config)[1], Precision.of(config.model)
    device, _ = choose_device(config.runtime.device)
    policy, _ = load_policy(path, device, precision)
    batch = random_batch(config, policy.config.vocab_size, device)
    learners = {"whole": still(new_learner(policy, make_reference(policy, config), config))}
    found: dict[str, list[tuple[float, ...]]] = {"whole": [], "in shards": []}
    with joined(device.type, config.runtime.timeout_seconds):
        policy, _ = load_to_shard(path, device, precision)
        learners["in shards"] = still(new_learner(policy, make_reference(policy, config), config))
        for repeat in range(asked.repeats + 1):
            for name, learner in learners.items():
                seconds = step_seconds(batch, config, learner, device)
                if repeat:  # The first one warms up.
                    found[name].append(seconds)
    medians = {
        n: [statistics.median(each) for each in zip(*s, strict=True)] for n, s in found.items()
    }
    unit = "s" if device.type == "cuda" else "CPU s"
    print(f"{int(batch.lengths.sum())} response tokens, {device}")
    for place, phase in enumerate(PHASES):
        whole, shards = (medians[name][place] for name in ("whole", "in shards"))
        if whole > 1e-3:
            print(
                f"{phase:<8}{whole:8.3f} {unit} whole{shards:9.3f} in shards{shards / whole:8.3f}x"
            )


if __name__ == "__main__":
    run_to_end(main)
