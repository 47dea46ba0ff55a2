"""`opo replay`: credit from the ledger is the credit of training, by the same functions."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from opo_cli.algorithms import ALGORITHMS
from opo_cli.cli import main
from opo_cli.records import RunFolder
from opo_cli.report.replay import replay
from opo_cli.rl.advantages import ADVANTAGES, grpo, opo_leave_one_out

STEPS = {"opo": 2, "ppo": 1, "otb": 1, "remax": 1, "masked": 1}


@pytest.fixture(scope="module")
def runs(base, tmp_path_factory) -> dict[str, RunFolder]:
    """A small real run per estimator; `masked` leaves cut responses out."""
    root, made = tmp_path_factory.mktemp("runs"), {}
    for name, steps in STEPS.items():
        changes = ["algorithm.overlong=mask", "rollout.max_new_tokens=16"]
        changes = ["eval.benchmarks=[]", *(changes if name == "masked" else [])]
        arguments = ["--steps", str(steps), "--out", str(root / name)]
        arguments += ["--algorithm", name if name in ALGORITHMS else "opo"]
        arguments += [part for change in changes for part in ("--set", change)]
        assert main(["train", "--preset", "smoke", *arguments]) == 0
        made[name] = RunFolder(root / name)
    return made


@pytest.fixture
def told(runs, monkeypatch, capfd):
    """Runs `opo replay` beside the runs: (exit code, stdout, stderr)."""
    monkeypatch.chdir(runs["opo"].path.parent)

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(["replay", *arguments])
        return code, *capfd.readouterr()

    return run


def lines_of(folder: RunFolder) -> list[list[dict]]:
    return [folder.ledger.read(step) for step in folder.ledger.steps()]


@pytest.mark.parametrize("name", STEPS)
def test_the_own_estimator_follows_from_the_ledger(name, runs, told):
    code, out, err = told(name, "--as", "rloo,none", "--format", "json")
    assert (code, err) == (0, "")
    own, rloo, none = json.loads(out)
    assert own["stored_difference"] < 1e-6
    assert own["estimator"] == runs[name].config()["algorithm"]["advantage"]
    assert (own["is_own"], own["sign_flips"], own["moved_credit"]) == (True, 0.0, 0.0)
    assert own["correlation"] == pytest.approx(1)
    assert rloo["moved_credit"] > 0
    assert none["estimator"] == "none"


def test_masked_responses_were_there(runs):
    (lines,) = lines_of(runs["masked"])
    assert {line["is_trained"] for line in lines} == {True, False}


@pytest.mark.parametrize(("name", "estimate"), [("opo-loo", opo_leave_one_out), ("grpo", grpo)])
def test_another_estimator_is_as_by_hand(name, estimate, runs):
    """On a run without a KL in the reward, each estimator once per step, over its lines."""
    record = replay(runs["opo"], [name], None).records[1]
    theirs, own, right = [], [], []
    for lines in lines_of(runs["opo"]):
        rewards, lengths = (
            torch.tensor([float(line[key]) for line in lines]) for key in ("reward", "length")
        )
        groups = torch.tensor([line["group"] for line in lines])
        theirs += estimate(rewards, lengths, groups).double().tolist()
        own += [line["advantage"] for line in lines]
        right += [(line["correct"], line["length"]) for line in lines]
    lengths = torch.tensor([length for _, length in right]).double()
    a, b = (torch.tensor(values).double() for values in (theirs, own))
    is_right = torch.tensor([correct for correct, _ in right])
    total = (a.abs() * lengths).sum()
    scale = (b.abs() * lengths).sum() / total
    moved = ((scale * a - b).abs() * lengths).sum() / (b.abs() * lengths).sum()
    tokens = torch.stack([a, b]).repeat_interleave(lengths.long(), dim=1)
    expected = {
        "mean_abs_advantage": total / lengths.sum(),
        "advantage_right": a[is_right].mean(),
        "advantage_wrong": a[~is_right].mean(),
        "correlation": torch.corrcoef(tokens)[0, 1],
        "sign_flips": ((a * b < 0) * lengths).sum() / lengths.sum(),
        "zero_share": (a == 0).double().mean(),
        "moved_credit": moved,
    }
    for key, value in expected.items():
        assert record[key] == pytest.approx(value.item(), abs=1e-6), key


def test_a_rescaled_estimator_moves_no_credit(runs):
    """All groups have as many responses, so RLOO is the mean baseline times N/(N-1)."""
    mean, rloo = replay(runs["opo"], ["mean", "rloo"], None).records[1:]
    assert rloo["mean_abs_advantage"] == pytest.approx(mean["mean_abs_advantage"] * 8 / 7)
    for key in ("moved_credit", "correlation", "zero_share"):
        assert rloo[key] == pytest.approx(mean[key], abs=1e-6)


def test_one_step(runs, told):
    code, out, _ = told("opo", "--step", "2", "--as", "mean")
    assert code == 0
    assert "step 2, 64 responses" in out


def test_without_names_all_that_the_ledger_can_feed(runs):
    found = {
        name: [r["estimator"] for r in replay(runs[name], None, None).records] for name in runs
    }
    assert set(found["opo"]) == set(ADVANTAGES) - {"gae", "remax"}
    assert found["opo"].count("opo") == 1
    # Whitened as the run does it, and as it is.
    assert found["ppo"].count("gae") == 2
    assert "remax" in found["remax"]


@pytest.mark.parametrize("format", ["rich", "markdown", "csv", "json"])
def test_every_format(format, told):
    code, out, err = told("opo", "--as", "grpo", "--format", format)
    assert (code, err) == (0, "")
    if format == "csv":
        rows = list(csv.DictReader(io.StringIO(out)))
        assert [row["estimator"] for row in rows] == ["opo", "grpo"]
    elif format == "json":
        assert len(json.loads(out)) == 2
    else:
        assert "opo (own)" in out
        assert "exactly what is stored" in " ".join(out.split())


def test_80_columns_hold_the_widest_name(runs):
    from rich.console import Console

    from opo_cli.report.tables import print_report

    console = Console(file=io.StringIO(), width=80)
    print_report(console, replay(runs["opo"], None, None), "rich")
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert " reinforce++-baseline " in text


def test_a_ledger_that_does_not_add_up_is_warned_of(runs, tmp_path, told):
    folder = RunFolder(tmp_path / "changed")
    shutil.copytree(runs["opo"].path, folder.path)
    lines = folder.ledger.read(2)
    columns = {key: [line[key] for line in lines] for key in lines[0]}
    columns["advantages"] = [[a + 0.01 for a in row] for row in columns["advantages"]]
    folder.ledger.write(2, columns, 2**24)
    code, _, err = told(str(folder.path), "--as", "mean")
    assert code == 0
    (warning,) = err.splitlines()
    assert warning.startswith("warning: step 2: the stored advantages do not follow from")
    assert "largest difference 0.01" in warning


def test_a_ledger_without_a_loss_token_is_told(runs, tmp_path, told):
    folder = RunFolder(tmp_path / "masked")
    shutil.copytree(runs["opo"].path, folder.path)
    for step in folder.ledger.steps():
        lines = [line | {"is_trained": False} for line in folder.ledger.read(step)]
        folder.ledger.write(step, {key: [line[key] for line in lines] for key in lines[0]}, 2**24)
    code, _, err = told(os.path.relpath(folder.path))
    assert code == 2
    assert "all are masked" in err


MISTAKES = [
    ("nowhere", "no run at 'nowhere'", "opo train"),
    ("opo --step 7", "no rollouts of step 7", "it holds steps 1 to 2"),
    ("opo --as gropo", "unknown advantage estimator 'gropo'", "did you mean 'grpo'?"),
    ("opo --as ppo", "unknown advantage estimator 'ppo'", "opo"),
    ("opo --as ,", "--as ',' holds no name", "--as a,b"),
    ("opo --as rloo,gae", "'gae' cannot be replayed", "opo train --algorithm ppo"),
    ("opo --as remax", "no rewards of greedy responses", "opo train --algorithm remax"),
    ("opo --format html", "'html'", "opo replay --help"),
    ("", "Missing argument 'RUN'", "opo replay --help"),
]


@pytest.mark.parametrize(("line", "message", "hint"), MISTAKES, ids=[row[0] for row in MISTAKES])
def test_a_mistake_gets_two_lines(line, message, hint, told):
    code, out, err = told(*line.split())
    lines = err.splitlines()
    assert (code, out, len(lines)) == (2, "", 2), err
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert lines[1].startswith("hint: ")
    assert hint in lines[1]


def test_the_run_of_a_folder_is_found_by_path(runs: dict[str, RunFolder], told):
    assert told(str(Path(runs["opo"].path)), "--as", "mean")[0] == 0
