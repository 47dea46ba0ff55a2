"""The tables of a comparison: the questions that a paper on estimators answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from opo_cli.metrics import METRICS
from opo_cli.report.estimate import Estimate, over_seeds
from opo_cli.report.runs import Arm, Record, Run
from opo_cli.report.shared import benchmarks_of, totals
from opo_cli.report.tables import DIVERSITY_HEADS, KL_NOTE, Table, number, plus_minus

MAX_COLUMNS = 3
"""Arms beside each other in 80 columns; more of them stand one below the other."""
ON_POLICY = "on-policy"
"""Head of the column that every table has: steps with a certificate, of all."""
BEHAVIOUR = {
    "entropy": ("entropy", 3),
    "kl_exact_sequence": ("KL/seq", 2),
    "length": ("length", 1),
    "truncated": ("cut", 3),
}
"""Key of an evaluation record -> head, digits; averaged over benchmarks."""
DIVERSITY = {
    key: (DIVERSITY_HEADS[key], digits)
    for key, digits in {"self_bleu": 2, "rep_4": 3, "distinct_2": 2, "answer_entropy": 2}.items()
}
DYNAMICS = ("reward", "entropy", "kl_exact_sequence", "policy_shift_sequence", "gradient_norm")
QUARTERS = 4
"""Parts of a run at whose ends the table of its dynamics looks."""


# --- accuracy ----------------------------------------------------------------------------------


def measures(arms: Sequence[Arm]) -> dict[str, Callable[[Record], float | None]]:
    """Title -> how to read it from an evaluation record."""
    records = [r for arm in arms for run in arm.runs for r in run.final.values()]
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


def of_benchmark(runs: Sequence[Run], which: str, benchmark: str, read) -> Estimate:
    found = [getattr(run, which).get(benchmark) for run in runs]
    return over_seeds([None if record is None else read(record) for record in found])


def over_benchmarks(runs: Sequence[Run], which: str, key: str) -> Estimate:
    """Per run the mean over its benchmarks, then over seeds."""
    return over_seeds([_mean(r.get(key) for r in getattr(run, which).values()) for run in runs])


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def accuracy_tables(arms: Sequence[Arm]) -> list[Table]:
    benchmarks = benchmarks_of(arms)
    if not benchmarks:
        return []
    make = _measure_tables if len(arms) > MAX_COLUMNS else _accuracy_table
    return make(arms, benchmarks)


def _accuracy_table(arms: Sequence[Arm], benchmarks: Sequence[str]) -> list[Table]:
    """Arms as columns."""
    rows = []
    for benchmark in benchmarks:
        for place, (title, read) in enumerate(measures(arms).items()):
            before = of_benchmark(arms[0].runs, "initial", benchmark, read)
            after = [of_benchmark(arm.runs, "final", benchmark, read) for arm in arms]
            cells = [plus_minus(found.mean, found.half_width) for found in after]
            rows.append([benchmark if place == 0 else "", title, number(before.mean), *cells])
    head = ["benchmark", "measure", "initial", *(arm.label for arm in arms)]
    shares = [f"{arm.label} {arm.certificate.share}" for arm in arms]
    note = "exact on-policy steps: " + ", ".join(shares)
    return [Table("accuracy of the initial and of the trained policy", head, rows, note)]


def _measure_tables(arms: Sequence[Arm], benchmarks: Sequence[str]) -> list[Table]:
    """Arms as rows, one table per measure."""
    tables = []
    for title, read in measures(arms).items():
        before = [of_benchmark(arms[0].runs, "initial", name, read) for name in benchmarks]
        rows = [["initial", "", *(number(estimate.mean) for estimate in before)]]
        for arm in arms:
            after = [of_benchmark(arm.runs, "final", name, read) for name in benchmarks]
            cells = [plus_minus(found.mean, found.half_width) for found in after]
            rows.append([arm.label, arm.certificate.share, *cells])
        tables.append(Table(title, ["policy", ON_POLICY, *benchmarks], rows))
    return tables


# --- behaviour, diversity ------------------------------------------------------------------------


def behaviour_table(arms: Sequence[Arm]) -> Table:
    note = (
        f"means over the benchmarks' samples; entropy: exact, nats per token; {KL_NOTE}; "
        "cut: share truncated"
    )
    return _policies_table("behaviour of the policies", arms, BEHAVIOUR, note)


def diversity_table(arms: Sequence[Arm]) -> Table:
    note = (
        "over the responses to one problem, in tokens; Self-BLEU and Rep-4 rise with repetition, "
        "distinct-2 falls; answers: entropy of the answers given, nats"
    )
    return _policies_table("diversity of the policies", arms, DIVERSITY, note)


def _policies_table(
    title: str, arms: Sequence[Arm], columns: Mapping[str, tuple[str, int]], note: str
) -> Table:
    """Initial and final policies as rows. Narrow enough for 80 columns."""

    def cells(runs: Sequence[Run], which: str) -> list[str]:
        shown = []
        for key, (_, digits) in columns.items():
            estimate = over_benchmarks(runs, which, key)
            has_width = which == "final" and key != "truncated"
            half_width = estimate.half_width if has_width else None
            shown.append(plus_minus(estimate.mean, half_width, digits))
        return shown

    rows = [["initial", "", *cells(arms[0].runs, "initial")]]
    rows += [[arm.label, arm.certificate.share, *cells(arm.runs, "final")] for arm in arms]
    head = ["policy", ON_POLICY, *(head for head, _ in columns.values())]
    return Table(title, head, rows, note)


# --- training ----------------------------------------------------------------------------------


def dynamics_table(arms: Sequence[Arm]) -> Table:
    """Means over seeds at fixed steps."""
    rows = []
    for arm in arms:
        label = arm.label
        for step, values in dynamics(arm):
            cells = [number(values[name].mean, METRICS[name].digits) for name in DYNAMICS]
            rows.append([label, str(step), *cells])
            label = ""
    head = ["policy", "step", *(METRICS[name].title for name in DYNAMICS)]
    head = [title.replace("KL exact/seq", "KL/seq") for title in head]
    note = (
        "means over seeds, of the batch sampled for the step; KL/seq: to the initial policy, "
        "exact; shift/seq: KL(before||after the step); |grad|: norm before clipping"
    )
    return Table("training dynamics", head, rows, note)


def dynamics(arm: Arm) -> list[tuple[int, dict[str, Estimate]]]:
    """(step, metric -> estimate over seeds) at `fixed_steps`, each moved back to the last one at
    which all was measured that ever was."""
    count = min(len(run.steps) for run in arm.runs)
    columns = [run.steps[name][:count] for run in arm.runs for name in DYNAMICS]
    measured = [~np.isnan(column) for column in columns if not np.isnan(column).all()]
    whole = np.flatnonzero(np.logical_and.reduce(measured)) if measured else np.arange(0)
    places = set()
    for step in fixed_steps(count):
        before = whole[whole < step]
        places.add(int(before[-1]) if len(before) else step - 1)
    return [
        (
            place + 1,
            {
                name: over_seeds([known_at(run.steps[name], place) for run in arm.runs])
                for name in DYNAMICS
            },
        )
        for place in sorted(places)
    ]


def fixed_steps(count: int) -> list[int]:
    """The first step, and the end of each quarter: from 1."""
    return (
        sorted({max(1, round(count * i / QUARTERS)) for i in range(QUARTERS + 1)}) if count else []
    )


def known_at(values: np.ndarray, place: int) -> float | None:
    value = float(values[place])
    return None if np.isnan(value) else value


def cost_table(arms: Sequence[Arm]) -> Table:
    """What a run took, and what of it were exact on-policy steps."""
    rows = []
    for arm in arms:
        used = [_spread(totals(arm, unit)) for unit in ("steps", "samples", "gradient-steps")]
        tokens, seconds = (float(totals(arm, unit).mean()) for unit in ("tokens", "seconds"))
        rows.append(
            [
                arm.label,
                *used,
                f"{tokens / 1000:,.0f}",
                number(seconds, 0),
                number(_mean(map(peak_memory, arm.runs)), 2),
                str(len(arm.runs)),
                arm.certificate.share,
            ]
        )
    head = ["policy", "steps", "samples", "updates", "ktok", "sec", "GB", "seeds", ON_POLICY]
    note = (
        "of a run, means over seeds; updates: optimizer steps; ktok: thousand response tokens "
        "sampled; sec: without evaluation; GB: peak memory of the process (GPU: allocated)"
    )
    labels: dict[str, list[str]] = {}
    for arm in arms:
        labels.setdefault(arm.certificate.label, []).append(arm.label)
    lines = [f"{text}: {', '.join(names)}" for text, names in labels.items()]
    return Table("cost of training", head, rows, "\n".join([note, *lines]))


def _spread(values: np.ndarray) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def peak_memory(run: Run) -> float | None:
    peaks = run.steps["memory_gigabytes"]
    return None if np.isnan(peaks).all() else float(np.nanmax(peaks))


def config_table(found: Mapping[str, Sequence[Any]], arms: Sequence[Arm]) -> Table:
    """Every setting that the arms do not share."""
    rows = [[key, *map(str, values)] for key, values in found.items()]
    return Table("settings that differ", ["setting", *(arm.label for arm in arms)], rows)


def certificate_table(arms: Sequence[Arm]) -> Table:
    rows = [[arm.label, arm.certificate.share, arm.certificate.label] for arm in arms]
    note = (
        "a step is exact on-policy only while it takes one optimizer step on samples of the "
        "current weights, drawn at temperature 1 and top-p 1, and sampler and trainer agree"
    )
    return Table("on-policy certificate", ["policy", "exact steps", "certificate"], rows, note)


def environment_table(arms: Sequence[Arm]) -> Table:
    """What the runs ran on: facts of the first, and whether others differ."""
    found = [_facts(run) for arm in arms for run in arm.runs]
    rows = []
    for key in dict.fromkeys(key for facts in found for key in facts):
        values = list(dict.fromkeys(str(facts.get(key, "-")) for facts in found))
        rows.append(
            [key, "; ".join(values[:MAX_COLUMNS]) + ("; ..." * (len(values) > MAX_COLUMNS))]
        )
    return Table("environment", ["what", "value"], rows)


def _facts(run: Run) -> dict[str, Any]:
    environment = run.environment
    versions = environment.get("versions") or {}
    names = ("platform", "python", "num_cpus", "device", "engine", "commit", "initial_policy_id")
    facts = {name: environment[name] for name in names if environment.get(name) is not None}
    return facts | {name: version for name, version in versions.items() if version}
