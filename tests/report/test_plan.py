"""What the plan says of evaluations and of precision."""

from __future__ import annotations

import pytest

from opo_cli.config import Eval
from opo_cli.presets import resolve
from opo_cli.report.plan import evaluation_line, plan_rows, precision_line, steps_line


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
        (
            {"benchmarks": ("a",), "validation": ("v", "w"), "samples": 4},
            "a before and after; v, w (validation) after; 4 samples per problem",
        ),
        (
            {
                "benchmarks": ("a",),
                "validation": ("v",),
                "samples": 4,
                "every": 5,
                "checkpoint": "best",
            },
            "a before and after; a every 5 steps; the final policy is the best on v of those after "
            "every 5 steps and the last; 4 samples per problem",
        ),
    ],
)
def test_evaluation_line(settings, expected: str):
    assert evaluation_line(Eval(**settings)) == expected


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        ((), "6"),
        (("train.budget=4",), "4"),
        (("train.budget=130", "train.budget_unit=samples"), "3: those that take 130 samples"),
        (("train.budget=9000", "train.budget_unit=tokens"), "at least 5: those that take 9000 tok"),
    ],
)
def test_steps_line(sets, expected: str):
    assert steps_line(resolve("smoke", overrides=sets)).startswith(expected)


def test_precision_line():
    assert precision_line(resolve("tiny")) == "fp32 weights"
    settings = ["model.compute_dtype=bfloat16", "train.use_activation_checkpointing=true"]
    settings.append("train.use_reference_offload=true")
    assert precision_line(resolve("tiny", overrides=settings)) == (
        "fp32 weights, bfloat16 products, activation checkpointing, reference policy in host memory"
    )
    assert precision_line(resolve("tiny", overrides=["train.use_cpu_offload=true"])) == (
        "fp32 weights, weights, gradients and moments in host memory"
    )


def test_the_plan_has_a_row_of_memory():
    rows = dict(
        plan_rows(resolve("tiny"), device="d", engine="e", memory="8 GB: fits", out="runs/x")
    )
    assert rows["memory"] == "8 GB: fits"
