"""Files of a run, whole and torn."""

from __future__ import annotations

import pytest

from opo_cli.errors import OpoError
from opo_cli.records import RunFolder, read_lines


def test_an_evaluation_joins_those_that_are_there(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_evals([{"a": 1}])
    folder.add_evals([{"a": 2}, {"a": 3}])
    assert folder.evals() == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_a_line_torn_by_a_kill_is_dropped_and_does_not_spoil_the_next(tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / "evals.jsonl").write_text('{"a": 1}\n{"a": ')
    assert folder.evals() == [{"a": 1}]
    folder.add_evals([{"a": 2}])
    assert folder.evals() == [{"a": 1}, {"a": 2}]


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "steps.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(OpoError, match=r"steps\.jsonl:2: not a JSON record"):
        read_lines(tmp_path / "steps.jsonl")


def test_the_log_is_cut_back_to_the_checkpoint(tmp_path):
    folder = RunFolder(tmp_path)
    for step in (1, 2, 3):
        folder.add_step({"step": step})
    folder.keep_steps(2)
    folder.add_step({"step": 3, "again": True})
    assert folder.steps() == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]
