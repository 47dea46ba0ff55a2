"""Answers that name numbers too large to evaluate, told without evaluating anything.

A bound on the size of what an answer names is carried through powers, factorials and binomials, as
the logarithm of a magnitude. It is an upper bound for what holds numbers only: sums count as
products, and letters as one (what holds letters stays symbolic). It need not be perfect, for
workers can be killed; it spares them most of what would, and never refuses an ordinary answer.
"""

from __future__ import annotations

import math
import re

MAX_DEPTH = 20
MAX_DIGIT_RUN = 1000
MAX_ARGUMENT = 4.0001
"""Decimal digits of an exponent, or of what a factorial is taken of: 9999."""
MAX_DIGITS = 50_000.0
"""Decimal digits of any number that comes out."""

TOKENS = re.compile(
    r"[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+|\\[A-Za-z]+|\*\*|\\.|[A-Za-z]|\S",
    re.DOTALL,
)
NUMERAL = re.compile(r"\.?[0-9]")
E_NOTATION = re.compile(r"[0-9.]\s*[eE]\s*[+-]?\s*0*[1-9][0-9]{4}")
OPEN = {"{": "}", "(": ")", "[": "]"}
CLOSE = frozenset(OPEN.values())
CONSTANTS = {"e": math.log10(math.e), r"\pi": math.log10(math.pi), r"\infty": 0.0}
ITERATED = frozenset((r"\sum", r"\prod", r"\int", r"\bigcup", r"\bigcap"))
CHOICES = frozenset((r"\binom", r"\dbinom", r"\tbinom", r"\choose"))


class TooLargeError(Exception):
    """Some number has too many digits."""


class Size:
    """An upper bound for the logarithm of what a stretch of text names."""

    __slots__ = ("has_letters", "log")

    def __init__(self, log: float = 0.0, has_letters: bool = False):
        self.log = log
        self.has_letters = has_letters


def is_too_large(text: str) -> bool:
    """Whether an answer names numbers that would take too long to evaluate, or nests too deeply.

    Total. `text` is tidied: digits and signs beyond ASCII are read as names.
    """
    if re.search(rf"[0-9]{{{MAX_DIGIT_RUN + 1}}}", text) or E_NOTATION.search(text):
        return True
    tokens = [token for token in TOKENS.findall(text) if token not in (r"\left", r"\right")]
    try:
        _Reader(tokens).sequence(None, 0)
    except (TooLargeError, ValueError, OverflowError, RecursionError):
        return True  # What cannot be bounded is not small.
    return False


class _Reader:
    """Reads tokens from left to right; every method leaves `place` after what it has read."""

    def __init__(self, tokens: list[str]):
        self.tokens = tokens
        self.place = 0

    def sequence(self, closing: str | None, depth: int) -> Size:
        """Up to the closing bracket, or the end."""
        total = Size()
        while self.place < len(self.tokens):
            token = self.tokens[self.place]
            if token in CLOSE:
                self.place += 1
                if closing is not None:
                    break
                continue
            factor = self.factor(depth)
            total.log += factor.log
            total.has_letters |= factor.has_letters
            if total.log > MAX_DIGITS:
                raise TooLargeError
        return total

    def factor(self, depth: int) -> Size:
        """One atom, with the powers and factorials that follow it."""
        token = self.tokens[self.place]
        is_iterated, is_group = token in ITERATED, token == "("
        size = self.atom(depth)
        while self.place < len(self.tokens):
            token = self.tokens[self.place]
            if token in ("^", "**"):
                self.place += 1
                size = _bound_of_range(self, depth) if is_iterated else self.power(size, depth)
            elif token == "!":
                self.place += 1
                size = factorial(size)
            elif token == "_":
                self.place += 1
                index = self.atom(depth + 1) if self.place < len(self.tokens) else Size()
                if is_group:  # (n)_k is read as the falling factorial.
                    factorial(size)
                size.has_letters |= index.has_letters
            else:
                break
        return size

    def power(self, base: Size, depth: int) -> Size:
        if self.place >= len(self.tokens):
            return base
        sign = self.tokens[self.place] in "+-"
        self.place += sign and self.place + 1 < len(self.tokens)
        exponent = self.factor(depth + 1)  # To the right first: 2^3^4 is 2^(3^4).
        if exponent.has_letters:
            return Size(base.log, True)
        if exponent.log > MAX_ARGUMENT:
            raise TooLargeError
        return Size(base.log * 10**exponent.log, base.has_letters)

    def atom(self, depth: int) -> Size:
        """Whatever reads further atoms passes a greater depth: it ends here."""
        if depth > MAX_DEPTH:
            raise TooLargeError
        token = self.tokens[self.place]
        self.place += 1
        if token in OPEN:
            return self.sequence(OPEN[token], depth + 1)
        if NUMERAL.match(token):
            return Size(_digits(token))
        if token in CONSTANTS:
            return Size(CONSTANTS[token])
        if token in CHOICES:
            return self.choice(depth)
        if token == r"\Gamma" and self.place < len(self.tokens):
            return factorial(self.atom(depth + 1))
        return Size(0.0, token.isalpha())

    def choice(self, depth: int) -> Size:
        """Binomials: at most n^k, and k may be taken as the smaller of the two."""
        above = self.atom(depth + 1) if self.place < len(self.tokens) else Size()
        below = self.atom(depth + 1) if self.place < len(self.tokens) else Size()
        if above.has_letters or below.has_letters:
            return Size(0.0, True)
        smaller = min(above.log, below.log)
        if smaller > MAX_ARGUMENT:
            raise TooLargeError
        return Size(above.log * 10**smaller)


def _bound_of_range(reader: _Reader, depth: int) -> Size:
    """The upper end of a sum or product: so many terms."""
    if reader.place >= len(reader.tokens):
        return Size()
    bound = reader.factor(depth + 1)
    if not bound.has_letters and bound.log > MAX_ARGUMENT:
        raise TooLargeError
    return Size()


def factorial(size: Size) -> Size:
    """Of what is at most 10^log."""
    if size.has_letters:
        return size
    if size.log > MAX_ARGUMENT:
        raise TooLargeError
    value = 10**size.log
    return Size(max(value * size.log, 0.31), False)


def _digits(token: str) -> float:
    """log10 of a number as written, at least that of 2; small numbers count by their reciprocal."""
    mantissa, _, exponent = token.lower().partition("e")
    whole, _, places = mantissa.partition(".")
    whole = whole.lstrip("0")
    size = len(whole) - 1 + math.log10(float(f"{whole[0]}.{whole[1:16]}")) if whole else 0.0
    return max(size, len(places) if not whole else 0.0, 0.31) + abs(int(exponent or 0))
