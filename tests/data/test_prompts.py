"""Templates and prompts."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

from opo_cli.data.prompts import (
    AUTO,
    TEMPLATES,
    Template,
    check_template,
    make_prompts,
    resolve_template,
)
from opo_cli.errors import OpoError
from opo_cli.types import Problem

CHATML = (
    "{% for m in messages %}<s>{{ m.role }}:{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant:{% endif %}"
)


class Characters:
    """A tokenizer of code points, with a BOS of 1."""

    chat_template = None

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [1] * add_special_tokens + [ord(character) for character in text]


def with_chat(template: str | None) -> PreTrainedTokenizerFast:
    """A real tokenizer of single characters with a chat template."""
    letters = {chr(i): i for i in range(32, 127)} | {"\n": 10}
    model = Tokenizer(WordLevel(letters, unk_token=" "))
    model.pre_tokenizer = Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model)
    tokenizer.chat_template = template
    return tokenizer


def problem(question: str) -> Problem:
    return Problem(id=f"x/{question}", question=question, answer="0", benchmark="x")


def resolved(name: str, **options) -> Template:
    tokenizer = with_chat(CHATML) if name == "chat" else Characters()
    return resolve_template(name, tokenizer, is_embedded=False, **options)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("question", ["1+1=?", "{a} and {} and %s", "\\frac{1}{2} {question!r}"])
def test_every_template_holds_the_question_once(name: str, question: str):
    template = resolved(name)
    text = template.render(question)
    assert text.count(question) == 1
    assert text.replace(question, "{question}") == template.text
    assert TEMPLATES[name].source


def test_the_templates_of_the_field_to_the_letter():
    asked = "Please reason step by step, and put your final answer within \\boxed{}."
    assert resolved("qwen-math").render("Q") == (
        f"<|im_start|>system\n{asked}<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert resolved("qwen-boxed").render("Q") == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\nQ\n{asked}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert resolved("r1-distill").render("Q") == f"<｜User｜>Q\n{asked}<｜Assistant｜><think>\n"
    assert resolved("r1-zero").render("Q").endswith(".\nUser: Q\nAssistant: <think>")
    assert resolved("dapo").render("Q").endswith('on its own line after "Answer:".')


@pytest.mark.parametrize(("name", "expected"), [("r1-zero", "tag"), ("dapo", "line")])
def test_a_template_says_where_the_answer_stands(name: str, expected: str):
    assert resolved(name).answer_format == expected
    assert resolved(name, answer_format="any").answer_format == "any"
    assert resolved("boxed").answer_format == "box"


def test_chat_is_the_tokenizers_own_and_adds_no_second_bos():
    template = resolved("chat")
    asked = TEMPLATES["chat"].text.replace("{question}", "Q")
    assert template.render("Q") == f"<s>user:{asked}</s><s>assistant:"
    assert not template.adds_special_tokens
    (prompt,) = make_prompts([problem("Q")], template, Characters())
    assert prompt.token_ids[0] == ord("<")


@pytest.mark.parametrize(
    ("tokenizer", "is_embedded", "expected"),
    [
        (with_chat(CHATML), True, "line"),
        (with_chat(CHATML), False, "chat"),
        (with_chat(None), False, "boxed"),
    ],
)
def test_auto(tokenizer, is_embedded: bool, expected: str):
    assert resolve_template(AUTO, tokenizer, is_embedded=is_embedded).name == expected


def test_a_digest_tells_templates_apart():
    digests = {resolved(name).digest for name in TEMPLATES}
    assert len(digests) == len(TEMPLATES)
    assert resolved("boxed").digest != resolved("boxed", answer_format="any").digest


def test_a_file_is_a_template(tmp_path: Path):
    path = tmp_path / "mine.txt"
    path.write_text("Q: {question}\nA:")
    check_template(str(path))
    template = resolved(str(path))
    assert (template.render("x{y}"), template.answer_format) == ("Q: x{y}\nA:", "box")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no place", "holds {question} 0 times"),
        (b"{question} {question}", "holds {question} 2 times"),
        (b"\xff{question}", "does not read"),
    ],
)
def test_a_bad_file_is_told(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "mine.txt"
    path.write_bytes(content)
    with pytest.raises(OpoError) as caught:
        check_template(str(path))
    assert message in caught.value.message


def test_a_chat_template_that_hides_the_question_is_told():
    with pytest.raises(OpoError, match=r"chat template holds \{question\} 0 times"):
        resolve_template("chat", with_chat("{{ messages[0].role }}"), is_embedded=False)
    with pytest.raises(OpoError, match="has no chat template"):
        resolve_template("chat", with_chat(None), is_embedded=False)


def test_a_chat_template_that_fails_is_told():
    failing = with_chat("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(OpoError, match="chat template fails: roles must alternate"):
        resolve_template("chat", failing, is_embedded=False)


def test_a_file_that_begins_with_a_bos_gets_no_second_one(tmp_path: Path):
    path, tokenizer = tmp_path / "mine.txt", with_chat(None)
    tokenizer.bos_token = "<s>"
    path.write_text("<s>{question}")
    assert not resolve_template(str(path), tokenizer, is_embedded=False).adds_special_tokens
    path.write_text("{question}")
    assert resolve_template(str(path), tokenizer, is_embedded=False).adds_special_tokens


def test_prompts_keep_order_problem_and_special_tokens():
    problems = [problem("b=?"), problem("a")]
    first, second = make_prompts(problems, resolved("line"), Characters())
    assert (first.problem, second.problem) == tuple(problems)
    assert first.text == "b=?\n"
    assert first.token_ids == (1, ord("b"), ord("="), ord("?"), ord("\n"))


def test_no_problems_make_no_prompts():
    assert make_prompts([], resolved("plain"), Characters()) == []


def test_an_unknown_template_is_an_error_that_names_it():
    with pytest.raises(OpoError, match="unknown template 'lines'") as caught:
        check_template("lines")
    assert caught.value.hint == "did you mean 'line'?"
