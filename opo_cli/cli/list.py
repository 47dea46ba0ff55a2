"""`opo list`."""

from __future__ import annotations

from typing import Annotated

import typer

from opo_cli.choose import choose
from opo_cli.cli.options import Format, FormatOption

NAME = "list"


def _presets():
    from opo_cli.presets import load_preset, preset_names

    rows = [(name, load_preset(name)["description"]) for name in preset_names()]
    return ("preset", "description"), rows


def _benchmarks():
    from opo_cli.data.benchmarks import BENCHMARKS

    return ("benchmark", "problems", "samples", "description", "source", "licence", "citation"), [
        (name, str(row.num_problems), str(row.num_samples), row.description, *_origin(row))
        for name, row in BENCHMARKS.items()
    ]


def _datasets():
    from opo_cli.data.datasets import DATASETS

    return ("training set", "rows", "description", "source", "licence", "citation"), [
        (name, str(row.num_problems or "unknown"), row.description, *_origin(row))
        for name, row in DATASETS.items()
    ]


def _origin(row):
    from opo_cli.data.hub import pinned

    source = pinned(row.source, row.revision) if row.hub else "embedded"
    return source, row.licence, row.citation


def _templates():
    from opo_cli.data.prompts import TEMPLATES

    return ("template", "answer", "text", "source"), [
        (name, row.answer_format, row.text.replace("\n", "\\n"), row.source)
        for name, row in TEMPLATES.items()
    ]


def _algorithms():
    from opo_cli.algorithms import ALGORITHMS
    from opo_cli.presets import resolve
    from opo_cli.report.plan import objective_line

    return ("algorithm", "description", "objective", "source"), [
        (name, row.description, objective_line(resolve("tiny", algorithm=name)), row.source)
        for name, row in ALGORITHMS.items()
    ]


def _estimators():
    from opo_cli.rl.advantages import ADVANTAGES

    return ("estimator", "advantage", "source"), [
        (name, row.formula, row.source) for name, row in ADVANTAGES.items()
    ]


def _losses():
    from opo_cli.rl.objectives import LOSSES

    return ("loss", "maximised per token", "source"), [
        (name, row.formula, row.source) for name, row in LOSSES.items()
    ]


def _reductions():
    from opo_cli.rl.objectives import REDUCTIONS

    return ("reduction", "formula"), [(name, row.formula) for name, row in REDUCTIONS.items()]


def _engines():
    from opo_cli.rollout.engine import ENGINES

    return ("engine", "description"), [(name, row.description) for name, row in ENGINES.items()]


def _metrics():
    from opo_cli.metrics import METRICS

    return ("metric", "formula", "unit", "better"), [
        (name, row.formula, row.unit, row.better) for name, row in METRICS.items()
    ]


def _runs():
    from opo_cli.certificate import certificate_of
    from opo_cli.records import list_runs
    from opo_cli.report.labels import algorithm_label

    rows = []
    for folder in list_runs():
        config = folder.config()
        steps = folder.steps()
        end = "" if config["train"].get("budget") else f" of {config['train']['steps']}"
        rows.append(
            (
                str(folder.path),
                config["preset"],
                algorithm_label(config),
                str(config["seed"]),
                "finished" if folder.is_finished else f"step {len(steps)}{end}",
                certificate_of(steps).share,
            )
        )
    return ("run", "preset", "algorithm", "seed", "state", "on-policy"), rows


LISTS = {
    "presets": _presets,
    "benchmarks": _benchmarks,
    "datasets": _datasets,
    "templates": _templates,
    "algorithms": _algorithms,
    "estimators": _estimators,
    "losses": _losses,
    "reductions": _reductions,
    "engines": _engines,
    "metrics": _metrics,
    "runs": _runs,
}
BESIDE = {"benchmarks": 3, "datasets": 2, "algorithms": 1, "estimators": 1, "templates": 1}
"""Lists with too much text for a terminal's width: so many columns stand beside each other, the
others below each other in one more."""


def command(
    what: Annotated[str, typer.Argument(metavar="|".join(LISTS), help="What to list.")],
    format: FormatOption = Format.rich,
) -> None:
    """List what there is to choose from."""
    make = choose(what, LISTS, "list")
    from opo_cli.console import out
    from opo_cli.report.tables import Table, print_tables

    head, rows = make()
    if what in BESIDE and format is Format.rich:
        count = BESIDE[what]
        head = (*head[:count], ", ".join(head[count:]))
        rows = [(*row[:count], "\n".join(filter(None, row[count:])) + "\n") for row in rows]
    print_tables(out, [Table(title="", head=head, rows=rows)], format)
