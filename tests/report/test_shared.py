"""What runs share, what they do not, and what they must."""

from __future__ import annotations

import pytest

from opo_cli.errors import OpoError
from opo_cli.report.runs import make_arms, read_run
from opo_cli.report.shared import (
    budget_line,
    check_comparable,
    checkpoint_rule,
    common_benchmarks,
    differing_settings,
    equal_budgets,
    not_shared,
    obstacles,
)

from .conftest import step


def arms_of(*folders):
    return make_arms([read_run(folder, []) for folder in folders])


def with_settings(folder, **settings):
    folder.write_evals(record | {"settings": settings} for record in folder.evals())
    return folder


def test_algorithms_may_differ_in_what_they_are(make_run):
    arms = arms_of(make_run("x"), make_run("y", algorithm="opo-loo"))
    assert not_shared(arms) == []
    assert "algorithm.advantage" in differing_settings(arms)


def test_what_is_not_shared_is_told(make_run):
    other = make_run("y", algorithm="grpo", base="b", sets=["eval.samples=8"])
    lines = not_shared(arms_of(make_run("x"), other))
    assert "not the same: eval.samples (opo: 4; grpo: 8)" in lines
    assert "not the same: the initial policy; 'initial' is that of the first arm" in lines
    reductions = "(opo: token-mean; grpo: seq-mean-token-mean)"
    assert f"not the same: algorithm.reduction {reductions}" in lines


def test_another_certificate_is_told(make_run):
    off = step(1, off_policy_reasons=["4 updates per batch"])
    lines = not_shared(arms_of(make_run("x"), make_run("y", algorithm="dapo", steps=[off])))
    told = (
        "not the same: certificate (opo: exact on-policy; dapo: off-policy (4 updates per batch))"
    )
    assert told in lines


def test_an_ablation_names_the_setting(make_run):
    arms = arms_of(make_run("x"), make_run("y", sets=["optim.beta2=0.5"]))
    told = "not the same: optim.beta2 (opo beta2=0.95: 0.95; opo beta2=0.5: 0.5)"
    assert told in not_shared(arms)


def test_a_setting_of_the_algorithms_is_told_where_it_is_not_the_rows_own(make_run):
    arms = arms_of(
        make_run("x", sets=["optim.learning_rate=1e-4"]),
        make_run("y", algorithm="opo-loo", sets=["algorithm.entropy_coefficient=0.5"]),
    )
    label = arms[1].label
    assert not_shared(arms) == [
        f"not the same: algorithm.entropy_coefficient (opo: 0; {label}: 0.5)",
        f"not the same: optim.learning_rate (opo: 0.0001; {label}: 0.0002)",
    ]


def test_evaluations_of_every_run_count(make_run):
    runs = [make_run(f"opo{s}", seed=s) for s in (0, 1)] + [make_run("z", algorithm="grpo")]
    for run, digest in zip(runs, "001", strict=True):
        with_settings(run, problems_sha256=digest)
    assert "problems_sha256 of the evaluations differs" in obstacles(arms_of(*runs), None)
    with_settings(runs[1], problems_sha256="1")
    assert "not the same: problems_sha256 (opo: 0 or 1; grpo: 1)" in not_shared(arms_of(*runs))


def test_of_many_arms_a_line_counts_those_that_agree(make_run):
    names = ("opo", "opo-loo", "rloo", "remax", "otb")
    folders = [make_run(name, algorithm=name) for name in names]
    folders.append(make_run("gpg", algorithm="gpg", sets=["eval.samples=8"]))
    assert "not the same: eval.samples (5 arms: 4; gpg: 8)" in not_shared(arms_of(*folders))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"problems_sha256": "1"}, "problems_sha256 of the evaluations differs"),
        ({"template": "boxed", "template_digest": "a"}, "template of the evaluations differs"),
        ({"temperature": 0.6}, "temperature of the evaluations differs"),
        ({"grader": "math-verify 0.9.1"}, "grader of the evaluations differs"),
        ({"samples": 8}, "samples of the evaluations differs"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_evaluations_that_differ_are_refused(make_run, settings, why):
    shared = {"problems_sha256": "0", "template": "chat", "temperature": 1.0, "samples": 4}
    runs = with_settings(make_run("x"), **shared), make_run("y", algorithm="grpo")
    arms = arms_of(runs[0], with_settings(runs[1], **shared | settings))
    assert why in obstacles(arms, None)
    with pytest.raises(OpoError, match=r"do not compare \(opo, grpo\)") as raised:
        check_comparable(arms, None)
    assert "--allow-incomparable" in raised.value.hint


def test_another_engine_is_told_and_not_refused(make_run):
    runs = [make_run("x"), make_run("y", algorithm="grpo")]
    arms = arms_of(*(with_settings(r, engine=e) for r, e in zip(runs, "ab", strict=True)))
    assert obstacles(arms, None) == []
    assert "not the same: engine (opo: a; grpo: b)" in not_shared(arms)


def test_another_base_is_refused(make_run):
    arms = arms_of(make_run("x"), make_run("y", algorithm="grpo", base="b"))
    assert obstacles(arms, None) == ["they started from different policies"]


def test_no_common_benchmark_is_refused(make_run):
    arms = arms_of(make_run("x", {"a": [1], "b": [1]}), make_run("y", {"c": [1]}, algorithm="ppo"))
    assert obstacles(arms, None) == ["no benchmark is common to all of them"]
    arms = arms_of(make_run("z", {"b": [1], "a": [1]}), make_run("w", {"a": [1]}, algorithm="ppo"))
    assert (common_benchmarks(arms), obstacles(arms, None)) == (["a"], [])


def test_a_run_without_evaluations_is_named(make_run):
    arms = arms_of(make_run("x", {}), make_run("y", algorithm="ppo"))
    (why,) = obstacles(arms, None)
    assert why.endswith("x' has no evaluation of its final policy")


def test_a_budget_that_was_asked_for_and_missed_is_no_match(make_run):
    theirs = [step(i, num_optimizer_steps=9) for i in (1, 2)]
    ours = [step(1), step(2)]
    arms = arms_of(make_run("x", steps=ours), make_run("y", algorithm="grpo", steps=theirs))
    line = budget_line(arms, "gradient-steps")
    assert line.startswith("budget: NOT equal in gradient steps, as was asked; equal steps (2)")


def test_one_run_compares_with_itself(make_run):
    check_comparable(arms_of(make_run("x")), "tokens")


def test_budgets_are_counted_not_believed(make_run):
    ours = make_run("x", steps=[step(1), step(2)])
    theirs = [step(1, num_optimizer_steps=4, num_tokens=103), step(2, num_optimizer_steps=4)]
    arms = arms_of(ours, make_run("y", algorithm="grpo", steps=theirs))
    assert equal_budgets(arms) == ["steps", "samples", "tokens"]  # 200 and 203 tokens.
    line = budget_line(arms, "samples")
    assert line == (
        "budget: matched by samples; equal steps (2), samples (128), "
        "tokens (200 to 203, within a step); not equal: gradient steps opo 2, grpo 8"
    )
    assert obstacles(arms, "samples") == []
    assert obstacles(arms, "gradient-steps") == ["they used different numbers of gradient steps"]


def test_budgets_are_equal_up_to_less_than_a_step(make_run):
    def updates(*each):
        return [step(i + 1, num_optimizer_steps=n) for i, n in enumerate(each)]

    arms = arms_of(
        make_run("x", steps=updates(*[1] * 10)),
        make_run("y", algorithm="ppo", steps=updates(4, 4, 4)),
    )
    assert "gradient-steps" in equal_budgets(arms)  # 10 and 12: the last step took 4.
    arms = arms_of(
        make_run("z", steps=updates(*[1] * 8)),
        make_run("w", algorithm="ppo", steps=updates(4, 4, 4)),
    )
    assert "gradient-steps" not in equal_budgets(arms)
    arms = arms_of(
        make_run("v", steps=updates(*[1] * 30)),
        make_run("u", algorithm="ppo", steps=updates(0, *[1] * 29)),
    )
    assert "gradient-steps" in equal_budgets(arms)  # One was skipped.


def test_steps_are_equal_or_not(make_run):
    longer = [step(i + 1, num_samples=1) for i in range(50)]
    arms = arms_of(make_run("x", steps=longer), make_run("y", algorithm="ppo", steps=longer[:-1]))
    assert "steps" not in equal_budgets(arms)


def test_the_rule_of_the_checkpoint_stands_in_the_config(make_run):
    (arm,) = arms_of(make_run("x"))
    assert checkpoint_rule(arm.runs[0]) == "last"
    sets = ["eval.checkpoint=best", "eval.validation=['tiny-hard']", "eval.every=2"]
    (arm,) = arms_of(make_run("y", sets=sets))
    assert checkpoint_rule(arm.runs[0]) == "best on tiny-hard, evaluated every 2 steps"
