"""How far sampler and trainer are apart, by precision. Needs vLLM. Prints nats and ratios.

    python benchmarks/mismatch.py [--preset tiny] [--model FOLDER] [--prompts 16] [--group-size 8]

For each precision of vLLM (weights, cache and head) the same prompts are sampled once; each
precision of the trainer then scores those responses. Per token: mean, 99th percentile and largest
|log p(trainer) - log p(sampler)|, and k3. Per response: the smallest and the largest ratio
p(trainer) / p(sampler), and the effective sample size of those ratios as a share.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from opo_cli.data.prompts import make_prompts, resolve_template
from opo_cli.data.sources import load_problems
from opo_cli.model.policy import load_policy
from opo_cli.model.precision import Precision, set_precision
from opo_cli.model.scores import score
from opo_cli.model.sequences import Sequences
from opo_cli.presets import resolve
from opo_cli.rl.objectives import k3
from opo_cli.rl.stats import effective_sample_size
from opo_cli.rollout.engine import EngineSettings, create_engine
from opo_cli.train.warmstart import prepare
from opo_cli.types import Sampling

SAMPLERS = (  # (dtype, head)
    ("float32", "float32"),
    ("float16", "float16"),
    ("float16", "float32"),
    ("bfloat16", "bfloat16"),
    ("bfloat16", "float32"),
)
SHORT = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
TRAINERS = (("float32", "float32"), ("bfloat16", "bfloat16"), ("bfloat16", "float32"))


def sampled(model, tokenizer, prompts, sampling: Sampling, dtype: str, head: str):
    """(sequences, sampler logprobs (B, T)) of one engine."""
    longest = max(len(prompt.token_ids) for prompt in prompts) + sampling.max_new_tokens
    settings = EngineSettings(max_tokens=longest, dtype=dtype, head_dtype=head)
    engine = create_engine("vllm", model, tokenizer, settings)
    groups = engine.generate(prompts, sampling, stream=(0, 0))
    engine.close()
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    sequences = Sequences.pack(
        [group.prompt.token_ids for group in groups for _ in group.rollouts],
        [rollout.token_ids for rollout in rollouts],
        model.device,
    )
    logprobs = [torch.tensor(rollout.sampler_logprobs) for rollout in rollouts]
    return sequences, torch.nn.utils.rnn.pad_sequence(logprobs, batch_first=True).to(model.device)


def line(sampler: torch.Tensor, trainer: torch.Tensor, sequences: Sequences) -> str:
    difference = (trainer - sampler)[sequences.mask]
    size = difference.abs().double()
    ratio = (trainer - sampler).double().sum(-1).exp()
    share = effective_sample_size(
        ratio.sum().item(), ratio.square().sum().item(), float(len(ratio))
    )
    return (
        f"{size.mean():>9.1e}{size.quantile(0.99):>9.1e}{size.max():>9.1e}"
        f"{k3(-difference).double().mean():>10.1e}{ratio.min():>7.3f}{ratio.max():>7.3f}"
        f"{share:>7.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--model", help="instead of the preset's prepared base")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    arguments = parser.parse_args()
    named = {"model": {"path": arguments.model}} if arguments.model else None
    config = resolve(arguments.preset, named=named, overrides=arguments.set)
    problems, path = prepare(config)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, tokenizer = load_policy(path, device)
    template = resolve_template(config.data.template, tokenizer, is_embedded=not config.data.source)
    prompts = make_prompts(load_problems(problems)[: arguments.prompts], template, tokenizer)
    sampling = Sampling(
        num_responses=arguments.group_size, max_new_tokens=config.rollout.max_new_tokens
    )
    print(
        f"{'sampler':<17}{'trainer':<17}    mean      p99      max        k3  min r  max r    ESS"
    )
    for dtype, head in SAMPLERS:
        sequences, logprobs = sampled(model, tokenizer, prompts, sampling, dtype, head)
        for compute, trainers_head in TRAINERS:
            set_precision(model, Precision(getattr(torch, compute), getattr(torch, trainers_head)))
            scores = score(model, sequences, config.train.microbatch_tokens).logprobs
            names = "{:<9}{:<6}{:<9}{:<4}".format(
                *(SHORT[name] for name in (dtype, head, compute, trainers_head))
            )
            print(names + line(logprobs, scores, sequences), flush=True)
        set_precision(model, Precision())
    lengths = sequences.lengths
    print(f"{len(lengths)} responses of {lengths.float().mean():.0f} tokens on average, {device}")


if __name__ == "__main__":
    main()
