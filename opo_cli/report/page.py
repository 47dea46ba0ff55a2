"""A comparison as one HTML page: self-contained, offline, and safe to open whatever a model wrote.

`Page` is what is to be seen; `render` makes the text of the file from it. The verdicts, the
differences, the tables and the responses are plain HTML and need no JavaScript; the curves are
drawn by plotly.js in the browser, from one block of JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from opo_cli.report.frame import fill
from opo_cli.report.pageparts import (
    ICONS,
    alt_text,
    band_note,
    chart_data,
    forest,
    scatter_places,
    shortened,
    thinning_note,
)
from opo_cli.report.series import AXES, charts_of
from opo_cli.report.styles import style_of
from opo_cli.report.tables import Table


@dataclass(frozen=True, slots=True)
class Curve:
    """One run, step by step."""

    run: str
    seed: int
    x: Mapping[str, Sequence[float]]
    """"step", "sample", "token", "second": cumulated, one value per logged step. "step" is needed
    and rises."""
    metrics: Mapping[str, Sequence[float]]
    """Metric key -> one value per logged step, nan where it was not measured."""
    accuracy: Mapping[str, Sequence[tuple[int, float]]]
    """Benchmark -> (step, avg@n) of each evaluation: at step 0, during, and at the end."""


@dataclass(frozen=True, slots=True)
class ArmCurves:
    """The runs that differ in nothing but their seed."""

    label: str
    curves: Sequence[Curve]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the comparison says of one pair of arms, over all benchmarks."""

    pair: tuple[str, str]
    word: str
    """"win", "worse" (of the first against the second), "tie" or "cannot tell"."""
    sentence: str


@dataclass(frozen=True, slots=True)
class Gap:
    """One line of the forest plot: first arm less second, in shares of right answers."""

    pair: tuple[str, str]
    benchmark: str
    mean: float
    low: float | None
    high: float | None
    """Of the 95 % interval; None where there is none (one seed)."""
    word: str
    """As of `Answer`."""
    text: str


@dataclass(frozen=True, slots=True)
class Response:
    text: str
    reward: float
    advantage: float | None
    length: int
    """Tokens."""
    verdict: str
    """"right", "wrong", "cut", ..."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What each arm answered to one prompt."""

    where: str
    """Such as "seed 0, step 40"."""
    problem: str
    prompt: str
    answer: str
    """The reference answer."""
    responses: Mapping[str, Sequence[Response]]
    """Label of the arm -> its responses."""


@dataclass(frozen=True, slots=True)
class Page:
    title: str
    lead: Sequence[tuple[str, str]]
    """(name, value) of the facts that everything below rests on: budget, checkpoint rule, ..."""
    answers: Sequence[Answer]
    gaps: Sequence[Gap]
    margin: float
    """Below which a difference does not matter, in shares of right answers."""
    warnings: Sequence[str]
    """What the runs do not share, and what the numbers cannot carry."""
    tables: Sequence[Table]
    appendix: Sequence[Table]
    """Config diff, certificate, environment."""
    arms: Sequence[ArmCurves]
    metrics: Mapping[str, tuple[str, str]]
    """Key of `Curve.metrics` -> (title, unit and formula), in the order of the charts. The key
    "accuracy" stands for `Curve.accuracy`: one chart per benchmark."""
    samples: Sequence[Sample]


# --- rendering ----------------------------------------------------------------------------------

SHOWN_RESPONSES = 2  # Of an arm to one prompt; the others are folded away.


def render(page: Page) -> str:
    """The whole file, to be written as UTF-8; what a model wrote is text in it, and never runs.

    Raises:
        OpoError: plotly's JavaScript is not where the package has it.
    """
    charts = charts_of(page)
    return fill(
        "page.html.j2",
        "page.js",
        chart_data(page, charts),
        [style_of(place) for place in range(len(page.arms))],
        page=page,
        forest=forest(page),
        icons=ICONS,
        charts=charts,
        alts=[alt_text(page, chart) for chart in charts.charts],
        notes=[note for note in (band_note(charts), thinning_note(charts)) if note],
        axes=AXES,
        scatter=scatter_places(charts),
        samples=shortened(page.samples),
        num_shown=SHOWN_RESPONSES,
        seeds=sorted({curve.seed for arm in page.arms for curve in arm.curves}),
        places={arm.label: place for place, arm in enumerate(page.arms)},
    )
