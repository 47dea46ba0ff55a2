"""Which runs count as replicates, and what is told about those that do not match."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opo_cli.errors import OpoError
from opo_cli.presets import resolve
from opo_cli.records import RunFolder
from opo_cli.report.compare import comparison, group_runs


def record(benchmark: str, policy: str, accuracy: float) -> dict:
    return {
        "benchmark": benchmark,
        "policy": policy,
        "num_samples": 4,
        "accuracy": accuracy,
        "pass_at_k": {"1": accuracy, "4": min(1.0, 2 * accuracy)},
        "maj_at_k": {"4": accuracy},
        "entropy": 0.5,
        "kl_exact_sequence": 1.0,
        "length": 20.0,
        "truncated": 0.0,
    }


@pytest.fixture
def make_run(tmp_path: Path):
    def make(
        name: str, accuracy: float = 0.5, *, seed: int = 0, base: str = "a", sets=(), **options
    ) -> RunFolder:
        folder = RunFolder(tmp_path / name)
        folder.model.mkdir(parents=True)
        config = resolve("smoke", named={"seed": seed}, overrides=sets, **options)
        files = {
            "config.json": config.model_dump_json(),
            "environment.json": json.dumps({"initial_policy_id": base}),
            "model/config.json": "{}",
            "steps.jsonl": '{"step": 1, "step_seconds": 2.0, "reward": 0.25}\n',
        }
        for file, text in files.items():
            (folder.path / file).write_text(text)
        folder.write_evals([record("easy", "initial", 0.1), record("easy", "final", accuracy)])
        return folder

    return make


def test_seeds_of_one_setting_are_replicates(make_run):
    runs = [make_run("x", 0.4, seed=0), make_run("y", 0.6, seed=1)]
    report = comparison(runs, ["reward"])
    found = next(r for r in report.records if r["measure"] == "avg@4")
    assert (found["initial"], found["final"], found["num_seeds"]) == (0.1, pytest.approx(0.5), 2)
    # t(0.975, 1) = 12.706; sd = 0.1414; 12.706 * 0.1414 / sqrt(2) = 1.2706
    assert found["half_width_95"] == pytest.approx(1.2706, abs=1e-3)


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 0},
        {"seed": 1, "sets": ["train.steps=9"]},
        {"seed": 1, "base": "another"},
    ],
    ids=["same seed", "other settings", "other initial policy"],
)
def test_other_runs_stand_for_themselves(make_run, other):
    groups = group_runs([make_run("x"), make_run("y", **other)])
    assert len(groups) == 2
    assert all(len(runs) == 1 for runs in groups.values())


def test_a_description_makes_no_difference(make_run):
    runs = [make_run("x"), make_run("y", seed=1, sets=["description=new", "checkpoint.every=1"])]
    assert [len(group) for group in group_runs(runs).values()] == [2]


def test_a_changed_estimator_stands_in_the_label(make_run):
    runs = [make_run("x"), make_run("y", algorithm="grpo", sets=["algorithm.advantage=mean"])]
    assert list(group_runs(runs)) == ["opo", "grpo advantage=mean"]


def test_what_is_not_shared_is_told(make_run):
    runs = [make_run("x"), make_run("y", algorithm="grpo", base="b", sets=["eval.samples=8"])]
    closing = "\n".join(comparison(runs, []).closing)
    assert "not the same: eval.samples (opo: 4, grpo: 8)" in closing
    assert "not the same: the initial policy" in closing
    assert "one seed of opo, grpo" in closing


def test_a_metric_that_one_run_lacks_is_a_gap(make_run):
    closing = "\n".join(comparison([make_run("x")], ["reward", "value_loss"]).closing)
    assert "reward over steps" in closing
    assert "value_loss: not measured" in closing


def test_an_unfinished_run_is_refused(make_run):
    folder = make_run("x")
    (folder.model / "config.json").unlink()
    with pytest.raises(OpoError, match="not finished"):
        comparison([folder], [])


def test_another_grader_is_told(make_run):
    runs = [make_run("x"), make_run("y", algorithm="grpo")]
    for run, grader in zip(runs, ("math-verify 0.9.0", "math-verify 0.9.1"), strict=True):
        run.write_evals(record | {"settings": {"grader": grader}} for record in run.evals())
    closing = "\n".join(comparison(runs, []).closing)
    assert "not the same: grader (opo: math-verify 0.9.0, grpo: math-verify 0.9.1)" in closing


def test_runs_of_a_version_without_majorities_are_tabulated(make_run):
    run = make_run("x")
    run.write_evals([{k: v for k, v in r.items() if k != "maj_at_k"} for r in run.evals()])
    assert {r["measure"] for r in comparison([run], []).records} >= {"avg@4", "pass@4"}
