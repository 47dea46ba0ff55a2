"""One form for equal answers, on anything."""

from __future__ import annotations

import random
import time
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from opo_cli.grading.normal import canonical, compact, is_blank, number, same_number, tidy

quick = settings(deadline=None, derandomize=True)

SAME = [
    ("0.5", "1/2", r"\frac{1}{2}", r"\frac12", r"\dfrac{1}{2}", ".50", "½", "2/4", "$0.5$", "+.5"),
    ("1000", "1,000", "1{,}000", r"1\,000", "1000.0", "1 000", "1.0e3", r"10^{3}", "１０００"),
    ("25", "025", "25.", " 25 ", r"\text{25}", "{25}", r"\boxed{25}", "**25**", r"25\\", "25,"),
    ("-3", "−3", "–3", "- 3", r"-\,3", r"\frac{-6}{2}", "-3.00"),
    ("50", r"50\%", "50%", r"50^\circ", "50°", r"\$50"),
    ("1/3", r"0.\overline{3}", r"0.\bar{3}", "0.3333...", r"0.333\ldots"),
    ("7/2", r"3\frac{1}{2}", r"3\frac12", "3½", "3.5", "3 1/2"),
    ("even", "Even", r"\text{Even}"),
    ("x^2+1", "x^{2}+1", "x²+1", "x^2 + 1", r"x^2\,+\,1"),
    ("(1,2)", "(1, 2)", r"\left(1, 2\right)", "( 1,2 )"),
    ("", " ", r"\,", "{}", "$ $", r"\text{}"),
    (r"\emptyset", r"\varnothing", "∅", r"\{\}"),
]


def test_equal_answers_have_one_form_and_others_another():
    forms = [{canonical(answer) for answer in row} for row in SAME]
    assert [form for form in forms if len(form) != 1] == []
    assert len(set.union(*forms)) == len(SAME)


def test_no_number_is_read_across_a_comma_and_a_space():
    forms = [canonical(text) for text in ("1, 200", r"1,\ 200", "1,~200", r"\text{1, 200}")]
    assert set(forms) == {"1, 200"}
    assert canonical("1, 200") == canonical(canonical("1, 200")) != canonical("1,200") == "1200"
    assert canonical("(1, 200)") == canonical("(1,200)") != canonical("1200")


@pytest.mark.parametrize(
    "text", ["3 4", "1,00", "x=5", "5cm", "1/0", "5!", "e5", "1..2", "--5", "∞"]
)
def test_what_is_no_plain_number(text: str):
    assert number(compact(tidy(text))) is None


@quick
@given(st.fractions(), st.integers(0, 6))
def test_numbers_are_read_exactly(value: Fraction, places: int):
    assert number(f"{value.numerator}/{value.denominator}").value == value
    scaled = round(value * 10**places)
    sign, digits = "-" * (scaled < 0), str(abs(scaled)).rjust(places + 1, "0")
    whole, fixed = digits[: len(digits) - places], digits[len(digits) - places :]
    text = f"{sign}{whole}.{fixed}"
    assert number(text).value == Fraction(scaled, 10**places)


@pytest.mark.parametrize(
    ("given", "answer", "expected"),
    [
        ("8", "8.0", True),
        ("999999", "1000000", False),
        ("0.0833333333333333", "1/12", True),
        ("0.083333", "1/12", True),
        ("0.0833", "1/12", False),
        ("33.3", "100/3", False),
        ("2.3148e-3", "1/432", True),
        ("1.4e-10", "2.8e-10", False),
        ("4.3e-19", "0", False),
        ("0.30000000000000004", "0.3", True),
        ("3.1416", "3.14159", False),
        ("3.14159265", "3.141592653589793", True),
        ("12.0001", "12", False),
        ("1000000000.5", "1000000000", False),
        ("1000000000.5", "1000000000.4", False),
        ("0.99999999999999999", "1", False),
        ("33.333333333333336", "100/3", True),
        ("100000.1", "100000.2", False),
        (r"50\%", "0.5", True),
        ("0.5", r"50\%", True),
        (r"50\%", "0.05", False),
        (r"50\%", r"0.5\%", False),
    ],
)
def test_same_number(given: str, answer: str, expected: bool):
    assert same_number(number(given), number(answer)) is expected


@pytest.mark.parametrize("text", ["", " ", "{}", "{{}}", "$ $", r"\,", r"\text{}", r"\quad", r"\ "])
def test_blank(text: str):
    assert is_blank(text)
    assert not is_blank(text + "0")


@quick
@given(st.text(max_size=300))
@example("\ud800")
@example("\\frac{1}{0}")
@example("9" * 5000)
@example("1e99999")
def test_canonical_is_total_and_idempotent_on_numbers(text: str):
    form = canonical(text)
    assert len(form) < 20_000
    if number(compact(tidy(text))) is not None:
        assert canonical(form) == form


HEAVY = [
    "{",
    "}",
    "$",
    "\\(",
    "\\text{",
    "9",
    "1,",
    "√",
    "²",
    " ",
    "x ",
    "\\,",
    "(1)_",
    "0.3...",
    "½",
]


@pytest.mark.parametrize("unit", HEAVY)
def test_megabytes_take_linear_time(unit: str):
    text = unit * (1_000_000 // len(unit))
    start = time.process_time()
    canonical(text)
    compact(tidy(text))
    assert time.process_time() - start < 10  # Some 0.1 to 3 s; quadratic would be minutes.


def test_long_answers_are_told_apart():
    rng = random.Random(0)
    texts = ["x+" * 5000 + str(rng.random()) for _ in range(10)]
    assert len({canonical(text) for text in texts}) == 10
    assert canonical("0" * 20_000 + "25") == "25"
