"""Where a response states its answer, in every format, and in linear time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opo_cli.grading.extract import extract, last_box

quick = settings(deadline=None, derandomize=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \boxed{7}.", "7"),
        (r"\boxed{3} ... wait, \boxed{4}", "4"),
        (r"\boxed{20}, and so it is \boxed{4}", "4"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        ("\\boxed \n{59}", "59"),
        (r"\boxed{ 8 }", "8"),
        (r"\fbox{8}", "8"),
        (r"\\boxed{8}", "8"),
        (r"\boxed{}", ""),
        (r"\boxed{3} and \boxed{4", "3"),
        (r"\boxed 7", "7"),
        (r"\boxed 17.", "17"),
        (r"\boxed\frac{1}{2}$", r"\frac{1}{2}"),
        (r"\boxed\frac12$", r"\frac12"),
        (r"\boxed x", "x"),
        (r"I put it in \boxed notation", None),
        (r"\boxedx{7}", None),
        (r"\boxed{\frac{1}{2}", None),
        ("the answer is 7", None),
        ("", None),
        # Boxes that state one answer together, and boxes that do not.
        (r"\boxed{1} and \boxed{2}", "1, 2"),
        (r"\boxed{1}, \boxed{2}, \boxed{3}", "1, 2, 3"),
        (r"\boxed{1} \quad \text{or} \quad \boxed{2}", "1, 2"),
        (r"$\boxed{1}$, $\boxed{2}$", "1, 2"),
        (r"\(y_1 = \boxed{1}\) and \(y_2 = \boxed{2}\)", "1, 2"),
        (r"\boxed{5} and \boxed{5}", "5"),
        ("\\boxed{1}\n\n\\boxed{2}", "2"),
        (r"\boxed{1} \boxed{2}", "2"),
        (r"\boxed{1}. Using it, part (b) gives \boxed{2}", "2"),
        (r"\boxed{1} and then \boxed{2}", "2"),
        (r"\boxed{0}. Now \boxed{1}, \boxed{2}", "1, 2"),
    ],
)
def test_last_box(text: str, expected: str | None):
    assert last_box(text) == expected


balanced = st.recursive(
    st.text("0a+,. ", max_size=4),
    lambda inner: st.lists(inner.map(lambda s: "{" + s + "}") | inner, max_size=3).map("".join),
    max_leaves=8,
)


@quick
@given(balanced, st.text("7 }", max_size=6))
def test_last_box_finds_any_balanced_content(content: str, before: str):
    assert last_box(f"{before} \\boxed{{{content}}}. Done }}{{") == content.strip()


@pytest.mark.parametrize(
    ("text", "answer_format", "expected"),
    [
        (r"<think>\boxed{1}</think> it is \boxed{2}", "box", "2"),
        (r"<think>\boxed{1}</think> it is 2", "box", None),
        (r"<think>a</think>\boxed{1}</think>", "box", None),
        ("<answer>1</answer>", "box", None),
        ("<answer> 1 </answer>", "tag", "1"),
        ("<answer>1</answer> no: <answer>2</answer>", "tag", "2"),
        (r"<answer>It is \boxed{2}.</answer>", "tag", "2"),
        ("a <think>b</think> <answer>\n3\n</answer> c", "tag", "3"),
        ("<ANSWER>4</ANSWER>", "tag", "4"),
        ("<answer>1</answer> <answer>2", "tag", "1"),
        ("<answer>", "tag", None),
        ("</answer>1<answer>", "tag", None),
        (r"\boxed{1}", "tag", None),
        ("Answer: 5", "line", "5"),
        ("Answer: 5\nAnswer: 6\nSo it is.", "line", "6"),
        ("**Answer:** 5", "line", "5"),
        ("**Answer: 5**", "line", "5"),
        ("### Final answer: 5", "line", "5"),
        ("ANSWER: $\\frac12$", "line", "$\\frac12$"),
        ("Answer: \\boxed{5} dollars", "line", "5"),
        ("**Answer:**\n\\[ 5 \\]\n\nDone.", "line", "\\[ 5 \\]"),
        ("The answer: 5", "line", None),
        ("Answer 5", "line", None),
        (r"\boxed{1} <answer>2</answer>", "any", "1"),
        ("<answer>2</answer>\nAnswer: 3", "any", "2"),
        ("Some 4.\nAnswer: 3", "any", "3"),
    ],
)
def test_marked_answers(text: str, answer_format: str, expected: str | None):
    found = extract(text, answer_format)
    assert (found.text if found else None) == expected
    assert found is None or found.is_marked


def test_the_end_of_a_finished_response_is_where_to_look_last():
    found = extract("x " * 1000 + "It is 5.", "any")
    assert (found.is_marked, found.text, len(found.tail)) == (False, "5", 600)
    assert found.tail.endswith("It is 5.")
    assert extract("It is 5.", "any", is_finished=False) is None
    assert extract(r"It is \boxed{5}", "any", is_finished=False).text == "5"
    assert extract("17 times 3 is 51 and then", "any") is None
    assert extract("So x =", "any") is None
    assert extract("  \n", "any") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It costs 12 dollars in all.", "12"),
        ("Therefore x = 7.", "7"),
        ("**42**", "42"),
        ("#### 1,234", "1,234"),
        ("The total is 3 + 4 = 7.", "7"),
        ("It is 25% (see step 2).", "2"),
        ("The probability is -3/8.", "-3/8"),
        ("It is **.5**", ".5"),
        (r"So the area is $\frac{9\pi}{4}$.", r"\frac{9\pi}{4}"),
        (r"\[ x = 5 \]", "5"),
        (r"Since \(a = 2\), we get \(b = 3\). Done", "3"),
        ("As $x$ is even, it is 6.", "6"),
        ("They cost $5 and $10.", "10"),
        ("So we get 8**8**8.", "8**8**8"),
        ("The answer is no.", "no"),
        ("So the answer is (B).", "(B)"),
        ("So it is even.", "1"),
    ],
)
def test_what_an_unmarked_end_states(text: str, expected: str):
    """One form for equal statements, however they are put: votes count it."""
    assert extract("Some prose before it, $y = 1$. " + text, "any").text == expected


def test_a_final_statement_after_the_last_box_is_the_answer():
    text = r"The first part is \boxed{3}. The final answer is $7$. I hope it is correct."
    assert extract(text, "any") == ("7", "final answer is $7$. I hope it is correct.")
    assert extract(text, "box").text == "3"
    assert extract(r"The final answer is $\boxed{7}$.", "any").text == "7"


LARGE = [
    r"\boxed{" * 200_000,
    r"\boxed{1" * 100_000 + "}" * 100_000,
    r"\boxed{1}, " * 100_000,
    r"\boxed " * 200_000,
    "{" * 1_000_000,
    "{}" * 500_000,
    "\\" * 1_000_001,
    "<answer>" * 200_000,
    "<answer></answer>" * 100_000,
    "Answer:" * 200_000,
    "\n" * 1_000_000,
    " " * 1_000_000 + "x",
    "final answer is " * 100_000,
    "</think>" * 200_000,
]


@pytest.mark.parametrize("text", LARGE, ids=lambda text: repr(text[:12]))
def test_megabytes_take_linear_time(text: str):
    start = time.process_time()
    for answer_format in ("box", "tag", "line", "any"):
        extract(text, answer_format)
    assert time.process_time() - start < 5  # Some 0.1 to 1 s; quadratic would be minutes.
