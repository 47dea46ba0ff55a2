"""Where a response states its answer. One pass over the text, whatever the text: a model may write
megabytes of braces.

What stands before the last `</think>` is thinking, not answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from opo_cli.types import AnswerFormat

TAIL_CHARACTERS = 600
"""Where nothing marks the answer, the last number or formula of so many characters is it."""

MARKS = re.compile(r"\\{1,4}(?:boxed|fbox)(?![A-Za-z])\s*|\\.|[{}]", re.DOTALL)
BOXES = ("\\boxed", "\\fbox")
BARE = re.compile(
    # What a box without braces holds: a number, a letter, or a command with its arguments.
    r"[+-]?(?:\d(?:[\d.,/]*\d)?|[A-Za-z](?![A-Za-z])|\\[a-z]*frac\s?\d\s?\d|"
    r"\\[A-Za-z]+(?:\{[^{}]{0,99}\}){0,2})"
)
BETWEEN = re.compile(
    # What may stand between boxes that state one answer together: "and", "or", commas, an "x_2 =".
    r"(?:[\s,;$~]|\\[,;: \[\]()]|\\q?quad|\band\b|\bor\b|\\(?:text|mbox|textrm)\{[^{}]{0,60}\}"
    r"|[A-Za-z](?:_\{?\w{1,3}\}?)?\s*=)*"
)
JOINS = re.compile(r"[,;]|\b(?:and|or)\b")
MAX_BETWEEN = 120
ANSWER_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
ANSWER_LINE = re.compile(
    r"^[\s*_#>`-]{0,9}(?:final\s{1,3})?answer[*_ ]{0,5}[:：][*_ \t]*(.*)$",
    re.IGNORECASE | re.MULTILINE,
)
STATED = re.compile(r"final answer is:?\s{0,9}(?=[$\d.+-]|\\[(\[])", re.IGNORECASE)
FORMULA = re.compile(r"\$\$?([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
WITH_DIGIT = re.compile(r"(?<!\S)[^\s\d]*\d\S*")
SAYING = re.compile(r"\b(?:is|are)\b|:\s")
ANSWER_IS = re.compile(r"\banswer(?: is|:)\s+(.+)", re.IGNORECASE)
BROKEN_OFF = re.compile(
    r"\b(?:and|or|so|then|but|if|is|are|the|a|an|of|to|by|with|we|that|which|because|let|thus)"
    r"[\s,:]*$|[+*/=<^({\[]\s*$",
    re.IGNORECASE,
)


class Found(NamedTuple):
    """An answer as the response states it."""

    text: str
    tail: str | None = None
    """The response's end, where no box, tag or line marks the answer: `text` is then its last
    number or formula, or what else looks most like an answer."""

    @property
    def is_marked(self) -> bool:
        return self.tail is None


class Box(NamedTuple):
    start: int
    """Of the command."""
    end: int
    """After the closing brace."""
    content: str


def extract(text: str, answer_format: AnswerFormat, *, is_finished: bool = True) -> Found | None:
    """The answer that a response states, or None.

    Args:
        is_finished: whether the model stopped by itself. Where it did not, an answer must be
            marked: the last number of a text that was cut is no answer.
    """
    text = text.rpartition("</think>")[2]
    if answer_format != "any":
        found = MARKED[answer_format](text)
        return None if found is None else Found(found)
    tail = text.rstrip("* \t\n")[-TAIL_CHARACTERS:].strip()
    marked = next((f for f in (find(text) for find in MARKED.values()) if f is not None), None)
    stated = None
    for stated in STATED.finditer(tail):  # noqa: B007
        pass
    if stated is not None and not any(word in tail[stated.end() :] for word in BOXES):
        return _unmarked(tail[stated.start() :])  # After the last box, so the last word.
    if marked is not None:
        return Found(marked)
    if not is_finished or not tail or BROKEN_OFF.search(tail[-40:]):
        return None
    return _unmarked(tail)


def _unmarked(tail: str) -> Found:
    """With its last number or formula, unless words are announced as the answer after it."""
    *_, formula = (None, *FORMULA.finditer(tail))
    rest = tail if formula is None else tail[formula.end() :]
    *_, token = (None, *WITH_DIGIT.finditer(rest))
    if token is not None:
        stated = token[0].rstrip("*_`.,;:?\"'").lstrip("*_`\"'")
        stated = stated if "(" in stated else stated.rstrip(").")
    elif said := ANSWER_IS.search(rest):
        stated = said[1].strip(" .*_")
    elif formula is not None:
        stated = next(group for group in formula.groups() if group is not None)
    else:
        stated = SAYING.split(tail.rpartition("\n")[2])[-1].strip(" .*_")
    return Found(stated.rpartition("=")[2].strip() or stated.strip() or tail, tail)


def last_box(text: str) -> str | None:
    """The content of the last box; of several where nothing but a comma or an "and" parts them."""
    boxes = _boxes(text)
    if not boxes:
        return None
    contents = [boxes[-1].content]
    for box, following in zip(boxes[-2::-1], boxes[:0:-1], strict=True):
        between = text[box.end : following.start]
        is_joined = len(between) <= MAX_BETWEEN and JOINS.search(between)
        if not is_joined or not BETWEEN.fullmatch(between):
            break
        contents.append(box.content)
    return ", ".join(dict.fromkeys(reversed(contents)))


def _boxes(text: str) -> list[Box]:
    """Balanced boxes, by where they start; of nested ones the inner."""
    boxes: list[Box] = []
    open_braces: list[tuple[int, int] | None] = []  # None: a brace that is no box's.
    skip = 0
    for mark in MARKS.finditer(text):
        if mark.start() < skip:
            continue
        if mark[0] == "{":
            open_braces.append(None)
        elif mark[0] == "}":
            opened = open_braces.pop() if open_braces else None
            if opened is not None and not (boxes and boxes[-1].start > opened[0]):
                content = text[opened[1] : mark.start()].strip()
                boxes.append(Box(opened[0], mark.end(), content))
        elif "box" in mark[0]:
            if text.startswith("{", mark.end()):
                open_braces.append((mark.start(), mark.end() + 1))
                skip = mark.end() + 1
            elif bare := BARE.match(text, mark.end()):
                boxes.append(Box(mark.start(), bare.end(), bare[0]))
    return boxes


def tagged(text: str) -> str | None:
    """What the last `<answer>...</answer>` holds; a box inside it wins."""
    opened, span = None, None
    for tag in ANSWER_TAG.finditer(text):
        if not tag[1]:
            opened = tag.end()
        elif opened is not None:
            opened, span = None, (opened, tag.start())
    return None if span is None else _box_or_all(text[slice(*span)])


def lined(text: str) -> str | None:
    """What follows the last line's "Answer:", there or on the next line; a box inside it wins."""
    last = None
    for last in ANSWER_LINE.finditer(text):  # noqa: B007
        pass
    if last is None:
        return None
    rest = last[1] if last[1].strip(" \t*_") else text[last.end() :].lstrip().partition("\n\n")[0]
    return _box_or_all(rest.strip().strip("*_` ").strip())


def _box_or_all(text: str) -> str:
    found = last_box(text)
    return text.strip() if found is None else found


MARKED: dict[str, Callable[[str], str | None]] = {"box": last_box, "tag": tagged, "line": lined}
FORMATS = {"any": "whichever it has, else the last number or formula", **MARKED}
