"""Which runs count as replicates, what they are called, what they used."""

from __future__ import annotations

import math

import numpy as np
import pytest

from opo_cli.errors import OpoError
from opo_cli.lines import as_lines, read_lines
from opo_cli.report.runs import make_arms, read_run, read_steps
from tests.damage import flip_a_bit

from .conftest import step


def arms_of(*folders):
    return make_arms([read_run(folder, ["reward"]) for folder in folders])


def test_seeds_of_one_setting_are_replicates_in_the_order_of_seeds(make_run):
    (arm,) = arms_of(make_run("x", seed=3), make_run("y", seed=1))
    assert (arm.label, arm.seeds) == ("opo", [1, 3])


@pytest.mark.parametrize(
    ("other", "labels"),
    [
        ({"seed": 0}, ["x", "y"]),
        ({"seed": 1, "sets": ["optim.learning_rate=0.5"]}, ["0.0002", "0.5"]),
        ({"seed": 1, "base": "another"}, ["x", "y"]),
        ({"seed": 1, "algorithm": "opo-loo"}, ["opo", "opo-loo"]),
    ],
    ids=["same seed", "other settings", "other initial policy", "other algorithm"],
)
def test_other_runs_stand_for_themselves(make_run, other, labels):
    arms = arms_of(make_run("x"), make_run("y", **other))
    assert [len(arm.runs) for arm in arms] == [1, 1]
    assert all(arm.label.endswith(end) for arm, end in zip(arms, labels, strict=True))


def test_settings_that_differ_name_the_arms(make_run):
    value = ["optim.learning_rate=0.5"]
    folders = [make_run(f"{s}{len(v)}", seed=s, sets=v) for v in ([], value) for s in (0, 1)]
    arms = arms_of(*folders)
    assert [arm.label for arm in arms] == ["opo learning_rate=0.0002", "opo learning_rate=0.5"]
    assert [arm.seeds for arm in arms] == [[0, 1], [0, 1]]


def test_a_description_makes_no_difference(make_run):
    runs = [make_run("x"), make_run("y", seed=1, sets=["description=new", "checkpoint.every=1"])]
    assert len(arms_of(*runs)) == 1


def test_a_changed_estimator_stands_in_the_label(make_run):
    runs = [make_run("x"), make_run("y", algorithm="grpo", sets=["algorithm.advantage=mean"])]
    assert [arm.label for arm in arms_of(*runs)] == ["opo", "grpo advantage=mean"]


def test_what_a_run_used_is_cumulated(make_run):
    run = read_run(make_run("x", steps=[step(1), step(2, num_tokens=50)]), [])
    assert run.used["tokens"].tolist() == [100, 150]
    totals = {unit: run.total(unit) for unit in run.used}
    assert totals == {
        **{"steps": 2, "samples": 128, "gradient-steps": 2},
        **{"tokens": 150, "seconds": 4},
    }


def test_samples_of_a_version_that_did_not_count_them_follow_from_groups(make_run):
    old = {k: v for k, v in step(1, num_sampled_groups=5).items() if k != "num_samples"}
    run = read_run(make_run("x", steps=[old]), [])
    assert run.total("samples") == 5 * 8


def test_columns_are_what_the_log_says(make_run):
    logged = [step(1, reward=0.5), step(2, reward=None), step(3, off_policy_reasons=["ratio"])]
    path = make_run("x", steps=logged).path / "steps.jsonl"
    steps = read_steps(path, ["reward", "entropy"])
    assert steps["reward"].tolist() == pytest.approx([0.5, math.nan, 0.25], nan_ok=True)
    assert np.isnan(steps["entropy"]).all()
    assert (steps.certificate.num_exact, dict(steps.certificate.reasons)) == (2, {"ratio": 1})
    assert len(steps) == len(read_lines(path)) == 3


def test_the_certificate_of_an_arm_counts_all_steps(make_run):
    bad = step(1, off_policy_reasons=["ratio"])
    whole = [step(1), step(2)]
    (arm,) = arms_of(make_run("x", steps=whole), make_run("y", seed=1, steps=[bad, step(2)]))
    assert (arm.certificate.share, dict(arm.certificate.reasons)) == ("3/4", {"ratio": 1})


def test_a_log_without_certificates_says_so(make_run):
    old = {k: v for k, v in step(1).items() if k != "off_policy_reasons"}
    assert read_run(make_run("x", steps=[old]), []).steps.certificate.label == "not recorded"


@pytest.mark.parametrize("steps", [[], [step(1)], [step(1), step(3)]], ids=len)
def test_a_finished_run_whose_log_lacks_steps_is_refused(make_run, steps):
    folder = make_run("x", steps=steps, sets=["train.steps=2"])
    with pytest.raises(OpoError, match=rf"steps.jsonl is damaged: {len(steps)} steps of 2"):
        read_run(folder, [])


def test_a_value_that_is_no_number_is_told_with_its_line(make_run):
    folder = make_run("x", steps=[step(1), step(2, reward="x")])
    with pytest.raises(OpoError, match=r"steps.jsonl:2: reward is 'x', no number"):
        read_run(folder, ["reward"])


def test_bytes_that_are_no_text_are_told_with_their_line(make_run):
    folder = make_run("x")
    (folder.path / "evals.jsonl").write_bytes(b'{"a": "\xff"}\n{}\n')
    with pytest.raises(OpoError, match=r"evals.jsonl:1: not a JSON record"):
        read_run(folder, [])


def test_a_damaged_log_is_told_with_its_line(make_run):
    folder = make_run("x", steps=[step(1), step(2)])
    path = folder.path / "steps.jsonl"
    path.write_text(path.read_text().replace("{", "[", 1))
    with pytest.raises(OpoError, match=r"steps.jsonl:1: not a JSON record"):
        read_run(folder, [])


def test_a_value_that_was_hit_is_told_with_its_line(make_run):
    """0.5 became 0.7, and is JSON as before."""
    path = make_run("x", steps=[step(1), step(2)]).path / "steps.jsonl"
    path.write_text(as_lines([step(1), step(2, reward=0.5)]))
    assert read_steps(path, ["reward"])["reward"][1] == 0.5
    flip_a_bit(path, path.read_bytes().rindex(b"0.5") + 2, 1)
    with pytest.raises(OpoError, match=r"steps.jsonl:2: damaged: not what was written"):
        read_steps(path, ["reward"])


def test_an_unfinished_run_is_refused(make_run):
    folder = make_run("x")
    (folder.model / "config.json").unlink()
    with pytest.raises(OpoError, match="not finished"):
        read_run(folder, [])
