"""Evaluations as tables: accuracy with intervals, how responses ended, how they were graded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from rich.console import Console

from opo_cli.certificate import certificate_of
from opo_cli.records import RunFolder
from opo_cli.report.labels import training_line
from opo_cli.report.tables import (
    DIVERSITY_HEADS,
    KL_NOTE,
    Report,
    Table,
    arrow,
    between,
    number,
    print_tables,
)
from opo_cli.types import GradeReason

Record = Mapping[str, Any]

SETTINGS = (
    *("template", "answer_format", "temperature", "top_p", "max_new_tokens", "seed"),
    *("require_stop", "engine", "grader", "grader_limits"),
)
"""Settings that results must share to be comparable, whatever the benchmark."""


def measures(record: Record) -> Iterator[tuple[str, float, Sequence[float] | None]]:
    """(name, value, 95 % interval) of avg@n and of every pass@k and maj@k."""
    yield f"avg@{record['num_samples']}", record["accuracy"], record.get("accuracy_95")
    for name in ("pass", "maj"):
        bounds = record.get(f"{name}_at_k_95", {})
        for k, value in record.get(f"{name}_at_k", {}).items():
            if k != "1":
                yield f"{name}@{k}", value, bounds.get(k)


def evals_report(records: Sequence[Record], folder: RunFolder | None) -> Report:
    """Of the records of an evaluation; `folder`: the run behind them, if any."""
    tables = [_accuracy(records), _responses(records), _diversity(records), _grading(records)]
    tables += [
        _by(records, name) for name in ("level", "subject") if any(r[f"by_{name}"] for r in records)
    ]
    tidy, closing = [_flat(record) for record in records], [_shared_settings(records)]
    if folder is not None:
        config, steps = folder.config(), folder.steps()
        closing.append(training_line(config, steps))
        tidy = [row | {"certificate": certificate_of(steps).label} for row in tidy]
    failures = sum(record["grader_failures"] for record in records)
    if failures:
        closing.append(f"the grader failed on {failures} responses, counted as wrong")
    return Report(tables, tidy, closing=closing)


def _accuracy(records: Sequence[Record]) -> Table:
    rows = []
    for record in records:
        first = (record["benchmark"], str(record["num_problems"]))
        for name, value, bounds in measures(record):
            rows.append([*first, name, number(value), between(bounds)])
            first = ("", "")
    note = (
        "95 % interval: over problems, the samples of one clustered; "
        "pass@k and maj@k: unbiased, from the same samples"
    )
    return Table(
        "accuracy", ["benchmark", "problems", "measure", "value", "95 % interval"], rows, note
    )


def _responses(records: Sequence[Record]) -> Table:
    has_kl = all("kl_exact_sequence" in record for record in records)
    head = ["benchmark", "length", "cut", "acc. done", "acc. cut", "entropy"]
    rows = [
        [
            record["benchmark"],
            number(record["length"], 1),
            *(number(record[k]) for k in ("truncated", "accuracy_completed", "accuracy_truncated")),
            number(record["entropy"]),
            *([number(record["kl_exact_sequence"])] if has_kl else []),
        ]
        for record in records
    ]
    note = (
        "length: mean tokens; cut: share truncated; acc. done, acc. cut: accuracy of the completed "
        "and of the truncated; entropy: exact, nats per token"
    )
    if has_kl:
        head, note = [*head, "KL/seq"], f"{note}; {KL_NOTE}"
    return Table("responses", head, rows, note)


def _diversity(records: Sequence[Record]) -> Table:
    rows = [[r["benchmark"], *(number(r.get(key)) for key in DIVERSITY_HEADS)] for r in records]
    note = (
        "over the responses to one problem, in tokens; answers: entropy of the answers given, nats"
    )
    return Table("diversity", ["benchmark", *DIVERSITY_HEADS.values()], rows, note)


def _grading(records: Sequence[Record]) -> Table:
    """Responses by reason; reasons that never came up are left out."""
    names = [name for name in get_args(GradeReason) if any(name in r["reasons"] for r in records)]
    rows = [
        [
            r["benchmark"],
            *(str(r["reasons"].get(name, 0)) for name in names),
            f"{r['grading_seconds']:.1f}",
        ]
        for r in records
    ]
    note = "responses by the grader's reason; sec: seconds of grader workers"
    return Table("grading", ["benchmark", *names, "sec"], rows, note)


def _by(records: Sequence[Record], what: str) -> Table:
    rows = []
    for record in records:
        for place, (name, part) in enumerate(record[f"by_{what}"].items()):
            benchmark = record["benchmark"] if place == 0 else ""
            cells = [str(part["num_problems"]), number(part["accuracy"])]
            rows.append([benchmark, name or "-", *cells, between(part["accuracy_95"])])
    head = ["benchmark", what, "problems", "accuracy", "95 % interval"]
    return Table(f"by {what}", head, rows)


def _flat(record: Record) -> dict[str, Any]:
    """One row of plain values: what CSV and JSON print."""
    row = {k: v for k, v in record.items() if not isinstance(v, dict | list | tuple)}
    for name, value, bounds in measures(record):
        key = "accuracy" if name.startswith("avg@") else name
        low, high = bounds or (None, None)
        row |= {key: value, f"{key}_low": low, f"{key}_high": high}
    row |= {f"num_{name}": record["reasons"].get(name, 0) for name in get_args(GradeReason)}
    for what in ("level", "subject"):
        row |= {
            f"accuracy_{what}_{name}": part["accuracy"]
            for name, part in record[f"by_{what}"].items()
        }
    return row | {k: v for k, v in record["settings"].items() if k != "grader_limits"}


def setting_text(key: str, settings: Mapping[str, Any]) -> str:
    """A setting's value in words."""
    value = settings.get(key)
    if key == "template":
        return f"{value} ({settings.get('template_digest')})"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {limit}" for name, limit in value.items())
    return str(value)


def _shared_settings(records: Sequence[Record]) -> str:
    shared = [
        f"{key} {told.pop()}"
        for key in SETTINGS
        if len(told := {setting_text(key, record["settings"]) for record in records}) == 1
    ]
    return "settings: " + "; ".join(shared)


def setting_differences(records: Sequence[Record]) -> list[str]:
    """A line per setting that records in one table do not share."""
    names = [record["benchmark"] for record in records]
    lines = []
    for key in SETTINGS:
        told = [setting_text(key, record.get("settings", {})) for record in records]
        if len(set(told)) > 1:
            pairs = ", ".join(f"{name}: {value}" for name, value in zip(names, told, strict=True))
            lines.append(f"not the same: {key} ({pairs})")
    return lines


def print_run(console: Console, folder: RunFolder) -> None:
    """A finished run: accuracy and behaviour before and after."""
    evals = [r for r in folder.evals() if r.get("split") is None]
    before = {r["benchmark"]: r for r in evals if r["policy"] == "initial"}
    after = {r["benchmark"]: r for r in evals if r["policy"] == "final"}
    if not after:
        return
    accuracy, behaviour = [], []
    for name, record in after.items():
        old, first = {m: value for m, value, _ in measures(before[name])}, name
        for measure, value, bounds in measures(record):
            accuracy.append([first, measure, number(old[measure]), number(value), between(bounds)])
            first = ""
        changes = [
            arrow(before[name][key], record[key], digits)
            for key, digits in (("length", 1), ("truncated", 3), ("entropy", 3))
        ]
        behaviour.append([name, *changes, number(record.get("kl_exact_sequence"))])
    head = ["benchmark", "measure", "initial", "final", "95 % interval"]
    note = f"cut: share truncated; {KL_NOTE}\n{training_line(folder.config(), folder.steps())}"
    tables = [
        Table(
            "initial and final policy", head, accuracy, "interval: of the final one, over problems"
        ),
        Table("behaviour", ["benchmark", "length", "cut", "entropy", "KL/seq"], behaviour, note),
    ]
    print_tables(console, tables, "rich")
