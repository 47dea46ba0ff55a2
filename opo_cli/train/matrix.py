"""The runs behind a comparison: each algorithm x seed in a process of its own. No torch."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from opo_cli.config import Config
from opo_cli.console import err, note, warn
from opo_cli.errors import OpoError
from opo_cli.model.device import check_gpus
from opo_cli.presets import resolve
from opo_cli.records import RUNS, RunFolder
from opo_cli.rl.advantages import ADVANTAGES
from opo_cli.train.interrupt import Interrupted, Interrupts
from opo_cli.train.outputs import check_data, default_folder, difference_from

POLL_SECONDS = 0.25
GRACE_SECONDS = 60  # For a child to finish its step and save, once told to stop.


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of the matrix."""

    config: Config
    folder: RunFolder
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.folder.name

    def command(self) -> list[str]:
        config = self.config
        sets = [part for text in self.overrides for part in ("--set", text)]
        resume = ["--resume"] if self.folder.exists else []
        return [
            *(sys.executable, "-m", "opo_cli", "train", "--preset", config.preset),
            *("--algorithm", config.algorithm.name, "--seed", str(config.seed)),
            *("--out", str(self.folder.path), *sets, *resume),
        ]


def plan_matrix(
    preset: str,
    algorithms: Sequence[str] | None,
    seeds: Sequence[int] | None,
    overrides: Iterable[str] | None = (),
) -> list[Cell]:
    """Every cell, checked before anything runs; None takes the preset's own list.

    Raises:
        OpoError: an unknown name or value, or a folder that holds another configuration's run.
    """
    overrides = tuple(overrides or ())
    for text in overrides:
        if text.partition("=")[0].strip() in ("seed", "algorithm.name", "preset"):
            raise OpoError(
                f"--set {text}: a comparison sets that itself",
                "use --seeds, --algorithms, --preset",
            )
    defaults = resolve(preset, overrides=overrides).compare
    cells: dict[Path, Cell] = {}
    for algorithm in algorithms or defaults.algorithms:
        for seed in seeds or defaults.seeds:
            config = resolve(preset, algorithm=algorithm, named={"seed": seed}, overrides=overrides)
            check_data(config)
            cell = Cell(config, default_folder(config), overrides)
            if cell.folder.exists:
                changed = difference_from(config, cell.folder)
                if changed:
                    raise OpoError(
                        f"'{cell.folder.path}' holds another configuration's run: {changed}",
                        "move it away, or compare in another folder",
                    )
            cells[cell.folder.path] = cell
    return list(cells.values())


def run_matrix(cells: Sequence[Cell], jobs: int) -> list[Cell]:
    """Runs every unfinished cell, `jobs` at a time; returns the cells that failed.

    Raises:
        OpoError: the GPUs that the preset was sized for are not here, or the base cannot be
            prepared.
        Interrupted: a signal came; every child has saved its state.
    """
    missing = [cell for cell in cells if not cell.folder.is_finished]
    if missing:
        check_gpus(missing[0].config)
    num_finished = len(cells) - len(missing)
    note(f"{len(cells)} runs: {num_finished} finished, {len(missing)} to do, {jobs} at once")
    if not missing:
        return []
    with Interrupts().installed():
        _prepare(missing[0])
        return _Pool(missing, jobs).run()


def _prepare(cell: Cell) -> None:
    """Base and problems once, before several runs ask for them; the talk is ours."""
    sets = [part for text in cell.overrides for part in ("--set", text)]
    command = [sys.executable, "-m", "opo_cli", "prepare", "--preset", cell.config.preset, *sets]
    result = subprocess.run(command, stdout=subprocess.DEVNULL)
    if result.returncode:
        raise OpoError("base model or data could not be prepared", "the reason stands above")


class _Pool:
    """Child processes, at most `jobs` at once, the costliest first."""

    def __init__(self, cells: Sequence[Cell], jobs: int):
        self.waiting = sorted(cells, key=_cost, reverse=True)
        self.jobs = jobs
        self.running: dict[subprocess.Popen, Cell] = {}
        self.failed: list[Cell] = []

    def run(self) -> list[Cell]:
        try:
            with _display() as display:
                while self.waiting or self.running:
                    while self.waiting and len(self.running) < self.jobs:
                        self._start(self.waiting.pop(0), display)
                    time.sleep(POLL_SECONDS)
                    for child in list(self.running):
                        display.watch(self.running[child])
                        if child.poll() is not None:
                            self._end(child, display)
        except BaseException:  # Whatever ends us, no child goes on behind our back.
            self._stop()
            raise
        return self.failed

    def _start(self, cell: Cell, display) -> None:
        log = _log(cell)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            # A session of its own: Ctrl-C reaches the children through us, once.
            child = subprocess.Popen(
                cell.command(), stdout=file, stderr=file, start_new_session=True
            )
        self.running[child] = cell
        display.start(cell)

    def _end(self, child: subprocess.Popen, display) -> None:
        cell = self.running.pop(child)
        display.end(cell)
        if child.returncode:
            self.failed.append(cell)
            warn(f"{cell.name} failed (exit code {child.returncode}); the log: {_log(cell)}")
            for line in _log(cell).read_text(errors="replace").splitlines()[-2:]:
                note(f"  {line}")

    def _stop(self) -> None:
        note("stopping: each run finishes its step and saves")
        for child in self.running:
            child.terminate()
        try:
            deadline = time.monotonic() + GRACE_SECONDS
            for child in self.running:
                child.wait(max(0.0, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, Interrupted):
            for child in self.running:
                child.kill()
        note("call the same command again to go on")


def _cost(cell: Cell) -> tuple[bool, int]:
    algorithm = cell.config.algorithm
    return ADVANTAGES[algorithm.advantage].needs_critic, algorithm.minibatches_per_step


def _log(cell: Cell) -> Path:
    return RUNS / ".logs" / f"{cell.name}.log"


@contextmanager
def _display() -> Iterator[_Lines | _Bars]:
    if not err.is_terminal:
        yield _Lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=err, transient=True) as bars:
        yield _Bars(bars)


class _Lines:
    """Where there is no terminal: a line when a run starts and when it ends."""

    def __init__(self):
        self.started: dict[str, float] = {}

    def start(self, cell: Cell) -> None:
        self.started[cell.name] = time.monotonic()
        note(f"{cell.name}: started")

    def watch(self, cell: Cell) -> None:
        pass

    def end(self, cell: Cell) -> None:
        note(f"{cell.name}: ended after {time.monotonic() - self.started[cell.name]:.0f} s")


class _Bars(_Lines):
    """A bar per running cell."""

    def __init__(self, bars: Progress):
        super().__init__()
        self.bars, self.tasks = bars, {}

    def start(self, cell: Cell) -> None:
        self.started[cell.name] = time.monotonic()
        total = cell.config.train.steps
        self.tasks[cell.name] = self.bars.add_task(cell.name, total=total)

    def watch(self, cell: Cell) -> None:
        path = cell.folder.path / "steps.jsonl"
        if path.is_file():
            self.bars.update(self.tasks[cell.name], completed=path.read_bytes().count(b"\n"))

    def end(self, cell: Cell) -> None:
        self.bars.remove_task(self.tasks.pop(cell.name))
        super().end(cell)
