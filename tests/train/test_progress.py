"""What a comparison shows of its runs while they train."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from opo_cli.files import write_text
from opo_cli.lines import as_lines
from opo_cli.records import STEPS, RunFolder
from opo_cli.train.cells import plan_matrix
from opo_cli.train.progress import Bars, GrowingFile

STEP = {"step": 1, "reward": 0.5}


def test_only_what_is_new_of_a_log_is_read(tmp_path: Path):
    path = tmp_path / "steps.jsonl"
    log = GrowingFile(path)
    assert log.num_lines() == 0
    path.write_bytes(b"one\ntwo\nthr")
    assert log.num_lines() == 2
    with path.open("r+b") as file:  # In place: what was read once is not looked at again.
        file.write(b"\n\n\n\n\n\n\n\n")
    assert log.num_lines() == 2
    with path.open("ab") as file:
        file.write(b"ee\nfour\n")
    assert log.num_lines() == 4
    assert log.num_lines() == 4


def test_a_log_that_is_cut_back_is_counted_anew(tmp_path: Path):
    folder = RunFolder(tmp_path)
    log = GrowingFile(tmp_path / "steps.jsonl")
    for step in range(1, 8):
        folder.add_step({"step": step})
    assert log.num_lines() == 7
    # And grows beyond what it was before the next look.
    write_text(tmp_path / STEPS, as_lines(folder.steps()[:4]))
    for step in range(5, 14):
        folder.add_step({"step": step})
    assert log.num_lines() == 13


def test_a_bar_shows_the_steps_of_its_log(in_tmp):
    [cell] = plan_matrix("smoke", ["opo"], [0])
    cell.folder.path.mkdir(parents=True)
    with open(os.devnull, "w") as sink:
        bars = Bars([cell], 1, Progress(console=Console(file=sink)))
        bars.start(cell)
        for done in (1, 2):
            cell.folder.add_step(STEP)
            bars.watch()
            assert bars.bars.tasks[-1].completed == done
        assert bars.bars.tasks[-1].total == 6
