"""What counts as a correct answer. Pure functions of strings; `pool.py` runs the costly one.

The order for one answer: is there one; is it the same text or the same plain number; is it short
and small enough to be read; and only then math-verify (`mathematics.py`), in a worker. No model
output is ever evaluated by us.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import version
from typing import NamedTuple

from opo_cli.grading.extract import Found
from opo_cli.grading.normal import (
    DOTS,
    canonical,
    compact,
    is_blank,
    number,
    same_number,
    tidy,
)
from opo_cli.grading.screen import is_too_large
from opo_cli.grading.words import (
    STATED_LABEL,
    amount_verdict,
    have_other_units,
    is_in_text,
    label,
    label_verdict,
    letters_verdict,
    unlabelled,
)
from opo_cli.records import source_digest
from opo_cli.types import GradeReason


class Question(NamedTuple):
    """What a worker is asked."""

    given: str
    """Tidied; or the end of a response, as it is, where nothing marks the answer in it."""
    answer: str
    """The reference answer, tidied."""
    is_marked: bool


def screened(found: Found | None, answer: str, max_characters: int) -> GradeReason | Question:
    """The verdict where it needs no mathematics, else what to ask a worker."""
    if found is None:
        return "no-answer"
    if found.is_marked and is_blank(found.text):
        return "empty"
    reference = tidy(answer)
    if is_blank(reference):
        return "error"
    given = tidy(found.text)
    if len(given) > max(max_characters, 2 * len(reference)):
        is_same = compact(given) == compact(reference) or _are_same_numbers(given, reference)
        return "correct" if is_same else "refused"
    if not found.is_marked and label(reference)[0] is not None:
        given = (STATED_LABEL.findall(found.tail) or [given])[-1]
    verdict = quick_verdict(given, reference, (is_in_text(found.text), is_in_text(answer)))
    if verdict or (found.is_marked and verdict is not None):
        return "correct" if verdict else "wrong"
    given, reference = unlabelled(given, reference)
    if not found.is_marked:
        return _question_of_tail(found, given, reference)
    if is_too_large(given) or is_too_large(reference):
        return "refused"
    return Question(given, reference, True)


def _question_of_tail(found: Found, given: str, reference: str) -> GradeReason | Question:
    """Where nothing marks the answer, it may be another than the one that we have found."""
    if label_verdict(given, reference) is False:
        return "wrong"
    tail = readable_tail(found.tail)
    return "refused" if tail is None else Question(tail, reference, False)


def quick_verdict(
    given: str, answer: str, in_text: tuple[bool, bool] = (False, False)
) -> bool | None:
    """The verdict on two tidied answers where it needs no mathematics, else None.

    Args:
        in_text: whether they were stated as text, see `is_in_text`.
    """
    given, answer = unlabelled(given, answer)
    if compact(given) == compact(answer):
        return True
    for verdict in (_are_same_numbers, label_verdict, amount_verdict, _are_same_elements):
        same = verdict(given, answer)
        if same is not None:
            return same
    # What math-verify would take for equal: it drops dots, so that 1, 2, ..., n would be 1, 2, n.
    if any(DOTS.search(text) for text in (given, answer)) or have_other_units(given, answer):
        return False
    return letters_verdict(given, answer, in_text)


def _are_same_numbers(given: str, answer: str) -> bool | None:
    """None where they are not both plain numbers."""
    numbers = number(compact(given)), number(compact(answer))
    return None if None in numbers else same_number(*numbers)


def _are_same_elements(given: str, answer: str) -> bool | None:
    """Of bare lists: their order does not matter. Brackets are not looked into."""
    return True if _elements(compact(given)) == _elements(compact(answer)) else None


def _elements(text: str) -> list[str]:
    has_brackets = any(mark in text for mark in "()[]{}=<>")
    return [text] if has_brackets else sorted(canonical(part) for part in text.split(","))


def readable_tail(text: str) -> str | None:
    """As much of a response's end as names no numbers too large to evaluate."""
    for tail in (text, text.rstrip().rpartition("\n")[2]):
        # In prose, an exclamation mark is none of mathematics.
        if not is_too_large(tidy(re.sub(r"!(?=\s|$)", "", tail))):
            return tail
    return None


@cache
def grader_version() -> str:
    """Changes whenever verdicts may: versions of what reads mathematics, a digest of our source."""
    names = ("math-verify", "latex2sympy2_extended", "sympy")
    return ", ".join(
        [*(f"{n} {version(n)}" for n in names), f"opo {source_digest('grading')[:12]}"]
    )
