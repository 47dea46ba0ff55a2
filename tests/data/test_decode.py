"""Every way in which data sets store questions, answers and levels."""

from __future__ import annotations

import math

import pytest

from opo_cli.data.decode import ENCODINGS, answer_text, level_text, question_text

ANSWERS = [
    # Encoding, cell, answer.
    ("plain", "204", "204"),
    ("plain", " 1/2 \n", "1/2"),
    ("plain", 204, "204"),
    ("plain", 27.0, "27"),
    ("plain", -3.0, "-3"),
    ("plain", 0.5, "0.5"),
    ("plain", 1e300, "1e+300"),
    ("plain", "27.0", "27"),
    ("plain", "025", "25"),
    ("plain", "000", "0"),
    ("plain", "0.25", "0.25"),
    ("plain", "$27$", "27"),
    ("plain", "$$x^2$$", "x^2"),
    ("plain", "$a$ and $b$", "$a$ and $b$"),
    ("plain", "\\$5", "\\$5"),
    ("plain", "$\\$5$", "\\$5"),
    ("plain", "$5\\$", "$5\\$"),
    ("plain", "$", "$"),
    ("plain", "\\frac{1}{2}", "\\frac{1}{2}"),
    ("plain", "4.5e33", "4.5e33"),
    ("plain", "[1, 2]", "[1, 2]"),
    ("plain", None, ""),
    ("plain", "  ", ""),
    ("integer", "025", "25"),
    ("integer", "27.0", "27"),
    ("integer", 27.0, "27"),
    ("integer", "", ""),
    ("hashes", "We add.\n#### 72", "72"),
    ("hashes", "5 * 2 = <<5*2=10>>10\n#### 1,234,567", "1234567"),
    ("hashes", "#### no\n#### -3", "-3"),
    ("hashes", "####", ""),
    ("boxed", "\\boxed{204}", "204"),
    ("boxed", "First \\boxed{1}, then $\\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}"),
    ("boxed", "\\boxed{\\left\\{ 1, 2 \\right.}", "\\left\\{ 1, 2 \\right."),
    ("boxed", "$\\boxed {025}$", "25"),
    ("boxed", "so $\\boxed 7$.", "7"),
    ("boxed", "\\fbox{3}", "3"),
    ("boxed", "\\boxed{}", ""),
    ("boxed", None, ""),
    ("list", ["$2$"], "2"),
    ("list", ["$2$", "$x+1$"], "2, x+1"),
    ("list", [3, 4.0], "3, 4"),
    ("list", [], ""),
    ("list", None, ""),
    ("json-list", '["34"]', "34"),
    ("json-list", '["\\\\frac{1}{2}"]', "\\frac{1}{2}"),
    ("json-list", '["1", "2"]', "1, 2"),
    ("guess", ["$2$"], "2"),
    ("guess", '["34"]', "34"),
    ("guess", "[1, 2]", "[1, 2]"),
    ("guess", "so \\boxed{5}", "5"),
    ("guess", "so\n#### 5", "5"),
    ("guess", 5.0, "5"),
    ("guess", "x=5", "x=5"),
]


@pytest.mark.parametrize(("encoding", "cell", "answer"), ANSWERS)
def test_answers(encoding, cell, answer):
    assert answer_text(cell, encoding) == answer


REFUSED = [
    ("plain", True, "bool"),
    ("plain", ["1"], "list"),
    ("plain", {"a": 1}, "dict"),
    ("plain", math.nan, "nan"),
    ("plain", math.inf, "inf"),
    ("plain", "\ud800", "surrogate"),
    ("plain", "x" * 501, "501 characters"),
    ("integer", "1/2", "'1/2', not a whole number"),
    ("integer", 0.5, "not a whole number"),
    ("integer", "1" * 6000, "not a whole number|6000 characters"),
    ("hashes", "seventy-two", "####"),
    ("boxed", "204", "no \\\\boxed"),
    ("boxed", "\\boxed{1", "never closed"),
    ("boxed", "\\boxed{1\\}", "never closed"),
    ("list", "2", "str, not a list"),
    ("list", [["2"]], "list"),
    ("json-list", "34", "int, not a list"),
    ("json-list", "[", "not a JSON list"),
    ("json-list", "[" * 100_000, "not a JSON list"),
    ("guess", "Let x be two. " * 50, "700 characters|699 characters"),
]


@pytest.mark.parametrize(("encoding", "cell", "reason"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_answer(encoding, cell, reason):
    with pytest.raises(ValueError, match=reason):
        answer_text(cell, encoding)


def test_every_encoding_is_tested():
    assert {row[0] for row in ANSWERS} == set(ENCODINGS)
    for encoding in ENCODINGS:
        assert answer_text(None, encoding) == ""


DAPO = (
    "Solve the following math problem step by step. The last line of your response should be of "
    "the form Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n"
    '{}\n\nRemember to put your answer on its own line after "Answer:".'
)
QUESTIONS = [
    "{}",
    " {}\n",
    DAPO,
    DAPO.replace("Answer: $Answer", "Answer: \\boxed{{$Answer}}"),
    "{} Let's think step by step and output the final answer within \\boxed{{}}.",
    "{}\nPlease reason step by step, and put your final answer within \\boxed{{}}.",
]


@pytest.mark.parametrize("stored", QUESTIONS)
def test_questions_come_without_instructions(stored: str):
    text = stored.format("What is $1+1$?")
    assert question_text(text) == "What is $1+1$?"
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    assert question_text(chat) == "What is $1+1$?"


@pytest.mark.parametrize(
    "cell",
    [
        5,
        ["text"],
        [],
        [{"role": "assistant", "content": "2"}],
        [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}],
        [{"role": "user", "content": [{"type": "image"}]}],
        [{"content": "1+1?"}],
    ],
    ids=repr,
)
def test_what_is_no_question(cell):
    with pytest.raises(ValueError, match=r"not|chat"):
        question_text(cell)


@pytest.mark.parametrize(
    ("cell", "level"),
    [("Level 5", "5"), (5, "5"), (5.0, "5"), ("5.0", "5"), ("Level ?", ""), (None, ""), ("A", "A")],
)
def test_levels(cell, level):
    assert level_text(cell) == level
