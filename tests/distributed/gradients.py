"""Started by torchrun: the gradient of an optimizer step over ranks, against that of one process.

    ... -m tests.distributed.gradients BASE ALGORITHM FILE

Writes FILE: by how the groups are dealt, the largest difference of any gradient, and the number of
microbatches of each rank.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from opo_cli.config import Config
from opo_cli.data.prompts import make_prompts, resolve_template
from opo_cli.data.tiny import CHAINS
from opo_cli.model.parallel import gathered, joined, whole
from opo_cli.model.policy import load_policy
from opo_cli.model.sharding import load_to_shard
from opo_cli.presets import resolve
from opo_cli.ranks import is_main, rank, run_to_end
from opo_cli.rollout.engine import EngineSettings, create_engine
from opo_cli.train.batch import Batch, collate
from opo_cli.train.learner import Learner, make_reference, new_learner
from opo_cli.train.measure import Meter
from opo_cli.train.rollouts import sampling_of
from opo_cli.train.step import score_batch, with_advantages
from opo_cli.train.update import add_gradients, step_counts
from opo_cli.types import Grade, GradedGroup

CPU = torch.device("cpu")
DEALS = {
    "evenly": ([0, 3, 5], [1, 2, 4]),
    "unevenly": ([0, 1, 2, 3, 4], [5]),
    "all to rank 0": ([0, 1, 2, 3, 4, 5], []),
    "all to rank 1": ([], [0, 1, 2, 3, 4, 5]),
}


def graded_groups(model, tokenizer, config: Config) -> list[GradedGroup]:
    """Every third response is called right, whatever it says."""
    template = resolve_template("line", tokenizer, is_embedded=True)
    prompts = make_prompts(CHAINS.training_problems(config.data)[:6], template, tokenizer)
    engine = create_engine("transformers", model, tokenizer, EngineSettings())
    groups = engine.generate(prompts, sampling_of(config), stream=(0, 0))

    def grade(is_right: bool) -> Grade:
        reason = "correct" if is_right else "wrong"
        return Grade(reward=float(is_right), correct=is_right, extracted="1", reason=reason)

    return [
        GradedGroup(
            group=group, grades=tuple(grade((i + k) % 3 == 0) for i in range(len(group.rollouts)))
        )
        for k, group in enumerate(groups)
    ]


def with_gradients(batch: Batch, config: Config, learner: Learner) -> list[torch.Tensor]:
    """Of policy and critic."""
    batch = with_advantages(score_batch(batch, config, learner), config)
    counts, rows = step_counts(batch, config), torch.arange(len(batch))
    add_gradients(batch, rows, counts, config, learner, Meter(), None)
    modules = [module for module in (learner.policy, learner.critic) if module is not None]
    found = [whole(p.grad).clone() for module in modules for p in module.parameters()]
    for module in modules:
        module.zero_grad()
    return found


def main(base: str, algorithm: str, file: str) -> None:
    config = resolve(
        "smoke",
        algorithm=algorithm,
        overrides=["train.microbatch_tokens=256", "algorithm.minibatches_per_step=1"],
    )
    model, tokenizer = load_policy(base, CPU)
    graded = graded_groups(model, tokenizer, config)
    learner = new_learner(model, make_reference(model, config), config)
    expected = with_gradients(collate(graded, CPU), config, learner)
    found = {}
    with joined("cpu", 120):
        model, _ = load_to_shard(base, CPU)
        learner = new_learner(model, make_reference(model, config), config)
        for name, deal in DEALS.items():
            mine = deal[rank()]
            batch = collate([graded[i] for i in mine], CPU, mine, len(graded))
            ours = with_gradients(batch, config, learner)
            found[name] = {
                "difference": max(
                    float((a - b).abs().max()) for a, b in zip(ours, expected, strict=True)
                ),
                "size": max(float(each.abs().max()) for each in expected),
                "microbatches": gathered(len(batch.sequences.microbatches(256))),
            }
        if is_main():
            Path(file).write_text(json.dumps(found))


if __name__ == "__main__":
    run_to_end(lambda: main(*sys.argv[1:]))
