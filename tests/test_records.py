"""Files of a run, whole and torn."""

from __future__ import annotations

from pathlib import Path

import pytest

from opo_cli.errors import OpoError
from opo_cli.records import RunFolder
from tests.damage import flip_a_bit, kill_as_it_says, names


def test_an_evaluation_joins_those_that_are_there(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_evals([{"a": 1}])
    folder.add_evals([{"a": 2}, {"a": 3}])
    assert folder.evals() == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_a_line_torn_by_a_kill_is_dropped_and_does_not_spoil_the_next(tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / "steps.jsonl").write_text('{"step": 1}\n{"step": ')
    assert folder.steps() == [{"step": 1}]
    folder.add_step({"step": 2})
    assert folder.steps() == [{"step": 1}, {"step": 2}]


def test_what_no_kill_tears_is_damaged(tmp_path):
    """Evaluations, which are written at once, and a finished run's steps."""
    folder = RunFolder(tmp_path)
    for name in ("evals.jsonl", "steps.jsonl"):
        (tmp_path / name).write_text('{"step": 1}\n{"step": ')
    folder.model.mkdir()
    (folder.model / "config.json").write_text("{}")
    for read in (folder.steps, folder.evals):
        with pytest.raises(OpoError, match=r"s.jsonl:2: not a JSON record"):
            read()


@pytest.mark.parametrize("is_finished", [False, True])
def test_a_damaged_log_is_named_with_what_mends_it(is_finished: bool, tmp_path: Path):
    folder = RunFolder(tmp_path)
    for step in (1, 2, 3):
        folder.add_step({"step": step})
    if is_finished:
        folder.model.mkdir()
        (folder.model / "config.json").write_text("{}")
    place = (tmp_path / "steps.jsonl").read_bytes().index(b": 2") + 2
    flip_a_bit(tmp_path / "steps.jsonl", place)
    with pytest.raises(OpoError, match=r"steps\.jsonl:2: damaged") as caught:
        folder.steps()
    mend = "restore the file" if is_finished else f"opo train --resume --out {tmp_path} goes back"
    assert caught.value.hint.startswith(mend)


def test_the_folder_goes_back_to_a_checkpoints_logs(tmp_path: Path):
    folder, copies = RunFolder(tmp_path / "run"), tmp_path / "copies"
    folder.path.mkdir()
    copies.mkdir()
    for step in (1, 2):
        folder.add_step({"step": step})
    folder.write_evals([{"step": 2, "a": 0.5}])
    folder.copy_logs(copies)
    folder.add_step({"step": 3})
    folder.write_evals([{"step": 3, "a": 0.75}])
    flip_a_bit(folder.path / "steps.jsonl")
    for step in (2, 3):
        folder.samples(step).mkdir(parents=True)
        folder.snapshot(step).mkdir(parents=True)
    folder.go_back(2, copies)
    folder.add_step({"step": 3, "again": True})
    assert folder.steps() == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]
    assert folder.evals() == [{"step": 2, "a": 0.5}]
    assert names(folder.path / "samples") == names(folder.path / "snapshots") == ["step-000002"]
    folder.go_back(0, None)
    assert folder.steps() == folder.evals() == names(folder.path / "samples") == []


WRITER = """
import sys, time
from pathlib import Path
from opo_cli.files import make_folder
from opo_cli.records import RunFolder
run = RunFolder(Path(sys.argv[1]))
def fill(folder):
    (folder / "half").write_text("half")
    print("writing", flush=True)
    time.sleep(100)
with run.locked():
    make_folder({target}, fill)
"""
TARGETS = [
    "run.model",
    "run.checkpoints / 'step-000001'",
    "run.snapshot(1)",
    "run.ledger.path(1)",
]


@pytest.mark.parametrize("target", TARGETS)
def test_who_works_next_on_a_run_sweeps_what_a_killed_process_left(target: str, tmp_path: Path):
    kill_as_it_says("writing", WRITER.format(target=target), str(tmp_path))
    assert (tmp_path / "lock").exists()
    assert len(list(tmp_path.rglob(".writing-*"))) == 1
    with RunFolder(tmp_path).locked():
        assert not list(tmp_path.rglob(".writing-*"))
    assert not list(tmp_path.rglob("*.*"))
    assert not (tmp_path / "lock").exists()


def test_a_finished_run_needs_no_checkpoints(tmp_path: Path):
    """Killed between its last two renames."""
    folder = RunFolder(tmp_path)
    for path in (folder.model, folder.checkpoints / "step-000001"):
        path.mkdir(parents=True)
    with folder.locked():
        assert names(folder.checkpoints) == ["step-000001"]
    (folder.model / "config.json").write_text("{}")
    with folder.locked():
        assert names(tmp_path) == ["lock", "model"]
