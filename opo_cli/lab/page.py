"""The lab as one HTML page: the conclusion first, then the noise of every arm with its interval,
the squared gradient against length, ratios over training, and the tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from opo_cli.lab.analysis import Analysis
from opo_cli.lab.arms import REFERENCE
from opo_cli.lab.conclusion import conclusion
from opo_cli.lab.report import lab_report, label_of, starred, warnings_of
from opo_cli.lab.verdict import MATERIAL, Result, SizeResult
from opo_cli.report.frame import fill
from opo_cli.report.pageparts import one_line, safe_json
from opo_cli.report.styles import style_of
from opo_cli.report.tables import Table

KINDS = {"lower": "win", "materially lower": "win", "higher": "worse", "same": "tie"}
"""Verdict -> the class of its colours; any other is told as "cannot tell" is."""
ICONS = {"win": "▼", "worse": "▲", "tie": "=", "unknown": "?"}
"""They point where the noise goes."""
WIDEST = 4.0
"""Ratios up to it, and down to its inverse, have a place in the charts; others are cut."""
TICKS = (0.25, 0.33, 0.5, 0.67, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
MOST_CURVES = 7
"""Arms of the chart over training: as many as colours tell apart. The table has them all."""
FIRST_CURVES = ("opo", "opo-loo", "oracle", "none")
LEAST_APART = 12.0
"""Per cent of the width between two labels of the axis."""
DIGITS = 4


@dataclass(frozen=True, slots=True)
class Mark:
    """One line of the forest plot; places are per cent of its width."""

    name: str
    kind: str
    text: str
    at: float | None
    """None: it is off the scale, as an arrow tells, or cannot be told."""
    low: float | None
    high: float | None
    is_cut_low: bool
    is_cut_high: bool


@dataclass(frozen=True, slots=True)
class Forest:
    """The noise of the arms of one group size, on a logarithmic scale with 1 in the middle."""

    size: int
    marks: Sequence[Mark]
    ticks: Sequence[tuple[float, str]]
    band: tuple[float, float]
    """From `MATERIAL` to its inverse."""


@dataclass(frozen=True, slots=True)
class LabPage:
    title: str
    lead: Sequence[tuple[str, str]]
    sentences: Sequence[str]
    warnings: Sequence[str]
    forests: Sequence[Forest]
    tables: Sequence[Table]
    arms: Sequence[str]
    """Of the chart over training; empty with one policy."""


def render_lab(*analyses: Analysis, remarks: Sequence[str] = ()) -> str:
    """The whole file, to be written as UTF-8; of several checkpoints in their order, the last is
    the one that is told at length. `remarks` come after its warnings.

    Raises:
        OpoError: plotly's JavaScript is not where the package has it.
    """
    last = analyses[-1]
    page = LabPage(
        title="Which estimator's gradient is least noisy",
        lead=_lead(analyses),
        sentences=conclusion(last),
        warnings=[*warnings_of(last), *remarks],
        forests=[forest(size) for size in last.sizes],
        tables=lab_report(*analyses).tables,
        arms=_curve_names(last) if len(analyses) > 1 else [],
    )
    styles = [style_of(place) for place in range(max(len(page.arms), 2))]
    return fill("lab.html.j2", "lab.js", _data(analyses, page), styles, page=page, icons=ICONS)


def _curve_names(last: Analysis) -> list[str]:
    """The paper's, the two bounds, and the least noisy of those that training can have."""
    found = [r.name for r in last.sizes[0].results if r.is_practical and r.word != "same"]
    tried = [result.name for result in last.sizes[0].results]
    first = [name for name in FIRST_CURVES if name in tried]
    names = dict.fromkeys([*first, *found])
    return [name for name in names if name != REFERENCE][:MOST_CURVES]


def _lead(analyses: Sequence[Analysis]) -> list[tuple[str, str]]:
    last = analyses[-1]
    several = f"{label_of(analyses[0])} to {label_of(last)}" if len(analyses) > 1 else None
    return [
        ("policy", several or label_of(last)),
        ("prompts", f"{last.num_prompts} x {last.num_responses} responses"),
        ("groups of", ", ".join(str(size.size) for size in last.sizes)),
        ("reduction", last.reduction),
        ("parameters", str(last.settings.get("parameters", "all"))),
        ("relative to", REFERENCE),
    ]


def forest(size: SizeResult) -> Forest:
    """An interval that leaves the scale ends in an arrow."""
    ends = [end for r in size.results if r.noise for end in (r.noise.low, r.noise.high)]
    widest = min(max([1.25, *(max(end, 1 / end) for end in ends)]), WIDEST)

    def place(value: float) -> float:
        share = math.log(value) / math.log(widest)
        return round(50 + 46 * min(max(share, -1.0), 1.0), 2)

    def mark(result: Result) -> Mark:
        kind, found = KINDS.get(result.word, "unknown"), result.noise
        if found is None:
            return Mark(starred(result), kind, "cannot be told", *[None] * 3, False, False)
        text = f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}], {result.text}"
        at = place(found.value) if 1 / widest <= found.value <= widest else None
        places = (at, place(found.low), place(found.high))
        is_cut = (found.low < 1 / widest - 1e-9, found.high > widest + 1e-9)
        return Mark(starred(result), kind, text, *places, *is_cut)

    ticks: list[tuple[float, str]] = [(place(1.0), "1")]
    for tick in sorted(TICKS, key=lambda value: -abs(math.log(value))):
        is_apart = all(abs(place(tick) - at) >= LEAST_APART for at, _ in ticks)
        if 1 / widest <= tick <= widest and is_apart:
            ticks.append((place(tick), f"{tick:g}"))
    marks = [mark(result) for result in size.results if result.name != REFERENCE]
    return Forest(size.size, marks, sorted(ticks), (place(MATERIAL), place(1 / MATERIAL)))


def _data(analyses: Sequence[Analysis], page: LabPage) -> str:
    """What the charts are drawn from."""
    last = analyses[-1]
    return safe_json(
        {
            "styles": [asdict(style_of(place)) for place in range(max(len(page.arms), 2))],
            "points": [[length, _rounded(norm), int(ok)] for length, norm, ok in last.points],
            "widest": WIDEST,
            "steps": _steps(analyses),
            "policies": [one_line(label_of(analysis)) for analysis in analyses],
            "arms": [_curve(name, analyses) for name in page.arms],
        }
    )


def _steps(analyses: Sequence[Analysis]) -> list[int] | None:
    """None: the policies are no run's."""
    steps = [analysis.settings.get("step") for analysis in analyses]
    return None if None in steps else steps


def _curve(name: str, analyses: Sequence[Analysis]) -> dict[str, Any]:
    found = [analysis.sizes[0].of(name) for analysis in analyses]
    noises = [None if result is None else result.noise for result in found]
    ends = {
        end: [None if noise is None else _rounded(getattr(noise, end)) for noise in noises]
        for end in ("value", "low", "high")
    }
    return {"label": one_line(name), **ends}


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
