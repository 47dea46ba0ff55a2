"""A comparison as the content of its HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import pstdev
from typing import Any

from opo_cli import __version__
from opo_cli.errors import OpoError
from opo_cli.metrics import METRICS
from opo_cli.records import RunFolder
from opo_cli.report import page as web
from opo_cli.report.compare import PAGE_METRICS, Comparison, facts, honesty, warnings_of
from opo_cli.report.compare_tables import certificate_table, config_table, environment_table
from opo_cli.report.contrasts import Contrast
from opo_cli.report.runs import Arm, Run
from opo_cli.report.shared import differing_settings, not_shared
from opo_cli.report.show import verdict_of

NUM_SAMPLES = 3
"""Prompts whose rollouts the page shows: those of the first step are everyone's start."""
RESPONSES_PER_ARM = 4
LEDGER = (
    *("group", "problem_id", "prompt", "answer", "text", "reward", "advantage", "length"),
    *("grade_reason", "finish_reason", "correct"),
)
USED = {"step": "steps", "sample": "samples", "token": "tokens", "second": "seconds"}
"""x axis of the page -> what a run used."""
Asked = tuple[str, str]
"""(problem, prompt): templates may differ."""


def page_of(comparison: Comparison, command: str) -> web.Page:
    """
    Args:
        command: what the user called, in words.
    """
    arms, chosen = comparison.arms, comparison.chosen
    lead = [
        ("command", command),
        *facts(comparison),
        ("made", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, opo {__version__}"),
    ]
    return web.Page(
        title=_title(chosen),
        lead=lead,
        answers=[
            web.Answer(c.labels, c.verdict.word, c.sentence) for c in comparison.contrasts.overall
        ],
        gaps=[
            _gap(contrast)
            for overall, each in comparison.contrasts.by_pair()
            for contrast in (overall, *each)
        ],
        margin=comparison.options.margin,
        warnings=[*warnings_of(comparison), *not_shared(arms), *honesty(comparison)],
        tables=comparison.tables,
        appendix=[
            config_table(differing_settings(arms), arms),
            certificate_table(arms),
            environment_table(arms),
        ],
        arms=[web.ArmCurves(arm.label, [_curve(run) for run in arm.runs]) for arm in arms],
        metrics={name: _metric(name) for name in PAGE_METRICS},
        samples=samples_of(chosen),
    )


def _title(arms: Sequence[Arm]) -> str:
    names = [arm.label for arm in arms]
    shown = names if len(names) <= 4 else [*names[:3], f"{len(names) - 3} more"]
    return " vs ".join(shown)


def _gap(contrast: Contrast) -> web.Gap:
    found = contrast.difference
    return web.Gap(
        pair=contrast.labels,
        benchmark=contrast.benchmark,
        mean=found.mean,
        low=found.low,
        high=found.high,
        word=contrast.verdict.word,
        text=contrast.verdict.text,
    )


def _metric(name: str) -> tuple[str, str]:
    metric = METRICS[name]
    if name == "accuracy":
        return "accuracy", "share of right answers on held-out problems"
    unit = f", {metric.unit}" if metric.unit else ""
    return metric.title, metric.formula + unit


def _curve(run: Run) -> web.Curve:
    accuracy: dict[str, list[tuple[int, float]]] = {}
    for record in run.evals:
        if record["policy"] in ("initial", "step", "final"):
            step = 0 if record["policy"] == "initial" else record.get("step", len(run.steps))
            accuracy.setdefault(record["benchmark"], []).append((step, record["accuracy"]))
    is_curve = {name: points for name, points in accuracy.items() if len(points) > 1}
    return web.Curve(
        run=str(run.path),
        seed=run.seed,
        x={axis: run.used[unit] for axis, unit in USED.items()},
        metrics={name: run.steps[name] for name in PAGE_METRICS if name != "accuracy"},
        accuracy={name: sorted(set(points)) for name, points in is_curve.items()},
    )


# --- rollouts side by side -----------------------------------------------------------------------


def samples_of(arms: Sequence[Arm]) -> list[web.Sample]:
    """What each arm answered to the same training prompts: of one seed, at the last step that all
    their ledgers hold; prompts on which the arms' rewards differ most. Empty where no seed and step
    is common to all, or no rollouts are kept."""
    runs = _one_seed(arms)
    ledgers = {label: RunFolder(run.path).ledger for label, run in runs.items()}
    steps = [set(ledger.steps()) for ledger in ledgers.values()]
    common = set.intersection(*steps) if steps else set()
    if not common:
        return []
    step = max(common)
    try:
        lines = {label: ledger.read(step, LEDGER) for label, ledger in ledgers.items()}
    except OpoError:  # A damaged ledger takes nothing from the numbers.
        return []
    by_problem = {label: _by_problem(found) for label, found in lines.items()}
    shared = set.intersection(*(set(groups) for groups in by_problem.values()))

    def disagreement(problem: Asked) -> float:
        rewards = [[r["reward"] for r in groups[problem]] for groups in by_problem.values()]
        means = [sum(each) / len(each) for each in rewards]
        return pstdev(means) if len(means) > 1 else pstdev(rewards[0])

    chosen = sorted(shared, key=lambda problem: (-disagreement(problem), problem))[:NUM_SAMPLES]
    seed = next(iter(runs.values())).seed
    return [_sample(f"seed {seed}, step {step}", problem, by_problem) for problem in chosen]


def _one_seed(arms: Sequence[Arm]) -> dict[str, Run]:
    """Label -> its run of the first seed that every arm has; empty where there is none."""
    seeds = set.intersection(*(set(arm.seeds) for arm in arms))
    if not seeds:
        return {}
    return {arm.label: next(r for r in arm.runs if r.seed == min(seeds)) for arm in arms}


def _by_problem(lines: Sequence[dict[str, Any]]) -> dict[Asked, list[dict[str, Any]]]:
    found: dict[Asked, list[dict[str, Any]]] = {}
    for line in lines:
        found.setdefault((line["problem_id"], line["prompt"]), []).append(line)
    return found


def _sample(where: str, problem: Asked, by_problem: dict[str, dict[Asked, list]]) -> web.Sample:
    first = next(iter(by_problem.values()))[problem][0]
    return web.Sample(
        where=where,
        problem=problem[0],
        prompt=first["prompt"],
        answer=first["answer"],
        responses={
            label: [
                web.Response(
                    text=line["text"],
                    reward=line["reward"],
                    advantage=line["advantage"],
                    length=line["length"],
                    verdict=verdict_of(line)[0],
                )
                for line in groups[problem][:RESPONSES_PER_ARM]
            ]
            for label, groups in by_problem.items()
        },
    )
