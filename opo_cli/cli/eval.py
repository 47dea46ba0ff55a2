"""`opo eval`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from opo_cli.cli.options import (
    Format,
    FormatOption,
    SetOption,
    parse_columns,
    parse_numbers,
    prepare_process,
    set_threads,
)
from opo_cli.ranks import is_main

NAME = "eval"


def command(
    benchmarks: Annotated[
        list[str] | None, typer.Argument(metavar="[BENCHMARK]...", help="See: opo list benchmarks.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="A JSONL, Parquet or CSV file as a benchmark."),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="KEY=COLUMN,...", help="Of --data: question=..,answer=..,id=.."),
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="A run's folder or name; else the newest.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A Hugging Face model folder or hub id.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="Responses per problem; else the benchmark's own number.")
    ] = None,
    k: Annotated[str | None, typer.Option("--k", help="Of pass@k and maj@k: 1,4,16.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N problems.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of sampling; 0 is greedy.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Longest response; else what the model can take.")
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="See: opo list templates; or a file with {question}.")
    ] = None,
    overrides: SetOption = None,
    format: FormatOption = Format.rich,
) -> None:
    """Evaluate a run, or any model, on benchmarks: accuracy with its 95 % interval.

    A stopped evaluation goes on where it was."""
    from opo_cli.console import note, out, warn
    from opo_cli.data.benchmarks import check_names, load_benchmark
    from opo_cli.errors import OpoError
    from opo_cli.evaluate.settings import check_evaluation, eval_config
    from opo_cli.model.folder import model_source
    from opo_cli.records import find_run, newest_finished_run

    names = list(dict.fromkeys([*(benchmarks or ()), *(data or ())]))
    if not names:
        raise OpoError(
            "no benchmark was given",
            "for example: opo eval MATH-500, or opo eval --data FILE; see: opo list benchmarks",
        )
    check_names(names)
    if run and model:
        raise OpoError(f"--run {run} and --model {model}: one of them", "leave one out")
    if model:
        model_source(model)
    folder = None if model else find_run(run) if run else newest_finished_run()
    if folder is not None:
        folder.check_finished()
    if folder is not None and not run:
        note(f"the newest run: {folder.path}")
    settings = {
        "benchmarks": names,
        "columns": None if columns is None else parse_columns(columns, "--columns"),
        "samples": samples,
        "k": None if k is None else parse_numbers(k, "--k"),
        "limit": limit,
        "temperature": temperature,
        "max_new_tokens": max_new_tokens,
    }
    asked = {"eval": _given(settings), "data": _given({"template": template})}
    config = eval_config(folder, model, asked, overrides or ())
    check_evaluation(config)
    prepare_process()
    set_threads(config)
    for name in names:  # What cannot be had is told before a model loads.
        load_benchmark(name, config.eval.columns)
    from opo_cli.evaluate.standalone import evaluate_model
    from opo_cli.model.parallel import joined
    from opo_cli.model.policy import choose_device
    from opo_cli.report.evals import evals_report, setting_differences
    from opo_cli.report.tables import print_report

    device = choose_device(config.runtime.device)[0].type
    try:
        with joined(device, config.runtime.timeout_seconds):
            records = evaluate_model(config, folder)
    except KeyboardInterrupt:
        note("stopped; the same command goes on with the problems that are missing")
        raise
    if not is_main():
        return
    print_report(out, evals_report(records, folder), format)
    for line in setting_differences(records):
        warn(line)
    if folder is not None:  # After the table: a folder that cannot be written costs no result.
        folder.add_evals({"policy": "asked", "step": folder.final_step, **r} for r in records)


def _given(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if value is not None}
