"""`opo eval`."""

from __future__ import annotations

from typing import Annotated

import typer

from opo_cli.cli.options import (
    DEFAULT_PRESET,
    Format,
    FormatOption,
    SetOption,
    parse_numbers,
    prepare_process,
    set_threads,
)

NAME = "eval"


def command(
    benchmarks: Annotated[
        list[str], typer.Argument(metavar="BENCHMARK...", help="See: opo list benchmarks.")
    ],
    run: Annotated[str | None, typer.Option(help="A run's folder or name.")] = None,
    model: Annotated[str | None, typer.Option(help="A Hugging Face model folder.")] = None,
    samples: Annotated[int | None, typer.Option(help="Responses per problem.")] = None,
    k: Annotated[str | None, typer.Option("--k", help="The k of pass@k: 1,4,16.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N problems.")] = None,
    overrides: SetOption = None,
    format: FormatOption = Format.rich,
) -> None:
    """Evaluate a run, or any model, on benchmarks."""
    from opo_cli.console import note, out
    from opo_cli.data.benchmarks import check_names
    from opo_cli.errors import OpoError
    from opo_cli.evaluate.settings import eval_config
    from opo_cli.model.folder import model_source
    from opo_cli.records import find_run, newest_finished_run

    check_names(benchmarks)
    if run and model:
        raise OpoError(f"--run {run} and --model {model}: one of them", "leave one out")
    if model:
        model_source(model)
    folder = None if model else find_run(run) if run else newest_finished_run()
    if folder is not None and not run:
        note(f"the newest run: {folder.path}")
    config = eval_config(
        folder,
        model,
        DEFAULT_PRESET,
        benchmarks=benchmarks,
        samples=samples,
        k=None if k is None else parse_numbers(k, "--k"),
        limit=limit,
        overrides=overrides or (),
    )
    prepare_process()
    set_threads(config)
    from opo_cli.evaluate.settings import evaluate_model
    from opo_cli.report.tables import evals_report, print_report

    records = evaluate_model(config, folder)
    print_report(out, evals_report(records, folder), format)
    if folder is not None:  # After the table: a folder that cannot be written costs no result.
        folder.add_evals({"policy": "asked", "step": config.train.steps, **r} for r in records)
