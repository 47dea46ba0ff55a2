"""The second check: independent of the grader, and silent where it cannot tell."""

from __future__ import annotations

import pytest

from opo_cli.grading.audit import second_opinion


@pytest.mark.parametrize(
    ("extracted", "answer", "expected"),
    [
        ("7", "7", True),
        ("007", "7", True),
        ("999999", "1000000", False),
        ("123456789", "123456780", False),
        ("0.3333333", r"\frac{1}{3}", True),
        ("0.333", r"\frac{1}{3}", False),
        (r"\dfrac{-3}{4}", "-0.75", True),
        (r"6.02 \times 10^{23}", "6.02e23", True),
        ("1,024", "1024", True),
        ("1, 024", "1024", None),
        ("1_0", "10", None),
        (r"\text{Evelyn}", "evelyn", True),
        ("Briana", r"\text{Evelyn}", False),
        ("", "7", False),
        (None, "7", False),
        (r"\sqrt{8}", r"2\sqrt{2}", None),
        ("(1,2)", "(2,1)", None),
        ("1e999", "7", None),
        ("__import__('os')", "49", None),
        ("9" * 3000, "9" * 3000, True),
        ("9" * 3000, "8", None),
    ],
)
def test_second_opinion(extracted: str | None, answer: str, expected: bool | None):
    assert second_opinion(extracted, answer) is expected
