"""The tables of `opo grade`: what was right, why the rest was not, and who disagrees."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from rich.console import Console

from opo_cli.console import visible
from opo_cli.report.tables import Table
from opo_cli.types import GradeReason

if TYPE_CHECKING:
    from opo_cli.grading.files import Graded

MAX_CELL = 24
"""Characters of a prediction's answer or a reference in the table of disagreements."""
MAX_DISAGREEMENTS = 50
"""Rows of that table; the rows themselves hold all."""


def grade_report(graded: Graded, *, audit: bool, target: Path | None) -> list[Table]:
    """Summary by reason, throughput, and with `audit` the disagreements."""
    tables = [_summary(graded.rows, target), _throughput(graded)]
    return [*tables, _disagreements(graded.rows)] if audit else tables


def _summary(rows: Sequence[dict[str, Any]], target: Path | None) -> Table:
    counts = Counter(row["reason"] for row in rows)
    seconds: dict[str, float] = defaultdict(float)
    for row in rows:
        seconds[row["reason"]] += row["seconds"]
    lines = [
        [reason, str(counts[reason]), f"{counts[reason] / len(rows):.1%}", f"{seconds[reason]:.2f}"]
        for reason in get_args(GradeReason)
        if counts[reason]
    ]
    lines.append(["all", str(len(rows)), "100.0%", f"{sum(seconds.values()):.2f}"])
    note = "seconds: of workers; 0 where an answer needed none"
    note += f"\nrows: {target}" if target is not None else ""
    return Table("grades", ["reason", "rows", "share", "seconds"], lines, note)


def _throughput(graded: Graded) -> Table:
    total = len(graded.rows)
    line = [
        f"{total / max(graded.seconds, 1e-9):.0f}",
        f"{graded.num_quick / total:.1%}",
        f"{graded.seconds:.1f}",
    ]
    note = "quick: decided without a worker; seconds: in all, the workers' start included"
    return Table("throughput", ["rows/s", "quick", "seconds"], [line], note)


def _disagreements(rows: Sequence[dict[str, Any]]) -> Table:
    found = [(i, row) for i, row in enumerate(rows, start=1) if row["audit"] == "disagrees"]
    lines = [
        [
            str(i),
            shortened(row["extracted"]),
            shortened(row["answer"] if row.get("answer") is not None else row.get("gold")),
            row["reason"],
            "wrong" if row["verdict"] else "correct",
        ]
        for i, row in found[:MAX_DISAGREEMENTS]
    ]
    no_opinion = sum(row["audit"] == "no opinion" for row in rows)
    note = f"{len(found)} of {len(rows)} rows disagree; no opinion on {no_opinion}"
    note += "\nsecond check: equality of normalised text and numbers alone"
    if len(found) > MAX_DISAGREEMENTS:
        note += f"\nthe first {MAX_DISAGREEMENTS} are shown"
    lines = lines or [["-"] * 5]
    head = ["row", "answer given", "reference", "grader", "second check"]
    return Table("disagreements", head, lines, note)


def shortened(value: Any) -> str:
    """One printable line of at most `MAX_CELL` characters; what was left out is in the middle."""
    text = " ".join(str("" if value is None else value).split())
    text = "".join(c if c.isprintable() else "?" for c in text)
    half = (MAX_CELL - 3) // 2
    return text if len(text) <= MAX_CELL else f"{text[:half]}...{text[-half:]}"


def print_rows(console: Console, rows: Sequence[dict[str, Any]], format: str) -> None:
    """The rows themselves, as a JSON list or as CSV."""
    if format == "json":
        print(json.dumps(list(rows), indent=2), file=console.file)
        return
    names = list(dict.fromkeys(key for row in rows for key in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    print(visible(file.getvalue(), console.encoding), end="", file=console.file)


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list | bool) else value
