"""What is refused unread, and what never is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opo_cli.grading.extract import extract
from opo_cli.grading.normal import tidy
from opo_cli.grading.screen import is_too_large

DATA = Path(__file__).parents[2].parent / "shared/data"


@pytest.mark.parametrize(
    "text",
    [
        "9^{9^{9}}",
        "10^{10^{10}}",
        "2^{2^{2^{2^{2^2}}}}",
        "2^{-10^{12}}",
        "(10^{100})^{(10^{100})}",
        "((2^{99})^{99})^{99}",
        "9**9**9",
        "10^10^10",
        r"\left(10^{9}\right)!",
        "1000000!",
        "((9!)!)!",
        "100000!!",
        r"\binom{10^{9}}{5 \cdot 10^{8}}",
        r"\Gamma(10^9)",
        "(987654321)_{12345}",
        r"\sum_{k=1}^{10^{9}} k",
        r"\prod_{k=1}^{10000000} k",
        "1E+4000000",
        "3e99999999",
        r"1.5 \times 10^{999999999}",
        r"e^{e^{e^{e^{10}}}}",
        "9" * 1001,
        "(" * 21 + "1" + ")" * 21,
        r"\sqrt{" * 25 + "2" + "}" * 25,
        "2^{" * 25 + "1" + "}" * 25,
        r"\begin{pmatrix}1&1\\1&0\end{pmatrix}^{1000000}",
        r"\Gamma" * 2000,
        r"\binom" * 2000,
        r"\sum^" * 2000,
        "1^" * 2000,
        "1_" + r"\binom" * 2000,
    ],
)
def test_too_large(text: str):
    assert is_too_large(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "12",
        "9" * 1000,
        "2^{2004}",
        "2^{2^{10}}",
        "x^{2^{n}}",
        r"\frac{2006!}{2004!}",
        r"\frac{1}{2006!}",
        r"\binom{2020}{1010}",
        r"\binom{10^9}{3}",
        r"\left(\frac{2013}{2014}\right)^{2012}",
        r"6.02 \times 10^{23}",
        "1.6e-19",
        r"e^{-1.5 \times 10^{5} t}",
        r"\sum_{k=1}^{2023} k^2",
        r"\sum_{k=1}^{\infty} \frac{1}{k^2}",
        r"\int_0^{\infty} e^{-x^2} dx",
        "(x+y)^{100}",
        ", ".join(map(str, range(60))),
        "^",
        "2^",
        "!",
        r"\binom",
        "_",
        ")}]",
        "x²",
        "❶",
        "٣",
        "1²3",
    ],
)
def test_small_enough(text: str):
    assert not is_too_large(text)


@pytest.mark.skipif(not DATA.exists(), reason="the benchmarks are not beside this checkout")
def test_no_reference_answer_is_refused():
    files = sorted((DATA / "benchmarks").glob("*.jsonl"))
    answers = [json.loads(line)["answer"] for f in files for line in f.read_text().splitlines()]
    assert len(answers) > 11_000
    assert [answer for answer in answers if is_too_large(tidy(answer))] == []


@pytest.mark.skipif(not DATA.exists(), reason="the labelled cases are not beside this checkout")
def test_no_labelled_answer_is_refused():
    cases = [json.loads(line) for line in (DATA / "grader_cases.jsonl").read_text().splitlines()]
    texts = [case["gold"] for case in cases]
    texts += [found.text for case in cases if (found := extract(case["prediction"], "any"))]
    assert [text for text in texts if is_too_large(tidy(text))] == []
