"""Figures as files: what they hold, that they are the same each time, and that nothing else is
changed by them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from opo_cli.report.figures import file_name, save_figures
from opo_cli.report.page import ArmCurves, Curve, Gap, Page

STEPS = np.arange(1, 31)
LONG = "grpo advantage=rloo reduction=constant kl_in=loss beta=0.001xx"


def curve_of(seed: int, height: float) -> Curve:
    noise = np.random.default_rng(seed)
    return Curve(
        run=f"run-{height}-{seed}",
        seed=seed,
        x={"step": STEPS},
        metrics={
            "reward": height + noise.normal(0, 0.05, 30),
            "length": 90 - STEPS + noise.normal(0, 1, 30),
            "kl": np.where(STEPS % 10, np.nan, STEPS / 10),
            "mismatch": np.full(30, np.nan),
        },
        accuracy={"AIME 2025": [(0, 0.1), (15, 0.2 + seed / 100), (30, 0.3 + height / 10)]},
    )


def page_of(labels: list[str], num_seeds: int = 3, **changes) -> Page:
    arms = [
        ArmCurves(label, [curve_of(s, i / 10) for s in range(num_seeds)])
        for i, label in enumerate(labels)
    ]
    pair = (labels[0], labels[-1])
    fields = {
        "title": "a",
        "lead": [],
        "answers": [],
        "gaps": [
            Gap(pair, "AIME 2025", 0.03, 0.01, 0.05, "win", ""),
            Gap(pair, "$MATH_500", -0.01, -0.9, 0.7, "cannot tell", ""),
            Gap(pair, "one seed", 0.02, None, None, "cannot tell", ""),
        ],
        "margin": 0.02,
        "warnings": [],
        "tables": [],
        "appendix": [],
        "arms": arms,
        "metrics": {key: (key, "") for key in ("reward", "accuracy", "kl", "length", "mismatch")},
        "samples": [],
    }
    return Page(**fields | changes)


NAMES = ["differences", "reward", "accuracy-AIME-2025", "kl", "length", "length-against-reward"]


def test_one_file_per_figure_and_format_and_none_for_what_was_not_measured(tmp_path: Path):
    paths = save_figures(page_of(["opo", "grpo"]), tmp_path / "new" / "figures")
    assert [path.name for path in paths] == [
        f"{name}.{kind}" for name in NAMES for kind in ("svg", "png", "pdf")
    ]
    starts = {".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF"}
    assert all(path.read_bytes().startswith(starts[path.suffix]) for path in paths)


def test_text_is_text_and_fonts_are_embedded(tmp_path: Path):
    save_figures(page_of(["o$p$o <b>", "_grpo"]), tmp_path, ("svg", "pdf"))
    reward = (tmp_path / "reward.svg").read_text()
    words = re.findall(r"<text[^>]*>([^<]*)</text>", reward)
    assert {"o$p$o &lt;b&gt;", "_grpo", "step", "reward"} <= {word.strip() for word in words}
    forest = (tmp_path / "differences.svg").read_text()
    assert "$MATH_500" in forest
    assert "o$p$o &lt;b&gt; less _grpo" in forest
    pdf = (tmp_path / "reward.pdf").read_bytes()
    assert b"/CIDFontType2" in pdf  # Type 42: TrueType, embedded.
    assert b"/Type3" not in pdf


def test_one_column_wide(tmp_path: Path):
    for labels in (["opo", "grpo"], [f"{LONG}{i:02d}" for i in range(12)]):
        for path in save_figures(page_of(labels), tmp_path, ("svg",)):
            assert 'width="237.6pt"' in path.read_text(), path  # 3.3 inches.


def test_the_same_page_makes_the_same_files_and_changes_no_setting(tmp_path: Path):
    import matplotlib as mpl

    mpl.rcParams["font.size"] = 33.0  # As a user's own file of settings might have it.
    settings = [key for key in mpl.rcParams if key != "backend"]  # Which is chosen by asking.
    before = {key: mpl.rcParams[key] for key in settings}, mpl.get_backend(auto_select=False)
    page = page_of(["opo", "grpo", "ppo"])
    first = [path.read_bytes() for path in save_figures(page, tmp_path)]
    after = {key: mpl.rcParams[key] for key in settings}, mpl.get_backend(auto_select=False)
    assert after == before
    mpl.rcParams["font.size"] = 10.0
    assert [path.read_bytes() for path in save_figures(page, tmp_path)] == first
    assert not re.search(rb"<dc:date>|/CreationDate", b"".join(first))


def test_a_band_needs_two_seeds(tmp_path: Path):
    def num_bands(num_seeds: int) -> int:
        page = page_of(["opo", "grpo"], num_seeds, gaps=[])
        save_figures(page, tmp_path, ("svg",))
        svg = (tmp_path / "reward.svg").read_text()
        return len(re.findall(r'id="FillBetweenPolyCollection_\d+">\s*<defs>', svg))

    assert num_bands(3) == 2
    assert num_bands(1) == 0


def test_names_that_a_path_cannot_have(tmp_path: Path):
    assert file_name("../../etc/passwd") == "etc-passwd"
    assert file_name("..") == "chart"
    hostile = Curve(
        "r", 0, {"step": [1]}, {}, {name: [(0, 0.5)] for name in ("a/b", "a b", "../c")}
    )
    page = page_of(["opo"], gaps=[], arms=[ArmCurves("opo", [hostile])])
    names = [path.name for path in save_figures(page, tmp_path, ("svg",))]
    assert names == ["accuracy-a-b.svg", "accuracy-a-b-2.svg", "accuracy----c.svg"]


def test_nothing_measured_makes_no_figure(tmp_path: Path):
    assert save_figures(page_of(["opo"], arms=[], gaps=[]), tmp_path) == []
