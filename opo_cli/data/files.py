"""Local data files: JSONL, JSON, Parquet and CSV, as numbered rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opo_cli.errors import OpoError, first_line

Row = tuple[int, dict[str, Any]]
"""A row with its number as a user finds it: the line of a text file, else counted from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows as they lie in a file or data set."""

    columns: tuple[str, ...]
    """Dotted names reach into nested ones: `reward_model`, `reward_model.ground_truth`."""
    rows: Iterable[Row]
    where: str
    """File or data set, for messages."""
    is_local: bool = True


def read_file(path: Path) -> Rows:
    """The rows of a data file, by its suffix.

    Raises:
        OpoError: no such file, another suffix, or a malformed file (with the line).
    """
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise OpoError(
            f"'{path}' is no data file: its name ends in '{path.suffix}'",
            f"known are {', '.join(READERS)}",
        )
    if not path.is_file():
        raise OpoError(f"there is no file '{path}'", "check the path; it counts from here")
    try:
        return read(path)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise OpoError(f"{path}:{line}: not UTF-8", "save the file as UTF-8") from None
    except PermissionError as error:
        raise OpoError(f"cannot read '{path}': {error.strerror}", "check its permissions") from None
    except RecursionError:
        raise OpoError(f"{path}: nested too deeply", "a row holds text and numbers") from None


def _malformed(path: Path, line: int, why: str) -> OpoError:
    return OpoError(
        f"{path}:{line}: {why}", "mend or remove the line; JSONL has an object per line"
    )


def _read_jsonl(path: Path) -> Rows:
    rows = []
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            rows.append((number, _object(path, number, line)))
    return _rows(path, rows)


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise _malformed(path, number, f"not JSON ({getattr(error, 'msg', error)})") from None
    if not isinstance(row, dict):
        raise _malformed(path, number, f"type {type(row).__name__}, not an object")
    return row


def _read_json(path: Path) -> Rows:
    """An array of objects; many a .json is JSONL."""
    text = _text(path)
    if not text.lstrip().startswith("["):
        return _read_jsonl(path)
    try:
        items = json.loads(text)
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise _malformed(path, line, f"not JSON ({getattr(error, 'msg', error)})") from None
    for number, item in enumerate(items, start=1):
        if not isinstance(item, dict):
            raise OpoError(
                f"{path}: item {number} has type {type(item).__name__}, not an object",
                "an array of objects, each with a question and an answer",
            )
    return _rows(path, list(enumerate(items, start=1)))


def _read_csv(path: Path) -> Rows:
    """With a header; cells stay text."""
    csv.field_size_limit(2**31 - 1)  # The default of 128 kB is shorter than some solutions.
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    rows = []
    try:
        for row in reader:
            if None in row or None in row.values():
                raise _malformed(path, reader.reader.line_num, "not as many cells as the header")
            rows.append((reader.reader.line_num, row))
    except csv.Error as error:
        raise _malformed(path, reader.reader.line_num, f"not CSV ({error})") from None
    return _rows(path, rows)


def _read_parquet(path: Path) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise OpoError(
            f"'{path}' is no readable Parquet file: {first_line(error)}", "fetch or write it again"
        ) from None
    rows = enumerate(table.to_pylist(), start=1)
    return Rows(columns=schema_columns(table.schema), rows=list(rows), where=str(path))


READERS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".csv": _read_csv,
}


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8-sig")


def _rows(path: Path, rows: list[Row]) -> Rows:
    if not rows:
        raise OpoError(f"'{path}' holds no row", "a row per problem: a question and an answer")
    names = dict.fromkeys(name for _, row in rows for name in _names(row))
    return Rows(columns=tuple(names), rows=rows, where=str(path))


def _names(row: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, cell in row.items():
        yield prefix + name
        if isinstance(cell, dict):
            yield from _names(cell, f"{prefix}{name}.")


def schema_columns(schema: Any) -> tuple[str, ...]:
    """The dotted names of an Arrow schema's columns."""

    def names(fields: Iterable[Any], prefix: str) -> Iterator[str]:
        import pyarrow as pa

        for field in fields:
            yield prefix + field.name
            if pa.types.is_struct(field.type):
                yield from names(field.type, f"{prefix}{field.name}.")

    return tuple(names(schema, ""))
