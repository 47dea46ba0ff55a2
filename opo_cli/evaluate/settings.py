"""`opo eval`'s request as a config, and its execution. No torch until it runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from opo_cli.config import Config
from opo_cli.console import progress, warn
from opo_cli.presets import merged, parse_override, resolve, validated
from opo_cli.records import RunFolder


def eval_config(
    folder: RunFolder | None,
    model: str | None,
    preset: str,
    *,
    benchmarks: Sequence[str],
    samples: int | None,
    k: Sequence[int] | None,
    limit: int | None,
    overrides: Iterable[str] = (),
) -> Config:
    """The run's own settings, or the preset's with `model`, and what was asked on top.

    Without an own `k`, those of the settings that `samples` can carry.

    Raises:
        OpoError: a value that does not fit.
    """
    start = (
        resolve(preset, named={"model": {"path": model}}) if model else validated(folder.config())
    )
    tables = start.model_dump(mode="json")
    asked: dict[str, Any] = {
        "benchmarks": list(benchmarks),
        "samples": samples,
        "k": k,
        "limit": limit,
    }
    asked = {key: value for key, value in asked.items() if value is not None}
    given: dict[str, Any] = {}
    for text in overrides:
        given = merged(given, parse_override(text))
    tables = merged(tables, given)
    if isinstance(tables["eval"], dict):  # Else it is for `validated` to refuse.
        settings = merged(tables["eval"], asked)
        most, has_own_k = settings["samples"], k is not None or "k" in given.get("eval", {})
        if isinstance(most, int) and not has_own_k:
            settings["k"] = [value for value in settings["k"] if value <= most] or [most]
        tables["eval"] = settings
    return validated(tables)


def _initial_policy(folder: RunFolder | None, device):
    """The policy that the run started from, or None where nothing says what it was."""
    from opo_cli.errors import OpoError
    from opo_cli.model.policy import load_policy

    path = folder.environment().get("initial_policy") if folder else None
    try:
        return load_policy(path, device)[0] if path else None
    except OpoError as error:
        warn(f"no KL to the initial policy: {error.message}")
        return None


def evaluate_model(config: Config, folder: RunFolder | None) -> list[dict[str, Any]]:
    """Evaluates `folder`'s trained model, or `config.model`.

    KL to the initial policy is measured where a run says what that was.

    Raises:
        OpoError: the model does not load, or the run is not finished.
    """
    import torch

    from opo_cli.errors import OpoError
    from opo_cli.evaluate.run import evaluate
    from opo_cli.grading.pool import Grader
    from opo_cli.model.policy import choose_device, load_policy
    from opo_cli.rollout.engine import choose_engine, create_engine

    if folder is not None and not folder.is_finished:
        raise OpoError(
            f"run '{folder.path}' is not finished", f"opo train --resume --out {folder.path}"
        )
    if config.runtime.num_threads:
        torch.set_num_threads(config.runtime.num_threads)
    device, _ = choose_device(config.runtime.device)
    policy, tokenizer = load_policy(str(folder.model if folder else config.model.path), device)
    initial = _initial_policy(folder, device)
    name, _ = choose_engine(config.runtime.engine)
    engine = create_engine(name, policy, tokenizer, max_rows=config.rollout.max_rows)
    names = config.eval.benchmarks
    with Grader(config.grading) as grader, progress("evaluate", len(names)) as update:
        records = evaluate(
            engine,
            grader,
            config.eval,
            config.data.template,
            tokenizer=tokenizer,
            policy=policy,
            initial=initial,
            report=lambda name, done, total: update(names.index(name) + done / total, name),
            token_budget=config.train.microbatch_tokens,
        )
    return records
