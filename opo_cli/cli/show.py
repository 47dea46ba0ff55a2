"""`opo show`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

NAME = "show"


class Format(StrEnum):
    rich = "rich"
    json = "json"


def command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder or name.")],
    step: Annotated[int | None, typer.Option(help="Of this step; else the newest.")] = None,
    problem: Annotated[
        str | None, typer.Option(metavar="ID", help="The responses to this problem.")
    ] = None,
    best: Annotated[bool, typer.Option("--best", help="The highest mean reward.")] = False,
    worst: Annotated[bool, typer.Option("--worst", help="The lowest mean reward.")] = False,
    random: Annotated[bool, typer.Option("--random", help="Any of the step's groups.")] = False,
    responses: Annotated[
        int, typer.Option(min=0, help="How many are shown, from both ends; 0: all.")
    ] = 4,
    format: Annotated[Format, typer.Option("--format", "-f", help="json: whole lines.")] = (
        Format.rich
    ),
) -> None:
    """Read a group of a run's responses side by side; by default the one whose rewards differ most.

    On a terminal each token has the colour of its entropy."""
    from opo_cli.console import out
    from opo_cli.errors import OpoError
    from opo_cli.records import find_run
    from opo_cli.report.labels import training_line
    from opo_cli.report.show import find_group, print_group, print_lines

    picks = [n for n, is_on in {"best": best, "worst": worst, "random": random}.items() if is_on]
    asked = [*([] if problem is None else ["problem"]), *picks]
    if len(asked) > 1:
        given = " and ".join(f"--{name}" for name in asked)
        raise OpoError(f"{given}: one group at a time", f"leave out all but --{asked[0]}")
    folder = find_run(run)
    lines = find_group(folder.ledger, step, problem, *picks)
    if format is Format.json:
        print_lines(out, lines)
    else:
        trained = training_line(folder.config(), folder.steps())
        print_group(out, folder.name, trained, lines, responses)
