"""Prompt templates: a problem's text as the model sees it, and where its response is to state the
answer. The two go together: a template that asks for tags is not graded by boxes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from opo_cli.choose import did_you_mean
from opo_cli.errors import OpoError
from opo_cli.records import digest
from opo_cli.types import AnswerFormat, Problem, Prompt

QUESTION = "{question}"
STEP_BY_STEP = "Please reason step by step, and put your final answer within \\boxed{}."
CHATML = (
    "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n"
    "<|im_start|>assistant\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateRow:
    text: str
    """With one {question}; of "chat", what goes into the user's turn."""
    source: str
    answer_format: AnswerFormat = "box"


def _chatml(system: str, user: str) -> str:
    return CHATML.replace("{system}", system).replace("{user}", user)


TEMPLATES: dict[str, TemplateRow] = {
    "line": TemplateRow(text=f"{QUESTION}\n", source="the embedded task"),
    "plain": TemplateRow(text=QUESTION, source="understand-r1-zero, no template"),
    "boxed": TemplateRow(
        text=f"{QUESTION}\n{STEP_BY_STEP}\n", source="the boxed instruction, for base models"
    ),
    "chat": TemplateRow(
        text=f"{QUESTION}\n{STEP_BY_STEP}", source="the tokenizer's own chat template"
    ),
    "qwen-math": TemplateRow(
        text=_chatml(STEP_BY_STEP, QUESTION),
        source="Qwen2.5-Math, qwen25-math-cot; qwen_math of Dr. GRPO",
    ),
    "qwen-boxed": TemplateRow(
        text=_chatml("You are a helpful assistant.", f"{QUESTION}\n{STEP_BY_STEP}"),
        source="Qwen2.5-Math, qwen-boxed; simpleRL-reason",
    ),
    "r1-distill": TemplateRow(
        text=f"<｜User｜>{QUESTION}\n{STEP_BY_STEP}<｜Assistant｜><think>\n",
        source="DeepSeek-R1 README, usage recommendations",
    ),
    "r1-zero": TemplateRow(
        text="A conversation between User and Assistant. The User asks a question, and the "
        "Assistant solves it. The Assistant first thinks about the reasoning process in the mind "
        "and then provides the User with the answer. The reasoning process is enclosed within "
        "<think> </think> and answer is enclosed within <answer> </answer> tags, respectively, "
        "i.e., <think> reasoning process here </think> <answer> answer here </answer>.\n"
        f"User: {QUESTION}\nAssistant: <think>",
        source="DeepSeek-R1 (arXiv 2501.12948), table 1; r1 of understand-r1-zero",
        answer_format="tag",
    ),
    "dapo": TemplateRow(
        text="Solve the following math problem step by step. The last line of your response "
        "should be of the form Answer: $Answer (without quotes) where $Answer is the answer to the "
        f"problem.\n\n{QUESTION}\n\n"
        'Remember to put your answer on its own line after "Answer:".',
        source="DAPO-Math-17k",
        answer_format="line",
    ),
}
AUTO = "auto"


class Tokenizer(Protocol):
    """What prompts need of a tokenizer."""

    chat_template: str | None

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def apply_chat_template(self, conversation, **options) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A template that is resolved: all that a prompt depends on beside question and tokenizer."""

    name: str
    text: str
    answer_format: AnswerFormat
    adds_special_tokens: bool = True
    """Whether the tokenizer puts its own BOS in front; a chat template has written its own, and a
    file may have."""

    @property
    def digest(self) -> str:
        """Twelve hex digits of text and answer format."""
        return digest(self.text, self.answer_format, self.adds_special_tokens)

    def render(self, question: str) -> str:
        """The prompt text. `replace`, not `format`: a question may hold braces."""
        return self.text.replace(QUESTION, question)


def check_template(name: str) -> None:
    """Raises OpoError for a name that is neither a row nor a template file."""
    if name != AUTO and name not in TEMPLATES:
        _read(name)


def _read(name: str) -> str:
    path = Path(name)
    if not path.is_file():
        names = [AUTO, *TEMPLATES]
        raise OpoError(f"unknown template '{name}'", did_you_mean(name, names, "template"))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OpoError(
            f"template file '{name}' does not read: {error}", "give a text file in UTF-8"
        ) from None
    return _checked(text, f"template file '{name}'")


def _checked(text: str, what: str) -> str:
    count = text.count(QUESTION)
    if count != 1:
        raise OpoError(
            f"{what} holds {QUESTION} {count} times", f"it must hold {QUESTION} once, as it stands"
        )
    return text


def resolve_template(
    name: str, tokenizer: Tokenizer, *, is_embedded: bool, answer_format: str = "template"
) -> Template:
    """The template for some problems.

    Args:
        name: a row, a file, or "auto": "line" for the embedded task, else "chat" where the
            tokenizer has a chat template, else "boxed".
        is_embedded: whether the problems are the embedded task's.
        answer_format: "template" takes the template's own; a file's is the box.

    Raises:
        OpoError: no such template, or "chat" and a tokenizer without one.
    """
    if name == AUTO:
        name = "line" if is_embedded else "chat" if tokenizer.chat_template else "boxed"
    row = TEMPLATES.get(name) or TemplateRow(text=_read(name), source="a file")
    text = _in_chat(row.text, tokenizer) if name == "chat" else row.text
    bos = getattr(tokenizer, "bos_token", None)
    return Template(
        name=name,
        text=text,
        answer_format=row.answer_format if answer_format == "template" else answer_format,
        adds_special_tokens=name != "chat" and not (bos and text.startswith(bos)),
    )


def _in_chat(user: str, tokenizer: Tokenizer) -> str:
    """The tokenizer's chat template around the user's turn, ready for the assistant's."""
    if not tokenizer.chat_template:
        raise OpoError(
            "data.template = 'chat': this model's tokenizer has no chat template",
            "--set data.template=boxed, or another of: opo list templates",
        )
    try:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": user}], tokenize=False, add_generation_prompt=True
        )
    except Exception as error:  # It is a program of the model's makers, and may raise anything.
        raise OpoError(
            f"data.template = 'chat': the tokenizer's chat template fails: {error}",
            "--set data.template=boxed, or another of: opo list templates",
        ) from error
    return _checked(text, "the tokenizer's chat template")


def make_prompts(
    problems: Iterable[Problem], template: Template, tokenizer: Tokenizer
) -> list[Prompt]:
    """Problems -> prompts."""
    prompts = []
    for problem in problems:
        text = template.render(problem.question)
        ids = tokenizer.encode(text, add_special_tokens=template.adds_special_tokens)
        prompts.append(
            Prompt(
                problem=problem,
                text=text,
                token_ids=tuple(ids),
                answer_format=template.answer_format,
            )
        )
    return prompts
