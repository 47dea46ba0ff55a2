"""`opo grade`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from opo_cli.cli.options import Format, FormatOption, SetOption

NAME = "grade"


def command(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="JSONL rows of `prediction` and `answer` (or `gold`)."),
    ],
    audit: Annotated[
        bool, typer.Option("--audit", help="List disagreements with a second, independent check.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Where graded rows go; else NAME.graded.jsonl here.")
    ] = None,
    answer_format: Annotated[
        str, typer.Option(help="Where predictions state their answer: any, box, tag or line.")
    ] = "any",
    overrides: SetOption = None,
    format: FormatOption = Format.rich,
) -> None:
    """Grade a file of predictions; each row gets verdict, extracted, reason and seconds."""
    from opo_cli.choose import check_known
    from opo_cli.console import err, note, progress
    from opo_cli.console import out as stdout
    from opo_cli.grading.extract import FORMATS
    from opo_cli.grading.files import grade_rows, read_rows, target_of, write_rows
    from opo_cli.presets import defaults
    from opo_cli.report.grade import grade_report, print_rows
    from opo_cli.report.tables import print_tables

    check_known(answer_format, FORMATS, "answer format")
    config = defaults(overrides or ()).grading
    prints_rows = format in (Format.json, Format.csv)
    rows = read_rows(file)
    target = None if prints_rows and out is None else target_of(out, file)
    try:
        with progress(f"grading {len(rows)} rows", len(rows)) as update:
            graded = grade_rows(rows, config, answer_format, audit=audit, on_done=update)
    except KeyboardInterrupt:
        note("interrupted: nothing was written")
        raise
    if target is not None:
        write_rows(target, graded.rows)
    tables = grade_report(graded, audit=audit, target=target)
    if prints_rows:
        print_rows(stdout, graded.rows, format)
        print_tables(err, tables, "rich")
    else:
        print_tables(stdout, tables, format)
