"""`opo prepare`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from opo_cli.cli.options import (
    DEFAULT_PRESET,
    SetOption,
    parse_names,
    prepare_process,
    set_threads,
)

if TYPE_CHECKING:
    from opo_cli.config import Columns, Config

NAME = "prepare"
NO_FILE = "-"
Row = tuple[str, str, str, str, str]
"""Benchmark, problems, source, sha256, file."""


def command(
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            "-p",
            help=f"See: opo list presets. Without it: {DEFAULT_PRESET}, or with --benchmarks none.",
        ),
    ] = None,
    benchmarks: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Fetch these, see: opo list benchmarks."),
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Fetch benchmarks; or all that a preset needs: its benchmarks, training problems and base
    model. Each once."""
    from opo_cli.data.benchmarks import benchmark_row, check_names
    from opo_cli.data.training import check_source
    from opo_cli.presets import resolve

    asked = [] if benchmarks is None else parse_names(benchmarks, "--benchmarks")
    config = resolve(preset or DEFAULT_PRESET, overrides=overrides or ())
    is_whole = bool(not asked or preset or overrides)
    own = (*config.eval.every_benchmark, *config.data.audit) if is_whole else ()
    check_names([*asked, *own])
    if is_whole:
        check_source(config.data)
    names = list(dict.fromkeys([*asked, *(name for name in own if benchmark_row(name).hub)]))
    prepare_process()
    set_threads(config)
    if names:
        _print_benchmarks(names, config.eval.columns)
    if is_whole:
        _prepare(config)


def _print_benchmarks(names: list[str], columns: Columns) -> None:
    """Fetches all that can be had, before it fails for the rest. Files are named below the folder
    in the last line, which a terminal would break in a table."""
    from opo_cli.console import complain, inert, out
    from opo_cli.errors import OpoError
    from opo_cli.records import cache_folder
    from opo_cli.report.tables import Table, print_tables

    rows, failures = [], []
    for name in names:
        try:
            rows.append(_benchmark(name, columns))
        except OpoError as error:
            failures.append(error)
    head = ("benchmark", "problems", "source", "sha256", "file")
    if rows:
        print_tables(out, [Table(title="", head=head, rows=rows)], "rich")
        if any(row[-1] != NO_FILE for row in rows):
            out.print(inert(str(cache_folder() / "problems"), out), soft_wrap=True)
    for error in failures:
        complain(error.message, error.hint)
    if failures:
        raise typer.Exit(2)


def _benchmark(name: str, columns: Columns) -> Row:
    from opo_cli.data.benchmarks import benchmark_row, kept_benchmark, load_benchmark
    from opo_cli.data.hub import pinned

    file = NO_FILE
    if benchmark_row(name).hub:
        kept = kept_benchmark(name)
        problems, file = kept.problems, f"{kept.file.parent.name}/{kept.file.name}"
    else:
        problems = load_benchmark(name, columns)
    source = pinned(problems.source, problems.revision)
    return problems.name, str(len(problems.problems)), source, problems.sha256[:12], file


def _prepare(config: Config) -> None:
    from opo_cli.console import inert, note, out
    from opo_cli.train.warmstart import is_prepared, prepare

    if is_prepared(config):
        note("already prepared")
    problems, model = prepare(config)
    if config.data.source:
        _print_audit(problems.parent)
    for path in (problems, model):
        out.print(inert(str(path), out), soft_wrap=True)


def _print_audit(folder) -> None:
    from opo_cli.console import out
    from opo_cli.data.hub import pinned
    from opo_cli.files import read_json
    from opo_cli.report.tables import Table, print_tables

    facts, audit = read_json(folder / "source.json"), read_json(folder / "audit.json")
    counts = facts["counts"]
    made = Table(
        title=pinned(facts["source"], facts["revision"]),
        head=("rows", "duplicates", "unusable", "dropped for overlap", "problems"),
        rows=[
            [
                str(counts[key])
                for key in ("rows", "duplicates", "unusable", "overlapping", "problems")
            ]
        ],
        note="unusable: without question or answer, or with one that cannot be read",
    )
    words = audit["overlap_words"]
    overlap = Table(
        title="overlap with benchmarks",
        head=("benchmark", "its problems", "hit", "training problems", "copies", "nearest pair"),
        rows=[_audit_row(row) for row in audit["benchmarks"]],
        note=f"hit: shares {words} words in a row with a training problem; copies: training "
        "problems that hold at least half of a benchmark problem",
    )
    print_tables(out, [made, overlap] if audit["benchmarks"] else [made], "rich")


def _audit_row(row: dict) -> list[str]:
    nearest = "-"
    if row["examples"]:
        pair = row["examples"][0]
        nearest = f"{pair['training']} ~ {pair['benchmark']} ({pair['share']:.0%})"
    counts = [str(row[key]) for key in ("num_problems", "num_hit", "num_training", "num_copies")]
    return [row["benchmark"], *counts, nearest]
