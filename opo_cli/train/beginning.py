"""What a run begins with: its base, its problems, its prompts."""

from __future__ import annotations

from pathlib import Path

from opo_cli.config import Config
from opo_cli.console import note
from opo_cli.data.benchmarks import load_benchmark
from opo_cli.data.prompts import make_prompts, resolve_template
from opo_cli.data.sources import load_problems
from opo_cli.errors import OpoError
from opo_cli.model.parallel import on_all_ranks
from opo_cli.ranks import local_rank, rank
from opo_cli.records import check_cache
from opo_cli.train.warmstart import prepare
from opo_cli.types import Prompt


def prepared(config: Config) -> tuple[Path, str]:
    """See `prepare`; on each machine one rank makes what is missing.

    Raises:
        OpoError: see `prepare`; or a benchmark cannot be had: told now, not later.
    """

    def make() -> tuple[Path, str] | None:
        if local_rank():
            return None
        if config.eval.benchmarks:
            check_cache()  # It keeps the initial policy's samples.
        for name in config.eval.every_benchmark:
            load_benchmark(name, config.eval.columns)
        return prepare(config)

    return on_all_ranks(make)[rank() - local_rank()]  # Where it is on this machine.


def training_prompts(config: Config, problems: Path, tokenizer) -> list[Prompt]:
    """Raises OpoError where every prompt is longer than `data.max_prompt_tokens`."""
    data = config.data
    template = resolve_template(
        data.template,
        tokenizer,
        is_embedded=not data.source,
        answer_format=data.answer_format,
    )
    prompts = make_prompts(load_problems(problems), template, tokenizer)
    kept = [prompt for prompt in prompts if len(prompt.token_ids) <= data.max_prompt_tokens]
    if not kept:
        shortest = min(len(prompt.token_ids) for prompt in prompts)
        raise OpoError(
            f"data.max_prompt_tokens = {data.max_prompt_tokens}: the shortest of "
            f"{len(prompts)} training prompts has {shortest} tokens",
            f"--set data.max_prompt_tokens={shortest} or more",
        )
    if len(kept) < len(prompts):
        note(
            f"{len(prompts) - len(kept)} of {len(prompts)} training prompts are longer than "
            f"{data.max_prompt_tokens} tokens and left out"
        )
    return kept
