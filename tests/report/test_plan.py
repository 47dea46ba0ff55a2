"""What the plan says of evaluations."""

from __future__ import annotations

import pytest

from opo_cli.config import Eval
from opo_cli.report.plan import evaluation_line


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "none"),
        ({"every": 5}, "none"),
        (
            {"benchmarks": ("AIME24",)},
            "AIME24 before and after; the benchmark's own samples per problem",
        ),
        (
            {"benchmarks": ("a", "b"), "every": 5, "samples": 4, "limit": 10},
            "a, b before and after; a, b every 5 steps; 4 samples of the first 10 problems",
        ),
        (
            {"benchmarks": ("a",), "every": 5, "during": ("c",), "samples": 4},
            "a before and after; c every 5 steps; 4 samples per problem",
        ),
        (
            {"every": 5, "during": ("c",), "samples": 4},
            "c every 5 steps; 4 samples per problem",
        ),
    ],
)
def test_evaluation_line(settings, expected: str):
    assert evaluation_line(Eval(**settings)) == expected
