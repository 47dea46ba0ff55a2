"""Grading a file of predictions: rows in, rows with verdicts out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from opo_cli.config import Grading
from opo_cli.errors import OpoError
from opo_cli.files import write_text
from opo_cli.grading.audit import second_opinion
from opo_cli.grading.pool import Case, Grader
from opo_cli.types import AnswerFormat, Grade

SHAPE = '{"prediction": "... \\\\boxed{7}", "answer": "7"}'
ANSWERS = ("answer", "gold")
VERDICT = ("verdict", "extracted", "reason", "seconds")
OURS = (*VERDICT, "audit")


@dataclass(frozen=True, slots=True)
class Graded:
    """A graded file."""

    rows: list[dict[str, Any]]
    """As read, with `verdict`, `extracted`, `reason`, `seconds`, and perhaps `audit`. Fields of
    these names that were no grader's are kept as `input_NAME`."""
    seconds: float
    """Of the whole, the start of workers included."""
    num_quick: int
    """Rows that needed no worker."""


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file, all checked.

    Raises:
        OpoError: no such file, or a line that is no row; with its number.
    """
    if path.is_dir():
        raise OpoError(f"'{path}' is a folder, not a file", "opo grade FOLDER/FILE.jsonl")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise OpoError(
            f"file '{path}' does not exist", "give a JSONL file of predictions"
        ) from None
    except UnicodeDecodeError:
        raise OpoError(f"'{path}' is no text in UTF-8", f"JSONL: rows like {SHAPE}") from None
    except OSError as error:
        raise OpoError(f"cannot read '{path}': {error.strerror}", "check its permissions") from None
    lines = enumerate(text.removeprefix("\ufeff").split("\n"), start=1)
    rows = [_row(line, f"'{path}' line {i}") for i, line in lines if line.strip()]
    if not rows:
        raise OpoError(f"'{path}' is empty", f"one row a line, like {SHAPE}")
    return rows


def _row(line: str, where: str) -> dict[str, Any]:
    hint = f"one row a line, like {SHAPE}"
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise OpoError(f"{where} is no JSON: {error.msg}", hint) from None
    except RecursionError:
        raise OpoError(f"{where} is no JSON that can be read: it nests too deeply", hint) from None
    except ValueError:  # Python reads no integer of more than 4300 digits.
        raise OpoError(
            f"{where} holds a number of too many digits", "write it as text, in quotes"
        ) from None
    if not isinstance(row, dict):
        raise OpoError(f"{where} is a {type(row).__name__}, not an object", hint)
    if "prediction" not in row:
        raise OpoError(f"{where} has no field 'prediction'", hint)
    if not any(row.get(name) is not None for name in ANSWERS):
        raise OpoError(f"{where} has no field 'answer' or 'gold'", hint)
    if isinstance(row["prediction"], dict | list) or isinstance(_answer_of(row), dict | list):
        raise OpoError(f"{where}: prediction and answer must be text or numbers", hint)
    if not _text(_answer_of(row)).strip():
        raise OpoError(f"{where}: the reference answer is empty", hint)
    return row


def _answer_of(row: dict[str, Any]) -> Any:
    return next(row[name] for name in ANSWERS if row.get(name) is not None)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def target_of(out: Path | None, source: Path) -> Path:
    """Where graded rows go, checked before the work.

    Raises:
        OpoError: they cannot go there; or nothing names it, and something is there already.
    """
    target = out or Path(f"{source.stem}.graded.jsonl")
    if target.is_dir():
        raise OpoError(f"--out '{target}' is a folder", f"--out {target / 'graded.jsonl'}")
    if not target.parent.is_dir():
        raise OpoError(f"--out '{target}': no folder '{target.parent}'", "make the folder first")
    if target.exists() and target.samefile(source):
        raise OpoError(f"--out '{target}' is the file that is read", "choose another name")
    if target.exists() and not target.is_file():
        raise OpoError(f"--out '{target}' is no file", "--format json prints the rows")
    if out is None and target.exists():
        raise OpoError(
            f"'{target}' exists, maybe of another file", f"--out {quote(str(target))} replaces it"
        )
    return target


def grade_rows(
    rows: list[dict[str, Any]],
    config: Grading,
    answer_format: AnswerFormat,
    *,
    audit: bool = False,
    on_done: Callable[[int], Any] | None = None,
) -> Graded:
    """Every row with `verdict`, `extracted`, `reason`, `seconds`; with `audit` also what the second
    check says: agrees, disagrees, or "no opinion"."""
    start = time.monotonic()
    cases = [Case(_text(r["prediction"]), _text(_answer_of(r)), answer_format) for r in rows]
    with Grader(config) as grader:
        grades = grader.grade_texts(cases, on_done=on_done)
    seconds = time.monotonic() - start
    graded = [_kept(row) | _fields(grade) for row, grade in zip(rows, grades, strict=True)]
    if audit:
        for row, case, grade in zip(graded, cases, grades, strict=True):
            row["audit"] = _audit(grade, case.answer)
    return Graded(graded, seconds, grader.num_quick)


def _kept(row: dict[str, Any]) -> dict[str, Any]:
    """What a row holds beside a verdict: all of it, unless it has been graded before."""
    if all(name in row for name in VERDICT):
        return {name: value for name, value in row.items() if name not in OURS}
    return {_free(name, row) if name in OURS else name: value for name, value in row.items()}


def _free(name: str, row: dict[str, Any]) -> str:
    while name in row:
        name = f"input_{name}"
    return name


def _fields(grade: Grade) -> dict[str, Any]:
    return {
        "verdict": grade.correct,
        "extracted": grade.extracted,
        "reason": grade.reason,
        "seconds": round(grade.seconds, 4),
    }


def _audit(grade: Grade, answer: str) -> str:
    opinion = second_opinion(grade.extracted, answer)
    if opinion is None:
        return "no opinion"
    return "agrees" if opinion is grade.correct else "disagrees"


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """As JSONL in ASCII, which holds whatever a model wrote: half a surrogate, too."""
    write_text(path, "".join(f"{json.dumps(row)}\n" for row in rows))
