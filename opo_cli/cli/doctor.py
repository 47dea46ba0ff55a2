"""`opo doctor`."""

from __future__ import annotations

import typer

from opo_cli.cli.options import Format, FormatOption, prepare_process

NAME = "doctor"


def command(format: FormatOption = Format.rich) -> None:
    """Check this machine: versions, device, memory, disk, cache, grader and engines.

    Ends with 0 where there is no problem, else with 1."""
    from opo_cli.console import err, out
    from opo_cli.doctor.report import print_finding, summary, table
    from opo_cli.doctor.run import examine
    from opo_cli.report.tables import print_tables

    prepare_process()
    found = []
    for finding in examine(lambda what: err.status(f"checking {what} ...")):
        found.append(finding)
        if format is Format.rich:
            print_finding(out, finding)
    if format is Format.rich:
        out.print(summary(found))
    else:
        print_tables(out, [table(found)], format)
    if any(finding.state == "problem" for finding in found):
        raise typer.Exit(1)
