"""A second, independent check of verdicts: equality of normalised text and of floats, no more.

It shares no code with the grader on purpose, and has no opinion on what asks for mathematics.
"""

from __future__ import annotations

import math
import re

RELATIVE = 1e-6
FRACTION = re.compile(r"(-?)\\[dt]?frac\{?(-?\d+)\}?\{?(-?\d+)\}?")
SCIENTIFIC = re.compile(r"(-?[\d.]+)(?:\\times|\\cdot|\*)10\^\{?(-?\d+)\}?")
DROPPED = re.compile(
    r"\\left|\\right|\\[,;!: ]|\\q?quad|\\(?:text|textbf|mathrm|mathbf)(?=\{)|\^\{?\\circ\}?"
    r"|\\?[$%]|[{}\s]|(?<=\d),(?=\d{3}\b)"
)
SEPARATED = re.compile(r",(?:\s|\\[,;: ])")
MAX_CHARACTERS = 2000


def second_opinion(extracted: str | None, answer: str) -> bool | None:
    """Whether an answer is right by text and plain numbers alone; None where that cannot tell."""
    if extracted is None or not extracted.strip():
        return False
    if max(len(extracted), len(answer)) > MAX_CHARACTERS:
        return True if extracted.strip() == answer.strip() else None
    given, reference = DROPPED.sub("", extracted), DROPPED.sub("", answer)
    if given.casefold() == reference.casefold():
        return True
    values = _value(extracted), _value(answer)
    if None not in values:
        are_whole = all(value.is_integer() for value in values)
        return math.isclose(*values, rel_tol=0 if are_whole else RELATIVE)
    are_words = all(text.isalpha() and len(text) > 3 for text in (given, reference))
    return False if are_words else None


def _value(text: str) -> float | None:
    """A plain number as a float, or None."""
    if SEPARATED.search(text) or "_" in text:  # Python takes 1_0 for 10.
        return None
    text = re.sub(r"\\[,;!: ]|[\s$]|\\left|\\right|\{,\}", "", text).removesuffix(".")
    text = FRACTION.sub(r"\1\2/\3", text) if FRACTION.fullmatch(text) else text
    text = SCIENTIFIC.sub(r"\1e\2", text) if SCIENTIFIC.fullmatch(text) else text
    above, slash, below = DROPPED.sub("", text).replace("--", "").partition("/")
    try:
        value = float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    return value if math.isfinite(value) else None
