"""What an evaluation has sampled: a file with a line per problem, from which every number of its
record follows, and with which a stopped evaluation goes on. No torch."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from opo_cli.console import note, warn
from opo_cli.lines import append_lines, as_lines, parse_line
from opo_cli.records import digest
from opo_cli.types import FinishReason, GradeReason, Mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One graded response, and sums over its tokens at temperature 1, in nats."""

    text: str
    extracted: str | None
    correct: bool
    reason: GradeReason
    finish_reason: FinishReason
    length: int
    """Tokens, EOS included."""
    entropy: float
    """Exact over the vocabulary."""
    kl: float | None = None
    """KL(policy || initial), exact; None where there is no initial policy to compare with."""
    kl_k1: float | None = None
    kl_k3: float | None = None
    grading_seconds: float = 0.0
    """Of a grader worker; 0 where none was needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemSamples:
    """The responses to one problem."""

    id: str
    answer: str
    responses: tuple[Response, ...]
    diversity: Mapping[str, Mean]
    """See `diversity.of_group`."""

    @property
    def num_correct(self) -> int:
        return sum(response.correct for response in self.responses)

    def as_line(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_line(line: dict[str, Any]) -> ProblemSamples:
        responses = tuple(Response(**response) for response in line["responses"])
        diversity = {name: Mean(**mean) for name, mean in line["diversity"].items()}
        return ProblemSamples(**line | {"responses": responses, "diversity": diversity})


class SampleFile:
    """The samples of one policy on one benchmark under one setting; its name tells all three."""

    def __init__(self, folder: Path, benchmark: str, identity: Mapping[str, Any]):
        """`identity`: all that shapes the samples and their grades; it is the file's first line."""
        name = re.sub(r"[^\w.-]+", "-", benchmark)[:60]
        self.path = folder / f"{name}-{digest(identity)}.jsonl"
        self.identity = dict(identity)

    @property
    def is_busy(self) -> bool:
        """Whether another process is sampling it."""
        if not self.path.exists():
            return False
        with self.path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time: whoever comes second waits, and finds the work done."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                note(f"another process is sampling {self.path.name}; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def read(self) -> dict[str, ProblemSamples]:
        """Problem id -> its samples. A line that a killed process left unfinished is cut off, and a
        damaged one is told and dropped: its problem is sampled again. Called under the lock."""
        content = self.path.read_bytes()
        *lines, torn = content.split(b"\n")
        kept, found = [as_lines([self.identity]).encode()], {}
        for number, line in enumerate(lines[1:], start=2):
            try:
                samples = ProblemSamples.from_line(parse_line(line))
            except (ValueError, KeyError, TypeError) as error:
                warn(f"{self.path}:{number}: {_reason(error)}; its problem is sampled again")
                continue
            found[samples.id] = samples
            kept.append(line + b"\n")
        if lines and (whole := b"".join(kept)) != content:
            self._mend(whole)
        elif torn and not lines:
            os.truncate(self.path, 0)
        return found

    def _mend(self, content: bytes) -> None:
        """In place, as whoever waits for the lock has this very file open. Where this is not
        brought to its end, the next reading finds less, or a damaged line more."""
        with self.path.open("r+b") as file:
            file.write(content)
            file.truncate()

    def add(self, samples: Iterable[ProblemSamples]) -> None:
        lines = [each.as_line() for each in samples]
        if not self.path.stat().st_size:
            lines.insert(0, self.identity)
        append_lines(self.path, lines)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else "not a record of samples"
