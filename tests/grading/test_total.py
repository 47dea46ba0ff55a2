"""What runs in the main process is total: whatever a model or a data set writes, nothing raises."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from opo_cli.grading.audit import second_opinion
from opo_cli.grading.extract import FORMATS, extract
from opo_cli.grading.grader import Question, screened
from opo_cli.grading.normal import canonical
from opo_cli.grading.screen import is_too_large
from opo_cli.types import GradeReason

many = settings(deadline=None, derandomize=True, max_examples=400)

TYPED = r"""
0 7 12 1,000 .5 99999999999999999999 1e5 E+9 ² ❶ ٣ ½ ⅟ ① x A e ( ) [ ] { } \{ \} , ; : = < ^ _ ! /
* ** + - − √ π ° % \% $ \$ ~ \boxed{ \boxed \fbox{ <answer> </answer> Answer: </think> ... \frac
\frac12 \dfrac{ \sqrt \binom \choose \Gamma \sum \int \text{ \textbf{(B)}\ \left \right. \( \) \[ \]
\pm \ldots \overline{3} \infty \times 10^ \ \, \! {,} (A) Option weeks and ﷺ ㎢ inf nan
"""
FRAGMENTS = [
    *TYPED.split(),
    " ",
    "\n",
    ", ",
    " final answer is ",
    "\ud800",
    "\x00",
    "\u202e",
    "\x1b[31m",
]
wild = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=12).map("".join)
REASONS = set(GradeReason.__args__)


@pytest.mark.parametrize("answer_format", FORMATS)
@many
@given(wild, wild)
@example(r"\boxed{❶}", "5")
@example("We get x² = 4, thus x = 2", "2")
@example(r"\boxed{" + r"\Gamma" * 2000 + "}", r"\Gamma" * 2000 + "1")
@example(r"\boxed{" + r"\binom" * 2000 + "}", r"\binom" * 2000 + "1")
@example(r"\boxed{7}", r"\sum^" * 2000)
def test_nothing_raises(answer_format: str, response: str, answer: str):
    for text in (response, rf"so \boxed{{{response}}}", f"<answer>{response}</answer>"):
        found = extract(text, answer_format)
        verdict = screened(found, answer, 300)
        assert isinstance(verdict, Question) or verdict in REASONS
        given = None if found is None else found.text
        assert second_opinion(given, answer) in (True, False, None)
        assert isinstance(canonical(given or ""), str)


@many
@given(wild)
def test_an_answer_is_itself(answer: str):
    """In the box as in the reference; unless it is none, or too large."""
    found = extract(rf"\boxed{{{answer}}}", "box")
    if found is not None and found.text == answer.strip():
        assert screened(found, answer, 300) in ("correct", "empty", "error")
    assert is_too_large(answer) in (True, False)
