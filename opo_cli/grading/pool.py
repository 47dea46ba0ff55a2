"""Grades whole batches: what needs no mathematics at once, the rest in worker processes.

Workers start when the first answer needs them, so a task of plain integers never pays for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from opo_cli.config import Grading
from opo_cli.grading.extract import extract
from opo_cli.grading.grader import Question, screened
from opo_cli.grading.workers import Workers
from opo_cli.types import GRADER_FAILURES, AnswerFormat, Grade, GradedGroup, GradeReason, Group

MAX_REMEMBERED = 10_000
"""Verdicts of workers kept for answers that come again."""


class Case(NamedTuple):
    """A response with its reference answer."""

    text: str
    answer: str
    answer_format: AnswerFormat = "any"
    is_finished: bool = True
    """Whether the model stopped by itself."""


class Grader:
    """Grades responses; a context manager that ends its workers."""

    def __init__(self, config: Grading):
        self.config = config
        self._workers: Workers | None = None
        self._remembered: dict[Question, GradeReason] = {}
        self.num_quick = 0
        """Responses graded without mathematics."""

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers; the next answer that needs one starts them anew."""
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def grade(
        self, groups: Sequence[Group], *, require_stop: bool | None = None
    ) -> list[GradedGroup]:
        """Grades every rollout of every group, in order.

        Args:
            require_stop: whether a truncated response earns nothing, whatever answer it states;
                None: as `grading.require_stop` says.

        Raises:
            OpoError: workers are needed and do not start.
        """
        strict = self.config.require_stop if require_stop is None else require_stop
        rollouts = [(group, rollout) for group in groups for rollout in group.rollouts]
        is_cut = [strict and rollout.finish_reason != "stop" for _, rollout in rollouts]
        graded = iter(
            self.grade_texts(
                [
                    Case(
                        rollout.text,
                        group.prompt.problem.answer,
                        group.prompt.answer_format,
                        rollout.finish_reason == "stop",
                    )
                    for (group, rollout), cut in zip(rollouts, is_cut, strict=True)
                    if not cut
                ]
            )
        )
        grades = iter([_grade("truncated", None) if cut else next(graded) for cut in is_cut])
        return [
            GradedGroup(group=group, grades=tuple(next(grades) for _ in group.rollouts))
            for group in groups
        ]

    def grade_texts(
        self, cases: Sequence[Case], *, on_done: Callable[[int], None] | None = None
    ) -> list[Grade]:
        """A grade for every case, in order.

        Args:
            on_done: called with the number of cases graded, as it grows.

        Raises:
            OpoError: workers are needed and do not start.
        """
        grades: list[Grade] = [None] * len(cases)
        open_rows: dict[Question, list[int]] = {}
        answers: list[str | None] = []
        num_quick = 0
        for row, case in enumerate(cases):
            extracted, verdict = self._screened(case)
            answers.append(extracted)
            num_quick += not isinstance(verdict, Question)
            verdict = self._remembered.get(verdict, verdict)
            if isinstance(verdict, Question):
                open_rows.setdefault(verdict, []).append(row)
            else:
                grades[row] = _grade(verdict, answers[row])
        self.num_quick += num_quick
        num_done = len(cases) - sum(map(len, open_rows.values()))
        for question, reason, seconds in self._judged(open_rows):
            for row in open_rows[question]:
                grades[row] = _grade(reason, answers[row], seconds)
                seconds = 0.0  # The first one paid.
            num_done += len(open_rows[question])
            if on_done is not None:
                on_done(num_done)
        return grades

    def _screened(self, case: Case) -> tuple[str | None, GradeReason | Question]:
        """The answer, and its verdict or what to ask a worker. An answer that breaks our own code
        is an "error" as one that breaks a worker is: counted and shown, and the run goes on."""
        try:
            found = extract(case.text, case.answer_format, is_finished=case.is_finished)
            verdict = screened(found, case.answer, self.config.max_answer_characters)
        except Exception:
            return None, "error"
        return None if found is None else found.text, verdict

    def _judged(self, questions: Iterable[Question]):
        if not questions:
            return
        if self._workers is None:
            self._workers = Workers(self.config)
        for question, reason, seconds in self._workers.judge_all(questions):
            if reason not in GRADER_FAILURES:
                self._remember(question, reason)
            yield question, reason, seconds

    def _remember(self, question: Question, reason: GradeReason) -> None:
        if len(self._remembered) >= MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[question] = reason


def _grade(reason: GradeReason, extracted: str | None, seconds: float = 0.0) -> Grade:
    correct = reason == "correct"
    return Grade(
        reward=float(correct),
        correct=correct,
        extracted=extracted,
        reason=reason,
        seconds=seconds,
    )
