"""Overlap of training problems with benchmarks, against counts by hand and by brute force."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from opo_cli.config import Columns
from opo_cli.data.audit import audit
from opo_cli.data.benchmarks import load_benchmark
from opo_cli.data.store import problem_set
from opo_cli.presets import resolve
from opo_cli.types import Problem

SHARED = Path(__file__).parents[2].parent / "shared/data/benchmarks"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
LETTERS = list("abcdefghijklmnopqrst")


def problems(*questions: str, name: str = "t") -> list[Problem]:
    return [
        Problem(id=f"{name}{n}", question=question, answer="1", benchmark=name)
        for n, question in enumerate(questions)
    ]


def overlap_of(training: list[str], benchmark: list[str], num_words: int = 4):
    """Of one benchmark."""
    bench = problem_set("b", problems(*benchmark, name="b"), source="")
    (found,) = audit(problems(*training), [bench], num_words)
    return found


def test_shared_runs_by_hand():
    found = overlap_of(
        ["x A, b! C (d) y", "a b c x d", "nothing", "j k l m n o p q"],
        ["a b c d e f g", "$j$ k-l m n", "nothing of it"],
    )
    assert (found.benchmark, found.num_problems, found.num_hit) == ("b", 3, 2)
    assert found.training == (0, 3)
    assert found.num_copies == 1  # Of "j k l m n" both runs, of "a ... g" one of four.
    assert [(p.training, p.benchmark, p.share) for p in found.examples] == [
        ("t3", "b1", 1.0),
        ("t0", "b0", 0.25),
    ]
    assert [pair.words for pair in found.examples] == ["j k l m", "a b c d"]


def test_short_problems_overlap_when_they_are_equal():
    found = overlap_of(["What is  $1+1$?", "what is $1-1$?", "What is"], ["what is $1+1$ ?"], 13)
    assert found.training == (0,)
    assert found.examples[0].words == "whatis$1+1$?"
    assert overlap_of(["a b c"], ["a b c d"], 4).training == ()


def test_several_benchmarks_and_nothing_shared():
    sets = [
        problem_set("one", problems("a b c d"), source=""),
        problem_set("none", problems("z y x w"), source=""),
        problem_set("empty", [], source=""),
    ]
    one, none, empty = audit(problems("a b c d e", "b c d e"), sets, 4)
    assert (one.training, one.num_hit, one.num_copies) == ((0,), 1, 1)
    assert (none.training, none.num_hit, none.examples) == ((), 0, ())
    assert (empty.num_problems, empty.training) == (0, ())


def runs(text: str, n: int) -> set[str]:
    words = re.findall(r"[a-z0-9]+", text.lower())
    return {" ".join(words[i : i + n]) for i in range(len(words) - n + 1)}


def test_against_brute_force():
    import random

    rng = random.Random(0)
    texts = [" ".join(rng.choices("abc", k=rng.randint(4, 12))) for _ in range(80)]
    training, benchmark = texts[:50], texts[50:]
    found = overlap_of(training, benchmark, 4)
    pairs = {
        (i, j)
        for i, mine in enumerate(training)
        for j, other in enumerate(benchmark)
        if runs(mine, 4) & runs(other, 4)
    }
    assert found.training == tuple(sorted({i for i, _ in pairs}))
    assert found.num_hit == len({j for _, j in pairs})
    copies = {
        i for i, j in pairs if 2 * len(runs(training[i], 4) & runs(benchmark[j], 4))
        >= len(runs(benchmark[j], 4))
    }  # fmt: skip
    assert found.num_copies == len(copies)
    assert 0 < len(pairs) < 50 * 30


MEASURED = {  # n -> benchmark -> (training problems, benchmark problems hit, copies).
    13: {"math500": (154, 49, 18), "aime24": (67, 9, 0), "minerva": (0, 0, 0)},
    10: {"math500": (351, 121, 37), "aime24": (102, 9, 0), "minerva": (0, 0, 0)},
    8: {"math500": (893, 208, 43), "aime24": (129, 10, 0), "minerva": (4, 3, 0)},
}


@pytest.fixture(scope="module")
def shared_sets():
    names = ("math_train", *MEASURED[13])
    return {name: load_benchmark(str(SHARED / f"{name}.jsonl"), Columns()) for name in names}


@needs_shared
@pytest.mark.parametrize("num_words", MEASURED)
def test_math_against_the_benchmarks(shared_sets, num_words: int):
    training = shared_sets["math_train"].problems
    sets = [shared_sets[name] for name in MEASURED[num_words]]
    for found in audit(training, sets, num_words):
        measured = (len(found.training), found.num_hit, found.num_copies)
        assert measured == MEASURED[num_words][found.benchmark]


@needs_shared
def test_planted_problems_are_all_found(shared_sets):
    """AIME problems among MATH's, with another beginning and end: each is found, as a copy."""
    clean, aime = shared_sets["math_train"].problems, shared_sets["aime24"]
    planted = [
        replace(p, id=f"planted-{p.id}", question=f"Problem. {p.question.upper()} Show your work.")
        for p in aime.problems
    ]
    (before,), (after,) = (audit(set_, [aime], 13) for set_ in (clean, [*clean, *planted]))
    assert after.num_hit == 30
    assert after.num_copies == before.num_copies + 30
    assert set(after.training) - set(before.training) == set(
        range(len(clean), len(clean) + len(planted))
    )
    assert {pair.training.split("-")[0] for pair in after.examples} == {"planted"}


@needs_shared
def test_forty_thousand_problems_take_seconds(shared_sets):
    training = shared_sets["math_train"].problems * 6
    started = time.monotonic()
    audit(training, list(shared_sets.values())[1:], 13)
    assert time.monotonic() - started < 20  # 1.3 s on two idle cores.


# --- in a training set ------------------------------------------------------------------------


@pytest.fixture
def files(in_tmp: Path) -> Path:
    bench = [{"problem": " ".join(LETTERS), "answer": "1"}, {"problem": "1+1?", "answer": "2"}]
    training = [
        {"problem": "Fresh.", "answer": "1"},
        {"problem": "z " + " ".join(LETTERS[3:]), "answer": "3"},
        {"problem": "1 + 1?", "answer": "2"},
        {"problem": "FRESH .", "answer": "1"},
        {"problem": "No answer.", "answer": None},
        {"problem": "Also fresh.", "answer": "So \\boxed{4}."},
    ]
    for name, rows in (("bench", bench), ("train", training)):
        (in_tmp / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return in_tmp


def prepared(**settings):
    from opo_cli.data.training import prepare_data

    named = {"data": {"source": "train.jsonl", **settings}, "eval": {"benchmarks": ["bench.jsonl"]}}
    folder = prepare_data(resolve("smoke", named=named))
    lines = (folder / "train.jsonl").read_text().splitlines()
    facts = json.loads((folder / "source.json").read_text())
    report = json.loads((folder / "audit.json").read_text())
    return [json.loads(line)["id"] for line in lines], facts, report


def test_a_training_file_is_cleaned_and_audited(files: Path, capfd):
    ids, facts, report = prepared()
    assert ids == ["0000", "0001", "0002", "0005"]
    assert (facts["name"], facts["source"]) == ("train", "train.jsonl")
    counts = {"rows": 6, "problems": 4, "duplicates": 1, "unusable": 1, "overlapping": 0}
    assert facts["counts"] == counts
    row, validation = report["benchmarks"]
    assert (validation["benchmark"], validation["num_hit"]) == ("tiny-validation", 0)
    assert (row["benchmark"], row["num_problems"]) == ("bench", 2)
    assert (row["num_training"], row["num_hit"], row["num_copies"]) == (2, 2, 2)
    assert row["examples"][0]["training"] == "0002"
    assert "2 training problems share 13 words" in capfd.readouterr().err


def test_overlap_is_dropped_when_asked(files: Path, capfd):
    ids, facts, report = prepared(drop_overlap=True)
    assert ids == ["0000", "0005"]
    assert facts["counts"]["overlapping"] == 2
    assert facts["counts"]["problems"] == 2
    assert report["dropped"] is True
    assert "2 training problems left out" in capfd.readouterr().err


def test_a_limit_takes_the_first(files: Path):
    assert prepared(limit=3)[0] == ["0000", "0001", "0002"]


def test_other_benchmarks_to_audit(files: Path):
    found = prepared(audit=["tiny-easy"])[2]["benchmarks"]
    assert [row["benchmark"] for row in found] == ["tiny-easy", "tiny-validation"]
