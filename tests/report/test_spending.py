"""When runs end: by steps or by a budget, known beforehand or not."""

from __future__ import annotations

import pytest

from opo_cli.algorithms import ALGORITHMS
from opo_cli.metrics import BUDGETS, METRICS
from opo_cli.presets import resolve
from opo_cli.report.spending import Spending, Total, cost_of_step

# Preset smoke: 8 prompts x 8 responses of at most 32 tokens, 6 steps.
SIZES = {
    ("opo", "steps"): (1, 1),
    ("opo", "samples"): (64, 64),
    ("opo", "gradient-steps"): (1, 1),
    ("opo", "tokens"): (64, 64 * 32),
    ("dapo", "gradient-steps"): (4, 4),
    ("remax", "samples"): (72, 72),  # And 8 greedy ones.
    ("remax", "tokens"): (72, 72 * 32),
}


@pytest.mark.parametrize(("algorithm", "unit"), SIZES)
def test_what_a_step_takes(algorithm: str, unit: str):
    assert cost_of_step(resolve("smoke", algorithm=algorithm), unit) == SIZES[algorithm, unit]


def test_dynamic_sampling_takes_up_to_all_its_rounds():
    config = resolve("smoke", overrides=["algorithm.max_sampling_rounds=3"])
    assert cost_of_step(config, "samples") == (64, 192)


@pytest.mark.parametrize("unit", BUDGETS)
def test_every_budget_is_counted_by_a_metric(unit: str):
    assert BUDGETS[unit] is None or BUDGETS[unit] in METRICS
    for algorithm in ALGORITHMS:
        least, most = cost_of_step(resolve("smoke", algorithm=algorithm), unit)
        assert 0 < least <= most


def of(unit: str, budget: int, records=(), algorithm: str = "opo") -> Spending:
    sets = [f"train.budget={budget}", f"train.budget_unit={unit}"]
    return Spending.of(resolve("smoke", algorithm=algorithm, overrides=sets), records)


def test_without_a_budget_train_steps_is_the_end():
    spending = Spending(resolve("smoke"))
    assert (spending.unit, spending.limit, str(spending.total)) == ("steps", 6, "6")
    for done in range(6):
        assert not spending.is_over
        assert spending.num_steps == done
        spending.add({"step": done + 1})
    assert spending.is_over
    assert spending.total == Total(6)


def test_the_step_that_reaches_a_budget_is_the_last():
    samples = {"num_samples": 64.0}
    assert of("samples", 129).total == Total(3)
    assert of("samples", 128).total == Total(2)
    assert not of("samples", 129, [samples] * 2).is_over
    assert of("samples", 128, [samples] * 2).is_over
    assert of("gradient-steps", 6, algorithm="dapo").total == Total(2)


def test_a_skipped_update_is_made_up_for():
    records = [{"num_optimizer_steps": 4.0}, {"num_optimizer_steps": 3.0}]
    spending = of("gradient-steps", 8, records, "dapo")
    assert not spending.is_over
    assert spending.total == Total(3)


def test_an_estimate_is_called_one():
    assert str(of("tokens", 10_000).total) == "at least 5"  # Of 2,048 tokens at most.
    spending = of("tokens", 10_000, [{"num_tokens": 900}, {"num_tokens": 1100}])
    assert str(spending.total) == "about 10"
    spending.add({"num_tokens": 8000})
    assert spending.is_over
    assert spending.total == Total(3)
