"""Seconds per phase of a step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Clock:
    """A phase may come several times; its seconds add up."""

    started: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        key = f"{name}_seconds"
        self.seconds[key] = self.seconds.get(key, 0.0) + time.monotonic() - start

    def report(self, num_tokens: float) -> dict[str, float]:
        total = time.monotonic() - self.started
        rate = {"step_seconds": total, "tokens_per_second": num_tokens / total}
        return {key: round(value, 4) for key, value in (self.seconds | rate).items()}
