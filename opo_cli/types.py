"""The data that flows from problem to step record. A stage returns a new type; a field never
changes its meaning. No torch here: tables, reports and the command line read these too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length"]
AnswerFormat = Literal["box", "tag", "line", "any"]
"""Where a response states its answer: the last `\\boxed{}`; inside `<answer>` tags; on a line that
starts with "Answer:"; or whichever of these it has, else its last number or formula."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A question with its reference answer."""

    id: str
    """Unique within its benchmark."""
    question: str
    answer: str
    """The reference answer, as the benchmark states it (bare, without `\\boxed`)."""
    benchmark: str
    level: str = ""
    """Difficulty, where the data has one."""
    subject: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A problem after template and tokenizer."""

    problem: Problem
    text: str
    token_ids: tuple[int, ...]
    answer_format: AnswerFormat = "box"
    """Where the template asks for the answer, and the grader looks for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemSet:
    """Problems with where they came from."""

    name: str
    problems: tuple[Problem, ...]
    source: str
    """A hub data set's id with its config and split, a file, or "embedded"."""
    revision: str
    """The hub data set's commit; empty for others."""
    sha256: str
    """Of ids, questions and answers, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How responses are drawn."""

    num_responses: int
    """Responses per prompt (the group size N)."""
    max_new_tokens: int
    """Tokens; a response that reaches it without EOS is truncated (`finish_reason="length"`)."""
    temperature: float = 1.0
    """0 is greedy decoding."""
    top_p: float = 1.0
    ignores_end: bool = False
    """Whether every response goes on to `max_new_tokens`: the worst case, for checks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One response with its tokens."""

    token_ids: tuple[int, ...]
    """Loss tokens: the response with its EOS, without prompt or padding."""
    sampler_logprobs: tuple[float, ...]
    """Per token, nats, under the distribution that was sampled from."""
    text: str
    """Decoded without special tokens."""
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The N rollouts of one prompt."""

    prompt: Prompt
    rollouts: tuple[Rollout, ...]
    policy_version: int
    """Number of steps that the sampling weights had seen."""


GradeReason = Literal[
    "correct",
    "wrong",
    "no-answer",  # Nothing where the answer should stand.
    "empty",  # A box, with nothing in it.
    "unparsed",  # What it holds is no mathematics that the grader can read.
    "refused",  # It is too long, or names numbers too large to evaluate; it was not read.
    "truncated",  # Cut at the token limit, where that alone earns nothing.
    "timeout",
    "memory",
    "error",
]
GRADER_FAILURES: tuple[GradeReason, ...] = ("timeout", "memory", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """The verdict on one response."""

    reward: float
    correct: bool
    extracted: str | None
    """The answer as the response states it, or None."""
    reason: GradeReason
    seconds: float = field(default=0.0, compare=False)
    """Of a worker; 0 where none was needed. No part of the verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedGroup:
    group: Group
    grades: tuple[Grade, ...]
    """In the order of `group.rollouts`."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A partial mean: sums add over microbatches and ranks, the division comes last."""

    total: float
    count: float

    def __add__(self, other: Mean) -> Mean:
        return Mean(self.total + other.total, self.count + other.count)

    @property
    def value(self) -> float | None:
        """total / count, or None where nothing was counted."""
        return self.total / self.count if self.count else None
