"""`opo compare`."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from opo_cli.cli.options import (
    Format,
    FormatOption,
    SetOption,
    check_target,
    parse_names,
    parse_numbers,
    prepare_process,
    write_page,
)

if TYPE_CHECKING:
    from opo_cli.records import RunFolder
    from opo_cli.report.compare import Comparison
    from opo_cli.train.cells import Cell, Sweep

NAME = "compare"
LAUNCHERS = ("none", "torchrun")


class Match(StrEnum):
    """Keys of `metrics.BUDGETS`."""

    steps = "steps"
    samples = "samples"
    gradient_steps = "gradient-steps"
    tokens = "tokens"


def command(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Finished runs to compare.")
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
    match: Annotated[
        Match | None, typer.Option(help="Budget held equal; of finished runs: that must be equal.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(help="So much of it; else what the preset's steps take.")
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SECTION.KEY=A,B", help="Each algorithm at its own best, by validation."
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Runs at once; else one per core, or one per GPU.")
    ] = None,
    launcher: Annotated[
        str | None,
        typer.Option(help="torchrun: each run on several ranks, one run after the other; or none."),
    ] = None,
    ranks: Annotated[
        int | None,
        typer.Option(help="Of --launcher; else the preset's GPUs if several, all here, or 2 CPUs."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only what exists, what is missing, and how long.")
    ] = False,
    measure: Annotated[str, typer.Option(help="What verdicts are about: avg, or pass@K.")] = "avg",
    margin: Annotated[
        float | None, typer.Option(help="Smallest difference that matters; else the preset's.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Hold the others against this one; else all pairs.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Reward whose first reaching is told.")
    ] = None,
    curves: Annotated[
        str, typer.Option(help="Metrics drawn over steps; see: opo list metrics.")
    ] = "reward,entropy,kl_exact_sequence",
    allow_incomparable: Annotated[
        bool, typer.Option("--allow-incomparable", help="Tabulate runs that do not compare.")
    ] = False,
    out: Annotated[
        str | None, typer.Option(help="Folder of the comparison; else under comparisons/.")
    ] = None,
    html: Annotated[str | None, typer.Option(help="The report, once more, as this file.")] = None,
    figures: Annotated[
        str | None, typer.Option(help="Charts as SVG, PNG and PDF into this folder.")
    ] = None,
    overrides: SetOption = None,
    format: FormatOption = Format.rich,
) -> None:
    """Hold runs against each other; with a preset, train what is missing first."""
    from opo_cli.config import Compare
    from opo_cli.report.compare import Options, compare

    names = _metrics(curves)
    of_preset = {
        "--algorithms": algorithms,
        "--seeds": seeds,
        "--budget": budget,
        "--sweep": sweep and sweep[0],
        "--jobs": jobs,
        "--launcher": launcher,
        "--ranks": ranks,
        "--set": overrides and overrides[0],
        "--dry-run": "" if dry_run else None,
    }
    _check_runs_or_preset(runs, preset, of_preset)
    _check_launcher(launcher, ranks, jobs)
    _check_share(margin, "--margin")
    _check_threshold(threshold)
    check_target(out, is_folder=True)
    check_target(html, is_folder=False)
    check_target(figures, is_folder=True)
    failed: list[Cell] = []
    if preset:
        cells, swept = _plan(preset, algorithms, seeds, overrides, sweep, match, budget)
        _check_questions(cells, measure, against)
        if launcher == "torchrun":
            cells = _on_ranks(cells, ranks)
        failed = _train(cells, jobs, format if dry_run else None)
        if dry_run:
            return
        first = "-".join((preset, *_shown(_algorithms_of(cells))))
        defaults, planned = cells[0].config.compare, [cell.folder for cell in cells]
        folders = [folder for folder in planned if folder.is_finished]
    else:
        first, defaults, swept = "runs", Compare(), None
        folders = planned = _found(runs)
    if folders:
        options = Options(
            curves=names,
            measure=measure,
            margin=defaults.margin if margin is None else margin,
            match=match or (defaults.match if preset else None),
            is_planned=bool(preset),
            missing=[folder.name for folder in planned if not folder.is_finished],
            against=against,
            swept=swept.key if swept else None,
            threshold=threshold,
            allow_incomparable=allow_incomparable,
        )
        where = out or _folder_name(first, planned, (measure, options.margin, against))
        _tell(compare(folders, options), format, Path(where), html, figures)
    if failed:
        raise typer.Exit(1)


# --- what is asked -------------------------------------------------------------------------------


def _check_runs_or_preset(
    runs: list[str] | None, preset: str | None, of_preset: dict[str, Any]
) -> None:
    """Raises OpoError for both, for neither, and for runs with an option `of_preset`."""
    from opo_cli.errors import OpoError

    if bool(runs) == bool(preset):
        raise OpoError(
            "both runs and a preset were given" if runs else "neither runs nor a preset were given",
            "opo compare RUN RUN ..., or opo compare --preset tiny",
        )
    given = [f"{name} {value}" for name, value in of_preset.items() if value is not None]
    if runs and given:
        raise OpoError(
            f"{given[0].strip()} goes with --preset, not with finished runs",
            "leave it out, or give a preset instead of runs",
        )


def _metrics(curves: str) -> list[str]:
    from opo_cli.choose import check_known
    from opo_cli.metrics import METRICS

    names = parse_names(curves, "--curves")
    for name in names:
        check_known(name, METRICS, "metric")
    return names


def _check_share(value: float | None, option: str) -> None:
    """Raises OpoError where it is not between 0 and 1."""
    from opo_cli.errors import OpoError

    if value is not None and not 0 < value < 1:
        raise OpoError(f"{option} {value:g} is not between 0 and 1", f"for example: {option} 0.02")


def _check_threshold(value: float | None) -> None:
    from opo_cli.errors import OpoError

    if value is not None and not math.isfinite(value):
        raise OpoError(f"--threshold {value:g} is no reward", "for example: --threshold 0.5")


def _check_launcher(launcher: str | None, ranks: int | None, jobs: int | None) -> None:
    """Raises OpoError for an unknown one, or for what contradicts it."""
    from opo_cli.choose import check_known
    from opo_cli.errors import OpoError
    from opo_cli.ranks import is_launched, world_size

    if launcher is not None:
        check_known(launcher, LAUNCHERS, "launcher")
    if is_launched():
        raise OpoError(
            f"torchrun has started opo compare {world_size()} times: it starts runs itself",
            "opo compare --launcher torchrun, without torchrun before it",
        )
    if launcher != "torchrun":
        if ranks is not None:
            raise OpoError(f"--ranks {ranks} goes with --launcher torchrun", "give both or neither")
        return
    if ranks is not None and ranks < 1:
        raise OpoError(f"--ranks {ranks}: at least one", "leave --ranks out: one for each GPU")
    if jobs is not None:
        raise OpoError(
            f"--jobs {jobs} with --launcher torchrun, whose runs go one after the other",
            "leave --jobs out",
        )


# --- the runs ------------------------------------------------------------------------------------


def _found(runs: list[str]) -> list[RunFolder]:
    """Each once."""
    from opo_cli.records import find_run

    return list({run.path.resolve(): run for run in map(find_run, runs)}.values())


def _plan(
    preset: str,
    algorithms: str | None,
    seeds: str | None,
    overrides: list[str] | None,
    sweep: list[str] | None,
    match: Match | None,
    budget: int | None,
) -> tuple[list[Cell], Sweep | None]:
    prepare_process()
    from opo_cli.train.cells import parse_sweep, plan_matrix

    swept = parse_sweep(_only(sweep)) if sweep else None
    cells = plan_matrix(
        preset,
        _algorithms(algorithms),
        None if seeds is None else parse_numbers(seeds, "--seeds"),
        overrides,
        sweep=swept,
        match=match,
        budget=budget,
    )
    return cells, swept


def _algorithms(text: str | None) -> list[str] | None:
    """The names; `all` stands for every row, None for the preset's own."""
    from opo_cli.algorithms import ALGORITHMS

    names = None if text is None else parse_names(text, "--algorithms")
    return list(ALGORITHMS) if names == ["all"] else names


def _algorithms_of(cells: list[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.algorithm for cell in cells))


def _on_ranks(cells: list[Cell], ranks: int | None) -> list[Cell]:
    from opo_cli.train.matrix import ranks_to_launch

    count = ranks_to_launch(cells[0].config, ranks)
    return [cell.on_ranks(count) for cell in cells]


def _only(sweeps: list[str]) -> str:
    from opo_cli.errors import OpoError

    if len(sweeps) > 1:
        raise OpoError(
            f"--sweep {sweeps[0]} --sweep {sweeps[1]}: one setting is swept at a time",
            "the others by --set, or in comparisons of their own",
        )
    return sweeps[0]


def _train(cells: list[Cell], jobs: int | None, plan: Format | None) -> list[Cell]:
    """Shows the plan and does what is missing; returns the cells that failed.

    Args:
        plan: how the plan is printed, where it alone is asked for.
    """
    from opo_cli.console import err, out, warn
    from opo_cli.errors import OpoError
    from opo_cli.report.tables import print_tables
    from opo_cli.train.duration import plan_table
    from opo_cli.train.matrix import check_devices, num_jobs, run_matrix

    missing = [cell for cell in cells if not cell.folder.is_finished]
    is_parallel = missing and not missing[0].ranks
    count = num_jobs(missing[0].config, jobs) if is_parallel else 1
    if missing:
        try:
            check_devices(missing[0])
        except OpoError as error:
            if not plan:
                raise
            warn(error.message)
    if plan:
        print_tables(out, [plan_table(cells, count)], plan)
        return []
    if missing:
        print_tables(err, [plan_table(cells, count)], "rich")
    return run_matrix(cells, count)


def _check_questions(cells: list[Cell], measure: str, against: str | None) -> None:
    """What can be told of them before anything is trained.

    Raises:
        OpoError: a measure that needs more samples, or an algorithm that is none of the cells'.
    """
    from opo_cli.choose import check_known
    from opo_cli.data.benchmarks import benchmark_row, benchmark_title
    from opo_cli.evaluate.settings import num_samples
    from opo_cli.report.contrasts import check_samples

    if against is not None:
        check_known(against, _algorithms_of(cells), "algorithm of these")
    settings = cells[0].config.eval
    for name in settings.benchmarks:
        check_samples(measure, benchmark_title(name), num_samples(settings, benchmark_row(name)))


# --- the report ----------------------------------------------------------------------------------


def _shown(algorithms: list[str]) -> list[str]:
    return algorithms if len(algorithms) <= 4 else [f"{len(algorithms)}-algorithms"]


def _folder_name(first: str, runs: list[RunFolder], questions: tuple) -> str:
    """`comparisons/tiny-opo-grpo-1a2b3c`: the hash is of all runs and of what is asked of them."""
    from opo_cli.records import digest

    hashed = digest(sorted(str(folder.path.resolve()) for folder in runs), questions)[:6]
    return f"comparisons/{first}-{hashed}"


def _tell(
    comparison: Comparison, format: Format, folder: Path, html: str | None, figures: str | None
) -> None:
    """Writes report and results, prints the tables: what cannot be written costs no table, and a
    reader of our pipe that has seen enough no report."""
    import shlex

    from opo_cli.console import note, out
    from opo_cli.files import write_json
    from opo_cli.redact import command_line
    from opo_cli.report.compare import report, results_of
    from opo_cli.report.compare_page import page_of
    from opo_cli.report.page import render
    from opo_cli.report.tables import print_report

    found, written = report(comparison), []
    try:
        write_json(folder / "results.json", results_of(comparison))
        page = page_of(comparison, shlex.join(command_line()))
        text = render(page)
        for path in (str(folder / "report.html"), *([html] if html else [])):
            write_page(path, text)
            written.append(f"report: {path}")
        if figures:
            from opo_cli.report.figures import save_figures

            paths = save_figures(page, Path(figures))
            written.append(f"{len(paths)} figures in {figures}")
    finally:
        print_report(out, found, format)
    for line in written:
        note(line)
