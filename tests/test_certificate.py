"""When a step is exact on-policy, and what a run may call itself."""

from __future__ import annotations

import pytest

from opo_cli.certificate import KEY, certificate_of, off_policy_reasons
from opo_cli.presets import resolve
from opo_cli.report.labels import algorithm_label, training_line

EXACT = {
    "num_optimizer_steps": 1.0,
    "masked": 0.0,
    "ratio_deviation": 0.0,
    "sampler_mismatch": 5e-6,
}


@pytest.mark.parametrize(
    ("changes", "versions", "reasons"),
    [
        ({}, {3}, []),
        ({"num_optimizer_steps": 0.0}, {3}, ["no update"]),
        ({"masked": 1.0}, {3}, ["all masked"]),
        ({}, {2, 3}, ["older weights"]),
        ({"ratio_deviation": 0.01}, {3}, ["ratio"]),
        ({"sampler_mismatch": 0.01}, {3}, ["mismatch"]),
        ({"sampler_mismatch": None}, {3}, ["mismatch"]),  # Not finite: beyond any bound.
        ({"sampler_mismatch": 0.01, "ratio_deviation": None}, {0}, 3),
    ],
)
def test_a_step_is_exact_only_while_everything_holds(changes, versions, reasons):
    found = off_policy_reasons(resolve("smoke"), 3, versions, EXACT | changes)
    assert found == reasons if isinstance(reasons, list) else len(found) == reasons


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("algorithm.minibatches_per_step=2", "2 updates per batch"),
        ("rollout.temperature=0.7", "temperature 0.7"),
        ("rollout.top_p=0.95", "top-p 0.95"),
        ("algorithm.tis=token", "TIS per token"),
    ],
)
def test_settings_that_no_step_can_be_exact_under(change, reason):
    config = resolve("smoke", overrides=[change])
    assert off_policy_reasons(config, 0, {0}, EXACT) == [reason]


def test_bounds_are_settings():
    config = resolve("smoke", overrides=["certificate.max_mismatch=0.05"])
    assert off_policy_reasons(config, 0, {0}, EXACT | {"sampler_mismatch": 0.04}) == []


def steps(*reasons: list[str]) -> list[dict]:
    return [{"step": n, KEY: why} for n, why in enumerate(reasons, start=1)]


@pytest.mark.parametrize(
    ("log", "label", "share"),
    [
        (steps([], []), "exact on-policy", "2/2"),
        (
            steps([], ["mismatch"], []),
            "exact on-policy in 2 of 3 steps (mismatch: 1)",
            "2/3",
        ),
        (steps(["8 updates per batch"]), "off-policy (8 updates per batch)", "0/1"),
        ([{"step": 1}], "not recorded", "-"),
        ([], "no step", "-"),
    ],
)
def test_labels(log, label, share):
    found = certificate_of(log)
    assert (found.label, found.share) == (label, share)
    assert found.as_record()["label"] == label


def config_of(*overrides: str) -> dict:
    return resolve("smoke", overrides=overrides).model_dump(mode="json")


def test_a_mismatched_reduction_stands_in_the_name():
    mismatched = config_of(
        "algorithm.reduction=seq-mean-token-mean", "algorithm.allow_mismatched_reduction=true"
    )
    name = algorithm_label(mismatched)
    assert name == "opo (mismatched seq-mean-token-mean)"
    assert name in training_line(mismatched, steps([]))
    assert algorithm_label(config_of("algorithm.allow_mismatched_reduction=true")) == "opo"
