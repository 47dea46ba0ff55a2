"""The page in a real browser: it draws, answers its controls, asks no host, and runs nothing that a
model wrote."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from opo_cli.report.page import Answer, ArmCurves, Curve, Gap, Page, Response, Sample, render
from opo_cli.report.pageparts import forest, rounded, scale_limit, shortened, tick_values
from opo_cli.report.styles import DARK, LIGHT, style_of
from opo_cli.report.tables import Table

METRICS = {
    "reward": ("reward", "mean over responses of r"),
    "accuracy": ("accuracy", "avg@4, share of right answers"),
    "entropy": ("entropy", "exact, nats per token"),
    "kl_exact_sequence": ("KL to the initial policy", "exact, nats per response"),
    "length": ("length", "mean loss tokens per response"),
    "grad_norm": ("gradient norm", "2-norm before clipping"),
    "mismatch": ("sampler mismatch", "mean |log p - log q| per token"),
}
BENCHMARKS = ("tiny-easy", "tiny-hard", "MATH-500", "AIME 2025")
HOSTILE = (
    "<script>window.hacked=1</script></script><img src=x onerror='window.hacked=1'>"
    "<b>bold</b> {{ 7*7 }} ${'a'} & \u2028 \u202egnorw \x1b[31mred \x00 \ud800 end"
)
SEEN = "<script>window.hacked=1</script></script><img src=x onerror='window.hacked=1'>"


# --- pages --------------------------------------------------------------------------------------


def curve_of(label: str, place: int, seed: int, steps: int) -> Curve:
    """A run that learns, with noise of its own."""
    noise = np.random.default_rng(1000 * place + seed)
    step = np.arange(1, steps + 1)
    done = 1 - np.exp(-step / (0.3 * steps) * (1 + 0.15 * place))
    luck = noise.normal(0, 0.03)

    def wave(size: float) -> np.ndarray:
        return noise.normal(0, size, steps)

    length = 90 - (25 + 12 * (place % 4)) * done + wave(2.5)
    every_fifth = np.where(step % 5 == 0, 1.0, np.nan)
    evaluated = [0, *range(10, steps + 1, 10)]
    height = {name: 0.62 - 0.12 * i for i, name in enumerate(BENCHMARKS)}
    return Curve(
        run=f"{label}-{seed}",
        seed=seed,
        x={
            "step": step,
            "sample": step * 64,
            "token": np.cumsum(length * 64).round(),
            "second": np.cumsum(2.4 + 0.02 * length + wave(0.1)),
        },
        metrics={
            "reward": 0.2 + (0.5 + luck - 0.03 * place) * done + wave(0.02),
            "entropy": 0.9 - (0.5 - 0.12 * place) * done + wave(0.015),
            "kl_exact_sequence": every_fifth * (4 * done * (1 + 0.2 * place) + wave(0.1)),
            "length": length,
            "grad_norm": 0.4 + 0.3 * (1 - done) + np.abs(wave(0.1)),
            "mismatch": np.full(steps, 1.3e-6) * (1 + 0.2 * wave(1)),
        },
        accuracy={
            name: [
                (at, 0.1 + (top + luck) * (1 - np.exp(-at / (0.4 * steps))) * (1 - 0.04 * place))
                for at in evaluated
            ]
            for name, top in height.items()
        },
    )


def arms_of(labels: list[str], num_seeds: int, num_steps: int) -> list[ArmCurves]:
    return [
        ArmCurves(label, [curve_of(label, place, seed, num_steps) for seed in range(num_seeds)])
        for place, label in enumerate(labels)
    ]


def gap_of(pair: tuple[str, str], benchmark: str, place: int) -> Gap:
    mean = (0.034, 0.002, -0.031, 0.012)[place % 4]
    half = (0.021, 0.009, 0.019, 0.061)[place % 4]
    word = ("win", "tie", "worse", "cannot tell")[place % 4]
    more = ": about 6 more seeds" if word == "cannot tell" else ""
    text = f"{word}{more}, {mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}]"
    return Gap(pair, benchmark, mean, mean - half, mean + half, word, text)


RESPONSE = (
    "We need the sum of the first 20 odd numbers.\n\nThe sum of the first n of them is n^2, so\n"
    "    20^2 = 400\n\nLet me check with a smaller case: 1 + 3 + 5 = 9 = 3^2. That holds.\n"
    "The answer is \\boxed{400}."
)


def sample_of(labels: list[str], problem: str, text: str, num: int) -> Sample:
    def response(place: int) -> Response:
        is_right = place % 2 == 0
        body = text if place % 3 else text + "\n\nWait, let me check that again." * 12
        verdict = "right" if is_right else "cut" if place % 3 else "wrong"
        return Response(body, float(is_right), is_right - 0.4, len(body) // 4, verdict)

    responses = {label: [response(i + j) for j in range(num)] for i, label in enumerate(labels)}
    prompt = "What is the sum of the first 20 odd numbers? Put the answer in a box."
    return Sample("seed 0, step 40", problem, prompt, "400", responses)


def page_of(labels: list[str], num_seeds: int = 3, num_steps: int = 40, **changes) -> Page:
    """A page as a comparison fills it."""
    pairs = list(itertools.combinations(labels, 2))[:6]
    words = itertools.cycle(["win", "cannot tell", "tie", "worse"])
    said = {
        "win": "{0} beats {1} by +.031 [+.012, +.050] (95 %), Holm p .004.",
        "worse": "{0} loses to {1} by −.027 [−.046, −.008] (95 %), Holm p .011.",
        "tie": "{0} and {1} are within ±.020 of each other: +.002 [−.009, +.013].",
        "cannot tell": "Cannot tell {0} from {1}: +.010 [−.020, +.040]; "
        "about 6 more seeds would resolve a margin of .02.",
    }
    answers = [Answer(p, word, said[word].format(*p)) for p, word in zip(pairs, words)]  # noqa: B905
    gaps = [gap_of(p, b, i + j) for i, p in enumerate(pairs) for j, b in enumerate(BENCHMARKS)]
    rows = [[label, "0.512 ±0.031", "0.402 ±0.022", "0.287", "0.104"] for label in labels]
    cost = [[label, "182.4", "131,072", "1.91"] for label in labels]
    facts = [
        ("budget held equal", f"steps ({num_steps} each)"),
        ("checkpoint", "last, fixed before looking"),
        ("margin", "±0.02 of accuracy"),
        ("level", "0.05, Holm over 12 comparisons"),
        ("seeds", "0, 1, 2"),
        ("made", "2026-11-25 19:40 UTC, opo 0.6.0"),
    ]
    fields = {
        "title": f"{' against '.join(labels[:3])} on preset tiny",
        "lead": facts,
        "answers": answers,
        "gaps": gaps,
        "margin": 0.02,
        "warnings": [
            "grpo was trained with reduction sequence_mean, the others with token_mean.",
            "Three seeds: intervals between seeds are wide, and p below .25 is out of reach "
            "for the permutation test.",
        ],
        "tables": [
            Table(
                "Accuracy", ["algorithm", *BENCHMARKS], rows, "avg@4; ± is a 95 % t-interval, seeds"
            ),
            Table("Cost", ["algorithm", "seconds", "tokens", "peak GB"], cost),
        ],
        "appendix": [
            Table("Settings that differ", ["setting", *labels], [["algorithm.advantage", *labels]]),
            Table("Certificate", ["run", "exact steps"], [[f"{a}-0", "40/40"] for a in labels]),
            Table("Environment", ["name", "value"], [["python", "3.12.3"], ["torch", "2.11.0"]]),
        ],
        "arms": arms_of(labels, num_seeds, num_steps),
        "metrics": METRICS,
        "samples": [
            sample_of(labels, "tiny-easy/17", RESPONSE, 4),
            sample_of(labels, "tiny-hard/3", HOSTILE, 1),
        ],
    }
    return Page(**fields | changes)


THREE = ["opo", "grpo", "ppo"]
TWELVE = [
    f"grpo advantage=rloo reduction=constant_{i:02d} kl_in=loss beta=0.001x" for i in range(12)
]


def written(page: Page, folder: Path, name: str) -> str:
    """URL of the page's file."""
    path = folder / f"{name}.html"
    path.write_bytes(render(page).encode())  # Strict UTF-8: a lone surrogate would fail here.
    return path.as_uri()


# --- without a browser --------------------------------------------------------------------------


def data_of(html: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])


def test_plotly_is_there_once_and_no_host_is_named_by_the_page():
    html = render(page_of(THREE))
    assert html.count("Plotly, Inc.\n* All rights reserved") == 1
    assert not re.search(r'(src|href)="(?!#|data:)', html.replace(data_of_plotly(), ""))


def data_of_plotly() -> str:
    from opo_cli.report.frame import _inline, _plotly

    return _inline(_plotly())


def test_no_hostile_text_is_html_or_ends_the_block_of_data():
    hostile = page_of([HOSTILE, "grpo"], title=HOSTILE, warnings=[HOSTILE], lead=[(HOSTILE,) * 2])
    html = render(hostile).replace(data_of_plotly(), "")
    assert html.count("<script") == html.count("</script>") == 4
    assert "<img" not in html
    assert not any(char in html for char in "\u202e\x1b\x00\ud800\u2028")
    assert data_of(html)["arms"][0]["label"].startswith("<script>window.hacked=1</script>")
    assert "{{ 7*7 }}" in html


def test_two_hundred_runs_of_a_thousand_steps_fit_six_megabytes():
    page = page_of([f"arm {i}" for i in range(5)], num_seeds=40, num_steps=1000)
    start = time.perf_counter()
    html = render(page)
    seconds = time.perf_counter() - start
    assert len(html.encode()) < 6_000_000
    assert seconds < 3  # 0.2 s of CPU; a bound that a busy machine keeps, too.
    data = data_of(html)
    points = len(data["charts"][0]["arms"][0]["mean"])
    assert 150 < points < 1000
    assert (
        f"1000 steps are drawn as averages of neighbouring ones: means and bands of {points} "
        in (html)
    )


def test_numbers_are_short_and_gaps_are_null():
    values = np.array([0.123456, -1234567.0, 0.0, np.nan, np.inf, 3.0, 1.23456e-7, 1e300, 99999.0])
    assert json.dumps(rounded(values)) == (
        "[0.1235, -1235000, 0, null, null, 3, 1.235e-07, 1e+300, 100000]"
    )
    assert rounded(np.array([131072.0]), digits=6) == [131072]


def test_the_scale_of_the_forest_plot():
    assert tick_values(0.08) == pytest.approx([-0.05, 0, 0.05])
    assert tick_values(0.0221) == pytest.approx([-0.02, -0.01, 0, 0.01, 0.02])
    wide = Gap(("a", "b"), "x", 0.01, -0.5, 0.52, "cannot tell", "")
    assert scale_limit([wide], 0.02) == pytest.approx(1.1 * 0.06)
    (mark,) = forest(page_of(THREE, gaps=[wide])).groups[0][1]
    assert (mark.low, mark.high, mark.is_cut_low, mark.is_cut_high) == (0, 100, True, True)
    assert mark.at == pytest.approx(50 + 50 * 0.01 / 0.066, abs=0.01)
    assert scale_limit([], 0.0) == 1.0


def test_long_responses_are_cut_and_the_cut_is_told():
    page = page_of(THREE, samples=[sample_of(THREE, "p", "x" * 200_000, 1)])
    cut = [r.text for (r,) in shortened(page.samples)[0].responses.values()]
    assert sum(map(len, cut)) < 260_000
    assert "more characters are not shown" in cut[0]
    assert shortened(page_of(THREE).samples) == page_of(THREE).samples


def luminance(colour: str) -> float:
    """Relative, as WCAG defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_lines_stand_out_from_the_ground_and_from_each_other():
    for colours, ground in ((LIGHT, "#ffffff"), (DARK, "#1b1d20")):
        for colour in colours:
            darker, lighter = sorted([luminance(colour), luminance(ground)])
            assert (lighter + 0.05) / (darker + 0.05) >= 3, colour
    styles = [style_of(place) for place in range(28)]
    assert len({(style.light, style.dash, style.symbol) for style in styles}) == 28


def test_what_is_not_there_is_said():
    arms = arms_of(["opo"], 1, 20)
    bare = Curve("opo-0", 0, arms[0].curves[0].x, {"reward": [float("nan")] * 20}, {})
    page = page_of(
        THREE,
        arms=[ArmCurves("opo", [bare])],
        answers=[],
        gaps=[],
        samples=[],
        warnings=[],
        tables=[],
    )
    html = render(page)
    for said in (
        "it takes two arms",
        "no two arms were evaluated",
        "were not evaluated on the way",
        "Not measured in these runs",
        "kept no responses",
        "with one seed there is no band",
    ):
        assert said in html
    no_interval = Gap(("opo", "grpo"), "tiny", 0.01, None, None, "cannot tell", "+0.010, one seed")
    assert "with one seed there is no interval" in render(page_of(THREE, gaps=[no_interval]))
    other = sample_of(["an arm of another name"], "p", "its response", 1)
    assert "an arm of another name" in render(page_of(THREE, samples=[other]))
    nothing = page_of([], arms=[], metrics={}, samples=[], tables=[], gaps=[], answers=[])
    assert "No metric to draw" in render(nothing)


def test_the_wheel_has_the_template(tmp_path: Path):
    """Files beside the code are packed without being named."""
    from opo_cli.report.frame import WEB

    assert {path.name for path in WEB.iterdir()} == {
        *("base.html.j2", "frame.js", "lab.html.j2", "lab.js", "page.css", "page.html.j2"),
        *("page.js", "parts.html.j2", "theme.js"),
    }


# --- in a browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    arguments += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_api.sync_playwright() as playwright:
        try:
            launched = playwright.chromium.launch(executable_path=found, args=arguments)
        except sync_api.Error as error:
            pytest.skip(f"no Chromium starts here: {str(error).splitlines()[0]}")
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def urls(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pages")
    hostile = [HOSTILE, "$x^2$ %{y} _grpo"]
    return {
        "three": written(page_of(THREE), folder, "three"),
        "twelve": written(page_of(TWELVE), folder, "twelve"),
        "hostile": written(
            page_of(hostile, title=HOSTILE, lead=[(HOSTILE, HOSTILE)], warnings=[HOSTILE]),
            folder,
            "hostile",
        ),
    }


@pytest.fixture
def opened(browser, urls):
    """Opens a page; at the end, that it asked no host and had nothing to complain of."""
    contexts, requests, complaints = [], [], []

    def open_page(name: str, width: int = 1280, scheme: str = "light"):
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, has_touch=width < 500
        )
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(urls[name])
        page.wait_for_selector("html[data-drawn]", state="attached", timeout=60_000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == [
        url for url in requests if url in urls.values()
    ]
    assert len([url for url in requests if url in urls.values()]) == len(contexts)
    assert complaints == []


def act(page, action) -> None:
    """Do something that draws the charts anew, and wait until they are."""
    before = page.evaluate("document.documentElement.dataset.drawn")
    action()
    drawn = f"html[data-drawn]:not([data-drawn='{before}'])"
    page.wait_for_selector(drawn, state="attached", timeout=60_000)


def traces(page, chart: int, kind: str) -> list[dict]:
    """What plotly holds of a chart's traces of a kind."""
    return page.evaluate(
        """([chart, kind]) => document.querySelector(`[data-chart="${chart}"]`).data
        .filter((trace) => trace.meta.kind === kind)
        .map(({ x, y, visible, meta, hovertext, line }) =>
            ({ x: [...x], y: [...y], visible, place: meta.place, hovertext, line }))""",
        [chart, kind],
    )


def test_verdicts_tables_and_curves_are_seen(opened):
    page = opened("three")
    assert page.locator(".verdict").count() == 3
    verdict = page.locator(".verdict").nth(1).inner_text()
    assert "cannot tell" in verdict
    assert "about 6 more seeds would resolve" in verdict
    assert page.locator(".forest").count() == 3
    assert page.locator("#tables td", has_text="0.512 ±0.031").count() == 3
    assert page.locator(".chart .main-svg").count() >= 11
    means = traces(page, 0, "mean")
    runs = page_of(THREE).arms[0].curves
    by_hand = np.mean([curve.metrics["reward"] for curve in runs], axis=0)
    assert means[0]["y"] == pytest.approx(by_hand.tolist(), rel=1e-3)
    assert means[0]["x"] == list(range(1, 41))
    assert re.match(r"opo: <b>0\.\d+</b> \[0\.\d+, 0\.\d+\]", means[0]["hovertext"][0])


def test_hovering_shows_the_values(opened):
    page = opened("three")
    chart = page.locator('[data-chart="0"]')
    chart.scroll_into_view_if_needed()
    chart.hover(position={"x": 250, "y": 120})
    page.wait_for_selector(".hoverlayer text")
    shown = page.locator('[data-chart="0"] .hoverlayer').text_content()
    assert re.match(r"step \d+", shown)
    assert all(f"{label}: 0." in shown for label in THREE)


def test_arms_and_seeds_toggle_on_all_charts(opened):
    page = opened("three")

    def visible(kind: str) -> list[list[bool]]:
        return [[t["visible"] for t in traces(page, chart, kind)] for chart in (0, 1, 6)]

    assert visible("mean") == [[True] * 3] * 3
    assert visible("seeds") == [[False] * 3] * 3
    act(page, lambda: page.get_by_role("checkbox", name="grpo").uncheck())
    assert visible("mean") == visible("band") == [[True, False, True]] * 3
    act(page, lambda: page.get_by_label("each seed").check())
    assert visible("seeds") == [[True, False, True]] * 3
    assert traces(page, 0, "seeds")[0]["y"].count(None) == 3  # A gap after each of three runs.
    act(page, lambda: page.locator("[data-seed='1']").uncheck())
    assert traces(page, 0, "seeds")[0]["y"].count(None) == 2
    act(page, lambda: page.locator("[data-seed='1']").check())
    act(page, lambda: page.get_by_role("checkbox", name="grpo").check())
    assert visible("mean") == [[True] * 3] * 3


def test_all_arms_go_at_once(opened):
    page = opened("twelve")
    act(page, lambda: page.get_by_role("button", name="none").click())
    assert not any(trace["visible"] for trace in traces(page, 0, "mean"))
    act(page, lambda: page.get_by_role("button", name="all").click())
    assert all(trace["visible"] for trace in traces(page, 0, "mean"))
    assert {t["line"]["dash"] for t in traces(page, 0, "mean")} == {"solid", "dash"}


@pytest.mark.parametrize(("axis", "last"), [("samples", 2560), ("tokens", None), ("seconds", None)])
def test_the_axis_across_is_chosen(axis: str, last: float | None, opened):
    page = opened("three")
    act(page, lambda: page.get_by_label(axis, exact=True).check())
    (opo, *_), key = traces(page, 0, "mean"), axis.removesuffix("s")
    runs = [curve.x[key] for curve in page_of(THREE).arms[0].curves]
    assert opo["x"] == pytest.approx(np.mean(runs, axis=0).tolist(), rel=1e-4)
    assert last is None or opo["x"][-1] == last
    first = traces(page, 1, "mean")[0]  # Evaluated at step 0, which took nothing.
    assert first["x"][0] == 0
    assert first["x"][-1] == pytest.approx(opo["x"][-1], rel=1e-4)


def test_smoothing_is_off_until_chosen(opened):
    page = opened("three")
    raw = traces(page, 0, "mean")[0]["y"]
    act(page, lambda: page.get_by_label("5", exact=True).check())
    smooth = traces(page, 0, "mean")[0]["y"]
    assert smooth[0] == raw[0]
    assert smooth[9] == pytest.approx(sum(raw[5:10]) / 5)


def test_dark_and_light(opened):
    page = opened("three")
    ground = "getComputedStyle(document.body).backgroundColor"
    light, colour = page.evaluate(ground), traces(page, 0, "mean")[0]["line"]["color"]
    act(page, lambda: page.get_by_role("button", name="Dark colours").click())
    assert page.evaluate(ground) != light
    assert traces(page, 0, "mean")[0]["line"]["color"] != colour
    act(page, lambda: page.get_by_role("button", name="Light colours").click())
    assert page.evaluate(ground) == light
    assert opened("three", scheme="dark").evaluate(ground) != light


def test_what_a_model_wrote_is_shown_and_inert(opened):
    page = opened("hostile")
    page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    chart = page.locator('[data-chart="0"]')
    chart.scroll_into_view_if_needed()
    chart.hover(position={"x": 250, "y": 120})
    page.wait_for_selector(".hoverlayer text")
    assert "<script>window.hacked=1" in page.locator('[data-chart="0"] .hoverlayer').text_content()
    act(page, lambda: page.get_by_label("each seed").check())
    assert page.evaluate("window.hacked") is None
    for where in ("h1", ".warnings li", ".pair", ".arms label", ".sample pre", ".column h4"):
        assert any(SEEN in text for text in page.locator(where).all_inner_texts()), where
    assert page.locator("main img, main pre *, main a").count() == 0
    assert "\\u202egnorw \\x1b[31mred \\x00 \\ud800 end" in page.locator("h1").inner_text()
    hover = traces(page, 0, "mean")[0]["hovertext"][0]
    assert hover.startswith("&lt;script&gt;window.hacked=1&lt;/script&gt;")


def test_scripts_that_are_not_the_pages_do_not_run(opened, urls, browser):
    """Even where escaping failed: the policy knows the page's scripts by their hashes."""
    page = browser.new_page()
    page.goto(urls["three"])
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.hacked = 1";
            document.body.append(script);
            document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.hacked=1'>");
        }"""
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked") is None
    page.close()


@pytest.mark.parametrize("name", ["three", "twelve", "hostile"])
def test_a_phone_scrolls_only_downwards(name: str, opened):
    page = opened(name, width=360)
    page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    widths = page.evaluate("[...document.querySelectorAll('.main-svg')].map((s) => s.clientWidth)")
    assert max(widths) <= 360
    table = page.locator("#tables .scroll").first
    assert table.evaluate("e => e.scrollWidth > e.clientWidth")  # It scrolls in its own box.


def test_charts_follow_the_window(opened):
    page = opened("three")
    act(page, lambda: page.set_viewport_size({"width": 700, "height": 800}))
    width = page.evaluate("document.querySelector('.chart').clientWidth")
    assert page.evaluate("document.querySelector('.chart .main-svg').clientWidth") == width


def test_print_is_light_open_and_without_controls(opened):
    page = opened("three", scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    page.wait_for_selector("details:not([open])", state="detached")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    for control in ("#theme", "nav", ".options", ".arms input"):
        assert not page.locator(control).first.is_visible(), control
    assert page.locator(".arms label").first.is_visible()  # The legend stays.
    assert traces(page, 0, "mean")[0]["line"]["color"] == "#0072b2"
    assert page.pdf(format="A4").startswith(b"%PDF")
    act(page, lambda: page.emulate_media(media="screen"))
    assert page.locator("details:not([open])").count() > 0
