"""The matrix as it is planned: which runs, of which configuration, in which folder."""

from __future__ import annotations

import json
import shlex
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest

from opo_cli.cli.compare import Match
from opo_cli.config import BudgetUnit
from opo_cli.errors import OpoError
from opo_cli.metrics import BUDGETS
from opo_cli.presets import resolve
from opo_cli.report.spending import Spending
from opo_cli.train.cells import Sweep, parse_sweep, plan_matrix
from opo_cli.train.outputs import default_folder


def plan(algorithms: str = "opo,dapo", seeds=(0,), overrides=(), **keys):
    return plan_matrix("smoke", algorithms.split(","), seeds, overrides, **keys)


def test_every_algorithm_at_every_seed(in_tmp):
    cells = plan("opo,grpo", (0, 3))
    assert [(c.algorithm, c.seed, c.value) for c in cells] == [
        ("opo", 0, None),
        ("opo", 3, None),
        ("grpo", 0, None),
        ("grpo", 3, None),
    ]
    assert [c.name for c in cells][::3] == ["smoke-opo-seed0", "smoke-grpo-seed3"]
    assert {c.state for c in cells} == {"missing"}
    assert [c.name for c in plan_matrix("smoke", None, None)] == [
        f"smoke-{name}-seed0" for name in ("opo", "grpo", "ppo")
    ]


def test_a_command_makes_the_cells_config(in_tmp):
    for cell in plan(sweep=Sweep("optim.learning_rate", (1e-05, 2.5)), match="samples"):
        command = cell.command()
        sets = [after for flag, after in pairwise(command) if flag == "--set"]
        again = resolve(
            command[command.index("--preset") + 1],
            algorithm=command[command.index("--algorithm") + 1],
            named={"seed": int(command[command.index("--seed") + 1])},
            overrides=sets,
        )
        assert again == cell.config
        assert "--resume" not in command


def test_ranks_are_no_part_of_a_run(in_tmp):
    """Begun with torchrun, it goes on without, and the reverse."""
    [cell] = plan("opo")
    on_two = cell.on_ranks(2)
    assert on_two.folder.path == cell.folder.path
    assert on_two.command() == cell.command()
    assert on_two.config.runtime.num_gpus == 2
    cell.folder.path.mkdir(parents=True)
    (cell.folder.path / "config.json").write_text(on_two.config.model_dump_json())
    (cell.folder.path / "environment.json").write_text("{}")
    [found] = plan("opo")  # Else refused as another configuration's.
    assert found.command()[-1] == "--resume"


def test_a_state_is_read_from_the_folder(in_tmp: Path):
    cell = plan("opo")[0]
    folder = cell.folder.path
    folder.mkdir(parents=True)
    (folder / "environment.json").write_text("{}")
    (folder / "config.json").write_text(cell.config.model_dump_json())
    (folder / "steps.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    assert plan("opo")[0].state == "stopped after step 2"
    assert "--resume" in plan("opo")[0].command()
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    assert plan("opo")[0].state == "finished"
    (folder / "config.json").write_text(
        json.dumps(cell.config.model_dump(mode="json") | {"train": {"steps": 7}})
    )
    with pytest.raises(OpoError, match=r"another configuration's run: train.steps is 7 there"):
        plan("opo")


# --- budgets ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, {"opo": 6, "dapo": 6}),
        ({"budget": 4}, {"opo": 4, "dapo": 4}),
        ({"match": "samples"}, {"opo": 6, "dapo": 6}),
        ({"match": "samples", "budget": 129}, {"opo": 3, "dapo": 3}),
        ({"match": "gradient-steps"}, {"opo": 6, "dapo": 2}),  # 4 updates a step.
        ({"match": "gradient-steps", "budget": 16}, {"opo": 16, "dapo": 4}),
    ],
)
def test_budgets_are_equal(keys, expected, in_tmp):
    overrides = ["algorithm.max_sampling_rounds=1"]  # Of which dapo has more.
    found = {c.algorithm: Spending(c.config).total for c in plan(overrides=overrides, **keys)}
    assert {name: total.steps for name, total in found.items()} == expected
    assert not any(total.word for total in found.values())


def test_the_first_algorithm_sets_the_default_budget(in_tmp):
    cells = plan("dapo,opo", match="gradient-steps")
    assert {c.algorithm: c.config.train.steps for c in cells} == {"dapo": 6, "opo": 24}


def test_a_budget_that_is_the_presets_steps_needs_no_other_runs(in_tmp):
    plain = [cell.folder.path for cell in plan("opo,grpo")]
    assert [cell.folder.path for cell in plan("opo,grpo", match="samples")] == plain


def test_what_is_not_known_beforehand_ends_by_counting(in_tmp):
    (cell,) = plan("dapo", match="samples")  # It samples anew what has no signal.
    assert (cell.config.train.budget, cell.config.train.budget_unit) == (384, "samples")


BAD = [
    ({"match": "tokens"}, "tokens without a budget", "--budget 12288: that many, train.steps = 6"),
    ({"match": "gradient-steps", "budget": 3}, "one step of 'dapo' takes 4", "--budget 4 or more"),
    ({"match": "samples", "budget": 63}, "one step of 'opo' takes 64", "--budget 64"),
    ({"budget": 0}, "--budget 0: at least 1", "leave it out"),
    ({"match": "hours"}, "--match 'hours'", "gradient-steps"),
    ({"overrides": ["train.budget=3"]}, "a comparison sets that itself", "--budget"),
    ({"overrides": ["train={budget_unit='tokens'}"]}, "sets that itself", "--match"),
    ({"overrides": ["seed=3"]}, "a comparison sets that itself", "--seeds"),
    ({"overrides": ["train.steps=3"], "budget": 4}, "a comparison sets that itself", "--budget"),
]


@pytest.mark.parametrize(("keys", "message", "hint"), BAD, ids=[row[1] for row in BAD])
def test_what_cannot_be_planned(keys, message: str, hint: str, in_tmp):
    with pytest.raises(OpoError, match=message) as caught:
        plan(**keys)
    assert hint in caught.value.hint


def test_what_is_hinted_works(in_tmp):
    cells = plan(match="tokens", budget=12288, overrides=["train.steps=6"])
    assert {cell.config.train.budget_unit for cell in cells} == {"tokens"}


# --- the sweep ----------------------------------------------------------------------------------


def test_each_algorithm_at_each_value(in_tmp):
    sweep = parse_sweep("optim.learning_rate=2e-4, 1e-3")
    cells = plan("opo,grpo", sweep=sweep)
    assert [(c.algorithm, c.value, c.config.optim.learning_rate) for c in cells] == [
        ("opo", 2e-4, 2e-4),
        ("opo", 1e-3, 1e-3),
        ("grpo", 2e-4, 2e-4),
        ("grpo", 1e-3, 1e-3),
    ]
    # The preset's own value is the plain run.
    assert cells[0].folder.path == default_folder(resolve("smoke")).path
    assert len({cell.folder.path for cell in cells}) == 4


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("optim.learning_rate=1e-4,3e-4,1e-4", (1e-4, 3e-4)),
        ("rollout.group_size=4,8", (4, 8)),
        ("algorithm.whiten_advantages=true,false", (True, False)),
        ("algorithm.kl_estimator=k2, k3", ("k2", "k3")),
        ('algorithm.kl_estimator="k2","k3"', ("k2", "k3")),
    ],
)
def test_values_are_toml_or_bare_words(text: str, values):
    assert parse_sweep(text).values == values


BAD_SWEEPS = [
    ("optim.learning_rte=1,2", "unknown config key 'optim.learning_rte'", "'optim.learning_rate'"),
    ("optm.beta1=1,2", "unknown config key 'optm'", "'optim'"),
    ("optim=1,2", "'optim' is a section", "optim.learning_rate"),
    ("optim.learning_rate", "two values or more", "optim.learning_rate=1e-4,3e-4"),
    ("optim.learning_rate=1e-4", "two values or more", "optim.learning_rate=1e-4,3e-4"),
    ("optim.learning_rate=[1],[2]", "two values or more", "optim.learning_rate=1e-4,3e-4"),
    ("seed=1,2", "a comparison sets that itself", "--seeds"),
    ("algorithm.name=opo,ppo", "a comparison sets that itself", "--algorithms"),
    ("train.budget=1,2", "a comparison sets that itself", "--budget"),
    ("eval.samples=1,2", "no measure", "algorithm, optim, rollout"),
]


@pytest.mark.parametrize(("text", "message", "hint"), BAD_SWEEPS)
def test_what_cannot_be_swept(text: str, message: str, hint: str):
    with pytest.raises(OpoError, match=message) as caught:
        parse_sweep(text)
    assert hint in caught.value.hint


def test_a_value_is_checked_and_set_once(in_tmp):
    with pytest.raises(OpoError, match="learning_rate = -1"):
        plan(sweep=parse_sweep("optim.learning_rate=1e-4,-1"))
    with pytest.raises(OpoError, match=r"--set optim\.learning_rate=3: a comparison"):
        plan(sweep=parse_sweep("optim.learning_rate=1,2"), overrides=["optim.learning_rate=3"])


def test_a_sweep_needs_a_validation_split(in_tmp):
    sweep = parse_sweep("optim.learning_rate=1e-4,3e-4")
    with pytest.raises(OpoError, match=r"no eval\.validation") as caught:
        plan(sweep=sweep, overrides=["eval.validation=[]"])
    hinted = shlex.split(caught.value.hint)[-1]
    assert len(plan("opo", sweep=sweep, overrides=[hinted])) == 2


def test_config_command_line_and_metrics_know_the_same_budgets():
    assert get_args(BudgetUnit) == tuple(BUDGETS) == tuple(Match)
