"""What a run starts from, made once and cached: training problems, and the embedded base model.

A cached thing is a folder whose name ends in a hash of all that shapes it, the source code that
makes it included, so that it is never a stale one. It is sealed: a damaged one is made again.
"""

from __future__ import annotations

import importlib.metadata
import math
import random
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path

from opo_cli.config import Config, Stage, Warmstart
from opo_cli.console import progress
from opo_cli.data.prompts import Template, resolve_template
from opo_cli.data.sources import load_problems
from opo_cli.data.store import is_kept
from opo_cli.data.tasks import TASKS
from opo_cli.data.training import EMBEDDED, data_folder, prepare_data
from opo_cli.errors import NotFiniteError, OpoError
from opo_cli.files import is_whole, make_folder, write_json
from opo_cli.model.tiny import build_model, build_tokenizer, check_vocabulary
from opo_cli.records import cache_folder, check_cache, digest, source_digest
from opo_cli.types import Problem

MODEL_SOURCES = (
    *(f"data/{name}.py" for name in EMBEDDED),
    "data/prompts.py",
    "model/tiny.py",
    "model/precision.py",
    "model/scores.py",
    "model/sequences.py",
    "train/warmstart.py",
)

Report = Callable[[int, float], None]
"""Called with (tokens seen over all stages, loss of the last optimizer step)."""


def base_folder(config: Config) -> Path:
    """Where this config's base model is, or will be: an ordinary Hugging Face folder."""
    key = digest(
        _shape(config),
        source_digest(*MODEL_SOURCES),
        [importlib.metadata.version(name) for name in ("torch", "transformers")],
    )
    return cache_folder() / f"base-{key}"


def _shape(config: Config) -> dict:
    """The settings that shape the base model."""
    if not config.warmstart.stages:
        return {
            "embedded": config.model.embedded.model_dump(),
            "warmstart": {"stages": (), "seed": config.warmstart.seed},
        }
    return {
        "task": config.data.task,
        "terms": (config.data.min_terms, config.data.max_terms),
        "template": config.data.template,
        "embedded": config.model.embedded.model_dump(),
        "warmstart": config.warmstart.model_dump(),
    }


def is_prepared(config: Config) -> bool:
    return is_whole(data_folder(config)) and (
        bool(config.model.path) or is_whole(base_folder(config))
    )


def prepare(config: Config) -> tuple[Path, str]:
    """Makes what is missing, with a progress bar.

    Returns:
        the training problems' file, and the initial policy's folder: `config.model.path`, or the
        embedded base; without stages its weights are random.

    Raises:
        OpoError: the cache cannot be written, the training problems cannot be had, there are none,
            or the embedded model cannot read them or be made.
        OSError: the disk is full.
    """
    check_base(config)
    data = prepare_data(config)
    if config.model.path:
        return data / "train.jsonl", config.model.path
    if config.data.source and config.model.embedded.tokenizer == "task":
        _check_readable(load_problems(data / "train.jsonl"), config)
    base = base_folder(config)
    if not is_kept(base):
        check_cache()
        num_tokens = sum(stage.num_tokens for stage in config.warmstart.stages)
        with progress("prepare the base model", num_tokens) as update:

            def make(scratch: Path) -> None:
                save_base(config, scratch, lambda n, loss: update(n, f"loss {loss:.3f}"))

            make_folder(base, make)
    return data / "train.jsonl", str(base)


def check_base(config: Config) -> None:
    """Raises OpoError where the embedded base cannot be made as its settings say."""
    if not config.model.path:
        check_vocabulary(config.model.embedded)


def _check_readable(problems: Sequence[Problem], config: Config) -> None:
    """Raises OpoError where the embedded task's tokenizer would drop some of a prompt."""
    tokenizer = build_tokenizer("task")
    template = resolve_template(config.data.template, tokenizer, is_embedded=False)
    for problem in problems:
        prompt = template.render(problem.question)
        read = tokenizer.decode(tokenizer.encode(prompt, add_special_tokens=False))
        if read != prompt:
            lost = next(there for there, kept in zip_longest(prompt, read) if there != kept)
            raise OpoError(
                f"data.source = '{config.data.source}': the embedded task's tokenizer has no token "
                f"for {lost!r}, which is in the prompt of problem '{problem.id}'",
                "--set model.embedded.tokenizer=bytes, or --model FOLDER of one that reads text",
            )


def save_base(config: Config, folder: Path, report: Report) -> None:
    model, tokenizer = warm_start(config, report)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json(folder / "warmstart.json", _shape(config))


def warm_start(config: Config, report: Report):
    """(model, tokenizer) after all stages; without any, at random weights."""
    from opo_cli.model.folder import hush_transformers

    hush_transformers()
    tokenizer = build_tokenizer(config.model.embedded.tokenizer)
    template = resolve_template(config.data.template, tokenizer, is_embedded=True)
    model = build_model(config.model.embedded, tokenizer, config.warmstart.seed)
    seen = 0
    for number, stage in enumerate(config.warmstart.stages):
        rng = random.Random(f"warm start/{config.warmstart.seed}/{number}")
        seen = _run_stage(model, tokenizer, template, config, stage, rng, seen, report)
    return model.eval(), tokenizer


def _run_stage(
    model, tokenizer, template: Template, config: Config, stage: Stage, rng, seen: int, report
) -> int:
    """Trains on `stage.num_tokens` tokens; returns the tokens seen over all stages."""
    import torch

    from opo_cli.model.scores import token_scores

    settings = config.warmstart
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=stage.learning_rate,
        betas=(0.9, settings.beta2),
        weight_decay=settings.weight_decay,
    )
    start, step, num_steps = seen, 0, None
    terms = (config.data.min_terms, config.data.max_terms)
    items = TASKS[config.data.task].draws(rng, terms, heldout=False)
    while seen - start < stage.num_tokens:
        sequences = _examples(items, tokenizer, template, config, stage, rng)
        batch_tokens = int((sequences.prompt_lengths + sequences.lengths).sum())
        num_steps = num_steps or math.ceil(stage.num_tokens / batch_tokens)
        for group in optimizer.param_groups:
            group["lr"] = stage.learning_rate * schedule(step, num_steps, settings)
        num_targets, total = int(sequences.lengths.sum()), 0.0
        for rows in sequences.microbatches(config.warmstart.microbatch_tokens):
            part = sequences.select(rows)
            loss = -token_scores(model, part).logprobs.sum() / num_targets
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if not math.isfinite(total + norm.item()):
            raise NotFiniteError(
                f"the warm start's loss or gradient is not finite after {seen} tokens",
                f"a lower learning_rate in warmstart.stages, there {stage.learning_rate:g}",
            )
        optimizer.step()
        optimizer.zero_grad()
        seen, step = seen + batch_tokens, step + 1
        report(min(seen, start + stage.num_tokens), total)
    return start + stage.num_tokens


def schedule(step: int, num_steps: int, settings: Warmstart) -> float:
    """Share of the peak learning rate: linear warm-up, then cosine to the final fraction."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    done = min(1.0, (step - settings.warmup_steps) / max(1, num_steps - settings.warmup_steps))
    final = settings.final_learning_rate_fraction
    return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2


def _examples(items, tokenizer, template: Template, config: Config, stage: Stage, rng):
    """One batch of prompts with solutions, each cut at the longest that is allowed."""
    import torch

    from opo_cli.model.sequences import Sequences

    task, prompts, responses = TASKS[config.data.task], [], []
    for _ in range(config.warmstart.batch_size):
        item = next(items)
        prompt = template.render(task.text_of(item))
        solution = task.draw_solution(rng, item, stage.styles)
        prompts.append(tokenizer.encode(prompt, add_special_tokens=True))
        tokens = [*tokenizer.encode(solution, add_special_tokens=False), tokenizer.eos_token_id]
        responses.append(tokens[: config.warmstart.max_response_tokens])
    return Sequences.pack(prompts, responses, torch.device("cpu"))
