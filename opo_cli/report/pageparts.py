"""What the page's template fills in: forest plot, notes, responses cut to size, and the JSON that
the charts are drawn from. Text is made harmless here."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from opo_cli.console import visible
from opo_cli.report.series import AXES, Chart, Charts, Lines
from opo_cli.report.styles import style_of

if TYPE_CHECKING:
    from opo_cli.report.page import Gap, Page, Sample

SAMPLE_CHARACTERS = (
    200_000  # Of all responses together: a page is for reading, the ledger has them all.
)
LEAST_RESPONSE = 200  # Characters of a response that are shown whatever the others take.
DIGITS, AXIS_DIGITS = 4, 6
"""Significant ones of values and of what they are drawn over."""
LARGE = 1e15  # Below it a whole number is shorter without its ".0"; above, with an exponent.
ICONS = {"win": "▲", "worse": "▼", "tie": "=", "unknown": "?"}


# --- text ---------------------------------------------------------------------------------------


def harmless(text: str) -> str:
    """`text` with control characters, bidirectional overrides and lone surrogates escaped;
    newlines and tabs stay."""
    if text.isprintable():
        return text
    return "\t".join(visible(part) for part in text.split("\t"))


def one_line(text: str) -> str:
    return " ".join(harmless(text).split())


def kind(word: str) -> str:
    """The class of a verdict's colours; any word that is not known is told as "cannot tell" is."""
    return word if word in ICONS else "unknown"


def shortened(samples: Sequence[Sample]) -> list[Sample]:
    """Responses cut, where all of them together are longer than a page carries; the cut is told."""
    responses = [r for s in samples for group in s.responses.values() for r in group]
    if sum(len(r.text) for r in responses) <= SAMPLE_CHARACTERS:
        return list(samples)
    most = max(LEAST_RESPONSE, SAMPLE_CHARACTERS // len(responses))

    def cut(text: str) -> str:
        left = len(text) - most
        return text if left <= 0 else f"{text[:most]}\n… {left:,} more characters are not shown"

    return [
        replace(
            sample,
            responses={
                label: [replace(response, text=cut(response.text)) for response in group]
                for label, group in sample.responses.items()
            },
        )
        for sample in samples
    ]


# --- the forest plot ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mark:
    """One line of the forest plot; places are per cent of its width."""

    gap: Gap
    at: float | None
    low: float | None
    high: float | None
    is_cut_low: bool
    is_cut_high: bool


@dataclass(frozen=True, slots=True)
class Forest:
    groups: Sequence[tuple[tuple[str, str], Sequence[Mark]]]
    """Per pair of arms."""
    ticks: Sequence[tuple[float, str]]
    band: tuple[float, float]
    """Of ±margin."""


def forest(page: Page) -> Forest:
    """One scale, 0 in the middle, for all lines; an interval that leaves it ends in an arrow."""
    limit = scale_limit(page.gaps, page.margin)

    def place(value: float | None) -> float | None:
        if value is None or not math.isfinite(value):
            return None
        return round(50 + 50 * min(max(value / limit, -1), 1), 2)

    def mark(gap: Gap) -> Mark:
        low, high = place(gap.low), place(gap.high)
        is_cut = (low is not None and gap.low < -limit, high is not None and gap.high > limit)
        return Mark(gap, place(gap.mean), low, high, *is_cut)

    pairs = dict.fromkeys(gap.pair for gap in page.gaps)
    groups = [(pair, [mark(gap) for gap in page.gaps if gap.pair == pair]) for pair in pairs]
    ticks = [(place(value), signed(value)) for value in tick_values(limit)]
    return Forest(groups, ticks, (place(-page.margin), place(page.margin)))


def scale_limit(gaps: Sequence[Gap], margin: float) -> float:
    """Half the width of the scale: holds every mean and the margin, and every interval unless it
    is several times as wide as those, which would press all others into a dot."""
    means = [abs(gap.mean) for gap in gaps if math.isfinite(gap.mean)]
    ends = [abs(end) for gap in gaps for end in (gap.low, gap.high) if end is not None]
    inner = max([margin, *means])
    return 1.1 * max(inner, min(max(ends, default=0.0), 3 * inner)) or 1.0


def tick_values(limit: float) -> list[float]:
    """Round numbers within ±limit: 0 and one to three on either side."""
    power = 10.0 ** math.floor(math.log10(limit))
    step = next(s * power for s in (0.5, 1, 2, 5) if limit < 4 * s * power)
    count = int(limit / step + 1e-9)
    return [i * step for i in range(-count, count + 1)]


def signed(value: float) -> str:
    return "0" if abs(value) < 1e-12 else f"{value:+.3g}".replace("-", "−")


# --- notes --------------------------------------------------------------------------------------


def band_note(charts: Charts) -> str:
    """What line and band are, in words."""
    most = max((lines.num_runs for c in charts.charts for lines in c.arms), default=0)
    if most < 2:
        return (
            "Each line is one run: with one seed there is no band, and no telling luck from skill."
        )
    return (
        "Line: mean over seeds, as far as all of them go. Band: 95 % t-interval of that mean, "
        "between seeds, where there are at least two. Smoothing averages a line's last points, and "
        "the band's edges alike."
    )


def thinning_note(charts: Charts) -> str:
    """Empty where every step is drawn."""
    if charts.run_points == charts.num_steps:
        return ""
    seeds = f"the seeds' own of {charts.run_points}" if charts.run_points else "seeds have none"
    return (
        f"To keep the page small, {charts.num_steps} steps are drawn as averages of neighbouring "
        f"ones: means and bands of {charts.mean_points} points, {seeds}."
    )


def alt_text(page: Page, chart: Chart) -> str:
    """What a chart shows, for those who cannot see it."""
    ends = [
        f"{one_line(arm.label)} ends at {lines.last:.4g}"
        for arm, lines in zip(page.arms, chart.arms, strict=True)
        if lines.last is not None
    ]
    return f"Chart of {one_line(chart.title)}: " + ("; ".join(ends) or "no mean was measured")


# --- the data of the charts ---------------------------------------------------------------------


def chart_data(page: Page, charts: Charts) -> str:
    """What the page's script draws, as `safe_json`."""
    pool = _Pool()
    data = {
        "axes": {axis: AXES[axis] for axis in charts.axes},
        "arms": [
            {"label": one_line(arm.label), **asdict(style_of(place))}
            for place, arm in enumerate(page.arms)
        ],
        "charts": [
            {
                "title": one_line(chart.title),
                "isEvaluation": chart.is_evaluation,
                "arms": [_arm_data(lines, pool) for lines in chart.arms],
            }
            for chart in charts.charts
        ],
        "scatter": scatter_places(charts),
        "xs": rounded_all(pool.arrays, AXIS_DIGITS),
    }
    return safe_json(data)


def safe_json(data: Any) -> str:
    """JSON without a character that HTML could read: <, > and & are \\u escapes."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def scatter_places(charts: Charts) -> tuple[int, int] | None:
    """Places of the charts of length and reward; None where one of them was not measured."""
    places = {c.key: i for i, c in enumerate(charts.charts) if c.is_measured}
    known = "length" in places and "reward" in places
    return (places["length"], places["reward"]) if known else None


def _arm_data(lines: Lines, pool: _Pool) -> dict[str, Any]:
    values = rounded_all([run.y for run in lines.runs])
    has_band = bool(np.isfinite(lines.half_width).any())
    return {
        "x": pool.add(lines.x),
        "mean": rounded(lines.mean),
        "low": rounded(lines.mean - lines.half_width) if has_band else None,
        "high": rounded(lines.mean + lines.half_width) if has_band else None,
        "seeds": lines.num_runs,
        "runs": [
            {"name": one_line(run.name), "seed": run.seed, "x": pool.add(run.x), "y": y}
            for run, y in zip(lines.runs, values, strict=True)
        ],
    }


class _Pool:
    """Arrays that many lines share are written once: runs take the same steps."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []
        self._places: dict[bytes, int] = {}

    def add(self, x: Any) -> dict[str, int]:
        """Axis -> place of its array."""
        return {axis: self._add(values) for axis, values in x.items()}

    def _add(self, values: np.ndarray) -> int:
        key = values.tobytes()
        if key not in self._places:
            self._places[key] = len(self.arrays)
            self.arrays.append(values)
        return self._places[key]


def rounded_all(arrays: Sequence[np.ndarray], digits: int = DIGITS) -> list[list[float | None]]:
    """All in one go: hundreds of short arrays would each pay for numpy's calls."""
    flat = iter(rounded(np.concatenate([np.empty(0), *arrays]), digits))
    return [list(islice(flat, len(array))) for array in arrays]


def rounded(values: np.ndarray, digits: int = DIGITS) -> list[float | int | None]:
    """To significant digits, so that JSON is short; what is not finite is None."""
    known = np.isfinite(values)
    safe = np.where(known & (values != 0), values, 1.0)
    power = digits - 1 - np.floor(np.log10(np.abs(safe)))
    up, down = 10.0 ** np.clip(power, 0, 300), 10.0 ** np.clip(-power, 0, 300)
    short = np.round(np.where(known, values, 0.0) / down * up) / up * down
    is_whole = (short == np.round(short)) & (np.abs(short) < LARGE)
    cells = short.astype(object)
    cells[is_whole] = short[is_whole].astype(np.int64)
    cells[~known] = None
    return cells.tolist()
