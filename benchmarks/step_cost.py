"""What a step costs, against the plain way of doing it. Prints CPU seconds and ratios.

    python benchmarks/step_cost.py [--model FOLDER] [--prompts 32] [--group-size 16] [--repeats 3]

Generation: our engine against `generate` of transformers (a cache that concatenates, every row
until the longest has ended, prompts prefilled once per response). Update: length-sorted
microbatches with logits at response positions alone, against one padded batch with logits
everywhere. Both sides see the same weights, prompts and number of responses. The best of the
repeats counts.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from opo_cli.config import Config
from opo_cli.data.prompts import make_prompts, resolve_template
from opo_cli.data.sources import TrainingPrompts, load_problems
from opo_cli.grading.pool import Grader
from opo_cli.model.policy import load_policy
from opo_cli.presets import resolve
from opo_cli.rollout.engine import create_engine, engine_settings
from opo_cli.train.batch import Batch, collate
from opo_cli.train.learner import Learner, new_learner
from opo_cli.train.measure import Meter
from opo_cli.train.rollouts import sampling_of
from opo_cli.train.step import score_batch, training_step, with_advantages
from opo_cli.train.update import update
from opo_cli.train.warmstart import prepare


def cpu_seconds(work: Callable[[], object], repeats: int) -> float:
    """The best of `repeats` after one warm-up."""
    work()
    found = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def plain_generate(model, tokenizer, prompts, config: Config) -> torch.Tensor:
    """Every response a row of its own from the first prompt token on."""
    rows = [prompt.token_ids for prompt in prompts for _ in range(config.rollout.group_size)]
    width = max(map(len, rows))
    pad = tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows])
    torch.manual_seed(0)
    return model.generate(
        ids,
        attention_mask=(ids != pad).long(),
        do_sample=True,
        top_k=0,
        max_new_tokens=config.rollout.max_new_tokens,
        pad_token_id=pad,
    )


def plain_update(batch: Batch, learner: Learner) -> None:
    """One padded batch, logits at every position."""
    sequences = batch.sequences
    logits = learner.policy(sequences.input_ids, use_cache=False).logits.float()
    logprobs = logits[:, :-1].log_softmax(-1)
    chosen = logprobs.gather(-1, sequences.input_ids[:, 1:, None]).squeeze(-1)
    place = torch.arange(chosen.shape[1]) + 1 - sequences.prompt_lengths[:, None]
    mask = (place >= 0) & (place < sequences.lengths[:, None])
    advantages = batch.advantages[:, :1]
    loss = -(chosen * advantages * mask).sum() / sequences.lengths.sum()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(learner.policy.parameters(), 1.0)
    learner.optimizer.step()
    learner.optimizer.zero_grad()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--model", help="instead of the preset's prepared base")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--group-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sizes = [
        f"rollout.prompts_per_step={arguments.prompts}",
        f"rollout.group_size={arguments.group_size}",
    ]
    named = {"model": {"path": arguments.model}} if arguments.model else None
    config = resolve(arguments.preset, algorithm="opo", named=named, overrides=sizes)
    problems, path = prepare(config)
    model, tokenizer = load_policy(path, torch.device("cpu"))
    template = resolve_template(config.data.template, tokenizer, is_embedded=not config.data.source)
    every = make_prompts(load_problems(problems), template, tokenizer)
    source = TrainingPrompts(every, seed=0)
    prompts = source.of_step(0, arguments.prompts)
    engine = create_engine("transformers", model, tokenizer, engine_settings(config))
    learner = new_learner(model, copy.deepcopy(model).requires_grad_(False), config)
    sampling, repeats = sampling_of(config), arguments.repeats

    def generate():
        return engine.generate(prompts, sampling, stream=(0, 0))

    with Grader(config.grading) as grader:
        graded = grader.grade(generate())
        batch = collate(graded, torch.device("cpu"))
        batch = with_advantages(score_batch(batch, config, learner), config)
        # Timed with a learning rate of 0, so that every repeat does the same work.
        for group in learner.optimizer.param_groups:
            group["lr"] = 0.0
        ours = {
            "generation": cpu_seconds(generate, repeats),
            "update": cpu_seconds(lambda: update(batch, 0, config, learner, Meter()), repeats),
            "whole step": cpu_seconds(
                lambda: training_step(0, source, config, learner, engine, grader), repeats
            ),
        }
    plain = {
        "generation": cpu_seconds(
            lambda: plain_generate(model, tokenizer, prompts, config), repeats
        ),
        "update": cpu_seconds(lambda: plain_update(batch, learner), repeats),
    }
    tokens = int(batch.lengths.sum())
    print(f"{len(batch)} responses, {tokens} response tokens, longest {int(batch.lengths.max())}")
    print(f"{'':<12}{'opo':>9}{'plain':>9}{'ratio':>8}   CPU seconds, one thread")
    for name, seconds in ours.items():
        other = plain.get(name)
        rest = f"{other:>9.2f}{other / seconds:>8.1f}" if other else ""
        print(f"{name:<12}{seconds:>9.2f}{rest}")


if __name__ == "__main__":
    main()
