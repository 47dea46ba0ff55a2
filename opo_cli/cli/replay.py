"""`opo replay`."""

from __future__ import annotations

from typing import Annotated

import typer

from opo_cli.cli.options import Format, FormatOption, parse_names, prepare_process

NAME = "replay"


def command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder or name.")],
    estimators: Annotated[
        str | None,
        typer.Option("--as", metavar="NAMES", help="grpo,rloo,opo-loo; else all there are."),
    ] = None,
    step: Annotated[int | None, typer.Option(help="Of this step; else of all kept.")] = None,
    format: FormatOption = Format.rich,
) -> None:
    """Give a run's stored rollouts the advantages that other estimators would have given them.

    It needs no model, and does not say where training with another would have led."""
    from opo_cli.choose import check_known
    from opo_cli.console import out
    from opo_cli.records import find_run
    from opo_cli.report.tables import print_report
    from opo_cli.rl.advantages import ADVANTAGES

    names = None if estimators is None else parse_names(estimators, "--as")
    for name in names or ():
        check_known(name, ADVANTAGES, "advantage estimator")
    folder = find_run(run)
    prepare_process()
    from opo_cli.report.replay import replay

    print_report(out, replay(folder, names, step), format)
