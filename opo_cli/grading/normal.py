"""One spelling for answers that are written differently, without any mathematics library.

`tidy` keeps an answer LaTeX, for the parser; `canonical` makes the form in which answers are
counted and compared; `number` reads plain numbers. All are total, and linear in their text.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

MAX_CANONICAL_CHARACTERS = 2000
MAX_DIGITS = 1000
MAX_EXPONENT = 400  # 10^400 is beyond any float, and still quick to write out.

SYMBOLS = {
    **{
        "−": "-",
        "–": "-",
        "—": "-",
        "‐": "-",
        "‑": "-",
        "×": r"\times ",
        "÷": r"\div ",
        "·": r"\cdot ",
    },
    **{"⋅": r"\cdot ", "∗": "*", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge "},
    **{"≠": r"\ne ", "±": r"\pm ", "∓": r"\mp ", "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap "},
    **{"∈": r"\in ", "∅": r"\emptyset ", "π": r"\pi ", "θ": r"\theta ", "α": r"\alpha "},
    **{"β": r"\beta ", "°": r"^{\circ}", "º": r"^{\circ}", "…": r"\ldots ", "⋯": r"\cdots "},
    **{
        "’": "'",
        "‘": "'",
        "“": '"',
        "”": '"',
        "′": "'",
        "，": ",",
        "：": ":",
        "；": ";",
        "。": ".",
    },
    **{"ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}"},
    **dict.fromkeys("\xa0\u2002\u2003\u2007\u3000", " "),
    **dict.fromkeys("\u2009\u200a\u202f", r"\,"),
    **dict.fromkeys("\ufeff\xad", ""),
}
SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n", strict=True))
SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
RAISED = re.compile(f"[{''.join(SUPERSCRIPTS)}]+")
LOWERED = re.compile(f"[{''.join(SUBSCRIPTS)}]+")
ROOT = re.compile(r"√\s*(\d+(?:\.\d+)?|[A-Za-z]|\{[^{}]*\}|\([^()]*\))")
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

WRAPPER = re.compile(
    r"\$\$(?P<a>[^$]*)\$\$|\$(?P<b>[^$]*)\$|\\\((?P<c>[^\\]*(?:\\(?!\)).[^\\]*)*)\\\)"
    r"|\\\[(?P<d>[^\\]*(?:\\(?!\]).[^\\]*)*)\\\]"
    r"|\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|mbox|boldsymbol|bm|boxed|fbox"
    r"|underline)"
    r"\s*\{(?P<e>[^{}]*)\}|\{(?P<f>[^{}]*)\}|\*\*(?P<g>[^*]*)\*\*",
    re.DOTALL,
)
LAYOUT = re.compile(
    r"\\(?:displaystyle|textstyle|limits|[Bb]igg?|[Ll]arge|bf|rm)(?![A-Za-z])\s*"
    r"|\\(?:text)?color\s*\{[A-Za-z]*\}\s*"
)
DELIMITERS = re.compile(r"\\m?(?:left|right|bigl|bigr|Bigl|Bigr)(?![A-Za-z])\s*\.?")
GROUPED = re.compile(r"(?<=\d)(?:\{,\}|\\[,;: ]\s*|,?\\!\s*)(?=\d{3}(?!\d))")
RUN = re.compile(r"(?<![\d.,])\d+(?:,\d+)+")
THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+")
ZEROS = re.compile(r",0\d\d")
SEPARATING = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
SPACED_COMMA = re.compile(r",(?:\\[,;: ]|~|\s)+")
SPACE = r"\\[,;:!> ]|\\q?quad(?![A-Za-z])|~|\s"
SPACES = re.compile(rf"(?:{SPACE})+")
SPACES_BUT_ONE = re.compile(rf"(?<=\d)((?:{SPACE}))(?:{SPACE})*(?=\d)|(?:{SPACE})+")
ORDINAL = re.compile(
    r"(\d+)\s*(?:\^\s*)?\{?\s*(?:\\(?:text|textrm|mathrm|mbox)\s*\{)?\s*(?:st|nd|rd|th)\s*\}{0,2}"
)
BASE = re.compile(r"\(\s*([0-9A-Fa-f]{1,99})\s*\)\s*_\s*(?:\{\s*(\d{1,2})\s*\}|(\d{1,2}))")
SPACED_THOUSANDS = re.compile(r"-?\d{1,3}(?: \d{3})+(?:\.\d+)?")
WITH_DOTS = re.compile(r"(?<![\d.])(-?\d*\.\d+)\s*(?:\\[lc]?dots(?![A-Za-z])|\.\.\.)(?!\s*[,;\d])")
WORDS = re.compile(r"[A-Za-z][A-Za-z' ]+")
DOTS = re.compile(r"\\(?:ldots|cdots|dotsc|dotsb|dots)(?![A-Za-z])|\.\.\.")


def tidy(text: str) -> str:
    """The same answer in plain ASCII LaTeX as far as it goes: Unicode signs and digits, wrappers
    around the whole, layout commands, and marks that group digits."""
    if not text.isascii():
        text = _without_unicode(text)
    text = "".join(c for c in ESCAPES.sub("", text) if c.isprintable() or c in "\n\t")
    text = text.strip().rstrip(" ,;\n\t").rstrip("\\")  # Line ends and thin spaces, too.
    text = _unwrapped(LAYOUT.sub("", text).strip())
    text = DELIMITERS.sub("", text)
    text = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", text)
    text = BASE.sub(lambda m: f"{m[1]}_{{{m[2] or m[3]}}}", _ungrouped(text))
    text = WITH_DOTS.sub(_without_dots, text)
    text = text.replace(r"\$", "").replace("$", "").strip()
    if text.endswith(".") and not text.endswith(".."):
        text = text[:-1].rstrip()
    ordinal = ORDINAL.fullmatch(text)
    if ordinal is not None:
        return ordinal[1]
    return text.replace(" ", "") if SPACED_THOUSANDS.fullmatch(text) else text


def _ungrouped(text: str) -> str:
    """Without the marks between thousands. A comma before a space is none of them, and in brackets
    only one before what is no number by itself: (1,000) is one number, (1,200) a pair."""
    text = GROUPED.sub("", SPACED_COMMA.sub(", ", text))
    has_brackets = any(mark in text for mark in ("(", "[", r"\{"))

    def plain(match: re.Match[str]) -> str:
        is_one = THOUSANDS.fullmatch(match[0]) and (not has_brackets or ZEROS.search(match[0]))
        return match[0].replace(",", "") if is_one else match[0]

    return RUN.sub(plain, text)


def _without_dots(match: re.Match[str]) -> str:
    """0.333... is a third; 3.14... is no more than 3.14."""
    decimal, last = match[1], match[1][-1]
    fixed = decimal.rstrip(last)
    is_repeating = len(decimal) - len(fixed) >= 3 and last != "0" and "." in fixed
    return rf"{fixed}\overline{{{last}}}" if is_repeating else decimal


def _without_unicode(text: str) -> str:
    text = RAISED.sub(lambda m: "^{" + "".join(map(SUPERSCRIPTS.get, m[0])) + "}", text)
    text = LOWERED.sub(lambda m: "_{" + "".join(map(SUBSCRIPTS.get, m[0])) + "}", text)
    text = ROOT.sub(lambda m: rf"\sqrt{{{m[1].strip('{}')}}}", text)
    return "".join(c if c.isascii() else _ascii(c) for c in text)


def _ascii(character: str) -> str:
    if character in SYMBOLS:
        return SYMBOLS[character]
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category == "Cf":  # Zero-width marks and directions: nothing that a reader sees.
        return ""
    plain = unicodedata.normalize("NFKC", character)
    if "⁄" in plain:
        above, _, below = plain.partition("⁄")
        return rf"\frac{{{above}}}{{{below}}}"
    return plain


def _unwrapped(text: str) -> str:
    """Without what stands around the whole: dollars, brackets of math mode, `\\text{}`, braces."""
    for _ in range(8):
        match = WRAPPER.fullmatch(text)
        if match is None:
            break
        text = next(group for group in match.groups() if group is not None).strip()
    return text


def is_blank(text: str) -> bool:
    """Whether an answer holds nothing that could be read: spaces, empty groups, no more."""
    rest = re.sub(r"\\(?:text|textbf|textrm|mathrm|mbox)(?![A-Za-z])", "", SPACES.sub("", text))
    return not rest.strip("{}$ ()\n")


INTEGER = r"\d+"
DECIMAL = rf"(?:{INTEGER})?\.\d+|(?:{INTEGER})\.?"
PLAIN = re.compile(
    rf"(?P<sign>[+-]?)(?:(?P<whole>\d+)(?=\\frac))?"
    rf"(?:\\frac(?:\{{(?P<above>[+-]?\d+)\}}|(?P<a>\d))(?:\{{(?P<below>[+-]?\d+)\}}|(?P<b>\d))"
    rf"|(?:(?P<before>\d+) )?(?P<over>{INTEGER})/(?P<under>{INTEGER})"
    rf"|(?P<fixed>(?:{INTEGER})?\.\d*)\\(?:overline|bar|dot)\{{(?P<repeating>\d+)\}}"
    rf"|(?P<decimal>{DECIMAL})?"
    r"(?:(?:(?(decimal)[eE]|(?!))|(?(decimal)(?:\\times|\\cdot|\*)|)10\^)"
    r"(?:\{(?P<p>[+-]?\d+)\}|(?P<q>[+-]?\d+)))?)"
    r"(?P<unit>\\?%|\^\{?\\circ\}?|\\degree)?"
)


@dataclass(frozen=True, slots=True)
class Number:
    """A plain number, exactly."""

    value: Fraction
    digits: int | None
    """Significant digits as written; None for what is exact: integers and fractions."""
    half_unit: Fraction
    """Half a unit of the last digit, where `digits` is not None."""
    is_percent: bool


def number(text: str) -> Number | None:
    """A plain number: integer, decimal, fraction, mixed or repeating, with a power of ten, a
    percent or a degree sign; else None. `text` is tidied and compact."""
    if len(text) > MAX_DIGITS and text.lstrip("+-").isdigit():
        text = text.lstrip("+-0") if not text.startswith("-") else "-" + text.lstrip("+-0")
    match = PLAIN.fullmatch(text) if len(text) <= MAX_DIGITS + 40 else None
    if match is None or not re.search(r"\d", text):
        return None
    sign = -1 if match["sign"] == "-" else 1
    is_percent = "%" in (match["unit"] or "")
    found = _fraction(match) if match["decimal"] is None else None
    if found is not None:
        return Number(sign * found, None, Fraction(0), is_percent)
    return _decimal(match, sign, is_percent)


def _fraction(match: re.Match[str]) -> Fraction | None:
    if match["repeating"] is not None:
        return _repeating(match["fixed"], match["repeating"])
    above = match["above"] or match["a"] or match["over"]
    if above is None:
        return None
    below = int(match["below"] or match["b"] or match["under"])
    whole = int(match["whole"] or match["before"] or 0)
    return Fraction(int(above), below) + whole if below else None


def _repeating(fixed: str, repeating: str) -> Fraction:
    whole, _, places = fixed.partition(".")
    start = Fraction(int((whole + places) or 0), 10 ** len(places))
    return start + Fraction(int(repeating), (10 ** len(repeating) - 1) * 10 ** len(places))


def _decimal(match: re.Match[str], sign: int, is_percent: bool) -> Number | None:
    power = match["p"] or match["q"]
    if match["decimal"] is None and power is None:
        return None
    if power is not None and (len(power) > 5 or abs(int(power)) > MAX_EXPONENT):
        return None
    written = match["decimal"] or "1"
    whole, point, places = written.partition(".")
    unit = Fraction(10) ** (int(power or 0) - len(places))
    value = sign * int(whole + places) * unit
    if match["decimal"] is None or not (places or power or point):  # 10^-3, and integers.
        return Number(value, None, Fraction(0), is_percent)
    return Number(value, len((whole + places).lstrip("0")), unit / 2, is_percent)


def canonical(answer: str) -> str:
    """The form in which answers are counted as the same: normalised text, and one form for equal
    plain numbers (0.5, 1/2, \\frac12 and .50; 1,000 and 1{,}000; 025 and 25; 50\\% and 50).

    Pure and total. Texts beyond `MAX_CANONICAL_CHARACTERS` are told apart by a digest.
    """
    if len(answer) > MAX_CANONICAL_CHARACTERS:
        stripped = answer.strip().lstrip("0") if answer.strip().isdecimal() else answer.strip()
        if len(stripped) > MAX_CANONICAL_CHARACTERS:
            digest = hashlib.sha256(stripped.encode(errors="surrogatepass")).hexdigest()
            return f"{stripped[:20]}...{digest}"
        answer = stripped or "0"
    text = tidy(answer)
    bare = compact(text)
    found = number(bare)
    if found is not None:
        return str(found.value)
    return bare.casefold() if is_word(text) else bare


def is_word(text: str) -> bool:
    """Whether an answer is words only, where case does not matter; one letter is a variable."""
    return WORDS.fullmatch(text) is not None


def compact(text: str) -> str:
    """Without spaces, and with one spelling for what looks the same; `text` is tidied."""
    text = SPACES_BUT_ONE.sub(lambda m: " " if m[1] else "", text)  # "3 4" is not 34.
    text = SEPARATING.sub(", ", text)  # Else they would be thousands to whoever reads this.
    text = DOTS.sub(r"\\ldots", text)
    text = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"([_^])\{([A-Za-z0-9])\}", r"\1\2", text)
    text = re.sub(r"\\sqrt(\d|[A-Za-z])", r"\\sqrt{\1}", text)
    text = re.sub(r"\\pmod(\w)", r"\\pmod{\1}", text)
    text = text.replace(r"\varnothing", r"\emptyset").replace(r"\{\}", r"\emptyset")
    return re.sub(r"\\(?:text|mathrm|textrm|mbox)\{([^{}]*)\}", r"\1", text)


MIN_DIGITS_OF_FRACTION = 5
MIN_DIGITS_OF_DECIMAL = 7
DIGITS_OF_FLOAT = 15
RELATIVE = Fraction(1, 10**9)


def same_number(given: Number, answer: Number) -> bool:
    """Whether two plain numbers are the same answer.

    Exact ones must be equal. A decimal may be the other one rounded, where it states digits enough
    (5 beside a fraction, 7 beside a decimal): relative, so that tiny numbers differ. A float
    printed in full may be off by its error, but not where one side is whole. 50\\% is 50, and 0.5.
    """
    values = [given.value]
    if given.is_percent and not answer.is_percent:
        values.append(given.value / 100)
    elif answer.is_percent and not given.is_percent:
        values.append(given.value * 100)
    return any(_close(value, given, answer) for value in values)


def _close(value: Fraction, given: Number, answer: Number) -> bool:
    difference = abs(value - answer.value)
    if not difference:
        return True
    decimals = [side for side in (given, answer) if side.digits is not None]
    if not decimals:
        return False
    are_broken = all(side.value.denominator > 1 for side in (given, answer))
    is_float = are_broken and max(side.digits for side in decimals) >= DIGITS_OF_FLOAT
    if is_float and difference <= RELATIVE * abs(answer.value):
        return True
    coarse = min(decimals, key=lambda side: side.digits)
    is_fraction = len(decimals) == 1 and any(
        side.digits is None and side.value.denominator > 1 for side in (given, answer)
    )
    enough = MIN_DIGITS_OF_FRACTION if is_fraction else MIN_DIGITS_OF_DECIMAL
    return coarse.digits >= enough and difference <= coarse.half_unit
