"""Every row of the benchmark table, and names."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from opo_cli.config import Columns
from opo_cli.data.benchmarks import (
    BENCHMARKS,
    benchmark_row,
    benchmark_title,
    check_names,
    load_benchmark,
)
from opo_cli.data.datasets import DATASETS
from opo_cli.data.decode import ENCODINGS
from opo_cli.errors import OpoError

EMBEDDED = [name for name, row in BENCHMARKS.items() if row.is_embedded]
FROM_HUB = [row for row in (*BENCHMARKS.values(), *DATASETS.values()) if row.hub]
NO_COLUMNS = Columns()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark(name: str):
    row = BENCHMARKS[name]
    assert row.description
    assert row.licence
    assert min(row.num_problems, row.num_samples, row.max_new_tokens) > 0
    assert bool(row.hub) != row.is_embedded
    assert benchmark_row(name) is row
    assert benchmark_title(name) == name


@pytest.mark.parametrize("row", FROM_HUB, ids=lambda row: row.source)
def test_every_hub_row(row):
    assert re.fullmatch(r"[\w-]+/[\w.-]+", row.hub)
    assert re.fullmatch(r"[0-9a-f]{40}|", row.revision)
    assert row.columns.question
    assert row.columns.answer
    assert row.encoding in ENCODINGS
    assert row.encoding != "guess"
    assert row.citation
    assert row.configs


@pytest.mark.parametrize("name", EMBEDDED)
def test_every_embedded_tier(name: str):
    found = load_benchmark(name, NO_COLUMNS)
    assert len(found.problems) == BENCHMARKS[name].num_problems
    assert len({problem.id for problem in found.problems}) == len(found.problems)
    assert all(problem.question and problem.answer for problem in found.problems)
    assert {problem.benchmark for problem in found.problems} == {name}
    assert (found.name, found.source, found.revision) == (name, "embedded", "")


def test_a_hash_tells_problems_apart():
    found = load_benchmark("tiny-easy", NO_COLUMNS)
    texts = [[p.id, p.question, p.answer] for p in found.problems]
    assert found.sha256 == hashlib.sha256(json.dumps(texts).encode()).hexdigest()
    assert found.sha256 != load_benchmark("tiny-mid", NO_COLUMNS).sha256


UNKNOWN = [
    ("tiny-esy", "did you mean 'tiny-easy'?"),
    ("aime24", "did you mean 'AIME24'?"),
    ("math500", "did you mean 'MATH-500'?"),
    ("zzz", "known benchmarks: AIME24"),
    ("nowhere.jsonl", "there is no such file"),
    ("folder/nothing", "there is no such file"),
    ("x" * 5000, "known benchmarks: AIME24"),
    ("nul\0.csv", "there is no such file"),
]


@pytest.mark.parametrize(("name", "hint"), UNKNOWN, ids=[row[1][:20] for row in UNKNOWN])
@pytest.mark.parametrize(
    "function",
    [
        benchmark_row,
        lambda name: check_names((name,)),
        lambda name: load_benchmark(name, Columns()),
    ],
    ids=["row", "check", "load"],
)
def test_an_unknown_name_gets_a_hint(function, name: str, hint: str, in_tmp: Path):
    with pytest.raises(OpoError, match="unknown benchmark") as caught:
        function(name)
    assert hint in caught.value.hint


def test_a_file_is_a_benchmark(in_tmp: Path):
    (in_tmp / "sub").mkdir()
    for name in ("mine.jsonl", "sub/mine.csv"):
        Path(name).write_text("")
    check_names(["mine.jsonl", "mine.jsonl", "AIME24", "tiny-ood"])
    assert benchmark_title("sub/mine.csv") == "mine"
    assert not benchmark_row("mine.jsonl").is_embedded
    assert benchmark_row("mine.jsonl").num_samples > 1
    with pytest.raises(OpoError, match="both called 'mine' in results"):
        check_names(["mine.jsonl", "sub/mine.csv"])
    Path("AIME24.csv").write_text("")
    with pytest.raises(OpoError, match="both called 'AIME24'"):
        check_names(["AIME24.csv", "AIME24"])
