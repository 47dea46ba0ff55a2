"""The figures of a comparison as files for papers: SVG, PNG and PDF, one column wide.

A arms, P points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from opo_cli.report.pageparts import one_line, scale_limit, scatter_places, tick_values
from opo_cli.report.series import Chart, Charts, Lines, charts_of
from opo_cli.report.styles import style_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from opo_cli.report.page import Gap, Page

WIDTH, HEIGHT = 3.3, 2.2
"""Inches: one column of a paper in two columns, at which the text is 8 points as in a caption."""
ROW_HEIGHT = 0.19  # Inches, of a line of text: in the forest plot and in a legend.
DPI = 300
LINE = 52  # Characters of 7 points that a figure is wide.
LONGEST = 70  # Characters of a label: a line of them is 5 points high.
MANY = 10**9  # Numbers: a file for a paper is not thinned for the sake of its size.
FEW = 16  # Points: so few are marked one by one, as on the page.
BAND = 0.17
RC = {
    "font.size": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e6e7e9",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.unicode_minus": True,
    "axes.formatter.useoffset": False,
    "text.parse_math": False,  # A label is text, whatever dollars it has.
    "text.usetex": False,
    "pdf.fonttype": 42,  # Fonts embedded as TrueType: publishers refuse type 3.
    "svg.fonttype": "none",  # Text stays text.
    "svg.hashsalt": "opo",  # Else its ids differ from call to call.
    "figure.constrained_layout.use": True,
}
METADATA = {
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""Per format, without dates and versions, so that the same page makes the same files."""
COLOURS = {"win": "#00694f", "worse": "#a63c00", "tie": "#41454b"}
UNKNOWN = "#755200"
"""Of the verdicts, as on the page."""
DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}
SYMBOLS = {"circle": "o", "square": "s", "diamond": "D", "triangle-up": "^"}
"""plotly's names -> matplotlib's."""


def save_figures(page: Page, folder: Path, formats: Sequence[str] = tuple(METADATA)) -> list[Path]:
    """Forest plot, curves with seed bands, length against reward: a file each per format.

    What was not measured has no figure.

    Args:
        folder: made where it lacks; files of the same names are replaced.

    Returns:
        the files, in the page's order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with _quiet_style():
        for name, draw in _drawings(page).items():
            figure = draw()
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # Laid out once, not again for each format.
            for kind in formats:
                path = folder / f"{name}.{kind}"
                figure.savefig(path, format=kind, dpi=DPI, metadata=METADATA[kind])
                paths.append(path)
    return paths


def _quiet_style() -> AbstractContextManager[None]:
    """The same settings whatever the machine's matplotlibrc says; those of before come back."""
    import matplotlib as mpl

    kept = ("backend", "interactive", "toolbar", "timezone")  # Nothing that a file shows.
    default = {key: value for key, value in mpl.rcParamsDefault.items() if key not in kept}
    return mpl.rc_context(default | RC)


def _drawings(page: Page) -> Mapping[str, Callable[[], Figure]]:
    """File name -> what draws the figure."""
    charts = charts_of(page, MANY)
    drawings: dict[str, Callable[[], Figure]] = {}
    if page.gaps:
        drawings["differences"] = lambda: _forest(page)
    for chart in charts.charts:
        if chart.is_measured:
            drawings[_free(file_name(chart.key), drawings)] = lambda c=chart: _curves(page, c)
    if scatter_places(charts):
        drawings[_free("length-against-reward", drawings)] = lambda: _scatter(page, charts)
    return drawings


def file_name(key: str) -> str:
    """A metric's key or a benchmark's name as a file is called: nothing that a path could mean."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in key).strip("-") or "chart"


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """Names that differ in what a path cannot have are numbered."""
    count, free = 2, name
    while free in taken:
        count, free = count + 1, f"{name}-{count}"
    return free


# --- the parts of a figure ----------------------------------------------------------------------


def _axes(height: float) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height))
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _legend(figure: Figure, axes: Axes, page: Page) -> None:
    """Above the plot, which it makes no smaller; one arm needs none."""
    if len(page.arms) < 2:
        return
    handles, labels = axes.get_legend_handles_labels()
    longest = max(map(len, labels))
    columns = max(1, min(len(labels), 4, LINE // (longest + 6)))
    rows = math.ceil(len(labels) / columns)
    figure.set_figheight(HEIGHT + ROW_HEIGHT * rows)
    size = _size_of(longest + 6)
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, fontsize=size)


def _size_of(num_characters: int) -> float:
    """Points at which a line so long fits the figure; 7 where it does anyway."""
    return min(7.0, 7.0 * LINE / num_characters)


def _short(label: str) -> str:
    """A label too long for any line loses its middle."""
    text = one_line(label)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 25]}…{text[-24:]}"


def _title(chart: Chart) -> str:
    return one_line(f"accuracy, {chart.title}" if chart.is_evaluation else chart.title)


def _curves(page: Page, chart: Chart) -> Figure:
    figure, axes = _axes(HEIGHT)
    for place, lines in enumerate(chart.arms):
        _mean_and_band(axes, page, place, lines)
    axes.set_xlabel("step")
    axes.set_ylabel(_title(chart))
    _legend(figure, axes, page)
    return figure


def _mean_and_band(axes: Axes, page: Page, place: int, lines: Lines) -> None:
    style = style_of(place)
    known = np.isfinite(lines.mean)
    x, mean, half = (v[known] for v in (lines.x["step"], lines.mean, lines.half_width))
    marker = SYMBOLS[style.symbol] if len(mean) <= FEW else ""
    axes.plot(
        *(x, mean),
        label=_label(page, place),
        color=style.light,
        linestyle=DASHES[style.dash],
        linewidth=1.2,
        marker=marker,
        markersize=3,
    )
    alpha = BAND * min(1, 4 / len(page.arms))  # Bands of many arms lie over each other.
    axes.fill_between(x, mean - half, mean + half, color=style.light, alpha=alpha, linewidth=0)


def _label(page: Page, place: int) -> str:
    label = _short(page.arms[place].label)
    return f" {label}" if label.startswith("_") else label  # Else matplotlib's legend skips it.


def _scatter(page: Page, charts: Charts) -> Figure:
    """A faint point per step and run, and the means' way from the open circle to the square."""
    length, reward = (charts.charts[place] for place in scatter_places(charts))
    figure, axes = _axes(HEIGHT)
    for place, (across, up) in enumerate(zip(length.arms, reward.arms, strict=True)):
        style = style_of(place)
        runs = {run.name: run.y for run in across.runs}
        for run in up.runs:
            if run.name in runs:
                look = {"color": style.light, "alpha": 0.25, "linewidth": 0, "s": 3}
                axes.scatter(runs[run.name], run.y, marker=SYMBOLS[style.symbol], **look)
        known = np.isfinite(across.mean) & np.isfinite(up.mean)
        x, y = across.mean[known], up.mean[known]
        dash = DASHES[style.dash]
        axes.plot(x, y, dash, color=style.light, linewidth=1, label=_label(page, place))
        axes.plot(x[:1], y[:1], "o", color=style.light, markersize=4, markerfacecolor="white")
        axes.plot(x[-1:], y[-1:], "s", color=style.light, markersize=4)
    axes.set_xlabel(_title(length))
    axes.set_ylabel(_title(reward))
    _legend(figure, axes, page)
    return figure


# --- the forest plot ----------------------------------------------------------------------------


def _forest(page: Page) -> Figure:
    """One line per pair and benchmark, those of a pair below its name."""
    pairs = list(dict.fromkeys(gap.pair for gap in page.gaps))
    figure, axes = _axes(0.55 + ROW_HEIGHT * (len(page.gaps) + 2.2 * len(pairs)))
    limit = scale_limit(page.gaps, page.margin)
    axes.axvspan(-page.margin, page.margin, color="#e9edf1", linewidth=0)
    axes.axvline(0, color="#5b5e64", linewidth=0.6)
    places, names, row = [], [], 0.0
    for pair in pairs:
        row += _head(axes, pair, row)
        for gap in (gap for gap in page.gaps if gap.pair == pair):
            _gap(axes, gap, row, limit)
            places.append(row)
            names.append(one_line(gap.benchmark))
            row += 1
        row += 0.45
    axes.set_yticks(places, names)
    axes.set_ylim(row - 0.75, -0.75)
    axes.set_xlim(-limit, limit)
    axes.set_xticks(tick_values(limit))
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)  # It would cross the pairs' names.
    axes.set_xlabel("difference in accuracy, first less second")
    return figure


def _head(axes: Axes, pair: tuple[str, str], row: float) -> float:
    """The names of a pair from the figure's left edge, on two lines where one is too short; the
    rows that they take."""
    from matplotlib.transforms import blended_transform_factory

    lines = [f"{_short(pair[0])} less", _short(pair[1])]
    if sum(map(len, lines)) < LINE - 6:
        lines = [" ".join(lines)]
    across = blended_transform_factory(axes.figure.transFigure, axes.transData)
    for place, line in enumerate(lines):
        size = _size_of(len(line) + 6)  # Bold is wider.
        text = axes.text(0.02, row + 0.8 * place, line, weight="bold", size=size, transform=across)
        text.set_in_layout(False)
    return 0.05 + 0.8 * len(lines)


def _gap(axes: Axes, gap: Gap, row: float, limit: float) -> None:
    """Dot and interval; an end that leaves the scale is an arrow, no interval an open dot."""
    colour = COLOURS.get(gap.word, UNKNOWN)
    has_interval = gap.low is not None and gap.high is not None
    if has_interval:
        low, high = max(gap.low, -limit), min(gap.high, limit)
        axes.plot([low, high], [row, row], color=colour, linewidth=1.1, solid_capstyle="butt")
        ends = ((low, "<" if gap.low < -limit else "|"), (high, ">" if gap.high > limit else "|"))
        for end, marker in ends:
            axes.plot(end, row, marker, color=colour, markersize=4.5, clip_on=False)
    fill = colour if has_interval else "white"
    axes.plot(gap.mean, row, "o", color=colour, markersize=4, markerfacecolor=fill)
