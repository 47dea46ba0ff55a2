"""Equality of two answers by math-verify, with what it gets wrong put right before and after.

Slow at times, and may hang or take all memory: run it where it can be killed. Its own timeouts are
off, for they would turn a hang into "wrong".
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import product
from typing import Any, Literal

EXACT_TOLERANCE = 1e-10
DECIMAL_TOLERANCE = 1e-4
CACHED = 1000

E_NOTATION = re.compile(r"(?<![A-Za-z\d.])(\d+(?:\.\d*)?|\.\d+)\s?[eE]\s?\{?([+-]?\d+)\}?")
REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar|dot)\s*\{(\d+)\}")
BARE_NAMES = re.compile(
    r"(?<![\\A-Za-z])(sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|ln|log|exp|pi)(?![A-Za-z])"
)
STARS = re.compile(r"\*\*\s*(-?\w+)")
TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s*\^\s*\{?\s*\\circ\s*\}?")
ODD_ROOT = re.compile(r"\\sqrt\[([3579])\]\{\s*-([^{}+-]*)\}")
CONDITION = re.compile(r"(?<=[^,\s])\s*,\s*\(?[A-Za-z]\s*\\in\s*\\mathbb\s*\{?[ZNRQC]\}?\)?$")
PREFACE = re.compile(r"^\\text\s*\{[^{}]*\b(?:is|are)\s*:?\s*\}\s*(?=\S)")
POWER = re.compile(r"\^\s?\(([^()]*)\)")
UNIT_AFTER_SPACE = re.compile(
    r"(?<=\d)(?:\\[ ,;:]|~|\s)+(?:m|s|g|h|t|d|l|L|J|N|K|W|V|A|C|F|Hz|Pa|cm|mm|km|kg|mg)"
    r"(?:\^\{?[23]\}?)?$"
)
FINAL_LETTERS = re.compile(r"(?<![A-Za-z\\])([A-Za-z]{1,2})$")
SHORT_UNITS = frozenset(
    ["cm", "mm", "km", "dm", "kg", "mg", "gm", "ft", "hr", "lb", "yr", "sq", "am", "pm", "rs", "in"]
)
IMAGINARY = re.compile(r"(?<=\d)i(?![A-Za-z])")
SIGNS = re.compile(r"\\(pm|mp)(?![A-Za-z])")
MAX_SIGNS = 3

Outcome = Literal["correct", "wrong", "unparsed"]


def judge(given: str, answer: str, is_marked: bool) -> Outcome:
    """Whether `given` is the answer; both tidied. Gold comes first: `verify` is not symmetric.

    Args:
        is_marked: False where `given` is the end of a response, in which math-verify looks for the
            answer by itself.
    """
    import math_verify

    gold = _read(_boxed(answer))
    found = _read(_boxed(given) if is_marked else given)
    if gold and found:
        gold, found = _with_imaginary_unit(gold), _with_imaginary_unit(found)
    if not gold or not found:
        return "unparsed" if gold else "wrong"
    equal = math_verify.verify(
        list(gold), list(found), timeout_seconds=None, allow_set_relation_comp=True
    )
    if equal and _is_near(gold[0], found[0]):
        return "correct"
    is_readable = not isinstance(found[0], str) or isinstance(gold[0], str)
    return "wrong" if is_readable else "unparsed"


@lru_cache(maxsize=CACHED)
def _read(text: str) -> tuple[Any, ...]:
    import math_verify

    return tuple(math_verify.parse(text, parsing_timeout=None))


def _boxed(text: str) -> str:
    """In a box, bare LaTeX is read as LaTeX: without, it comes out empty or wrong."""
    return "\\boxed{" + spelled(text) + "}"


def spelled(text: str) -> str:
    """An answer in words that math-verify reads as they are meant."""
    text = PREFACE.sub("", CONDITION.sub("", text))
    text = text.replace(r"\langle", "(").replace(r"\rangle", ")")
    text = STARS.sub(r"^{\1}", text)
    if "\\text" not in text:
        text = BARE_NAMES.sub(r"\\\1", text)
    if TRIGONOMETRIC.search(text):
        text = DEGREES.sub(r"{(\\frac{\1 \\pi}{180})}", text)
    text = ODD_ROOT.sub(r"(-\\sqrt[\1]{\2})", text)
    text = E_NOTATION.sub(r"\1 \\times 10^{\2}", text)
    text = REPEATING.sub(_fraction, text)
    text = IMAGINARY.sub(" i", POWER.sub(r"^{\1}", text))
    text = UNIT_AFTER_SPACE.sub("", text)
    final = FINAL_LETTERS.search(text)
    is_differential = "\\int" in text
    if (
        final is not None and final[1] not in SHORT_UNITS and not is_differential
    ):  # Variables, that it takes for units.
        text = text[: final.start()] + "".join(f"{{{letter}}}" for letter in final[1])
    return _both_signs(text)


def _fraction(match: re.Match[str]) -> str:
    whole, fixed, repeating = match.groups()
    above = int(whole + fixed + repeating) - int((whole + fixed) or 0)
    below = (10 ** len(repeating) - 1) * 10 ** len(fixed)
    return rf"\frac{{{above}}}{{{below}}}"


def _both_signs(text: str) -> str:
    """`(3 \\pm \\sqrt5)/2` as both numbers; `\\mp` goes with `\\pm`, several `\\pm` each alone."""
    kinds = SIGNS.findall(text)
    if not 0 < len(kinds) <= MAX_SIGNS or re.search(r"[,;]|\\text|\\begin|=", text):
        return text
    is_coupled = "mp" in kinds
    choices = [(s,) * len(kinds) for s in "+-"] if is_coupled else product("+-", repeat=len(kinds))
    return ", ".join(_with_signs(text, kinds, signs) for signs in choices)


def _with_signs(text: str, kinds: list[str], signs: tuple[str, ...]) -> str:
    opposite = {"+": "-", "-": "+"}
    plain = iter(s if kind == "pm" else opposite[s] for kind, s in zip(kinds, signs, strict=True))
    return SIGNS.sub(lambda _: f" {next(plain)} ", text)


def _with_imaginary_unit(parsed: tuple[Any, ...]) -> tuple[Any, ...]:
    """Where i is the only letter it is the imaginary unit; math-verify leaves it a variable."""
    import sympy

    first, *rest = parsed
    names = {s.name for s in getattr(first, "free_symbols", ())}
    if names != {"i"} or not isinstance(first, sympy.Expr):
        return parsed
    return (first.subs(dict.fromkeys(first.free_symbols, sympy.I)), *rest)


def _is_near(gold: Any, found: Any) -> bool:
    """Whether numbers that math-verify takes as equal are so relatively: it compares to so many
    decimal places, so that all tiny numbers are the same to it."""
    import sympy

    if not all(isinstance(x, sympy.Expr) and x.is_number for x in (gold, found)):
        return True
    if gold == found:
        return True
    try:
        if found.is_zero or gold.is_zero:
            return bool(found.is_zero and gold.is_zero) or not _is_plain(gold, found)
        away = abs(sympy.N(gold / found, 30) - 1)
        percent = abs(sympy.N(gold / found / 100, 30) - 1), abs(sympy.N(gold * 100 / found, 30) - 1)
        has_decimals = gold.has(sympy.Float) or found.has(sympy.Float)
        tolerance = DECIMAL_TOLERANCE if has_decimals else EXACT_TOLERANCE
        return not all(x > tolerance for x in (away, *percent))
    except (ArithmeticError, ValueError, TypeError, AttributeError):
        return True


def _is_plain(*numbers: Any) -> bool:
    import sympy

    return all(isinstance(x, sympy.Number) for x in numbers)
