"""Answers in words: labels of choices, amounts with units, and words that are no products of
letters. All texts are tidied, but where said."""

from __future__ import annotations

import re
from dataclasses import replace
from string import ascii_lowercase

from opo_cli.grading.normal import SPACE, Number, compact, is_word, number, same_number

TEXT = r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*\{"
LABEL = re.compile(
    # A label, perhaps with its value: \textbf{(B)}\ 12, \text{(B) }12, (B) 12, B. 12, Option B.
    rf"(?:{TEXT}\s*\(?(?P<a>[A-J])\)?\s*[.:)]?\s*\}}|\((?P<b>[A-J])\)"
    rf"|(?P<c>[A-J])[.:)](?=\s|$|\\[ ,;:])|(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s+(?P<d>[A-J])(?!\w))"
    rf"(?:{SPACE}|[.:])*(?P<rest>.*)",
    re.DOTALL,
)
STATED_LABEL = re.compile(r"\b(?i:answer|option|choice)(?:\s+is)?\W{0,6}\(?([A-J])\)?(?![A-Za-z])")
IN_TEXT = re.compile(rf"[\s$]*(?:{TEXT}\s*\(?[A-Za-z' ]+\)?\s*\}}|\([A-Za-z]\))[\s$.]*")

MIN_WORD = 4
"""Letters; fewer may be a product of variables, where nothing says that they are a word."""
SHORT_WORDS = frozenset(("no", "yes", "odd", "all", "one", "two", "six", "ten", "red"))

BASED = re.compile(r"(\d+)_\{?(\d{1,2})\}?")
ABBREVIATED = re.compile(
    r"(.*?\d\}*)(?:\\[ ,;:]|~|\s)*(?:\\(?:text|mathrm|textrm|mbox)\{\s*)?([a-z]{1,2})\s*\}?"
)
SCALED = frozenset(("mm", "cm", "m", "km", "mg", "g", "kg", "ms", "s", "h", "ml", "l"))
"""Units that differ by a factor: 5 m is not 5 cm, though either may be stated as 5."""

MULTIPLES = {
    **{"dozen": 12, "hundred": 100, "thousand": 1000},
    **{"million": 10**6, "billion": 10**9, "trillion": 10**12},
}
AMOUNT = re.compile(
    rf"(?P<amount>\S.*?)(?:(?:{SPACE})*{TEXT}|(?:{SPACE}))(?:{SPACE})*"
    rf"(?:(?P<multiple>{'|'.join(MULTIPLES)})(?![A-Za-z]))?(?:{SPACE})*"
    rf"(?P<unit>[A-Za-z]{{3,}})?\.?\s*\}}?",
    re.DOTALL,
)
NO_UNITS = frozenset(
    (
        *(
            "mod",
            "and",
            "choose",
            "factorial",
            "squared",
            "cubed",
            "plus",
            "minus",
            "times",
            "over",
        ),
        *(
            "half",
            "halves",
            "base",
            "root",
            "sqrt",
            "sin",
            "cos",
            "tan",
            "cot",
            "csc",
            "log",
            "exp",
        ),
        *("arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "gcd", "lcm", "det", "dim", "max"),
        *("alpha", "beta", "gamma", "delta", "theta", "lambda", "sigma", "omega", "infinity"),
    )
)
IRREGULAR = {"feet": "foot", "people": "person"}


def label(text: str) -> tuple[str | None, str]:
    """(label, value): ("B", "12"), ("B", ""), or (None, the text)."""
    match = LABEL.fullmatch(text)
    if match is not None:
        return match["a"] or match["b"] or match["c"] or match["d"], match["rest"].strip()
    return (text, "") if re.fullmatch("[A-J]", text) else (None, text)


def unlabelled(given: str, answer: str) -> tuple[str, str]:
    """The values alone, where both sides have one and their labels do not differ."""
    (label_given, value), (wanted, wanted_value) = label(given), label(answer)
    differ = None not in (label_given, wanted) and label_given != wanted
    return (value, wanted_value) if value and wanted_value and not differ else (given, answer)


def label_verdict(given: str, answer: str) -> bool | None:
    """Where both sides are labels, of what `unlabelled` left."""
    labels = label(given)[0], label(answer)[0]
    return None if None in labels else labels[0] == labels[1]


def is_in_text(answer: str) -> bool:
    """Whether an answer, as stated, is letters in `\\text` or the like, or one in parentheses."""
    return len(answer) < 200 and IN_TEXT.fullmatch(answer) is not None


def letters_verdict(given: str, answer: str, in_text: tuple[bool, bool]) -> bool | None:
    """Of answers that are letters alone, and not the same text: a single one is a variable, or the
    label of a choice where both say so; words are no products of letters."""
    sides = given.casefold(), answer.casefold()
    if len(given) == len(answer) == 1 and (given + answer).isalpha():
        return sides[0] == sides[1] and all(in_text)
    if not (is_word(given) and is_word(answer)):
        return None
    are_words = (
        any(in_text) or min(map(len, sides)) >= MIN_WORD or not SHORT_WORDS.isdisjoint(sides)
    )
    return False if are_words else None


def amount_verdict(given: str, answer: str) -> bool | None:
    """Of plain numbers with units in words: a unit may be left out, but not be another."""
    sides = _amount(given), _amount(answer)
    if None in sides:
        return None
    (amount, unit), (wanted, wanted_unit) = sides
    units = {unit, wanted_unit} - {None, "unit"}
    return len(units) < 2 and same_number(amount, wanted)


def have_other_units(given: str, answer: str) -> bool:
    """Abbreviated units of another size, or digits in another base."""
    if BASED.fullmatch(given) and BASED.fullmatch(answer):
        return True
    sides = [ABBREVIATED.fullmatch(text) for text in (given, answer)]
    if None in sides:
        return False
    return sides[0][2] != sides[1][2] and {sides[0][2], sides[1][2]} <= SCALED


def _amount(text: str) -> tuple[Number, str | None] | None:
    """A plain number and its unit, in the singular."""
    plain = number(compact(text))
    if plain is not None:
        return plain, None
    match = AMOUNT.fullmatch(text) if len(text) < 200 else None
    found = None if match is None else number(compact(match["amount"]))
    unit = None if found is None or match["unit"] is None else match["unit"].casefold()
    if found is None or (unit is not None and not _is_unit(unit)):
        return None
    if match["multiple"] is not None:
        times = MULTIPLES[match["multiple"]]
        found = replace(found, value=found.value * times, half_unit=found.half_unit * times)
    if unit == "percent":
        return replace(found, is_percent=True), None
    return found, unit and IRREGULAR.get(unit, unit.removesuffix("s").removesuffix("e"))


def _is_unit(word: str) -> bool:
    is_variables = word in ascii_lowercase or not re.search("[aeiouy]", word)  # abc, xyz, pqr, mgh.
    return word not in NO_UNITS and not is_variables
