"""What training shows: the plan, one line per step, and on a terminal a bar with the time left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from opo_cli.console import inert, warn
from opo_cli.report.spending import Total

# Metric, head, width, format: 80 columns in all.
COLUMNS = (
    ("step", "step", 5, "d"),
    ("reward", "reward", 7, ".3f"),
    ("accuracy", "acc", 6, ".3f"),
    ("length", "length", 7, ".1f"),
    ("truncated", "cut", 6, ".3f"),
    ("entropy", "entropy", 8, ".3f"),
    ("kl_exact_sequence", "KL/seq", 7, ".3f"),
    ("gradient_norm", "|grad|", 7, ".3f"),
    ("tokens_per_second", "tok/s", 7, ".0f"),
    ("step_seconds", "sec", 6, ".2f"),
)
ETA_WIDTH = 8
AVERAGED_STEPS = 10  # Step times behind the time left.


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class TrainView:
    """Writes to `console`; `step` is called once per step."""

    def __init__(self, console: Console):
        self.console = console
        self._seconds: list[float] = []
        self._bar: Progress | None = None

    def plan(self, rows: Sequence[tuple[str, str]]) -> None:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(style="bold")
        table.add_column()
        for title, text in rows:
            table.add_row(title, inert(text, self.console))
        self.console.print(table)
        self.console.print()

    @contextmanager
    def steps(self, done: int, total: Total) -> Iterator[None]:
        """Around the loop: the head of the table, and the bar."""
        head = "".join(f"{head:>{width}}" for _, head, width, _ in COLUMNS)
        self.console.print(f"[bold]{head}{'left':>{ETA_WIDTH}}[/]", soft_wrap=True)
        if not self.console.is_terminal:
            yield
            return
        with Progress(
            TextColumn("step {task.completed:.0f} of {task.fields[total_told]}"),
            BarColumn(),
            TextColumn("{task.fields[phase]}"),
            console=self.console,
            transient=True,
        ) as self._bar:
            self._task = self._bar.add_task(
                "", total=total.steps, completed=done, phase="", total_told=str(total)
            )
            yield

    def rollout(self, finished: int, total: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, phase=f"rollout {finished}/{total}")

    def updating(self) -> None:
        if self._bar is not None:
            self._bar.update(self._task, phase="update")

    def evaluating(self, benchmark: str, done: int, total: int) -> None:
        if self._bar is not None:
            self._bar.update(
                self._task, phase=inert(f"evaluate {benchmark} {done}/{total}", self.console)
            )

    def evaluated(self, step: int, records: Sequence[dict[str, Any]]) -> None:
        told = ", ".join(f"{r['benchmark']} {r['accuracy']:.3f}" for r in records)
        self.console.print(inert(f"after step {step}: {told}", self.console), soft_wrap=True)

    def warn(self, message: str) -> None:
        """Talk goes to stderr, past the bar, which makes room."""
        if self._bar is not None:
            self._bar.stop()
        warn(message)
        if self._bar is not None:
            self._bar.start()

    def step(self, record: dict[str, Any], total: Total) -> None:
        """`total`: steps of the whole run, as far as they are known by now."""
        self._seconds = [*self._seconds, record["step_seconds"]][-AVERAGED_STEPS:]
        left = sum(self._seconds) / len(self._seconds) * (total.steps - record["step"])
        cells = [
            f"{'-':>{width}}" if record.get(key) is None else f"{record[key]:>{width}{form}}"
            for key, _, width, form in COLUMNS
        ]
        self.console.print("".join(cells) + f"{clock(left):>{ETA_WIDTH}}", soft_wrap=True)
        if self._bar is not None:
            self._bar.update(
                self._task,
                total=total.steps,
                completed=record["step"],
                phase="",
                total_told=str(total),
            )
