"""Presets, overrides, and what does not fit together."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from opo_cli.algorithms import ALGORITHMS
from opo_cli.config import Algorithm, Config, Section
from opo_cli.errors import OpoError
from opo_cli.metrics import METRICS
from opo_cli.presets import check_key, parse_override, resolve
from opo_cli.report.plan import certificate_line, objective_line


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


def test_every_part_of_an_objective_is_in_its_line():
    line = objective_line(resolve("tiny", algorithm="dapo"))
    for part in ("rho in [0.8, 1.28]", "rho at most 10 where A < 0", "last 20% of the length"):
        assert part in line
    assert "s in [0.9997, 1.0004]" in objective_line(resolve("tiny", algorithm="gspo"))
    changes = ["algorithm.advantage=length-power", "algorithm.length_exponent=1.5"]
    changes += ["algorithm.tis=token", "algorithm.overlong=mask"]
    line = objective_line(resolve("tiny", overrides=changes))
    for part in ("c = 1.5", "TIS per token, at most 2", "truncated responses left out"):
        assert part in line


def test_the_plan_says_what_a_run_may_call_itself():
    assert certificate_line(resolve("tiny")).startswith("exact on-policy while")
    assert certificate_line(resolve("tiny", algorithm="grpo")) == (
        "none: off-policy (4 updates per batch)"
    )
    hot = resolve("tiny", overrides=["rollout.temperature=1.2", "rollout.top_p=0.9"])
    assert certificate_line(hot) == "none: off-policy (temperature 1.2, top-p 0.9)"


MEAN = "algorithm.reduction=seq-mean-token-mean"
SUM = "algorithm.reduction=token-mean"
POWER = "algorithm.advantage=length-power"


@pytest.mark.parametrize(
    "changes",
    [
        [MEAN],
        [MEAN, "algorithm.advantage=opo-loo"],
        [MEAN, "algorithm.advantage=opo-batch"],
        [MEAN, "algorithm.advantage=logit-proxy"],
        [MEAN, "algorithm.advantage=otb"],
        [MEAN, "algorithm.advantage=reinforce++"],
        [MEAN, "algorithm.advantage=reinforce++-baseline"],
        [MEAN, "algorithm.advantage=rloo"],
        [MEAN, "algorithm.advantage=remax"],
        [MEAN, "algorithm.advantage=shrinkage"],
        [MEAN, "algorithm.advantage=none"],
        [MEAN, "algorithm.loss=gspo"],
        [MEAN, "algorithm.loss=gspo", "algorithm.advantage=rloo"],
        [MEAN, POWER],
        [SUM, POWER, "algorithm.length_exponent=-1.0"],
        [SUM, "algorithm.loss=gspo", "algorithm.advantage=grpo"],
    ],
    ids=" ".join,
)
def test_a_mismatched_reduction_is_refused_unless_asked_for(changes):
    with pytest.raises(OpoError, match=r"algorithm\.reduction = '.*' does not fit") as caught:
        resolve("tiny", overrides=changes)
    allowed = resolve("tiny", overrides=[*changes, "algorithm.allow_mismatched_reduction=true"])
    assert "MISMATCHED" in objective_line(allowed)
    alternative = caught.value.hint.partition("; or")[0].partition(",")[0]
    assert alternative.startswith("--set ")
    resolve("tiny", overrides=[*changes, *alternative.removeprefix("--set ").split(" --set ")])


@pytest.mark.parametrize(
    "changes",
    [
        [MEAN, POWER, "algorithm.length_exponent=-1.0"],
        [MEAN, POWER, "algorithm.length_exponent=0.0"],
        [SUM, POWER, "algorithm.length_exponent=1.6"],
        [MEAN, "algorithm.advantage=mean"],
        [MEAN, "algorithm.advantage=grpo"],
        [MEAN, "algorithm.loss=gspo", "algorithm.advantage=grpo"],
        ["algorithm.reduction=constant"],
        ["algorithm.reduction=seq-mean-token-sum", "algorithm.advantage=otb"],
    ],
    ids=" ".join,
)
def test_a_matching_reduction_is_taken(changes):
    assert resolve("tiny", overrides=changes).algorithm.misfit is None


def test_the_hint_for_a_mean_over_tokens_works():
    """Both ways out of it."""
    with pytest.raises(OpoError) as caught:
        resolve("tiny", overrides=[MEAN])
    assert "length-power --set algorithm.length_exponent=-1" in caught.value.hint
    resolve("tiny", overrides=[MEAN, POWER, "algorithm.length_exponent=-1"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["model.embedded.hidden_size=20", "model.embedded.num_heads=4"], "hidden_size = 20"),
        (["model.embedded.num_key_value_heads=3"], "num_key_value_heads = 3 does not divide"),
    ],
)
def test_heads_that_cannot_be(changes, message):
    with pytest.raises(OpoError, match=message):
        resolve("tiny", overrides=changes)
    resolve("tiny", overrides=[*changes, "model.path=elsewhere"])


def test_the_hint_for_key_value_heads_works():
    with pytest.raises(OpoError) as caught:
        resolve("tiny", overrides=["model.embedded.num_key_value_heads=3"])
    for count in caught.value.hint.rpartition("one of ")[2].split(", "):
        resolve("tiny", overrides=[f"model.embedded.num_key_value_heads={count}"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["train.budget_unit=tokens"], "budget_unit = 'tokens' without a budget"),
        (["eval.validation=['tiny-mid']"], "'tiny-mid' is in eval.validation and in eval.bench"),
        (["eval.checkpoint=best"], "eval.every = 0: there is but the last"),
        (["eval.checkpoint=best", "eval.every=2", "eval.validation=[]"], "to choose by"),
        (["compare.margin=0"], "compare.margin = 0"),
        (["compare.match=hours"], "compare.match = 'hours'"),
    ],
)
def test_budgets_and_checkpoint_rules_that_cannot_be(changes, message):
    with pytest.raises(OpoError, match=message):
        resolve("tiny", overrides=changes)


def test_everything_evaluated_is_named_once():
    sets = ["eval.during=['tiny-mid','AIME24']", "eval.validation=['tiny-validation']"]
    assert resolve("smoke", overrides=sets).eval.every_benchmark == (
        *("tiny-easy", "tiny-mid", "AIME24"),
        "tiny-validation",
    )


def test_a_key_is_a_setting_or_an_error():
    check_key("optim.learning_rate")
    check_key("seed")
    for key, hint in (
        ("optim.learning_rat", "did you mean 'optim.learning_rate'?"),
        ("optimm.beta1", "did you mean 'optim'?"),
        ("seed.x", "known keys"),
        ("model.embedded", "name a setting: model.embedded.hidden_size"),
        ("", "known keys"),
    ):
        with pytest.raises(OpoError) as caught:
            check_key(key)
        assert hint in caught.value.hint
