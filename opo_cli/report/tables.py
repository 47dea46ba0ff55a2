"""Tables on the terminal and as markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import rich.table
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape

from opo_cli.certificate import certificate_of
from opo_cli.records import RunFolder
from opo_cli.report.estimate import interval_over_problems
from opo_cli.report.labels import training_line

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
    closing: Sequence[str] = field(default=())
    """Lines after the tables."""


def print_report(console: Console, report: Report, format: str) -> None:
    """Args: format is one of rich, markdown, csv, json."""
    if format == "json":
        print(json.dumps(list(report.records), indent=2), file=console.file)
    elif format == "csv":
        print(_csv(report.records), end="", file=console.file)
    else:
        print_tables(console, report.tables, format)
        for line in report.closing:
            console.print(escape(line), soft_wrap=True)


def print_tables(console: Console, tables: Sequence[Table], format: str) -> None:
    """Tables without a tidy form: CSV and JSON print the cells as they are."""
    for table in tables:
        records = [dict(zip(table.head, row, strict=True)) for row in table.rows]
        if format == "json":
            print(json.dumps(records, indent=2), file=console.file)
        elif format == "csv":
            print(_csv(records, table.head), end="", file=console.file)
        elif format == "markdown":
            print(_markdown(table), file=console.file)
        else:
            console.print(_rich(table))
            if table.note:
                console.print(f"[dim]{escape(table.note)}[/]\n")


def _rich(table: Table) -> rich.table.Table:
    shown = rich.table.Table(
        title=escape(table.title) or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD
    )
    numbers = [all(_is_number(row[i]) for row in table.rows) for i in range(len(table.head))]
    for head, is_number in zip(table.head, numbers, strict=True):
        shown.add_column(escape(head), justify="right" if is_number else "left", overflow="fold")
    for row in table.rows:
        shown.add_row(*(escape(str(cell)) for cell in row))
    return shown


def _is_number(cell: str) -> bool:
    return not cell or cell[0] in "-+.0123456789±"


def _markdown(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    lines = [f"### {table.title}\n"] if table.title else []
    lines += [line(table.head), line(["---"] * len(table.head)), *map(line, table.rows)]
    return "\n".join([*lines, *([f"\n{table.note}"] if table.note else []), ""])


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


def evals_report(records: Sequence[dict[str, Any]], folder: RunFolder | None) -> Report:
    """One row per benchmark of `evaluate`'s records; `folder`: the run behind them, if any."""
    ks = [k for k in records[0]["pass_at_k"] if k != "1"]
    samples = records[0]["num_samples"]
    has_kl = all("kl_exact_sequence" in record for record in records)
    head = ["benchmark", "problems", f"avg@{samples}", *(f"pass@{k}" for k in ks)]
    head += ["length", "cut", "entropy", *(["KL/seq"] if has_kl else [])]
    rows, tidy = [], []
    for record in records:
        width = interval_over_problems(record["accuracy_se"], record["num_problems"])
        cells = [record["benchmark"], str(record["num_problems"])]
        cells += [plus_minus(record["accuracy"], width)]
        cells += [number(record["pass_at_k"][k]) for k in ks]
        cells += [
            number(record["length"], 1),
            number(record["truncated"]),
            number(record["entropy"]),
        ]
        cells += [number(record["kl_exact_sequence"])] if has_kl else []
        rows.append(cells)
        flat = {key: value for key, value in record.items() if not isinstance(value, dict | list)}
        flat |= {f"pass@{k}": value for k, value in record["pass_at_k"].items()}
        tidy.append(flat | {"accuracy_95": width})
    failures = sum(record["grader_failures"] for record in records)
    closing = [f"the grader failed on {failures} responses, counted as wrong"] if failures else []
    note = "± is a 95 % t-interval over problems (samples clustered by problem); "
    note += "entropy: exact, nats per token" + (f"; {KL_NOTE}" if has_kl else "")
    if folder is not None:
        config, steps = folder.config(), folder.steps()
        note += "\n" + training_line(config, steps)
        tidy = [row | {"certificate": certificate_of(steps).label} for row in tidy]
    return Report([Table("", head, rows, note)], tidy, closing)


def print_run(console: Console, folder: RunFolder) -> None:
    """A finished run: accuracy before and after."""
    evals = folder.evals()
    before = {r["benchmark"]: r for r in evals if r["policy"] == "initial"}
    after = {r["benchmark"]: r for r in evals if r["policy"] == "final"}
    if not after:
        return
    some = next(iter(after.values()))
    ks = [k for k in some["pass_at_k"] if k != "1"]
    head = [
        "benchmark",
        f"avg@{some['num_samples']}",
        *(f"pass@{k}" for k in ks),
        "entropy",
        "KL/seq",
    ]
    rows = []
    for name, record in after.items():
        pairs = [(before[name]["accuracy"], record["accuracy"])]
        pairs += [(before[name]["pass_at_k"][k], record["pass_at_k"][k]) for k in ks]
        pairs += [(before[name]["entropy"], record["entropy"])]
        cells = [f"{number(old)} → {number(new)}" for old, new in pairs]
        rows.append([name, *cells, number(record.get("kl_exact_sequence"))])
    note = f"{KL_NOTE}\n{training_line(folder.config(), folder.steps())}"
    print_tables(console, [Table("initial → final policy", head, rows, note)], "rich")
