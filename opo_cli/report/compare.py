"""Finished runs held against each other: verdicts, tables, and what the numbers can carry."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from opo_cli.metrics import METRICS
from opo_cli.records import RunFolder
from opo_cli.report.compare_records import records_of
from opo_cli.report.compare_tables import (
    DYNAMICS,
    MAX_COLUMNS,
    accuracy_tables,
    behaviour_table,
    cost_table,
    diversity_table,
    dynamics_table,
)
from opo_cli.report.contrasts import Contrast, Contrasts, make_contrasts, pairs_of
from opo_cli.report.curves import ASCII_BLOCKS, BLOCKS, mean_curve, sparkline
from opo_cli.report.learning import Learning, learning_of, score_table, speed_table
from opo_cli.report.runs import Arm, make_arms, read_runs
from opo_cli.report.shared import (
    benchmarks_of,
    budget_line,
    check_comparable,
    checkpoint_rule,
    chosen_steps,
    common_benchmarks,
    differing_settings,
    not_shared,
    obstacles,
)
from opo_cli.report.sweep import Swept, read_sweep
from opo_cli.report.tables import Report, Table, number
from opo_cli.report.verdict import MOST_SEEDS, Verdict

CURVE_WIDTH = 40
MOST_FLOOR = 0.01  # A permutation test that can give less than this is not short of seeds.
PAGE_METRICS = (
    *("reward", "accuracy", "entropy", "kl_exact_sequence", "length", "gradient_norm"),
    "sampler_mismatch",
)
"""Curves of the HTML report; accuracy is that of the benchmarks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How runs are compared."""

    curves: Sequence[str] = ()
    """Metrics drawn as one line each under the tables."""
    measure: str = "avg"
    """What verdicts are about: `avg`, or `pass@k`."""
    margin: float
    """The smallest difference that matters, in shares of right answers."""
    match: str | None = None
    """The budget that was held equal; a key of `BUDGETS`."""
    is_planned: bool = False
    """The runs were planned for that budget; else they are refused where it is not equal."""
    missing: Sequence[str] = ()
    """Planned runs that are not there."""
    against: str | None = None
    """The arm that all others are held against; None: see `pairs_of`."""
    swept: str | None = None
    """The setting that each algorithm is compared at its own best value of."""
    threshold: float | None = None
    """Reward whose first reaching is told; None: see `learning.default_threshold`."""
    allow_incomparable: bool = False


@dataclass(frozen=True)
class Comparison:
    """Runs, read and held against each other."""

    options: Options
    arms: Sequence[Arm]
    """All; with a sweep one per algorithm and value."""
    chosen: Sequence[Arm]
    """Those that the verdicts are about: with a sweep each algorithm's best value."""
    sweep: Swept | None
    contrasts: Contrasts
    same_setting: dict[str, Contrasts]
    """With a sweep: value -> the verdicts between algorithms that share it."""

    @cached_property
    def tables(self) -> list[Table]:
        """Verdicts first."""
        return _tables(self)

    @cached_property
    def learning(self) -> Learning:
        return learning_of(self.chosen, self.options.threshold)


def compare(folders: Sequence[RunFolder], options: Options) -> Comparison:
    """
    Raises:
        OpoError: a run is not finished or damaged, or the runs do not compare.
    """
    names = list(dict.fromkeys([*options.curves, *DYNAMICS, *PAGE_METRICS]))
    arms = make_arms(read_runs(folders, names))
    if not options.allow_incomparable:
        check_comparable(arms, None if options.is_planned else options.match)
    sweep = read_sweep(options.swept, arms) if options.swept else None
    if sweep:
        arms = [each.arm for each in sweep.tried]
    chosen = sweep.best if sweep else arms
    pairs = pairs_of(chosen, options.against)

    def judged(pairs) -> Contrasts:
        return make_contrasts(pairs, options.measure, options.margin)

    at_values = sweep.at_each_value if sweep else {}
    same_setting = {
        value: judged(pairs_of(group, options.against)) for value, group in at_values.items()
    }
    return Comparison(options, arms, chosen, sweep, judged(pairs), same_setting)


# --- as a report --------------------------------------------------------------------------------


def report(comparison: Comparison) -> Report:
    """Tables for people, records for programs."""
    sentences = [contrast.sentence for contrast in comparison.contrasts.overall]
    if len(comparison.chosen) == 1:
        sentences = ["no verdict: it takes two arms"]
    return Report(
        tables=comparison.tables,
        records=records_of(comparison),
        opening=[
            *warnings_of(comparison),
            *sentences,
            "",
            *(f"{name}: {value}" for name, value in facts(comparison)),
            *not_shared(comparison.arms),
        ],
        drawing=_curve_lines(comparison),
        closing=honesty(comparison),
    )


def _tables(comparison: Comparison) -> list[Table]:
    arms, chosen, contrasts = comparison.arms, comparison.chosen, comparison.contrasts
    found = _verdict_table(contrasts, "each at its own best" if comparison.sweep else "")
    for value, each in comparison.same_setting.items():
        key = comparison.options.swept.rpartition(".")[2]
        found += _verdict_table(each, f"same setting, {key} {value}")
    if comparison.sweep:
        found.append(comparison.sweep.table())
    found += accuracy_tables(arms)
    if benchmarks_of(arms):
        found += [behaviour_table(chosen), diversity_table(chosen)]
    learning = comparison.learning
    return [
        *found,
        score_table(learning),
        speed_table(learning),
        dynamics_table(chosen),
        cost_table(arms),
    ]


def _verdict_table(contrasts: Contrasts, which: str) -> list[Table]:
    """One row per pair, over all benchmarks, and one below it for each; none without a pair."""
    if not contrasts.overall:
        return []
    rows = []
    for overall, each in contrasts.by_pair():
        rows.append([" - ".join(overall.labels), *_verdict_cells(overall)])
        rows += [[f"· {one.benchmark}", *_verdict_cells(one)] for one in each]
    head = ["pair", "diff.", "95 % interval", "Holm", "perm.", "P(>)", "verdict"]
    title = f"verdicts ({which})" if which else "verdicts"
    return [Table(title, head, rows, _verdict_note(contrasts))]


def _verdict_cells(contrast: Contrast) -> list[str]:
    found, verdict = contrast.difference, contrast.verdict
    interval = "-" if found.low is None else f"{found.low:+.3f}, {found.high:+.3f}"
    return [
        f"{found.mean:+.3f}",
        interval,
        number(verdict.p_holm),
        number(contrast.permutation.p if contrast.permutation else None),
        number(contrast.improvement.value, 2),
        verdict.word + _needed(verdict),
    ]


def _needed(verdict: Verdict) -> str:
    """What would tell, as short as 80 columns ask for."""
    seeds, problems = verdict.num_more_seeds, verdict.num_problems_needed
    parts = [f"+{seeds}" if seeds <= MOST_SEEDS else f">{MOST_SEEDS}"] if seeds else []
    parts += [f"{problems}p"] if problems else []
    return f" ({', '.join(parts)})" if parts else ""


def _verdict_note(contrasts: Contrasts) -> str:
    every = [*contrasts.overall, *contrasts.each]
    least = min((c.permutation.least for c in every if c.permutation), default=None)
    families = f"{len(contrasts.overall)} pair{'s' * (len(contrasts.overall) > 1)}"
    if contrasts.each:
        families += f" and over {len(contrasts.each)} pairs x benchmarks"
    floor = f", at least {least:.2g} with so few" if least and least > MOST_FLOOR else ""
    return (
        "diff.: first less second, over problems and seeds, benchmarks weighing equally; Holm: p "
        f"of the t-test, corrected over {families}; perm.: p with signs of seeds flipped (of "
        f"other seeds: labels of runs permuted){floor}; "
        "P(>): a run of the first beats one of the second; (+n): about n more seeds would resolve "
        "the margin, (np): n problems in all"
    )


def facts(comparison: Comparison) -> list[tuple[str, str]]:
    """(name, value) of what the verdicts rest on, fixed before anyone looked."""
    options, arms = comparison.options, comparison.arms
    rules = list(dict.fromkeys(checkpoint_rule(run) for arm in arms for run in arm.runs))
    chosen = chosen_steps(arms)
    seeds = sorted({len(arm.runs) for arm in arms})
    measure = "avg@n" if options.measure == "avg" else options.measure
    return [
        ("verdicts on", f"{measure}, margin {options.margin:g}, level .05 in each family"),
        ("checkpoint", "; ".join([*rules, *([f"steps {chosen}"] if chosen else [])])),
        ("budget", budget_line(arms, options.match).removeprefix("budget: ")),
        ("seeds", " or ".join(map(str, seeds)) + " per arm"),
        ("benchmarks", ", ".join(common_benchmarks(arms)) or "none"),
    ]


def results_of(comparison: Comparison) -> dict[str, Any]:
    """All that `results.json` holds."""
    arms = comparison.arms
    return {
        "facts": dict(facts(comparison)),
        "not_shared": not_shared(arms),
        "settings": {
            key: dict(zip((arm.label for arm in arms), values, strict=True))
            for key, values in differing_settings(arms).items()
        },
        "notes": honesty(comparison),
        "runs": {arm.label: [str(run.path) for run in arm.runs] for arm in arms},
        "records": records_of(comparison),
    }


# --- curves in one line -------------------------------------------------------------------------


def _curve_lines(comparison: Comparison) -> list[str]:
    """One line per metric and arm, all of a metric on one scale."""
    is_unicode = "utf" in (getattr(sys.stdout, "encoding", None) or "").lower()
    blocks = BLOCKS if is_unicode else ASCII_BLOCKS
    arms = comparison.chosen
    width, lines = max(len(arm.label) for arm in arms), []
    for metric in comparison.options.curves:
        curves = {arm.label: mean_curve([run.steps[metric] for run in arm.runs]) for arm in arms}
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


# --- what the numbers can carry -----------------------------------------------------------------


def warnings_of(comparison: Comparison) -> list[str]:
    """What must be known before a verdict is read."""
    options, lines = comparison.options, []
    if options.missing:
        lines.append(
            f"missing, as they failed or are not finished: {', '.join(options.missing)}; what "
            "follows is without them"
        )
    if options.allow_incomparable:
        asked = None if options.is_planned else options.match
        found = obstacles(comparison.arms, asked)
        lines += [f"these runs do not compare: {'; '.join(found)}"] if found else []
    return lines


def honesty(comparison: Comparison) -> list[str]:
    arms, contrasts = comparison.arms, comparison.contrasts
    single = [arm.label for arm in arms if len(arm.runs) == 1]
    lines = []
    if len(single) < len(arms):
        lines.append(
            "± is a 95 % t-interval between training seeds; the problems are the same ones. "
            "Intervals of differences are over new seeds and new problems."
        )
    if single:
        names = ", ".join(single) if len(single) <= MAX_COLUMNS else f"{len(single)} of these"
        lines.append(
            f"one seed of {names}: no between-seed estimate exists; a difference may be the seed's"
        )
    if len(comparison.chosen) > 1 and benchmarks_of(arms) and not contrasts.overall:
        lines.append("no verdicts: no benchmark is left to give them on")
    if any(contrast.verdict.num_more_seeds for contrast in contrasts.overall):
        lines.append(
            "the level is that of one look: adding the seeds advised and looking again errs more "
            "often, seeds chosen beforehand do not"
        )
    if any(c.difference.num_seeds == 2 for c in contrasts.overall):
        lines.append(
            "two seeds: a spread from two values is a guess; take verdicts on them for a hint"
        )
    lines += contrasts.notes
    if comparison.sweep:
        lines += comparison.sweep.notes
    return lines
