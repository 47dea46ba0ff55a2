"""The prompts that a lab measures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from opo_cli.config import Config
from opo_cli.data.benchmarks import benchmark_row, load_benchmark
from opo_cli.data.prompts import make_prompts, resolve_template
from opo_cli.data.sources import LAB_STREAM
from opo_cli.lab.settings import Request, check_count
from opo_cli.train.beginning import training_prompts
from opo_cli.types import Prompt


def draw_prompts(prompts: Sequence[Prompt], asked: Request) -> list[Prompt]:
    """Different ones, by the seed, apart from the order of training.

    Raises:
        OpoError: there are fewer.
    """
    check_count(asked, len(prompts))
    order = np.random.default_rng([LAB_STREAM, asked.seed]).permutation(len(prompts))
    return [prompts[place] for place in order[: asked.prompts]]


def load_prompts(config: Config, asked: Request, training: Path | None, tokenizer) -> list[Prompt]:
    """All that the lab may draw from.

    Args:
        training: the training problems' file; None: `asked.problems` names others.
    """
    if training is not None:
        return training_prompts(config, training, tokenizer)
    row, loaded = benchmark_row(asked.problems), load_benchmark(asked.problems, config.eval.columns)
    template = resolve_template(
        config.data.template,
        tokenizer,
        is_embedded=row.is_embedded,
        answer_format=config.data.answer_format,
    )
    return make_prompts(loaded.problems, template, tokenizer)
