"""How findings are shown: each as soon as it is there, or all in one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import rich.table
from rich.console import Console

from opo_cli.console import inert
from opo_cli.doctor.findings import Finding
from opo_cli.report.tables import Table

COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}
STATE_WIDTH, WHAT_WIDTH = len("problem"), len("engine transformers")


def print_finding(console: Console, finding: Finding) -> None:
    """A line, on a terminal folded under its column; the mend below is whole, to be copied."""
    state = f"[{COLOURS[finding.state]}]{finding.state:{STATE_WIDTH}}[/]"
    if console.is_terminal:
        line = rich.table.Table.grid(padding=(0, 1))
        line.add_column(width=STATE_WIDTH)
        line.add_column(width=WHAT_WIDTH)
        line.add_column(overflow="fold")
        line.add_row(state, inert(finding.what, console), inert(finding.found, console))
        console.print(line)
    else:
        what, found = inert(finding.what, console), inert(finding.found, console)
        console.print(f"{state} {what:{WHAT_WIDTH}} {found}", soft_wrap=True)
    if finding.mend:
        console.print(
            f"{'':{STATE_WIDTH}} [cyan]mend:[/] {inert(finding.mend, console)}", soft_wrap=True
        )


def summary(found: Sequence[Finding]) -> str:
    """In Rich's markup."""
    counts = Counter(finding.state for finding in found)
    if not counts["problem"]:
        return f"no problem, {_counted(counts['warning'], 'warning')}"
    parts = [_counted(counts[state], state) for state in ("problem", "warning")]
    return f"[bold]{', '.join(parts)}[/]"


def _counted(count: int, word: str) -> str:
    return f"{count or 'no'} {word}{'s' * (count != 1)}"


def table(found: Sequence[Finding]) -> Table:
    rows = [(finding.what, finding.state, finding.found, finding.mend) for finding in found]
    return Table(title="", head=("check", "state", "found", "mend"), rows=rows)
