"""Runs side by side: accuracy before and after, behaviour, curves."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from opo_cli.certificate import Certificate, certificate_of
from opo_cli.errors import OpoError
from opo_cli.metrics import METRICS
from opo_cli.presets import completed
from opo_cli.records import RunFolder, shaping
from opo_cli.report.curves import ASCII_BLOCKS, BLOCKS, mean_curve, sparkline
from opo_cli.report.estimate import Estimate, over_seeds
from opo_cli.report.evals import setting_differences
from opo_cli.report.labels import algorithm_label
from opo_cli.report.tables import KL_NOTE, Report, Table, number, plus_minus

CURVE_WIDTH = 40
MAX_COLUMNS = 3
"""Algorithms beside each other in 80 columns; more of them stand one below the other."""
ON_POLICY = "on-policy"
"""Head of the column that every table has: steps with a certificate, of all."""
BY_ALGORITHM = ("algorithm", "optim")
"""Sections in which algorithms are meant to differ."""
NOT_IN_CONFIG = ("grader", "problems_sha256", "template_digest", "engine", "max_new_tokens")
"""Settings of an evaluation that a run's config does not tell."""
BEHAVIOUR = {
    "entropy": ("entropy", 3),
    "kl_exact_sequence": ("KL/seq", 2),
    "length": ("length", 1),
    "truncated": ("cut", 3),
}
"""Key of an evaluation record -> head, digits; averaged over benchmarks."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a comparison needs of a finished run."""

    path: str
    config: dict[str, Any]
    initial_policy_id: str
    initial: dict[str, dict[str, Any]]
    """Benchmark -> evaluation record of the initial policy."""
    final: dict[str, dict[str, Any]]
    steps: list[dict[str, Any]]

    @property
    def label(self) -> str:
        return algorithm_label(self.config)

    @property
    def seconds(self) -> float:
        return sum(step["step_seconds"] for step in self.steps)


def read_run(folder: RunFolder) -> Run:
    """Raises OpoError where the run is not finished."""
    if not folder.is_finished:
        raise OpoError(
            f"run '{folder.path}' is not finished", f"opo train --resume --out {folder.path}"
        )
    evals = folder.evals()
    return Run(
        path=str(folder.path),
        config=folder.config(),
        initial_policy_id=folder.environment().get("initial_policy_id", ""),
        initial={r["benchmark"]: r for r in evals if r["policy"] == "initial"},
        final={r["benchmark"]: r for r in evals if r["policy"] == "final"},
        steps=folder.steps(),
    )


def group_runs(folders: Sequence[RunFolder]) -> dict[str, list[Run]]:
    """Runs by algorithm. Where an algorithm's runs are no replicates (one seed each of the same
    settings and initial policy), each stands for itself: a mean over them would mean nothing."""
    groups: dict[str, list[Run]] = {}
    for folder in folders:
        run = read_run(folder)
        groups.setdefault(run.label, []).append(run)
    result: dict[str, list[Run]] = {}
    for label, runs in groups.items():
        settings = {(str(_settings(run)), run.initial_policy_id) for run in runs}
        is_replicate = len(settings) == 1 and len({run.config["seed"] for run in runs}) == len(runs)
        for run in runs:
            result.setdefault(label if is_replicate else run.path, []).append(run)
    return result


def _settings(run: Run) -> dict[str, Any]:
    return {key: v for key, v in shaping(completed(run.config)).items() if key != "seed"}


def differences(groups: dict[str, list[Run]]) -> list[str]:
    """Lines on what the groups do not share; algorithms are meant to differ in some sections."""
    runs = [group[0] for group in groups.values()]
    is_ablation = len({run.config["algorithm"]["name"] for run in runs}) < len(runs)
    left_out = () if is_ablation else BY_ALGORITHM
    flat = [_flat({k: v for k, v in _settings(r).items() if k not in left_out}) for r in runs]
    lines = []
    for key in dict.fromkeys(key for settings in flat for key in settings):
        values = [settings.get(key) for settings in flat]
        if any(value != values[0] for value in values):
            told = ", ".join(f"{g}: {v}" for g, v in zip(groups, values, strict=True))
            lines.append(f"not the same: {key} ({told})")
    for benchmark in _benchmarks(groups):
        found = {
            g: run.final[benchmark]
            for g, run in zip(groups, runs, strict=True)
            if benchmark in run.final
        }
        lines += setting_differences(list(found.values()), list(found), NOT_IN_CONFIG)
    lines = list(dict.fromkeys(lines))
    if len({run.initial_policy_id for run in runs}) > 1:
        lines.append("not the same: the initial policy; 'initial' is that of the first column")
    return lines


def _flat(tables: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, value in tables.items():
        inner = (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
        found.update(inner)
    return found


def comparison(folders: Sequence[RunFolder], curves: Sequence[str]) -> Report:
    """The report over finished runs.

    Raises:
        OpoError: a run is not finished.
    """
    groups = group_runs(folders)
    records = _records(groups)
    benchmarks, rest = _benchmarks(groups), [_behaviour_table(groups), _training_table(groups)]
    make = _accuracy_tables if len(groups) > MAX_COLUMNS else _accuracy_table
    tables = [*make(groups, benchmarks), *rest] if benchmarks else rest
    closing = [*_curve_lines(groups, curves), *differences(groups), *_honesty(groups)]
    return Report(tables, records, closing)


def _benchmarks(groups: dict[str, list[Run]]) -> list[str]:
    return list(dict.fromkeys(b for runs in groups.values() for run in runs for b in run.final))


def _measures(groups: dict[str, list[Run]]) -> dict[str, Callable[[dict], float | None]]:
    """Title -> how to read it from an evaluation record."""
    records = [r for runs in groups.values() for run in runs for r in run.final.values()]
    samples = sorted({record["num_samples"] for record in records})
    ks = dict.fromkeys(k for record in records for k in record["pass_at_k"] if k != "1")
    name = f"avg@{samples[0]}" if len(samples) == 1 else "avg"
    passes = {f"pass@{k}": (lambda record, k=k: record["pass_at_k"].get(k)) for k in ks}
    majorities = {
        f"maj@{k}": (lambda record, k=k: record["maj_at_k"].get(k))
        for k in ks
        if all("maj_at_k" in record for record in records)  # Runs of an older version have none.
    }
    return {name: lambda record: record["accuracy"], **passes, **majorities}


def _over_seeds(runs: Sequence[Run], which: str, benchmark: str, read) -> Estimate:
    found = [getattr(run, which).get(benchmark) for run in runs]
    return over_seeds([None if record is None else read(record) for record in found])


def _certificates(groups: dict[str, list[Run]]) -> dict[str, Certificate]:
    """One per group, over all steps of all its runs."""
    return {
        name: certificate_of([step for run in runs for step in run.steps])
        for name, runs in groups.items()
    }


def _accuracy_table(groups: dict[str, list[Run]], benchmarks: Sequence[str]) -> list[Table]:
    """Algorithms as columns."""
    rows, first = [], next(iter(groups.values()))
    for benchmark in benchmarks:
        for place, (title, read) in enumerate(_measures(groups).items()):
            before = _over_seeds(first, "initial", benchmark, read)
            cells = [benchmark if place == 0 else "", title, number(before.mean)]
            for runs in groups.values():
                after = _over_seeds(runs, "final", benchmark, read)
                cells.append(plus_minus(after.mean, after.half_width))
            rows.append(cells)
    head = ["benchmark", "measure", "initial", *groups]
    shares = [f"{name} {found.share}" for name, found in _certificates(groups).items()]
    note = "exact on-policy steps: " + ", ".join(shares)
    return [Table("accuracy of the initial and of the trained policy", head, rows, note)]


def _accuracy_tables(groups: dict[str, list[Run]], benchmarks: Sequence[str]) -> list[Table]:
    """Algorithms as rows, one table per measure."""
    tables, first, certificates = [], next(iter(groups.values())), _certificates(groups)
    for title, read in _measures(groups).items():
        before = [_over_seeds(first, "initial", name, read) for name in benchmarks]
        rows = [["initial", "", *(number(estimate.mean) for estimate in before)]]
        for name, runs in groups.items():
            after = [_over_seeds(runs, "final", benchmark, read) for benchmark in benchmarks]
            cells = [plus_minus(found.mean, found.half_width) for found in after]
            rows.append([name, certificates[name].share, *cells])
        tables.append(Table(title, ["policy", ON_POLICY, *benchmarks], rows))
    return tables


def _behaviour_table(groups: dict[str, list[Run]]) -> Table:
    """Means over benchmarks, then over seeds. Narrow enough for 80 columns."""

    def cells(runs: Sequence[Run], which: str) -> list[str]:
        shown = []
        for key, (_, digits) in BEHAVIOUR.items():
            estimate = over_seeds([_mean_over_benchmarks(run, which, key) for run in runs])
            is_wide = which == "final" and key != "truncated"
            half_width = estimate.half_width if is_wide else None
            shown.append(plus_minus(estimate.mean, half_width, digits))
        return shown

    certificates = _certificates(groups)
    rows = [["initial", "", *cells(next(iter(groups.values())), "initial")]]
    rows += [[n, certificates[n].share, *cells(runs, "final")] for n, runs in groups.items()]
    head = ["policy", ON_POLICY, *(head for head, _ in BEHAVIOUR.values())]
    note = (
        f"means over the benchmarks' samples; entropy: exact, nats per token; {KL_NOTE}; "
        "cut: share truncated"
    )
    return Table("behaviour of the policies", head, rows, note)


def _training_table(groups: dict[str, list[Run]]) -> Table:
    """What the policies come from, and why steps were not exact on-policy."""
    rows, certificates = [], _certificates(groups)
    labels: dict[str, list[str]] = {}
    for name, runs in groups.items():
        steps = "/".join(sorted({str(len(run.steps)) for run in runs}))
        seconds = number(over_seeds([run.seconds for run in runs]).mean, 0)
        reduction, found = runs[0].config["algorithm"]["reduction"], certificates[name]
        rows.append([name, found.share, reduction, steps, str(len(runs)), seconds])
        labels.setdefault(found.label, []).append(name)
    head = ["policy", ON_POLICY, "reduction", "steps", "seeds", "seconds"]
    note = (
        f"{ON_POLICY}: exact on-policy steps of all seeds; seconds: of a run, without evaluation\n"
    )
    note += "\n".join(f"{text}: {', '.join(names)}" for text, names in labels.items())
    return Table("training", head, rows, note)


def _mean_over_benchmarks(run: Run, which: str, key: str) -> float | None:
    values = [r[key] for r in getattr(run, which).values() if r.get(key) is not None]
    return sum(values) / len(values) if values else None


def _curve_lines(groups: dict[str, list[Run]], metrics: Sequence[str]) -> list[str]:
    """One line per metric and group, all of a metric on one scale."""
    is_unicode = "utf" in (getattr(sys.stdout, "encoding", None) or "").lower()
    blocks = BLOCKS if is_unicode else ASCII_BLOCKS
    width, lines = max(map(len, groups)), []
    for metric in metrics:
        curves = {
            label: mean_curve([[step.get(metric) for step in run.steps] for run in runs])
            for label, runs in groups.items()
        }
        known = [v for curve in curves.values() for v in curve if v == v]
        if not known:
            lines.append(f"{metric}: not measured in these runs")
            continue
        low, high, digits = min(known), max(known), METRICS[metric].digits
        lines.append(f"{metric} over steps, {low:.{digits}f} to {high:.{digits}f}")
        for label, curve in curves.items():
            if any(v == v for v in curve):
                line = sparkline(curve, CURVE_WIDTH, low, high, blocks)
                values = [v for v in curve if v == v]
                ends = f"{values[0]:.{digits}f} → {values[-1]:.{digits}f}"
                lines.append(f"  {label:<{width}}  {line:<{CURVE_WIDTH}}  {ends}")
        lines.append("")
    return lines


def _honesty(groups: dict[str, list[Run]]) -> list[str]:
    """What the numbers can carry."""
    single = [label for label, runs in groups.items() if len(runs) == 1]
    lines = []
    if len(single) < len(groups):
        lines.append(
            "± is a 95 % t-interval between training seeds; the problems are the same ones"
        )
    if single:
        names = ", ".join(single) if len(single) <= MAX_COLUMNS else f"{len(single)} of these"
        lines.append(
            f"one seed of {names}: no between-seed estimate exists; a difference may be the seed's"
        )
    return lines


def _records(groups: dict[str, list[Run]]) -> list[dict[str, Any]]:
    """Tidy: one record per (label, benchmark, measure), each with the certificate."""
    certificates = _certificates(groups)
    measures = _measures(groups) | {key: (lambda r, k=key: r.get(k)) for key in BEHAVIOUR}
    records = []
    for name, runs in groups.items():
        for benchmark in _benchmarks(groups):
            for title, read in measures.items():
                before = _over_seeds(runs, "initial", benchmark, read)
                after = _over_seeds(runs, "final", benchmark, read)
                records.append(
                    {
                        "algorithm": name,
                        "benchmark": benchmark,
                        "measure": title,
                        "initial": before.mean,
                        "final": after.mean,
                        "half_width_95": after.half_width,
                        "num_seeds": after.num_seeds,
                        **_certified(certificates[name]),
                    }
                )
        records.append(
            {
                "algorithm": name,
                "measure": "training_seconds",
                "final": over_seeds([run.seconds for run in runs]).mean,
                "num_seeds": len(runs),
                **_certified(certificates[name]),
            }
        )
    return records


def _certified(certificate: Certificate) -> dict[str, Any]:
    return {
        "certificate": certificate.label,
        "num_exact_steps": certificate.num_exact,
        "num_steps": certificate.num_steps,
    }
