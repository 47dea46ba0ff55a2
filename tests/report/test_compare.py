"""A whole comparison, as tables, records, and page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from opo_cli.errors import OpoError
from opo_cli.report.compare import Options, compare, report, results_of
from opo_cli.report.compare_page import page_of, samples_of
from opo_cli.report.compare_tables import dynamics, fixed_steps

from .conftest import step

OPTIONS = Options(margin=0.02)


def numbers(folders, **options) -> dict[tuple, float]:
    found = report(compare(folders, Options(margin=0.02, **options)))
    return {(r["algorithm"], r.get("benchmark"), r["measure"]): r["final"] for r in found.records}


def titles(folders, **options) -> list[str]:
    return [table.title for table in compare(folders, Options(margin=0.02, **options)).tables]


@pytest.fixture
def three(make_run):
    """Three algorithms, two seeds, two benchmarks."""
    counts = {"opo": 3, "grpo": 2, "ppo": 1}
    return [
        make_run(
            f"{name}{seed}",
            {"easy": [count + seed, count], "hard": [count - 1, count]},
            seed=seed,
            algorithm=name,
            steps=[step(i + 1, reward=0.1 * i, gradient_norm=0.5) for i in range(8)],
        )
        for name, count in counts.items()
        for seed in (0, 1)
    ]


def test_means_over_seeds_with_their_interval(make_run):
    runs = [make_run("x", [2, 1], seed=0), make_run("y", [2, 3], seed=1)]
    found = next(r for r in report(compare(runs, OPTIONS)).records if r["measure"] == "avg@4")
    assert (found["initial"], found["final"], found["num_seeds"]) == (0, 0.5, 2)
    # t(0.975, 1) = 12.706; accuracies .375, .625: sd .17678; 12.706 x .17678 / sqrt(2) = 1.5883
    assert found["half_width_95"] == pytest.approx(1.5883, abs=1e-3)


def test_the_tables_are_the_papers_questions_verdicts_first(three):
    assert titles(three) == [
        "verdicts",
        "accuracy of the initial and of the trained policy",
        "behaviour of the policies",
        "diversity of the policies",
        "score over all benchmarks",
        "speed of learning",
        "training dynamics",
        "cost of training",
    ]


def test_of_many_arms_each_measure_has_a_table(make_run):
    names = ("opo", "opo-loo", "rloo", "remax")
    found = titles([make_run(name, algorithm=name) for name in names])
    assert found[:4] == ["verdicts", "avg@4", "pass@4", "maj@4"]


def test_every_number_is_a_record(three):
    found = numbers(three)
    assert found["opo", "easy", "avg@4"] == pytest.approx((6 / 8 + 7 / 8) / 2)
    assert found["opo", "hard", "pass@4"] == 1
    assert found["ppo", None, "training_tokens"] == 800
    assert found["grpo", "all benchmarks", "difference avg"] == pytest.approx(0.25)
    assert found["grpo", "easy", "difference avg"] == pytest.approx(0.25)
    assert found["opo", "easy", "self_bleu"] == 0.25
    assert ("opo", None, "interquartile_mean") in found


def test_verdict_records_say_what_they_rest_on(three):
    records = report(compare(three, OPTIONS)).records
    found = [r for r in records if r["measure"] == "difference avg"]
    assert len(found) == 3 * 3  # Pairs x (both benchmarks, and all).
    for record in found:
        assert (record["margin"], record["num_seeds"]) == (0.02, 2)
        assert record["verdict"] in ("win", "worse", "tie", "cannot tell")
        assert record["p_holm"] >= record["p"]
        assert record["low_95"] < record["final"] < record["high_95"]


def test_facts_stand_above_the_tables(three):
    opening = report(compare(three, OPTIONS)).opening
    assert "checkpoint: last" in opening
    assert "verdicts on: avg@n, margin 0.02, level .05 in each family" in opening
    assert any(line.startswith("budget: equal steps (8)") for line in opening)
    assert any(line.startswith("not the same: algorithm.reduction") for line in opening)


def test_incomparable_runs_are_refused_unless_asked(make_run):
    runs = [make_run("x"), make_run("y", algorithm="grpo", base="b")]
    with pytest.raises(OpoError, match="they started from different policies"):
        compare(runs, OPTIONS)
    found = report(compare(runs, Options(margin=0.02, allow_incomparable=True)))
    assert any("the initial policy" in line for line in found.opening)


def test_single_runs_are_no_sample(make_run):
    found = report(compare([make_run("x"), make_run("y", algorithm="ppo")], OPTIONS))
    assert any("one seed of opo, ppo" in line for line in found.closing)


def test_a_metric_that_one_run_lacks_is_a_gap(make_run):
    drawing = report(
        compare([make_run("x")], Options(margin=0.02, curves=["reward", "value_loss"]))
    ).drawing
    assert "reward over steps, 0.250 to 0.250" in drawing
    assert "value_loss: not measured in these runs" in drawing


def test_runs_of_a_version_without_majorities_are_tabulated(make_run):
    run = make_run("x")
    run.write_evals([{k: v for k, v in r.items() if k != "maj_at_k"} for r in run.evals()])
    measures = {r["measure"] for r in report(compare([run], OPTIONS)).records}
    assert measures >= {"avg@4", "pass@4"}
    assert "maj@4" not in measures


def test_runs_without_evaluations_have_what_training_says(make_run):
    runs = [make_run("x", {}), make_run("y", {}, algorithm="ppo")]
    assert titles(runs)[1:] == ["speed of learning", "training dynamics", "cost of training"]


def test_a_sweep_compares_each_at_its_best_and_at_the_same(make_run):
    folders = [
        make_run(
            f"{name}{value}{seed}",
            [2, 1 + seed],
            seed=seed,
            algorithm=name,
            sets=[f"optim.beta2={value}"],
            validation=[int(10 * value), 1],
        )
        for name in ("opo", "ppo")
        for value in (0.1, 0.2)
        for seed in (0, 1)
    ]
    found = compare(folders, Options(margin=0.02, swept="optim.beta2"))
    assert [arm.label for arm in found.chosen] == ["opo 0.2", "ppo 0.2"]
    assert [table.title for table in found.tables][:4] == [
        "verdicts (each at its own best)",
        "verdicts (same setting, beta2 0.1)",
        "verdicts (same setting, beta2 0.2)",
        "sweep over optim.beta2",
    ]
    records = report(found).records
    assert {r.get("same_setting") for r in records if "verdict" in r} == {None, "0.1", "0.2"}


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, []), (1, [1]), (2, [1, 2]), (6, [1, 2, 3, 4, 6]), (40, [1, 10, 20, 30, 40])],
)
def test_fixed_steps_span_the_run(count: int, expected: list[int]):
    assert fixed_steps(count) == expected


def test_dynamics_are_taken_where_they_were_measured(make_run):
    """KL every third step: the ends of the quarters of 12 steps are 3, 6, 9 and 12."""
    steps = [
        step(i, kl_exact_sequence=float(i) if i % 3 == 1 else None, gradient_norm=1.0)
        for i in range(1, 13)
    ]
    (arm,) = compare([make_run("x", steps=steps)], OPTIONS).arms
    found = [(number, values["kl_exact_sequence"].mean) for number, values in dynamics(arm)]
    assert found == [(1, 1.0), (4, 4.0), (7, 7.0), (10, 10.0)]


def test_planned_runs_that_failed_are_told(three):
    found = report(compare(three, Options(margin=0.02, missing=["tiny-opo-seed9"])))
    assert found.opening[0].startswith(
        "missing, as they failed or are not finished: tiny-opo-seed9"
    )
    page = page_of(compare(three, Options(margin=0.02, missing=["tiny-opo-seed9"])), "opo")
    assert page.warnings[0] == found.opening[0]


def test_runs_that_do_not_compare_say_so_first(make_run):
    runs = [make_run("x"), make_run("y", algorithm="grpo", base="b")]
    found = report(compare(runs, Options(margin=0.02, allow_incomparable=True)))
    assert found.opening[0] == "these runs do not compare: they started from different policies"


def test_one_arm_has_no_verdict(make_run):
    assert report(compare([make_run("x")], OPTIONS)).opening[0] == "no verdict: it takes two arms"


def test_two_seeds_are_called_what_they_are(three):
    assert any(line.startswith("two seeds:") for line in report(compare(three, OPTIONS)).closing)


def test_the_steps_that_a_rule_chose_are_told(make_run):
    sets = ["eval.checkpoint=best", "eval.validation=['tiny-hard']", "eval.every=1"]
    folders = [make_run(f"{s}", seed=s, sets=sets, steps=[step(1), step(2)]) for s in (0, 1)]
    for folder, chosen in zip(folders, (1, 2), strict=True):
        folder.write_evals(r | {"step": chosen} for r in folder.evals())
    opening = report(compare(folders, OPTIONS)).opening
    assert "checkpoint: best on tiny-hard, evaluated every 1 steps; steps opo 1/2" in opening


def test_results_hold_what_the_tables_rest_on(three):
    found = json.loads(json.dumps(results_of(compare(three, OPTIONS))))
    assert found["facts"]["checkpoint"] == "last"
    assert found["settings"]["algorithm.advantage"]["ppo"] == "gae"
    assert [Path(run).name for run in found["runs"]["opo"]] == ["opo0", "opo1"]
    measures = {record["measure"] for record in found["records"]}
    assert {"gradient_norm", "peak_memory_gigabytes", "interquartile_mean"} <= measures


# --- the page ------------------------------------------------------------------------------------


def test_the_page_shows_the_same_numbers(three):
    found = compare(three, OPTIONS)
    page = page_of(found, "opo compare")
    assert page.title == "opo vs grpo vs ppo"
    assert [answer.pair for answer in page.answers] == [
        ("opo", "grpo"),
        ("opo", "ppo"),
        ("grpo", "ppo"),
    ]
    assert [gap.benchmark for gap in page.gaps[:3]] == ["all benchmarks", "easy", "hard"]
    assert [table.title for table in page.tables] == [table.title for table in found.tables]
    curve = page.arms[0].curves[0]
    assert list(curve.x["second"]) == [2.0 * i for i in range(1, 9)]
    assert curve.accuracy["easy"] == [(0, 0.0), (8, 0.75)]
    assert np.isnan(curve.metrics["entropy"]).all()


def lines(problem: str, rewards: list[float]) -> dict[str, list]:
    """Columns of the ledger: one group."""
    count = len(rewards)
    columns = {
        "step": [1] * count,
        "group": [0] * count,
        "row": list(range(count)),
        "problem_id": [problem] * count,
        "prompt": ["1+1=?"] * count,
        "answer": ["2"] * count,
        "text": [f"<b>{problem}</b> {i}" for i in range(count)],
        "grade_reason": ["correct" if r else "wrong" for r in rewards],
        "finish_reason": ["stop"] * count,
        "reward": rewards,
        "advantage": rewards,
        "length": [3] * count,
    }
    from opo_cli.ledger import LINE, PER_TOKEN

    empty = {name: [None] * count for name in (*LINE, *PER_TOKEN) if name not in columns}
    return columns | empty


def test_rollouts_to_the_same_prompt_stand_side_by_side(make_run):
    folders = [make_run("x"), make_run("y", algorithm="ppo")]
    for folder, reward in zip(folders, (1.0, 0.0), strict=True):
        same, split = lines("same", [1.0, 0.0]), lines("split", [reward, reward])
        both = {name: [*same[name], *split[name]] for name in same}
        folder.ledger.write(1, both, 10**7)
        folder.ledger.write(2 if reward else 3, both, 10**7)  # Only step 1 is common.
    samples = samples_of(compare(folders, OPTIONS).chosen)
    assert [(s.where, s.problem, s.prompt) for s in samples] == [
        ("seed 0, step 1", "split", "1+1=?"),
        ("seed 0, step 1", "same", "1+1=?"),
    ]
    first = samples[0].responses
    assert [r.verdict for r in first["opo"]] == ["right", "right"]
    assert [r.verdict for r in first["ppo"]] == ["wrong", "wrong"]
    assert first["opo"][0].text == "<b>split</b> 0"


def test_without_a_common_seed_or_ledger_there_are_no_rollouts(make_run):
    folders = [make_run("x"), make_run("y", seed=1, algorithm="ppo")]
    assert samples_of(compare(folders, OPTIONS).chosen) == []
