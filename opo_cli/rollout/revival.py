"""An engine that dies is replaced by a fresh one, once per batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from opo_cli.console import warn
from opo_cli.rollout.engine import Engine, EngineError
from opo_cli.types import Group, Prompt, Sampling


class Revivable:
    """See `engine.Engine`. Responses are functions of weights and stream, so that a batch that is
    sampled again by a fresh engine is the batch that the dead one would have sampled."""

    def __init__(self, make: Callable[[], Engine]):
        self._make = make
        self._engine = make()
        self._weights = None

    @property
    def name(self) -> str:
        return self._engine.name

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, **keys) -> list[Group]:
        """Raises EngineError where the fresh engine dies, too."""
        try:
            return self._engine.generate(prompts, sampling, **keys)
        except EngineError as error:
            self._revive(error)
            return self._engine.generate(prompts, sampling, **keys)

    def sleep(self) -> None:
        self._engine.sleep()

    def load_weights(self, model, version: int) -> None:
        self._weights = model, version
        try:
            self._engine.load_weights(model, version)
        except EngineError as error:
            self._revive(error)

    def close(self) -> None:
        self._engine.close()

    def _revive(self, error: EngineError) -> None:
        warn(f"{error.message}; a fresh engine takes over")
        with suppress(Exception):  # It is dead already.
            self._engine.close()
        self._engine = self._make()
        if self._weights is not None:
            self._engine.load_weights(*self._weights)
