"""What an evaluation has sampled: a file with a line per problem, from which every number of its
record follows, and with which a stopped evaluation goes on. No torch."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from opo_cli.console import note
from opo_cli.records import digest, read_lines
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
        """Problem id -> its samples. A line that a killed process left unfinished is cut off.

        Raises:
            OpoError: a damaged line.
        """
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)
        lines = read_lines(self.path)[1:]
        return {line["id"]: ProblemSamples.from_line(line) for line in lines}

    def add(self, samples: Iterable[ProblemSamples]) -> None:
        lines = [json.dumps(each.as_line()) + "\n" for each in samples]
        if not self.path.stat().st_size:
            lines.insert(0, json.dumps(self.identity) + "\n")
        with self.path.open("a") as file:
            file.write("".join(lines))
