"""`opo check`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opo_cli.choose import check_known
from opo_cli.cli.options import Format, FormatOption, SetOption, named_options

if TYPE_CHECKING:
    from opo_cli.config import Config
    from opo_cli.faults.draw import Reference
    from opo_cli.faults.trials import Bench, Trial

NAME = "check"
CHECKS = ("resume",)


def command(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="resume.")],
    preset: Annotated[str, typer.Option("--preset", "-p", help="See: opo list presets.")] = "smoke",
    algorithm: Annotated[
        str | None, typer.Option("--algorithm", "-a", help="See: opo list algorithms.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="auto, transformers or vllm.")] = None,
    kills: Annotated[int, typer.Option(help="Runs that are killed, once or more often.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the points at which they are killed.")] = 0,
    jobs: Annotated[
        int | None, typer.Option(help="Runs at once; else one per core, on a GPU one.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Relative difference of metrics that passes; 0: bit for bit.")
    ] = 0.0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the folder with all runs, and say where it is.")
    ] = False,
    overrides: SetOption = None,
    format: FormatOption = Format.rich,
) -> None:
    """Prove on this machine that a run killed anywhere and resumed is the run never killed."""
    check_known(what, CHECKS, "check")
    from opo_cli.console import out
    from opo_cli.presets import resolve, set_options
    from opo_cli.report.tables import print_report
    from opo_cli.train.outputs import check_data

    _check_numbers(kills, jobs, tolerance)
    named = named_options(seed=None, steps=None, model=None, engine=engine)
    config = resolve(preset, algorithm=algorithm, named=named, overrides=overrides or ())
    check_data(config)
    start = ["--preset", preset, *set_options(overrides or ())]
    chosen = {"--algorithm": algorithm, "--engine": engine}
    options = [part for pair in chosen.items() if pair[1] is not None for part in pair]
    jobs = jobs or _jobs(config)
    scratch = Path(tempfile.mkdtemp(prefix="opo-check-"))
    try:
        bench = _bench(scratch, start, options, config, jobs, keep)
        trials, reference = _resume(bench, seed, kills, jobs)
    finally:
        _leave(scratch, keep)
    from opo_cli.faults.report import report_of

    print_report(out, report_of(trials, reference, tolerance), format)
    if not all(trial.is_within(tolerance) for trial in trials):
        raise typer.Exit(1)


def _check_numbers(kills: int, jobs: int | None, tolerance: float) -> None:
    from opo_cli.errors import OpoError

    if kills < 1:
        raise OpoError(f"--kills {kills}: at least one run is killed", "for example: --kills 10")
    if jobs is not None and jobs < 1:
        raise OpoError(f"--jobs {jobs}: at least one run at a time", "leave it out: one per core")
    if not 0 <= tolerance < 1:
        raise OpoError(f"--tolerance {tolerance:g} is not between 0 and 1", "0: bit for bit")


def _jobs(config: Config) -> int:
    from opo_cli.host import num_cores
    from opo_cli.model.device import training_device

    return 1 if training_device(config).is_gpu else num_cores()


def _bench(
    scratch: Path, start: list[str], options: list[str], config: Config, jobs: int, keep: bool
) -> Bench:
    """All runs have the same number of threads, on which the last bits depend."""
    from opo_cli.faults.trials import Bench
    from opo_cli.host import num_cores

    is_free = not config.runtime.num_threads and jobs > 1
    return Bench(
        scratch=scratch,
        start=["train", *start, *options],
        prepare=["prepare", *start],
        num_threads=max(1, num_cores() // jobs) if is_free else 0,
        use_keep=keep,
    )


def _resume(bench: Bench, seed: int, kills: int, jobs: int) -> tuple[list[Trial], Reference]:
    from opo_cli.console import progress
    from opo_cli.faults.trials import make_reference, run_trials

    reference = make_reference(bench)
    with progress("kill and resume", kills) as update:
        return run_trials(bench, reference, seed, kills, jobs, update), reference


def _leave(scratch: Path, keep: bool) -> None:
    import shutil

    from opo_cli.console import note

    if keep:
        note(f"kept: {scratch}")
    else:
        shutil.rmtree(scratch, ignore_errors=True)
