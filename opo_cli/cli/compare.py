"""`opo compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from opo_cli.cli.options import (
    Format,
    FormatOption,
    SetOption,
    num_cores,
    parse_names,
    parse_numbers,
    prepare_process,
)

if TYPE_CHECKING:
    from opo_cli.config import Config

NAME = "compare"


def command(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Finished runs to tabulate.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", "-p", help="First do what is missing of this preset.")
    ] = None,
    algorithms: Annotated[
        str | None, typer.Option(help="With --preset: opo,grpo,ppo, or all; else the preset's.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="With --preset: 0,1,2 or 0-4; else the preset's.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Runs at once; else one per core, on a GPU one.")
    ] = None,
    curves: Annotated[
        str, typer.Option(help="Metrics drawn over steps; see: opo list metrics.")
    ] = "reward,entropy,kl_exact_sequence",
    overrides: SetOption = None,
    format: FormatOption = Format.rich,
) -> None:
    """Tabulate runs side by side; with a preset, train what is missing first."""
    from opo_cli.choose import choose
    from opo_cli.console import out
    from opo_cli.errors import OpoError
    from opo_cli.metrics import METRICS
    from opo_cli.records import find_run
    from opo_cli.report.compare import comparison
    from opo_cli.report.tables import print_report

    names = parse_names(curves, "--curves")
    for name in names:
        choose(name, METRICS, "metric")
    if bool(runs) == bool(preset):
        raise OpoError(
            "both runs and a preset were given" if runs else "neither runs nor a preset were given",
            "opo compare RUN RUN ..., or opo compare --preset tiny",
        )
    if jobs is not None and jobs < 1:
        raise OpoError(f"--jobs {jobs}: at least one run at a time", "leave it out: one per core")
    if runs and (algorithms or seeds or jobs or overrides):
        raise OpoError(
            "--algorithms, --seeds, --jobs and --set go with --preset, not with finished runs",
            "leave them out, or give a preset instead of runs",
        )
    failed = []
    if preset:
        prepare_process()
        from opo_cli.train.matrix import plan_matrix, run_matrix

        cells = plan_matrix(
            preset,
            _algorithms(algorithms),
            None if seeds is None else parse_numbers(seeds, "--seeds"),
            overrides,
        )
        missing = [cell for cell in cells if not cell.folder.is_finished]
        failed = run_matrix(cells, num_jobs(missing[0].config, jobs) if missing else 1)
        folders = [cell.folder for cell in cells if cell.folder.is_finished]
    else:
        folders = list({run.path.resolve(): run for run in map(find_run, runs)}.values())
    if folders:
        print_report(out, comparison(folders, names), format)
    if failed:
        raise typer.Exit(1)


def num_jobs(config: Config, asked: int | None) -> int:
    """Runs at once: on a GPU, which every run takes whole, one.

    Raises:
        OpoError: more are asked for.
    """
    from opo_cli.errors import OpoError
    from opo_cli.model.device import training_device

    if not training_device(config).is_gpu:
        return asked or num_cores()
    if asked and asked > 1:
        raise OpoError(
            f"--jobs {asked}: these runs train on a GPU, which each of them takes whole",
            "leave it out: one at a time; or --set runtime.device=cpu",
        )
    return 1


def _algorithms(text: str | None) -> list[str] | None:
    """The names; `all` stands for every row, None for the preset's own."""
    from opo_cli.algorithms import ALGORITHMS

    names = None if text is None else parse_names(text, "--algorithms")
    return list(ALGORITHMS) if names == ["all"] else names
