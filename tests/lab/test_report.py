"""Tables that fit a terminal, records that a program can read, and the page in a browser."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from itertools import pairwise

import pytest
from rich.console import Console

from opo_cli.errors import OpoError
from opo_cli.lab.analysis import Analysis, analyse
from opo_cli.lab.arms import ARMS
from opo_cli.lab.intervals import Interval
from opo_cli.lab.page import LEAST_APART, MOST_CURVES, forest, render_lab
from opo_cli.lab.report import lab_report
from opo_cli.lab.store import LabData
from opo_cli.report.tables import print_report
from tests.lab.toy import lab_of, make_toy

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"


def analysed(step: int | None, **changes) -> Analysis:
    lab = lab_of([make_toy(seed % 4) for seed in range(12)], 16, seed=step or 0)
    settings = {"step": step} if step is not None else {"policy": HOSTILE}
    options = {"group_sizes": [3, 4], "resamples": 100}
    return analyse(LabData(settings=settings, prompts=lab.prompts), **(options | changes))


@pytest.fixture(scope="module")
def along() -> list[Analysis]:
    return [analysed(step) for step in (0, 10, 20)]


@pytest.fixture(scope="module")
def single() -> Analysis:
    return analysed(None, estimators=["opo", "none", "mean"])


def printed(report, format: str) -> str:
    file = io.StringIO()
    print_report(Console(file=file, width=80), report, format)
    return file.getvalue()


def test_tables_fit_eighty_columns(along):
    report = replace(lab_report(*along), opening=(), closing=())  # Prose: the terminal breaks it.
    text = printed(report, "rich")
    assert max(map(len, text.splitlines())) <= 80
    for line in text.splitlines():  # No name of an arm, and no verdict, is folded.
        assert line.strip() not in ("lower", "-fit", "seline", "loo")
    assert "materially lower" in text or "not resolved ±" in text


def test_the_conclusion_is_first_and_the_first_size_is_what_it_is_about(along):
    report = lab_report(*along)
    assert report.opening[0] == "step 20: 12 prompts x 16 responses, token-sum, parameters all"
    assert any("groups of 3" in line for line in report.opening)
    assert [table.title for table in report.tables][:2] == [
        "Noise over training, groups of 3",
        "Why, over training",
    ]


def test_records_are_flat_and_have_every_arm(along):
    records = json.loads(printed(lab_report(*along), "json"))
    noises = {
        (r["step"], r["group_size"], r["estimator"]) for r in records if r["quantity"] == "noise"
    }
    assert noises == {(s, g, name) for s in (0, 10, 20) for g in (3, 4) for name in ARMS}
    assert len({tuple(record) for record in records}) == 1


def test_few_prompts_and_what_is_left_out_are_said(along):
    assert any("12 prompts are few" in line for line in lab_report(*along).closing)
    short = lab_report(analysed(5, group_sizes=[8], estimators=["oracle", "opo"]))
    assert "left out: oracle: it takes 24 responses per prompt, not 16" in short.closing
    mean = analysed(5, reduction="seq-mean", estimators=["opo"])
    assert any("no baseline is free" in line for line in lab_report(mean).closing)


def test_analysis_repeats_and_wants_a_group_size():
    once, again = (lab_report(analysed(3, estimators=["opo", "none"])) for _ in range(2))
    assert once == again
    with pytest.raises(OpoError, match="no group size"):
        analysed(3, group_sizes=[])


def test_without_any_difference_of_rewards_there_is_nothing_to_say():
    lab = lab_of([make_toy(i) for i in range(3)], 8, seed=0)
    prompts = [replace(prompt, rewards=0 * prompt.rewards) for prompt in lab.prompts]
    with pytest.raises(OpoError, match="none of 3 prompts has responses of different reward"):
        analyse(LabData(settings={}, prompts=prompts), group_sizes=[2])
    prompts = [*lab.prompts[:2], prompts[2]]  # Two are enough.
    assert analyse(LabData(settings={}, prompts=prompts), group_sizes=[2]).num_prompts == 3


def test_the_forest_has_one_in_the_middle_and_labels_apart(along):
    found = forest(along[-1].sizes[0])
    places = [at for at, _ in found.ticks]
    assert (50.0, "1") in found.ticks
    assert all(b - a >= LEAST_APART for a, b in pairwise(places))
    for mark in found.marks:
        if mark.at is not None:
            assert 0 <= mark.low <= mark.at <= mark.high <= 100


def test_an_estimator_beyond_the_scale_has_an_arrow_and_no_dot(along):
    size = along[-1].sizes[0]
    wide = [
        replace(result, noise=Interval(9.0, 7.0, 11.0) if result.name == "none" else result.noise)
        for result in size.results
    ]
    marks = {mark.name: mark for mark in forest(replace(size, results=wide)).marks}
    assert (marks["none"].at, marks["none"].is_cut_high) == (None, True)
    assert marks["none"].text.startswith("9.00 [7.00, 11.00]")
    assert marks["opo"].at is not None


def test_prose_is_wrapped_on_a_terminal_and_whole_in_a_pipe(along):
    report = replace(lab_report(*along), tables=())
    file = io.StringIO()
    print_report(
        Console(file=file, width=80, force_terminal=True, color_system=None), report, "rich"
    )
    assert max(map(len, file.getvalue().splitlines())) <= 80
    piped = printed(report, "rich").splitlines()
    assert set(report.opening) | set(report.closing) <= set(piped)
    assert max(map(len, piped)) > 80


def test_remarks_and_projections_are_told(single):
    projected = replace(single, settings={"is_whole": False})
    assert lab_report(projected, remarks=["not measured: x"]).closing[-1] == "not measured: x"
    assert any("gradients are projections" in line for line in lab_report(projected).closing)
    assert not any("projections" in line for line in lab_report(single).closing)


def test_the_page_is_whole_and_text_is_text(single):
    html = render_lab(single)
    assert html.count("<script") == html.count("</script>") == 4
    assert "window.hacked=1</script><img" not in html
    assert "Over training" not in html


# --- in a browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no chromium is installed")
    flags = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=path,
            args=[
                *flags.split(),
                "--disable-background-networking",
                "--disable-component-update",
            ],
        )
        yield found
        found.close()


def opened(browser, path, width: int):
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda message: page.errors.append(message.text))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-drawn]", timeout=60_000)
    return page


@pytest.mark.parametrize("width", [390, 1200])
def test_charts_are_drawn_at_any_width(width: int, browser, along, tmp_path):
    path = tmp_path / "lab.html"
    path.write_text(render_lab(*along), encoding="utf-8")
    page = opened(browser, path, width)
    kinds = page.evaluate(
        "[...document.querySelectorAll('.chart')].map(d => d.data.map(t => t.meta.kind))"
    )
    assert kinds == [["right", "wrong"], ["arm"] * MOST_CURVES]
    shown = page.evaluate("document.querySelector('[data-points]').data.map(t => t.x.length)")
    assert sum(shown) == len(along[-1].points)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ticks = page.evaluate(
        "[...document.querySelectorAll('.chart')].map(d => [...d.querySelectorAll('.ytick text')]"
        ".map(t => t.getBoundingClientRect()).map(b => [b.top, b.bottom]))"
    )
    for labels in ticks:
        assert len(labels) > 1
        assert all(b <= a for (a, _), (_, b) in pairwise(labels))  # From below upwards.
    assert page.evaluate("document.querySelector('[data-along]').layout.xaxis.title.text") == "step"
    page.click("#theme")
    page.wait_for_selector("html[data-drawn='2']")
    assert page.errors == []


def test_a_hostile_name_is_shown_and_inert(browser, single, tmp_path):
    path = tmp_path / "lab.html"
    path.write_text(render_lab(single), encoding="utf-8")
    page = opened(browser, path, 1000)
    assert "onerror" in page.inner_text("dl.lead")
    assert page.evaluate("window.hacked") is None
    assert page.errors == []
