"""What counts as a correct answer. Pure functions of strings; `pool.py` runs the costly one.

The order: the last `\\boxed{}` of the response, a plain comparison of integers or of equal text,
and only then math-verify. No model output is ever evaluated by us.
"""

from __future__ import annotations

import re

INTEGER = re.compile(r"[+-]?\d{1,15}")
BRACES = re.compile(r"\\.|[{}]", re.DOTALL)  # An escaped character hides its brace.
MAX_BOX_CHARACTERS = 300  # A longer "answer" is no answer, and parsers choke on it.


def last_box(text: str) -> str | None:
    """The content of the last `\\boxed{...}` with balanced braces, or None.

    What stands before `</think>` is thinking, not answer.
    """
    text = text.rpartition("</think>")[2]
    start = text.rfind("\\boxed")
    while start >= 0:
        content = _balanced(text, start + len("\\boxed"))
        if content is not None:
            return content.strip()
        start = text.rfind("\\boxed", 0, start)
    return None


def _balanced(text: str, position: int) -> str | None:
    """The text between the brace at `position` (spaces skipped) and its partner."""
    while position < len(text) and text[position].isspace():
        position += 1
    if position >= len(text) or text[position] != "{":
        return None
    depth = 0
    for mark in BRACES.finditer(text, position):
        depth += {"{": 1, "}": -1}.get(mark[0], 0)
        if depth == 0:
            return text[position + 1 : mark.start()]
    return None


def quick_verdict(extracted: str, answer: str) -> bool | None:
    """The verdict where it needs no mathematics, else None."""
    extracted, answer = extracted.strip(), answer.strip()
    if INTEGER.fullmatch(extracted) and INTEGER.fullmatch(answer):
        return int(extracted) == int(answer)
    if extracted == answer and extracted:
        return True
    if not extracted or len(extracted) > MAX_BOX_CHARACTERS:
        return False
    return None


def math_verdict(extracted: str, answer: str) -> bool:
    """math-verify's verdict. Slow at times and may hang: run it where it can be killed.

    The reference answer goes into a box of its own first: parsed bare, LaTeX answers come out
    empty or wrong. Gold comes first: `verify` is not symmetric. Its own timeouts are off: they
    would turn a hang into "wrong".

    Raises:
        ValueError: the reference answer does not parse, so nothing could match it.
    """
    import math_verify

    gold, given = (
        math_verify.parse("\\boxed{" + text.strip().strip("$") + "}", parsing_timeout=None)
        for text in (answer, extracted)
    )
    if not gold:
        raise ValueError(f"the reference answer {answer!r} does not parse")
    return bool(math_verify.verify(gold, given, timeout_seconds=None))
