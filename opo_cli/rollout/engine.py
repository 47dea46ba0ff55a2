"""What a rollout engine does, and the table of engines. An engine is a file and a row here."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from opo_cli.config import Config
from opo_cli.types import Group, Prompt, Sampling

Progress = Callable[[int, int], None]
"""Called with (rows finished, rows in all) now and then; may raise to abandon the batch."""


class Engine(Protocol):
    """Responses from the current weights."""

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        stream: Sequence[int],
        first_row: int = 0,
        progress: Progress | None = None,
    ) -> list[Group]:
        """One group per prompt, in order.

        Row r of prompt p draws from a random stream keyed by (*stream, first_row + p * N + r), so
        a response does not depend on which rows share its batch.

        Args:
            stream: non-negative integers, such as (seed, step).
            first_row: index of the first response within the whole step.
        """
        ...

    def sleep(self) -> None:
        """Gives back device memory until the next `load_weights`, which has to come before the next
        `generate`; called again, it does nothing."""
        ...

    def load_weights(self, model, version: int) -> None:
        """Takes the policy's weights; `version` counts the steps behind them."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What an engine is told at its start."""

    max_rows: int = 512
    """Responses decoded at once."""
    dtype: str = "float32"
    """Of weights and cache, where the engine has its own."""
    head_dtype: str = "float32"
    """Of the output embedding's product, likewise."""
    cache_gigabytes: float = 0.0
    """See `config.Rollout`."""
    execution: str = "auto"
    """See `config.Rollout`."""
    max_tokens: int = 0
    """Longest prompt plus response; 0: what the model takes."""
    group_size: int = 1
    """Responses that the cache must at least hold together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRow:
    module: str
    """Imported when chosen; it has `create(model, tokenizer, EngineSettings) -> Engine`."""
    description: str


ENGINES: dict[str, EngineRow] = {
    "transformers": EngineRow(
        module="opo_cli.rollout.transformers_engine",
        description="our sampling loop over any Hugging Face causal LM; CPU or GPU",
    ),
}


def choose_engine(asked: str) -> tuple[str, str]:
    """(engine, why it): `auto` takes the best one that this machine has."""
    if asked != "auto":
        return asked, "asked for"
    return "transformers", "auto; the one engine of this version"


def engine_settings(config: Config) -> EngineSettings:
    rollout, compute = config.rollout, config.model.compute_dtype
    dtype = compute if rollout.dtype == "auto" else rollout.dtype
    return EngineSettings(
        max_rows=rollout.max_rows,
        dtype=dtype,
        head_dtype=dtype if config.model.head_dtype == "compute" else config.model.head_dtype,
        cache_gigabytes=rollout.cache_gigabytes,
        execution=rollout.execution,
        group_size=rollout.group_size,
    )


def create_engine(name: str, model, tokenizer, settings: EngineSettings) -> Engine:
    return importlib.import_module(ENGINES[name].module).create(model, tokenizer, settings)
