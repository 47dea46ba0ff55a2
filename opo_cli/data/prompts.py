"""Prompt templates: a problem's text as the model sees it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from opo_cli.choose import choose
from opo_cli.types import Problem, Prompt

TEMPLATES: dict[str, str] = {
    "line": "{question}\n",
    "plain": "{question}",
}


class Tokenizer(Protocol):
    """What prompts need of a tokenizer."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


def render(question: str, template: str) -> str:
    """The prompt text. `replace`, not `format`: a question may hold braces."""
    return choose(template, TEMPLATES, "template").replace("{question}", question)


def make_prompts(problems: Iterable[Problem], template: str, tokenizer: Tokenizer) -> list[Prompt]:
    """Problems -> prompts. The tokenizer adds its own BOS, if it has one."""
    prompts = []
    for problem in problems:
        text = render(problem.question, template)
        ids = tokenizer.encode(text, add_special_tokens=True)
        prompts.append(Prompt(problem=problem, text=text, token_ids=tuple(ids)))
    return prompts
