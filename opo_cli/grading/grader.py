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
    is_word,
    number,
    same_number,
    tidy,
)
from opo_cli.grading.screen import is_too_large
from opo_cli.records import source_digest
from opo_cli.types import GradeReason

LABEL = re.compile(
    # A multiple-choice label with its value: \textbf{(B)}\ 12, \text{(B) }12, (B) 12.
    r"(?:\\(?:text|textbf|textrm|mathrm|mathbf|mbox)\s*\{\s*\(?(?P<a>[A-J])\)?\s*[.:)]?\s*\}"
    r"|\((?P<b>[A-J])\))(?:\s|\\[ ,;:]|\\q?quad|~|[.:])*(?P<rest>.*)",
    re.DOTALL,
)
STATED_LABEL = re.compile(r"\b(?i:answer|option|choice)(?:\s+is)?\W{0,6}\(?([A-J])\)?(?![A-Za-z])")
BASED = re.compile(r"(\d+)_\{?(\d{1,2})\}?")
MEASURED = re.compile(
    r"(.*?\d\}*)(?:\\[ ,;:]|~|\s)*(?:\\(?:text|mathrm|textrm|mbox)\{\s*)?([a-z]{1,2})\s*\}?"
)
SCALED = frozenset(("mm", "cm", "m", "km", "mg", "g", "kg", "ms", "s", "h", "ml", "l"))
"""Units that differ by a factor: 5 m is not 5 cm, though either may be stated as 5."""
MIN_WORD = 4


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
    if found.is_marked and len(given) > max(max_characters, 2 * len(reference)):
        is_same = compact(given) == compact(reference) or _are_same_numbers(given, reference)
        return "correct" if is_same else "refused"
    if not found.is_marked and _label(reference)[0] is not None:
        given = (STATED_LABEL.findall(found.text) or [given])[-1]
    verdict = quick_verdict(given, reference)
    if verdict is not None:
        return "correct" if verdict else "wrong"
    if not found.is_marked:
        tail = readable_tail(found.text)
        return "refused" if tail is None else Question(tail, reference, False)
    if is_too_large(given) or is_too_large(reference):
        return "refused"
    return Question(given, reference, True)


def quick_verdict(given: str, answer: str) -> bool | None:
    """The verdict on two tidied answers where it needs no mathematics, else None."""
    compact_given, compact_answer = compact(given), compact(answer)
    if compact_given == compact_answer:
        return True
    same = _are_same_numbers(given, answer)
    if same is not None:
        return same
    by_label = _label_verdict(given, answer)
    if by_label is not None:
        return by_label
    if _elements(compact_given) == _elements(compact_answer):
        return True
    return False if _is_surely_wrong(given, answer) else None


def _are_same_numbers(given: str, answer: str) -> bool | None:
    """None where they are not both plain numbers."""
    numbers = number(compact(given)), number(compact(answer))
    return None if None in numbers else same_number(*numbers)


def _elements(text: str) -> list[str]:
    """Of a bare list, sorted: its order does not matter. Brackets are not looked into."""
    has_brackets = any(mark in text for mark in "()[]{}=<>")
    return [text] if has_brackets else sorted(canonical(part) for part in text.split(","))


def _is_surely_wrong(given: str, answer: str) -> bool:
    """What math-verify would take for equal, or spend time on."""
    if any(DOTS.search(text) for text in (given, answer)):
        return True  # It drops dots: 1, 2, ..., n would be 1, 2, n.
    if is_word(given) and is_word(answer) and min(len(given), len(answer)) >= MIN_WORD:
        return True  # It takes letters for factors, in any order.
    if BASED.fullmatch(given) and BASED.fullmatch(answer):
        return True  # It drops bases.
    units = [MEASURED.fullmatch(text) for text in (given, answer)]
    if None in units:
        return False
    return units[0][2] != units[1][2] and {units[0][2], units[1][2]} <= SCALED


def _label_verdict(given: str, answer: str) -> bool | None:
    """Where one side is a multiple-choice label, alone or before its value."""
    (label, value), (wanted, wanted_value) = map(_label, (given, answer))
    if label is None or (wanted is None and not value):
        return None
    if wanted is not None and (label != wanted or not (value and wanted_value)):
        return label == wanted
    return quick_verdict(value, wanted_value) if value else None


def _label(text: str) -> tuple[str | None, str]:
    """(label, value): ("B", "12"), ("B", ""), or (None, the text)."""
    match = LABEL.fullmatch(text)
    if match is not None:
        return match["a"] or match["b"], match["rest"].strip()
    return (text, "") if re.fullmatch("[A-J]", text) else (None, text)


def readable_tail(text: str) -> str | None:
    """As much of a response's end as names no numbers too large to evaluate."""
    for tail in (text, text.rstrip().rpartition("\n")[2]):
        # In prose, an exclamation mark is none of mathematics.
        if not is_too_large(tidy(re.sub(r"!(?=\s|$)", "", tail))):
            return tail
    return None


@cache
def grader_version() -> str:
    """Changes whenever verdicts may: math-verify's version and a digest of our own sources."""
    return f"math-verify {version('math-verify')}, opo {source_digest('grading')[:12]}"
