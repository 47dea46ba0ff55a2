"""Verdicts on the shared cases, each disagreement named, and what needs no worker."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opo_cli.config import Grading
from opo_cli.grading.extract import Found
from opo_cli.grading.grader import Question, grader_version, quick_verdict, screened
from opo_cli.grading.pool import Case, Grader

quick = settings(deadline=None, derandomize=True)
DATA = Path(__file__).parents[2].parent / "shared/data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="shared/data is not beside this checkout")

DISAGREEMENTS: dict[int, str] = {}
"""Row of grader_cases.jsonl (from 0) -> why our verdict is not its label. None at present."""


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


@pytest.mark.parametrize(
    ("given", "answer", "expected"),
    [
        ("8", "8", True),
        ("+8", "008", True),
        ("8", "9", False),
        ("8.0", "8", True),
        (r"\frac12", "0.5", True),
        ("9" * 16, "8", False),
        ("x+1", "x + 1", True),
        ("2, 1", "1,2", True),
        ("(2,1)", "(1,2)", None),
        ("Even", "even", True),
        ("even", "odd", False),
        ("Tuesday", "Monday", False),
        (r"\textbf{(B)}\ 12", "12", True),
        (r"\textbf{(B)}\ 12", "13", False),
        ("(B)", "B", True),
        ("B", "C", False),
        (r"1,2,\ldots,n", r"1,3,\ldots,n", False),
        ("101_2", "101_3", False),
        (r"5\text{ m}", r"5\text{ cm}", False),
        (r"5\text{ m}", "5", None),
        (r"\sqrt8", r"2\sqrt2", None),
    ],
)
def test_quick_verdict(given: str, answer: str, expected: bool | None):
    assert quick_verdict(given, answer) is expected


@quick
@given(st.integers(-(10**14), 10**14), st.integers(-(10**14), 10**14))
def test_quick_verdict_of_integers_compares_them(a: int, b: int):
    assert quick_verdict(str(a), f"{b:+05d}") is (a == b)
    assert quick_verdict(f"{a:+05d}", str(a)) is True


@pytest.mark.parametrize(
    ("found", "answer", "expected"),
    [
        (None, "8", "no-answer"),
        (Found(r"\,"), "0", "empty"),
        (Found(""), "0", "empty"),
        (Found("9^{9^{9}}"), "8", "refused"),
        (Found("x" * 301), "8", "refused"),
        (Found("x" * 301), "x" * 301, "correct"),
        (Found("0" * 5000 + "8"), "8", "correct"),
        (
            Found("x+" * 160 + "1"),
            "x+" * 99 + "y",
            Question("x+" * 160 + "1", "x+" * 99 + "y", True),
        ),
        (Found("2^{1000000}"), "2^{1000000}", "correct"),
        (Found("x"), "9^{9^{9}}", "refused"),
        (Found("8"), " ", "error"),
        (Found("7", "Or 9^{9^{9}}.\nSo 7 it is."), "8", Question("So 7 it is.", "8", False)),
        (Found("9", "It is 9**9**9."), "8", "refused"),
    ],
)
def test_screened(found: Found | None, answer: str, expected: str | Question):
    assert screened(found, answer, 300) == expected


def test_the_grader_has_a_version():
    assert grader_version().startswith("math-verify 0.9")
    names = ("latex2sympy2_extended 1", "sympy 1", "opo ")
    assert all(f", {name}" in grader_version() for name in names)


@needs_data
def test_every_disagreement_with_the_labelled_cases_is_named():
    cases = rows("grader_cases.jsonl")
    with Grader(Grading()) as grader:
        grades = grader.grade_texts([Case(c["prediction"], c["gold"], "any") for c in cases])
    found = {
        i for i, (g, c) in enumerate(zip(grades, cases, strict=True)) if g.correct != c["equal"]
    }
    assert found == set(DISAGREEMENTS)


@needs_data
def test_boxed_cases_in_the_strict_format():
    """Where only a box counts, as in training: only the statement after a box is not read."""
    cases = [case for case in rows("grader_cases.jsonl") if case["kind"] == "boxed"]
    with Grader(Grading()) as grader:
        grades = grader.grade_texts([Case(c["prediction"], c["gold"], "box") for c in cases])
    wrong = [c for g, c in zip(grades, cases, strict=True) if g.correct != c["equal"]]
    assert len(cases) == 254
    assert [case["gold"] for case in wrong] == ["10455"]


@needs_data
def test_hostile_outputs(in_tmp: Path):
    """Verdicts as required, each within its limit, ordinary answers between them right, nothing
    on the disk, and no worker with more memory than it may have."""
    hostile = rows("hostile_outputs.jsonl")
    config = Grading(memory_megabytes=1024)
    cases = []
    for i, row in enumerate(hostile):
        cases += [
            Case(row["output"], row["gold"]),
            Case(rf"\boxed{{\sqrt{{{3 * i * i}}}}}", rf"{i}\sqrt3"),
        ]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    start = time.monotonic()
    with Grader(config) as grader:
        grades = grader.grade_texts(cases)
    assert time.monotonic() - start < 120
    required = {"true": True, "false": False}
    wrong = [
        (row["id"], grade.reason)
        for row, grade in zip(hostile, grades[::2], strict=True)
        if row["expect"] in required and grade.correct is not required[row["expect"]]
    ]
    assert wrong == []
    assert all(grade.correct for grade in grades[1::2])
    assert max(grade.seconds for grade in grades) <= config.timeout_seconds + 1
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert most <= max(before, 1024 * 1024)  # kB
    assert list(in_tmp.iterdir()) == []


def test_the_quick_path_imports_no_mathematics():
    script = (
        "import sys; from opo_cli.config import Grading; from opo_cli.grading.pool import *\n"
        "with Grader(Grading()) as grader:\n"
        r"    grade, = grader.grade_texts([Case(r'\boxed{\frac12}', '0.5')])" + "\n"
        "assert grade.correct\n"
        "print(sorted({'torch', 'sympy', 'math_verify', 'transformers'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=os.environ
    )
    assert result.stdout == "[]\n", result.stderr
