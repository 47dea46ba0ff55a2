"""The lab's tables, and the same numbers as flat records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from opo_cli.lab.analysis import Analysis
from opo_cli.lab.arms import REFERENCE
from opo_cli.lab.conclusion import conclusion
from opo_cli.lab.intervals import Interval
from opo_cli.lab.mechanism import Mechanism
from opo_cli.lab.verdict import ALPHA, MATERIAL, Result, SizeResult
from opo_cli.report.tables import Report, Table, between, number

MOST_STEPS = 5
"""Checkpoints beside each other in 80 columns."""
MECHANISM = {
    "exponent": "exponent of ||g||^2 on length",
    "exponent_given_correct": "... beside correctness",
    "norm_ratio": "||g||^2, wrong over right",
    "length_ratio": "length, wrong over right",
    "rank_length": "rank correlation of ||g||^2, length",
    "rank_logit": "rank correlation of ||g||^2, logit proxy",
    "length_reward": "correlation of length, reward",
    "spread": "spread of lengths, sd over mean",
}
"""Field of `Mechanism` -> what it is called; all within prompts."""


def lab_report(*analyses: Analysis, remarks: Sequence[str] = ()) -> Report:
    """Of one policy, or of several checkpoints of a run in their order: then ratios over training
    come first, and the tables below are the last one's. `remarks` come after its warnings."""
    last = analyses[-1]
    along = along_tables(analyses) if len(analyses) > 1 else []
    tables = [noise_table(size) for size in last.sizes]
    tables += [bias_table(size) for size in last.sizes]
    return Report(
        tables=[*along, *tables, mechanism_table(last)],
        records=[record for analysis in analyses for record in records_of(analysis)],
        opening=[heading(last), *conclusion(last)],
        closing=[*warnings_of(last), *remarks],
    )


def label_of(analysis: Analysis) -> str:
    """What tells the policies of several analyses apart."""
    step = analysis.settings.get("step")
    return str(analysis.settings.get("policy", "policy")) if step is None else f"step {step}"


def heading(analysis: Analysis) -> str:
    size = f"{analysis.num_prompts} prompts x {analysis.num_responses} responses"
    measured = analysis.settings.get("parameters", "all")
    return f"{label_of(analysis)}: {size}, {analysis.reduction}, parameters {measured}"


def warnings_of(analysis: Analysis) -> list[str]:
    """What the numbers cannot carry."""
    first = analysis.sizes[0]
    found = []
    if not first.has_signal:
        found.append(
            f"the expected gradient is not surely above 0 ({first.signal:.3g} ± "
            f"{first.signal_error:.3g}): estimators that are biased cannot be compared with others"
        )
    if analysis.reduction != "token-sum":
        found.append(
            f"under {analysis.reduction} no baseline is free: each changes what is expected, and "
            f"all are told against what {REFERENCE} expects"
        )
    if not analysis.settings.get("is_whole", True):
        found.append(
            "gradients are projections with exact norms: products of two are off by about 1.6 % of "
            "their norms; --memory of more keeps them whole"
        )
    if analysis.num_prompts < 64:
        found.append(
            f"{analysis.num_prompts} prompts are few: intervals of fewer than 64 may be too narrow"
        )
    reasons: dict[str, list[str]] = {}
    for name, reason in first.left_out.items():
        reasons.setdefault(reason, []).append(name)
    return [*found, *(f"left out: {', '.join(names)}: {r}" for r, names in reasons.items())]


# --- tables -------------------------------------------------------------------------------------


def noise_table(size: SizeResult) -> Table:
    rows = [
        [
            starred(result),
            _value(result.noise, 2),
            _bounds(result.noise, 2),
            number(None if result.noise is None else size.size / result.noise.value, 1),
            result.text,
        ]
        for result in size.results
    ]
    note = (
        f"noise: variance at equal signal, relative to {REFERENCE}; worth: the group that "
        f"{REFERENCE} would need\n"
        f"verdicts: Holm at {ALPHA:g} over the arms; material: surely below {MATERIAL:g}\n"
        "*: needs what training does not have"
    )
    head = ["estimator", "noise", "95 %", "worth", "verdict"]
    return Table(f"Noise of the gradient, groups of {size.size}", head, rows, note)


def bias_table(size: SizeResult) -> Table:
    rows = [
        [
            starred(result),
            "yes" if result.is_unbiased else "no",
            number(result.signal),
            number(result.cosine),
            f"{result.variance:.3g}",
            f"{result.bias:.2g}",
        ]
        for result in size.results
    ]
    note = (
        f"signal: of {REFERENCE}'s, before scaling; cosine: of the expected gradients, 1 is no "
        f"bias but a factor\nbias: ||E g - E g of {REFERENCE}||^2, of {size.signal:.2g}; noise of "
        "the estimate may put it below 0"
    )
    head = ["estimator", "unbiased", "signal", "cosine", "variance", "bias"]
    return Table(f"Signal and bias, groups of {size.size}", head, rows, note)


def mechanism_table(analysis: Analysis) -> Table:
    found = analysis.mechanism
    rows = [
        [title, _value(getattr(found, name), 2), _bounds(getattr(found, name), 2)]
        for name, title in MECHANISM.items()
    ]
    rows += [[f"baseline: {name}", number(b, 3), "-"] for name, b in found.baselines.items()]
    share = analysis.sizes[0].share
    rows.append(["share of a step's variance in reach", _value(share, 2), _bounds(share, 2)])
    rows.append(["accuracy", number(found.accuracy), "-"])
    rows.append(["truncated", number(found.truncated), "-"])
    note = f"within prompts; wrong over right from the {found.num_mixed} prompts with both"
    return Table("Why", ["within prompts", "value", "95 %"], rows, note)


def along_tables(analyses: Sequence[Analysis]) -> list[Table]:
    """Ratios and their reasons over training, `MOST_STEPS` checkpoints to a table."""
    tables = []
    most = math.ceil(len(analyses) / math.ceil(len(analyses) / MOST_STEPS))  # Of even widths.
    for start in range(0, len(analyses), most):
        tables.append(_ratios_along(analyses[start : start + most], start > 0))
    rows = [_why_along(analysis) for analysis in analyses]
    head = ["policy", "accuracy", "spread", "exponent", "wrong/right", "length w/r", "share"]
    note = "wrong/right: of ||g||^2; length w/r: of length; share: what a baseline can touch"
    return [*tables, Table("Why, over training", head, rows, note)]


def _ratios_along(analyses: Sequence[Analysis], is_continued: bool) -> Table:
    firsts = [analysis.sizes[0] for analysis in analyses]
    names = {result.name: starred(result) for size in firsts for result in size.results}
    rows = [[shown, *(_cell(size.of(name)) for size in firsts)] for name, shown in names.items()]
    more = ", continued" if is_continued else ""
    title = f"Noise over training, groups of {firsts[0].size}{more}"
    head = ["estimator", *(label_of(analysis) for analysis in analyses)]
    return Table(
        title,
        head,
        rows,
        "v: lower, ^: higher than rloo's, by Holm; =: same; *: needs what training does not have",
    )


def _cell(result: Result | None) -> str:
    if result is None or result.noise is None:
        return "-"
    marks = {"lower": " v", "materially lower": " v", "higher": " ^", "same": " ="}
    return number(result.noise.value, 2) + marks.get(result.word, "")


def _why_along(analysis: Analysis) -> list[str]:
    found: Mechanism = analysis.mechanism
    values = [found.spread, found.exponent, found.norm_ratio, found.length_ratio]
    share = analysis.sizes[0].share
    shown = [_value(value, 2) for value in (*values, share)]
    return [label_of(analysis), number(found.accuracy, 2), *shown]


def starred(result: Result) -> str:
    """The name, marked where the estimator is the lab's alone."""
    return result.name if result.is_practical else f"{result.name}*"


def _value(found: Interval | None, digits: int) -> str:
    return number(None if found is None else found.value, digits)


def _bounds(found: Interval | None, digits: int) -> str:
    return between(None if found is None else (found.low, found.high), digits)


# --- records ------------------------------------------------------------------------------------


def records_of(analysis: Analysis) -> list[dict[str, Any]]:
    """One flat record per number: policy, group size, estimator, quantity, value, low, high."""
    where = {
        "policy": label_of(analysis),
        "step": analysis.settings.get("step"),
        "reduction": analysis.reduction,
        "num_prompts": analysis.num_prompts,
        "num_responses": analysis.num_responses,
    }

    def record(size, estimator, quantity, value, found=None, verdict="", p_holm=None) -> dict:
        return {
            **where,
            "group_size": size,
            "estimator": estimator,
            "quantity": quantity,
            "value": _finite(value),
            "low": None if found is None else found.low,
            "high": None if found is None else found.high,
            "verdict": verdict,
            "p_holm": p_holm,
        }

    records = []
    for size in analysis.sizes:
        for result in size.results:
            noise = result.noise
            value = None if noise is None else noise.value
            about = (size.size, result.name)
            records.append(record(*about, "noise", value, noise, result.word, result.p_holm))
            for quantity in ("signal", "cosine", "variance", "bias"):
                records.append(record(*about, quantity, getattr(result, quantity)))
        records.append(record(size.size, None, "share", size.share.value, size.share))
        records.append(record(size.size, REFERENCE, "squared_signal", size.signal))
    for name in MECHANISM:
        found = getattr(analysis.mechanism, name)
        records.append(record(None, None, name, None if found is None else found.value, found))
    for name, value in analysis.mechanism.baselines.items():
        records.append(record(None, None, f"baseline_{name}", value))
    for name in ("accuracy", "truncated", "num_mixed"):
        records.append(record(None, None, name, getattr(analysis.mechanism, name)))
    return records


def _finite(value: float | None) -> float | None:
    """JSON knows no nan."""
    return value if value is not None and abs(value) < float("inf") else None
