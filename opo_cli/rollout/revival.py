"""The engine of a run: its start, and a fresh one where it dies, once per batch.

Where ranks work together, none of them can start a fresh engine alone: the run ends.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import suppress

from opo_cli.console import note, warn
from opo_cli.errors import NotFiniteError, OpoError
from opo_cli.model.parallel import is_joined
from opo_cli.rollout.engine import Engine, EngineError, EngineSettings, create_engine
from opo_cli.rollout.watch import RESUME_HINT
from opo_cli.types import Group, Prompt, Sampling


def start_engine(
    name: str, asked: str, model, tokenizer, settings: Callable[[], EngineSettings]
) -> Revivable:
    """
    Args:
        name: the engine that was chosen.
        asked: "auto" where nobody named it: then vLLM, where it cannot take the model after all,
            makes way, which is told; not where other ranks may have theirs.

    Raises:
        OpoError: it does not start.
    """
    try:
        if name == "vllm":
            note("start vLLM ...")
        return Revivable(lambda: create_engine(name, model, tokenizer, settings()))
    except EngineError as error:
        if name == "transformers" or asked != "auto":
            raise
        if is_joined():
            raise EngineError(error.message, "--engine transformers goes without vLLM") from error
        warn(f"{error.message}; auto takes transformers instead")
    gc.collect()  # The error's frames held what vLLM had taken.
    return start_engine("transformers", asked, model, tokenizer, settings)


class Revivable:
    """See `engine.Engine`. Responses are functions of weights and stream, so that a batch that is
    sampled again by a fresh engine is the batch that the dead one would have sampled."""

    def __init__(self, make: Callable[[], Engine]):
        self._make = make
        self._engine = make()
        self._weights = None
        self._error: OpoError | None = None

    @property
    def name(self) -> str:
        return self._engine.name

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, **keys) -> list[Group]:
        """Raises OpoError where the fresh engine dies, too, or cannot be had."""
        if self._error is not None:
            raise self._error
        try:
            return self._engine.generate(prompts, sampling, **keys)
        except EngineError as error:
            _end_of_ranks(error)
            reason = error.message
        # Outside of the handler: the error's frames hold the dead engine's memory.
        self._revive(reason)
        return self._engine.generate(prompts, sampling, **keys)

    def sleep(self) -> None:
        self._engine.sleep()

    def load_weights(self, model, version: int) -> None:
        """An engine that cannot be had any more is told by the next `generate`, so that the step
        behind these weights is a whole one."""
        self._weights = model, version
        if self._error is not None:
            return
        try:
            self._engine.load_weights(model, version)
            return
        except EngineError as error:
            _end_of_ranks(error)
            reason = error.message
        except OpoError as error:
            if is_joined() and not isinstance(error, NotFiniteError):
                raise  # Others may not be as far. Logits are the same on all ranks.
            self._error = error.with_traceback(None)
            return
        try:
            self._revive(reason)
        except OpoError as error:
            self._error = error.with_traceback(None)

    def close(self) -> None:
        self._engine.close()

    def _revive(self, reason: str) -> None:
        warn(f"{reason}; a fresh engine takes over")
        with suppress(Exception):  # It is dead already.
            self._engine.close()
        self._engine = self._make()
        if self._weights is not None:
            self._engine.load_weights(*self._weights)


def _end_of_ranks(error: EngineError) -> None:
    """Raises where there are others, with a hint that says how all go on."""
    if is_joined():
        raise EngineError(error.message, f"{RESUME_HINT}; {error.hint}") from error
