"""From rows to problems: which column is which, and what to do with a row that holds none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from opo_cli.config import Columns
from opo_cli.data.decode import answer_text, label_text, level_text, question_text
from opo_cli.data.files import Rows
from opo_cli.errors import OpoError
from opo_cli.types import Problem

USUAL_NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "question": (("problem", "question"), ("prompt", "query", "input", "instruction")),
    "answer": (
        ("answer", "final_answer", "expected_answer", "ground_truth", "gold"),
        ("reward_model.ground_truth", "target", "label"),
        ("solution", "output", "response"),
    ),
    "id": (("id",), ("unique_id",), ("problem_id",), ("uid",)),
    "level": (("level",), ("difficulty",)),
    "subject": (("subject",), ("type",), ("category",)),
}
"""Field -> names in the order of trust, upper or lower case. Two of one rank are ambiguous: a
"solution" may end with what "answer" states, but "problem" and "question" may differ."""


OWN_COPY = "a copy of yours: opo eval --data FILE"


def find_columns(given: Columns, data: Rows) -> Columns:
    """`given`, and the rest by their usual names; id, level and subject may stay empty.

    Raises:
        OpoError: a given column is not there; question or answer is not to be found, or twice.
    """
    found = {}
    for field, ranks in USUAL_NAMES.items():
        name = getattr(given, field)
        if name and name not in data.columns:
            raise _no_column(data, f"there is no column '{name}'", field)
        found[field] = name or _usual(field, ranks, data)
    return Columns(**found)


def _usual(field: str, ranks: Sequence[Sequence[str]], data: Rows) -> str:
    for names in ranks:
        here = [column for column in data.columns if column.lower() in names]
        if len(here) > 1:
            raise _no_column(data, f"'{here[0]}' or '{here[1]}': which is the {field}", field)
        if here:
            return here[0]
    if field in ("question", "answer"):
        raise _no_column(data, f"no column has a usual name of the {field}", field)
    return ""


def _no_column(data: Rows, what: str, field: str) -> OpoError:
    benchmark = f"{'opo eval' if data.is_local else OWN_COPY} --columns {field}=NAME"
    columns = ", ".join(name if name.isprintable() else ascii(name) for name in data.columns)
    return OpoError(
        f"{data.where}: {what}; its columns: {columns}",
        f"for a benchmark: {benchmark}; for training: --set data.columns.{field}=NAME",
    )


def cell(row: dict[str, Any], column: str) -> Any:
    """A cell by its dotted name; None where the row lacks it."""
    if not column:
        return None
    if column in row:
        return row[column]
    for part in column.split("."):
        row = row.get(part) if isinstance(row, dict) else None
    return row


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that holds no problem."""

    number: int
    reason: str


def decode(
    data: Rows, columns: Columns, encoding: str, benchmark: str, prefix: str = ""
) -> Iterator[Problem | Refused]:
    """One problem, or the reason why there is none, per row. A problem without an id of its own
    has the row's place from 0: it stays the same whatever else is left out.

    Args:
        columns: resolved by `find_columns`.
        encoding: how the answer is stored, a key of ENCODINGS.
        prefix: of every id.
    """
    for place, (number, row) in enumerate(data.rows):
        try:
            question = question_text(cell(row, columns.question))
            answer = answer_text(cell(row, columns.answer), encoding)
            level, subject = cell(row, columns.level), cell(row, columns.subject)
            problem = Problem(
                id=prefix + (label_text(cell(row, columns.id)) or f"{place:04d}"),
                question=question,
                answer=answer,
                benchmark=benchmark,
                level=level_text(level),
                subject=label_text(subject),
            )
        except ValueError as error:
            yield Refused(number, f"cannot be read: {error}")
            continue
        missing = [name for name in ("question", "answer") if not getattr(problem, name)]
        yield Refused(number, f"has no {missing[0]}") if missing else problem


def every_problem(data: Rows, given: Columns, encoding: str, benchmark: str, prefix: str = ""):
    """All rows as problems, for a benchmark: one left out would change the score.

    Ids that are not unique are refused where the column was named; one that was only found by its
    name is no id then, and the rows are numbered.

    Raises:
        OpoError: the first row that holds no problem, with its number.
    """
    columns = find_columns(given, data)
    problems = list(decode(data, columns, encoding, benchmark, prefix))
    refused = next((problem for problem in problems if isinstance(problem, Refused)), None)
    if refused is not None:
        raise OpoError(
            f"{data.where}: row {refused.number} {refused.reason}",
            "mend or remove the row; a benchmark is evaluated whole"
            if data.is_local
            else f"a benchmark is evaluated whole; {OWN_COPY} takes a mended one",
        )
    if len({problem.id for problem in problems}) == len(problems):
        return problems
    if given.id:
        double = _first_double(problems)
        raise OpoError(
            f"{data.where}: id '{double}' is there twice in column '{given.id}'",
            "results are kept per id; name a column whose values are unique, or none",
        )
    return [replace(p, id=f"{prefix}{place:04d}") for place, p in enumerate(problems)]


def _first_double(problems: Sequence[Problem]) -> str:
    seen: set[str] = set()
    return next(p.id for p in problems if p.id in seen or seen.add(p.id))


@dataclass(slots=True)
class Counts:
    """What became of a training set's rows."""

    rows: int = 0
    problems: int = 0
    duplicates: int = 0
    unusable: int = 0
    """Without question or answer, or with one that cannot be read."""


def same_question(question: str) -> str:
    """Equal for questions that differ in nothing but space and case."""
    return "".join(question.split()).casefold()


def distinct_problems(
    parts: Iterable[Problem | Refused], counts: Counts, seen: set[str]
) -> Iterator[Problem]:
    """Usable problems for training, in the source's order; of equal questions the first. An id that
    comes again is numbered: training needs it unique, and nothing else of it.

    Args:
        seen: questions and ids so far; shared between the parts of one set.
    """
    for item in parts:
        counts.rows += 1
        if isinstance(item, Refused):
            counts.unusable += 1
            continue
        key = f"question {same_question(item.question)}"
        if key in seen:
            counts.duplicates += 1
            continue
        if f"id {item.id}" in seen:
            item = replace(item, id=f"{item.id}#{counts.rows}")
        seen |= {key, f"id {item.id}"}
        counts.problems += 1
        yield item
