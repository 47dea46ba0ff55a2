"""Presets, overrides, and what does not fit together."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel

from opo_cli.algorithms import ALGORITHMS
from opo_cli.config import Algorithm, Config, Section
from opo_cli.data.benchmarks import check_names
from opo_cli.errors import OpoError
from opo_cli.metrics import METRICS
from opo_cli.presets import parse_override, preset_names, resolve, validated
from opo_cli.report.plan import objective_line


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_takes_every_algorithm(preset, algorithm):
    config = resolve(preset, algorithm=algorithm)
    assert config.algorithm.name == algorithm
    check_names(config.eval.benchmarks)
    assert validated(json.loads(config.model_dump_json())) == config


def sections(model: type[BaseModel]) -> list[type[Section]]:
    inner = [f.annotation for f in model.model_fields.values() if isinstance(f.annotation, type)]
    return [model, *(s for t in inner if issubclass(t, Section) for s in sections(t))]


@pytest.mark.parametrize("section", sections(Config), ids=lambda section: section.__name__)
def test_every_field_says_what_it_is(section):
    for name, field in section.model_fields.items():
        is_section = isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        assert is_section or field.description, f"{section.__name__}.{name}"


@pytest.mark.parametrize("name", ALGORITHMS)
def test_algorithm_rows_set_known_keys(name):
    assert set(ALGORITHMS[name].settings) <= set(Algorithm.model_fields)


def test_metric_titles_fit_a_table_head():
    assert all(len(metric.title) <= 12 for metric in METRICS.values())


def test_later_layers_win():
    config = resolve("tiny", algorithm="grpo", overrides=["optim.learning_rate=0.5"])
    assert config.optim.learning_rate == 0.5
    assert resolve("tiny", algorithm="grpo").optim.learning_rate == 1e-4
    assert resolve("tiny", overrides=["algorithm.name=ppo"]).algorithm.advantage == "gae"
    assert resolve("tiny", named={"seed": 4}).seed == 4


def test_a_preset_may_extend_another():
    short, tiny = resolve("tiny-short"), resolve("tiny")
    assert short.rollout == tiny.rollout
    assert short.warmstart.stages[0] == tiny.warmstart.stages[0]
    assert short.warmstart.stages[1] != tiny.warmstart.stages[1]


def test_override_values_are_toml_or_bare_words():
    assert parse_override("a.b=1e-3") == {"a": {"b": 1e-3}}
    assert parse_override("a=true") == {"a": True}
    assert parse_override("a.b=[1, 2]") == {"a": {"b": [1, 2]}}
    assert parse_override("a.b=rloo") == {"a": {"b": "rloo"}}
    assert parse_override("a='x=y'") == {"a": "x=y"}


def test_the_objective_is_one_honest_line():
    assert objective_line(resolve("tiny", algorithm="opo")) == (
        "maximise token-mean of A log(pi); A = r - sum(l r)/sum(l); no KL; no entropy"
    )
    assert objective_line(resolve("tiny", algorithm="grpo")) == (
        "maximise seq-mean-token-mean of min(A rho, A clip(rho)); A = (r - mean(r))/std(r); "
        "rho in [0.8, 1.2]; 0.001 KL(k3) in the loss; no entropy"
    )
    assert objective_line(resolve("tiny", algorithm="ppo")) == (
        "maximise token-mean of min(A rho, A clip(rho)); A = GAE(r, V), whitened over the step; "
        "rho in [0.8, 1.2]; 0.001 KL(k1) in the reward; no entropy"
    )


def test_on_policy_means_one_update():
    assert resolve("tiny").is_on_policy
    assert not resolve("tiny", algorithm="grpo").is_on_policy


def test_a_mismatched_reduction_is_refused_unless_asked_for():
    change = "algorithm.reduction=seq-mean-token-mean"
    with pytest.raises(OpoError, match="does not fit the 'opo' baseline"):
        resolve("tiny", overrides=[change])
    allowed = resolve("tiny", overrides=[change, "algorithm.allow_mismatched_reduction=true"])
    assert "MISMATCHED" in objective_line(allowed)
