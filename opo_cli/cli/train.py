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
from opo_cli.ranks import is_launched, is_main, num_restarts, program, world_size

if TYPE_CHECKING:
    from opo_cli.config import Config
    from opo_cli.records import RunFolder

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
    """Train a model by reinforcement learning, evaluate it before and after.

    On several GPUs: torchrun --standalone --nproc-per-node N -m opo_cli train ...
    """
    started = time.monotonic()
    from opo_cli.console import note
    from opo_cli.presets import resolve
    from opo_cli.records import RunFolder
    from opo_cli.train.outputs import (
        check_data,
        check_run,
        default_folder,
        stored_config,
        with_ranks,
    )

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
    if is_launched():
        config = with_ranks(config, world_size())
    elif not dry_run:  # What can be told at once.
        check_run(config, folder, resume=resume)
    prepare_process()
    set_threads(config)
    from opo_cli.model.device import check_gpus, warn_gpus

    is_plan = dry_run and not check
    warn_gpus(config) if is_plan else check_gpus(config)
    if is_plan:
        _foresee(config, folder, use_check=False)
        return
    from opo_cli.model.parallel import from_main, joined
    from opo_cli.model.policy import choose_device

    device = choose_device(config.runtime.device)[0].type
    with joined(device, config.runtime.timeout_seconds):
        if dry_run:
            _foresee(config, folder, use_check=True)
            return
        if num_restarts() and from_main(lambda: folder.is_finished):
            note(f"finished before the restart: {folder.path}")
            return
        if is_launched():
            is_again = num_restarts() > 0
            from_main(
                lambda: check_run(config, folder, resume=resume or (is_again and folder.exists))
            )
        _train(config, folder, use_check=check, started=started)


def _train(config: Config, folder: RunFolder, *, use_check: bool, started: float) -> None:
    from opo_cli.console import note, out
    from opo_cli.interrupt import Interrupted
    from opo_cli.model.parallel import from_main
    from opo_cli.report.evals import print_run
    from opo_cli.report.live import TrainView
    from opo_cli.report.spending import Spending
    from opo_cli.train.loop import train
    from opo_cli.train.plan import plan

    view, planned = TrainView(out), from_main(lambda: plan(config, folder))
    view.plan(planned.rows)
    try:
        train(config, folder, view, use_check=use_check, started=started)
    except Interrupted as interrupt:
        if folder.is_finished:
            note(f"saved: {folder.path}")
        elif folder.exists:
            spending = Spending.of(config, folder.steps())
            note(f"stopped after step {spending.num_steps} of {spending.total}")
            note(f"go on: {program()} train --resume --out {folder.path}")
        else:
            note("stopped before the first step")
        raise typer.Exit(128 + interrupt.number) from None
    if is_main():
        print_run(out, folder)
        note(f"saved: {folder.path}")


def _foresee(config: Config, folder: RunFolder, *, use_check: bool) -> None:
    """The plan: memory by part and a rough time; measured, too, if asked for."""
    from opo_cli.console import out
    from opo_cli.model.parallel import from_main
    from opo_cli.report.live import TrainView
    from opo_cli.report.tables import print_tables
    from opo_cli.train.forecast import lines, memory_table
    from opo_cli.train.loop import check
    from opo_cli.train.plan import plan

    view, planned = TrainView(out), from_main(lambda: plan(config, folder))
    view.plan(planned.rows)
    if not isinstance(planned.forecast, str):
        print_tables(out, [memory_table(planned.forecast)], "rich")
        view.plan(lines(planned.forecast))
    if use_check:
        check(config, view)
