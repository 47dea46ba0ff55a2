"""The data that flows from problem to step record. A stage returns a new type; a field never
changes its meaning. No torch here: tables, reports and the command line read these too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A question with its reference answer."""

    id: str
    """Unique within its benchmark."""
    question: str
    answer: str
    """The reference answer, as the benchmark states it (bare, without `\\boxed`)."""
    benchmark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A problem after template and tokenizer."""

    problem: Problem
    text: str
    token_ids: tuple[int, ...]


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


GradeReason = Literal["correct", "wrong", "no-answer", "truncated", "timeout", "error"]
GRADER_FAILURES: tuple[GradeReason, ...] = ("timeout", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """The verdict on one response."""

    reward: float
    correct: bool
    extracted: str | None
    """The content of the last `\\boxed{}`, or None."""
    reason: GradeReason


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
