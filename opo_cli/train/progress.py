"""What a comparison shows of its runs while they train, with the time left."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from opo_cli.console import err, inert, note
from opo_cli.report.spending import Spending
from opo_cli.train.cells import Cell
from opo_cli.train.duration import expected, in_words, together


@contextmanager
def display(cells: Sequence[Cell], jobs: int) -> Iterator[Display]:
    """`cells`: that are to do."""
    if not err.is_terminal:
        yield Display(cells, jobs)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TextColumn("{task.fields[word]}"), console=err, transient=True) as bars:
        yield Bars(cells, jobs, bars)


class Display:
    """Where there is no terminal: a line when a run starts and when it ends."""

    def __init__(self, cells: Sequence[Cell], jobs: int):
        self.cells, self.jobs = cells, jobs
        self.left = list(cells)
        self.running: dict[str, float] = {}
        """Name of a cell -> when it started."""
        self.seconds_left = self._seconds_left()

    def start(self, cell: Cell) -> None:
        self.running[cell.name] = time.monotonic()
        note(f"{cell.name}: started")

    def watch(self) -> None:
        """Called now and then."""

    def skip(self, cell: Cell) -> None:
        """Another process has done it."""
        self.left.remove(cell)
        self.seconds_left = self._seconds_left()

    def end(self, cell: Cell) -> None:
        took = time.monotonic() - self.running.pop(cell.name)
        self.skip(cell)
        done = f"{len(self.cells) - len(self.left)} of {len(self.cells)} done"
        note(f"{cell.name}: ended after {in_words(took)}; {done}{self._told()}")

    def _seconds_left(self) -> float | None:
        """Of the cells that have not ended, each from its last step; the runs that have ended
        meanwhile are what others' times are told from."""
        return together(expected(self.left).values(), self.jobs)

    def _told(self) -> str:
        if not self.left or self.seconds_left is None:
            return ""
        return f", about {in_words(self.seconds_left)} left"


class GrowingFile:
    """A log that another process writes: counted on from where the last look ended."""

    def __init__(self, path: Path):
        self.path = path
        self._number, self._offset, self._lines = -1, 0, 0

    def num_lines(self) -> int:
        """Whole lines so far; 0 where there is no file."""
        if not self.path.is_file():
            return 0
        with self.path.open("rb", buffering=0) as file:
            number = os.fstat(file.fileno()).st_ino
            if number != self._number:  # As a resumed run cuts it back: another file by this name.
                self._number, self._offset, self._lines = number, 0, 0
            file.seek(self._offset)
            new = file.read()
        self._offset += len(new)
        self._lines += new.count(b"\n")
        return self._lines


class Bars(Display):
    """A bar per running cell, and one of all."""

    def __init__(self, cells: Sequence[Cell], jobs: int, bars: Progress):
        super().__init__(cells, jobs)
        self.bars, self.tasks = bars, {}
        self.logs = {cell.name: GrowingFile(cell.folder.path / "steps.jsonl") for cell in cells}
        self.told_at = time.monotonic()
        self.whole = bars.add_task("all runs", total=len(cells), word="")

    def start(self, cell: Cell) -> None:
        self.running[cell.name] = time.monotonic()
        total = Spending(cell.config).total.steps
        self.tasks[cell.name] = self.bars.add_task(
            inert(cell.name, self.bars.console), total=total, word=""
        )

    def watch(self) -> None:
        for cell in self.left:
            if cell.name in self.tasks:
                done = self.logs[cell.name].num_lines()
                self.bars.update(self.tasks[cell.name], completed=done)
        if self.left and self.seconds_left is not None:
            left = max(0.0, self.seconds_left - (time.monotonic() - self.told_at))
            self.bars.update(self.whole, word=f"about {in_words(left)} left")

    def skip(self, cell: Cell) -> None:
        super().skip(cell)
        self.told_at = time.monotonic()
        self.bars.update(self.whole, completed=len(self.cells) - len(self.left))

    def end(self, cell: Cell) -> None:
        self.bars.remove_task(self.tasks.pop(cell.name))
        super().end(cell)
