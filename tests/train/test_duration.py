"""How long runs will take, from runs whose times are known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from opo_cli.presets import resolve
from opo_cli.train.cells import Cell, plan_matrix
from opo_cli.train.duration import (
    LIKE,
    SCALED,
    Duration,
    expected,
    in_words,
    longest_first,
    num_responses,
    plan_table,
    together,
)

STEP = {
    "rollout_seconds": 1.0,
    "score_seconds": 0.2,
    "update_seconds": 2.0,
    "step_seconds": 4.0,
    "ledger_seconds": 0.5,
}
EVAL = {"benchmark": "tiny-easy", "num_problems": 16, "num_samples": 4, "seconds": 6.4}


def cells_of(algorithms: str, seeds=(0,), *overrides: str) -> list[Cell]:
    return plan_matrix("smoke", algorithms.split(","), seeds, overrides)


def write(cell: Cell, num_steps: int, *, is_finished: bool = True, scale: float = 1.0) -> None:
    """A run as if trained: 4.5 s a step, .1 s an evaluated response, 7 s to start."""
    folder = cell.folder.path
    folder.mkdir(parents=True)
    (folder / "environment.json").write_text('{"startup_seconds": 7.0}')
    (folder / "config.json").write_text(cell.config.model_dump_json())
    step = {key: value * scale for key, value in STEP.items()}
    lines = [json.dumps({"step": n + 1, **step}) + "\n" for n in range(num_steps)]
    (folder / "steps.jsonl").write_text("".join(lines))
    evals = [{"policy": "initial", **EVAL, "seconds": 99.0}, {"policy": "final", **EVAL}]
    (folder / "evals.jsonl").write_text("".join(json.dumps(r) + "\n" for r in evals))
    if is_finished:
        (folder / "model").mkdir()
        (folder / "model" / "config.json").write_text("{}")


def test_a_run_takes_what_runs_of_its_algorithm_took(in_tmp):
    known, new = cells_of("opo", (0, 1))
    write(known, 6)
    # 6 steps, and 16 x 4 responses to each of two benchmarks and the validation split.
    assert expected([known, new]) == {
        known.name: Duration(0.0, LIKE),
        new.name: Duration(pytest.approx(7 + 6 * 4.5 + 3 * 64 * 0.1), LIKE),
    }


def test_other_sizes_tell_nothing(in_tmp):
    write(cells_of("opo")[0], 6)
    [other] = cells_of("opo", (0,), "rollout.group_size=4", "runtime.device=cpu")
    assert expected([other]) == {other.name: Duration(None)}


def test_runs_of_other_ranks_tell_nothing(in_tmp):
    known, new = cells_of("opo", (0, 1), "runtime.device=cpu")
    write(known.on_ranks(2), 6)
    assert expected([new]) == {new.name: Duration(None)}
    assert expected([new.on_ranks(4)]) == {new.name: Duration(None)}
    again = expected([new.on_ranks(2)])[new.name]
    assert again == Duration(pytest.approx(7 + 6 * 4.5 + 3 * 64 * 0.1), LIKE)


def test_more_steps_take_longer(in_tmp):
    write(cells_of("opo")[0], 6)
    [longer] = cells_of("opo", (0,), "train.steps=60")
    assert expected([longer])[longer.name].seconds == pytest.approx(7 + 60 * 4.5 + 19.2)


def test_a_stopped_run_takes_the_rest(in_tmp):
    known, stopped = cells_of("opo", (0, 1))
    write(known, 6)
    write(stopped, 4, is_finished=False, scale=1.0)
    assert expected([stopped])[stopped.name].seconds == pytest.approx(7 + 2 * 4.5 + 19.2)


def test_another_algorithm_is_scaled_by_what_it_does(in_tmp):
    write(cells_of("opo")[0], 6)
    plain, remax, ppo, rloo = cells_of("grpo-on-policy,remax,ppo,rloo")
    found = expected([plain, remax, ppo, rloo])
    assert {duration.source for duration in found.values()} == {SCALED}
    opo = 7 + 6 * 4.5 + 19.2
    assert found[plain.name].seconds == pytest.approx(opo)
    # Two forward passes for the penalty; an update's 2 s are three.
    assert found[rloo.name].seconds == pytest.approx(opo + 6 * 2 * 2 / 3)
    # 72 samples where there were 64, in the rollout's second of each step.
    assert found[remax.name].seconds == pytest.approx(found[rloo.name].seconds + 6 / 8)
    assert found[ppo.name].seconds > found[rloo.name].seconds + 6  # The critic's passes and update.


def test_the_newest_three_runs_count(in_tmp):
    import os

    cells = cells_of("opo", range(6))
    for age, (cell, scale) in enumerate(zip(cells[:5], (1, 1, 1, 50, 50), strict=True)):
        write(cell, 6, scale=scale)
        os.utime(cell.folder.path / "config.json", (1e9 - age, 1e9 - age))
    assert expected([cells[5]])[cells[5].name].seconds == pytest.approx(7 + 27 + 19.2)


@pytest.mark.parametrize(
    ("overrides", "num_done", "expected_count"),
    [
        ((), 0, 3),
        (("eval.every=2",), 0, 3 + 2 * 2),  # After steps 2 and 4; 6 is the last.
        (("eval.every=2",), 3, 3 + 2),
        (("eval.every=2", "eval.during=['tiny-ood']"), 0, 3 + 2),
        (("eval.every=2", "eval.checkpoint=best"), 0, 3 + 2 * 3),
        (("eval.every=6",), 0, 3),
    ],
)
def test_evaluations_to_come(overrides, num_done: int, expected_count: int):
    config = resolve("smoke", overrides=overrides)
    assert num_responses(config, num_done, 6) == 64 * expected_count


def test_a_damaged_run_tells_nothing_and_harms_nothing(in_tmp):
    cells = cells_of("opo", range(4))
    for cell in cells[:3]:
        write(cell, 6)
    (cells[0].folder.path / "config.json").write_text("{")
    (cells[1].folder.path / "steps.jsonl").write_text('x\n{"step": 2}\n')
    (cells[2].folder.path / "config.json").write_text('{"preset": "smoke"}')
    assert expected(cells[3:])[cells[3].name] == Duration(None)


def test_together_is_the_longest_first_on_whatever_is_free():
    lengths = [Duration(seconds, LIKE) for seconds in (3.0, 3.0, 2.0, 2.0, 2.0)]
    assert together(lengths, 1) == 12
    assert together(lengths, 2) == 7  # 3 + 2 + 2 beside 3 + 2.
    assert together(lengths, 9) == 3
    assert together([*lengths, Duration(None)], 2) is None
    assert together([], 2) == 0


def test_the_longest_runs_start_first(in_tmp):
    cells = cells_of("opo,ppo,dapo")
    # Nothing is known: critic first, then many updates.
    assert [cell.algorithm for cell in longest_first(cells)] == ["ppo", "dapo", "opo"]
    [known] = cells_of("opo", (7,))
    write(known, 6, scale=100)
    for cell in cells_of("ppo,dapo", (7,)):
        write(cell, 6)
    assert longest_first(cells)[0].algorithm == "opo"


def test_the_plan_says_what_is_there_and_what_is_missing(in_tmp):
    cells = cells_of("opo,grpo", (0, 1, 2))
    table = plan_table(cells, 2)
    assert table.rows == [
        ["opo", "-", "-", "3", "unknown"],
        ["grpo", "-", "-", "3", "unknown"],
    ]
    assert "unknown" in table.note
    write(cells[0], 6)
    write(cells[1], 4, is_finished=False)
    table = plan_table(cells, 2)
    assert table.rows[0][:4] == ["opo", "1", "1", "1"]
    assert table.rows[0][4] == "about 44 s"  # Of 53.2 and 35.2.
    assert "with 2 at once (as runs of it took; scaled from" in table.note
    for cell in cells[2:]:
        write(cell, 6)
    assert plan_table(cells[:1], 2).note == "nothing is missing"


def test_swept_values_are_rows_of_their_own(in_tmp):
    from opo_cli.train.cells import parse_sweep

    cells = plan_matrix("smoke", ["opo"], [0], sweep=parse_sweep("optim.learning_rate=1e-4,3e-4"))
    table = plan_table(cells, 2)
    assert [row[:2] for row in table.rows] == [["opo", "0.0001"], ["opo", "0.0003"]]
    assert table.head[1] == "value"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (89, "89 s"), (100, "2 min"), (6000, "1.7 h")]
)
def test_times_in_words(seconds: float, text: str):
    assert in_words(seconds) == text


def test_a_finished_matrix_is_planned_without_torch(in_tmp: Path):
    for cell in cells_of("opo,ppo"):
        write(cell, 6)
    script = (
        "import sys; from opo_cli.train.cells import plan_matrix; "
        "from opo_cli.train.duration import plan_table; import opo_cli.train.matrix; "
        "plan_table(plan_matrix('smoke', ['opo', 'ppo'], [0]), 2); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
