"""`opo train`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opo_cli.cli.options import (
    DEFAULT_PRESET,
    SetOption,
    named_options,
    prepare_process,
    set_threads,
)

if TYPE_CHECKING:
    from opo_cli.config import Config
    from opo_cli.report.live import TrainView
    from opo_cli.train.plan import Plan

NAME = "train"


def command(
    preset: Annotated[
        str | None, typer.Option("--preset", "-p", help="See: opo list presets; else tiny.")
    ] = None,
    algorithm: Annotated[
        str | None, typer.Option("--algorithm", "-a", help="See: opo list algorithms.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Training seed.")] = None,
    steps: Annotated[int | None, typer.Option(help="Rollout batches.")] = None,
    model: Annotated[
        str | None, typer.Option(help="A Hugging Face model folder instead of the preset's.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="auto, transformers or vllm.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; else runs/PRESET-ALGORITHM-seedN.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")] = False,
    overrides: SetOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan, with memory by part, and stop.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Before training, one step of the longest prompts and responses, which changes "
            "nothing; with --dry-run, that alone.",
        ),
    ] = False,
) -> None:
    """Train a model by reinforcement learning, evaluate it before and after."""
    started = time.monotonic()
    from opo_cli.console import note
    from opo_cli.console import out as stdout
    from opo_cli.presets import resolve
    from opo_cli.records import RunFolder
    from opo_cli.train.outputs import check_data, check_run, default_folder, stored_config

    named = named_options(seed=seed, steps=steps, model=model, engine=engine)
    names_a_start = preset is not None or algorithm is not None
    if resume and out is not None and not names_a_start and RunFolder(out).exists:
        folder = RunFolder(out)
        config = stored_config(folder, named, overrides or ())
    else:
        config = resolve(
            preset or DEFAULT_PRESET, algorithm=algorithm, named=named, overrides=overrides or ()
        )
        folder = RunFolder(out) if out else default_folder(config)
    from opo_cli.model.folder import model_source

    check_data(config)
    if config.model.path:
        model_source(config.model.path)
    if not dry_run:
        check_run(config, folder, resume=resume)
    prepare_process()
    set_threads(config)
    from opo_cli.model.device import check_gpus, warn_gpus

    warn_gpus(config) if dry_run and not check else check_gpus(config)
    from opo_cli.interrupt import Interrupted
    from opo_cli.report.live import TrainView
    from opo_cli.report.spending import Spending
    from opo_cli.train.loop import train
    from opo_cli.train.plan import plan

    view, planned = TrainView(stdout), plan(config, folder)
    view.plan(planned.rows)
    if dry_run:
        _foresee(planned, config, view, use_check=check)
        return
    try:
        train(config, folder, view, use_check=check, started=started)
    except Interrupted as interrupt:
        if folder.is_finished:
            note(f"saved: {folder.path}")
        elif folder.exists:
            spending = Spending.of(config, folder.steps())
            note(f"stopped after step {spending.num_steps} of {spending.total}")
            note(f"go on: opo train --resume --out {folder.path}")
        else:
            note("stopped before the first step")
        raise typer.Exit(128 + interrupt.number) from None
    from opo_cli.report.evals import print_run

    print_run(stdout, folder)
    note(f"saved: {folder.path}")


def _foresee(planned: Plan, config: Config, view: TrainView, *, use_check: bool) -> None:
    """Memory by part and a rough time; measured, too, if asked for."""
    from opo_cli.report.tables import print_tables
    from opo_cli.train.forecast import lines, memory_table
    from opo_cli.train.loop import check

    if not isinstance(planned.forecast, str):
        print_tables(view.console, [memory_table(planned.forecast)], "rich")
        view.plan(lines(planned.forecast))
    if use_check:
        check(config, view)
