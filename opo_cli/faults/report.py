"""What killed and resumed runs came to, as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from opo_cli.faults.draw import Reference
from opo_cli.faults.equal import Difference
from opo_cli.faults.trials import Killed, Trial
from opo_cli.report.tables import Report, Table

HEAD = ("run", "killed", "while", "after step", "resumed from", "result")
MOST_METRICS = 20  # Lines of the table of differences.


def report_of(trials: Sequence[Trial], reference: Reference, tolerance: float) -> Report:
    """A line per kill; then how far resumed runs are off, where they are."""
    rows, records = [], []
    for trial in trials:
        for place, kill in enumerate(trial.kills or [None]):
            is_last = place == max(0, len(trial.kills) - 1)
            rows.append(_row(trial, kill, is_last, tolerance))
            records.append(_record(trial, kill, tolerance))
    kills = Table(title="killed and resumed runs", head=HEAD, rows=rows)
    largest = largest_differences(trials)
    return Report(
        tables=[kills, _largest(largest)] if largest else [kills],
        records=records,
        opening=[f"uninterrupted: {reference.seconds:.1f} s, {len(reference.writes)} writes"],
        closing=_closing(trials, largest, tolerance),
    )


def _row(trial: Trial, kill: Killed | None, is_last: bool, tolerance: float) -> list[str]:
    number = str(trial.number)
    result = _result(trial, tolerance) if is_last else "killed again"
    if kill is None:
        return [number, "not", "", "", "", result]
    from_step = "finished" if kill.resumed_from is None else str(kill.resumed_from)
    return [number, kill.when, kill.phase, str(kill.after_step), from_step, result]


def _result(trial: Trial, tolerance: float) -> str:
    if trial.failure:
        return "failed"
    if not trial.found:
        return "equal"
    return "within the tolerance" if trial.is_within(tolerance) else "differs"


def _told(trial: Trial) -> str:
    """What is wrong with a run, in a line."""
    if trial.failure:
        return f"run {trial.number}: {trial.failure}"
    return f"run {trial.number}: {len(trial.found)} differences, the first: {trial.found[0]}"


def _record(trial: Trial, kill: Killed | None, tolerance: float) -> dict:
    first = trial.found[0] if trial.found else None
    return {
        "run": trial.number,
        "killed": kill.when if kill else None,
        "phase": kill.phase if kill else None,
        "after_step": kill.after_step if kill else None,
        "resumed_from": kill.resumed_from if kill else None,
        "is_equal": trial.is_equal,
        "is_within_tolerance": trial.is_within(tolerance),
        "are_weights_equal": trial.are_weights_equal,
        "failure": trial.failure or None,
        "num_differences": len(trial.found),
        "first_difference": str(first) if first else None,
    }


def largest_differences(trials: Sequence[Trial]) -> dict[str, Difference]:
    """Metric -> the largest relative difference that any run has in it, the largest first."""
    largest: dict[str, Difference] = {}
    for each in (each for trial in trials for each in trial.found if each.is_metric):
        if each.relative is None:
            continue
        if each.key not in largest or each.relative > largest[each.key].relative:
            largest[each.key] = each
    return dict(sorted(largest.items(), key=lambda pair: -pair[1].relative))


def _largest(largest: dict[str, Difference]) -> Table:
    rows = [
        [name, f"{each.relative:.2g}", each.file, each.place, f"{each.expected}", f"{each.found}"]
        for name, each in list(largest.items())[:MOST_METRICS]
    ]
    head = ("metric", "relative", "file", "where", "uninterrupted", "resumed")
    rest = len(largest) - len(rows)
    return Table(
        title="largest relative difference by metric",
        head=head,
        rows=rows,
        note=f"and {rest} more metrics" if rest > 0 else "",
    )


def _closing(
    trials: Sequence[Trial], largest: dict[str, Difference], tolerance: float
) -> list[str]:
    phases = Counter(kill.phase for trial in trials for kill in trial.kills)
    counts = ", ".join(f"{phase} {count}" for phase, count in phases.most_common())
    killed = [trial for trial in trials if trial.kills]
    equal = sum(trial.is_equal for trial in killed)
    lines = [_told(trial) for trial in trials if not trial.is_equal]
    lines += [f"{sum(phases.values())} kills, by phase: {counts}"]
    if len(killed) < len(trials):
        lines.append(f"{len(trials) - len(killed)} runs ended before their kill and do not count")
    if largest:
        name, worst = next(iter(largest.items()))
        weights = sum(trial.are_weights_equal for trial in killed)
        lines += [
            f"largest relative difference of any metric: {worst.relative:.2g} ({name})",
            f"weights are equal bit for bit in {weights} of {len(killed)} runs",
        ]
    lines.append(f"{equal} of {len(killed)} resumed runs equal the uninterrupted run bit for bit")
    if tolerance:
        within = sum(trial.is_within(tolerance) for trial in killed)
        lines.append(f"{within} of {len(killed)} are within a relative difference of {tolerance:g}")
    return lines
