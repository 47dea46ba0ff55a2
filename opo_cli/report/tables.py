"""Tables on the terminal and as markdown, LaTeX, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import rich.table
from rich.box import SIMPLE_HEAD
from rich.console import Console

from opo_cli.console import inert, visible

DIVERSITY_HEADS = {
    "distinct_2": "distinct-2",
    "rep_4": "Rep-4",
    "self_bleu": "Self-BLEU",
    "answer_entropy": "answers",
}
"""Key of an evaluation record -> head of its column."""
KL_NOTE = "KL/seq: KL(policy||initial), exact over the vocabulary, nats per response"


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Tables for people, and the same numbers for programs."""

    tables: Sequence[Table]
    records: Sequence[dict[str, Any]]
    """One flat record per number (tidy): what CSV and JSON print."""
    opening: Sequence[str] = ()
    """Lines before the tables."""
    drawing: Sequence[str] = ()
    """Lines after the tables that keep their spaces."""
    closing: Sequence[str] = ()
    """Lines at the end."""


def print_report(console: Console, report: Report, format: str) -> None:
    """Args: format is one of rich, markdown, latex, csv, json."""
    if format == "json":
        print(json.dumps(list(report.records), indent=2), file=console.file)
    elif format == "csv":
        print(visible(_csv(report.records), console.encoding), end="", file=console.file)
    else:
        _print_lines(console, report.opening, format, is_prose=True)
        print_tables(console, report.tables, format)
        if format == "markdown" and report.drawing:
            _print_lines(console, ["```", *report.drawing, "```"], "rich")
        else:
            _print_lines(console, report.drawing, "latex" if format == "latex" else "rich")
        _print_lines(console, report.closing, format, is_prose=True)


LINE_MARKS = {"markdown": "- ", "latex": "% "}
"""What makes a line one of a list, or a comment."""


def _print_lines(
    console: Console, lines: Sequence[str], format: str, *, is_prose: bool = False
) -> None:
    """A block of lines, and an empty one behind it. Prose is wrapped where someone reads it."""
    mark = LINE_MARKS.get(format, "")
    is_wrapped = is_prose and format == "rich" and console.is_terminal
    for line in lines:
        for part in line.splitlines() or [""]:
            text = inert(mark + part if part else part, console)
            console.print(text, soft_wrap=not is_wrapped)
    if lines:
        console.print()


def print_tables(console: Console, tables: Sequence[Table], format: str) -> None:
    """Tables without a tidy form: CSV and JSON print the cells as they are."""
    for table in tables:
        records = [dict(zip(table.head, row, strict=True)) for row in table.rows]
        if format == "json":
            print(json.dumps(records, indent=2), file=console.file)
        elif format == "csv":
            print(visible(_csv(records, table.head), console.encoding), end="", file=console.file)
        elif format == "markdown":
            print(visible(_markdown(table), console.encoding), file=console.file)
        elif format == "latex":
            print(visible(_latex(table), console.encoding), file=console.file)
        else:
            console.print(_rich(table, console))
            if table.note:
                console.print(f"[dim]{inert(table.note, console)}[/]\n")


def _rich(table: Table, console: Console) -> rich.table.Table:
    def text(cell: Any) -> str:
        return inert(str(cell), console)

    shown = rich.table.Table(
        title=text(table.title) or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD
    )
    for head, is_number in zip(table.head, numeric_columns(table), strict=True):
        shown.add_column(text(head), justify="right" if is_number else "left", overflow="fold")
    for row in table.rows:
        shown.add_row(*map(text, row))
    return shown


def numeric_columns(table: Table) -> list[bool]:
    """Of each column, whether it is aligned to the right: numbers, gaps, and not gaps alone."""
    columns = ([str(row[i]) for row in table.rows] for i in range(len(table.head)))
    return [
        any(cells) and all(cell[:1] in "-+−±.0123456789" for cell in cells) for cells in columns
    ]


def _markdown(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        plain = (str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells)
        return f"| {' | '.join(plain)} |"

    lines = [f"### {table.title}\n"] if table.title else []
    lines += [line(table.head), line(["---"] * len(table.head)), *map(line, table.rows)]
    return "\n".join([*lines, *([f"\n{table.note}"] if table.note else []), ""])


LATEX = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "→": r"$\to$",
    "−": r"$-$",
    "|": r"\textbar{}",
}
"""Characters that LaTeX would read as its own, or that not every engine sets."""


def latex_text(text: str) -> str:
    return "".join(LATEX.get(char, char) for char in text)


def _latex(table: Table) -> str:
    """A `table` with booktabs' rules: \\usepackage{booktabs}. Lines of a note stay together."""
    head, *rows = [
        " & ".join(latex_text(str(cell)) for cell in row) + r" \\"
        for row in (table.head, *table.rows)
    ]
    sides = "".join("r" if is_number else "l" for is_number in numeric_columns(table))
    caption = ". ".join(latex_text(part) for part in (table.title, *table.note.split("\n")) if part)
    lines = [
        r"\begin{table}",
        r"\centering",
        *([rf"\caption{{{caption}}}"] if caption else []),
        rf"\begin{{tabular}}{{{sides}}}",
        *(r"\toprule", head, r"\midrule", *rows, r"\bottomrule"),
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join([*lines, ""])


def _csv(records: Sequence[dict[str, Any]], head: Sequence[str] = ()) -> str:
    file = io.StringIO()
    names = list(dict.fromkeys([*head, *(key for record in records for key in record)]))
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return file.getvalue()


def number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def plus_minus(value: float | None, half_width: float | None, digits: int = 3) -> str:
    text = number(value, digits)
    return text if half_width is None else f"{text} ±{half_width:.{digits}f}"


def between(bounds: Sequence[float] | None, digits: int = 3) -> str:
    """A 95 % interval; "-" where there is none."""
    return "-" if bounds is None else f"{bounds[0]:.{digits}f} to {bounds[1]:.{digits}f}"


def arrow(before: float | None, after: float | None, digits: int = 3) -> str:
    return f"{number(before, digits)} → {number(after, digits)}"
