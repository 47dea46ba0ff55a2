"""Templates and prompts."""

from __future__ import annotations

import pytest

from opo_cli.data.prompts import TEMPLATES, make_prompts, render
from opo_cli.errors import OpoError
from opo_cli.types import Problem


class Characters:
    """A tokenizer of code points, with a BOS of 1."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [1] * add_special_tokens + [ord(character) for character in text]


def problem(question: str) -> Problem:
    return Problem(id=f"x/{question}", question=question, answer="0", benchmark="x")


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("question", ["1+1=?", "{a} and {} and %s", "\\frac{1}{2} {question!r}"])
def test_every_template_holds_the_question_once(template: str, question: str):
    text = render(question, template)
    assert text.count(question) == 1
    assert text.replace(question, "{question}") == TEMPLATES[template]


def test_prompts_keep_order_problem_and_special_tokens():
    problems = [problem("b=?"), problem("a")]
    first, second = make_prompts(problems, "line", Characters())
    assert (first.problem, second.problem) == tuple(problems)
    assert first.text == "b=?\n"
    assert first.token_ids == (1, ord("b"), ord("="), ord("?"), ord("\n"))


def test_no_problems_make_no_prompts():
    assert make_prompts([], "plain", Characters()) == []


def test_an_unknown_template_is_an_error_that_names_it():
    with pytest.raises(OpoError, match="unknown template 'lines'") as caught:
        render("1+1=?", "lines")
    assert caught.value.hint == "did you mean 'line'?"
