"""The runs behind a comparison, each in a process of its own. No torch, but to ask for GPUs.

Nothing that ends one process leaves the others wrong. A run's log is locked by whoever writes it,
so that two comparisons of one matrix share the work, and a run that outlives its comparison by the
moments in which it saves is waited for (`leash` ends it).
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from opo_cli.config import Config
from opo_cli.console import note, warn
from opo_cli.errors import OpoError
from opo_cli.host import num_cores
from opo_cli.interrupt import Interrupted, Interrupts
from opo_cli.model.device import check_gpus, gpus, needs_gpu, training_device
from opo_cli.presets import set_options
from opo_cli.records import RUNS, RunFolder
from opo_cli.train.cells import Cell
from opo_cli.train.duration import longest_first
from opo_cli.train.leash import RANKS as RANKS_OPTION
from opo_cli.train.leash import ending
from opo_cli.train.outputs import with_ranks
from opo_cli.train.progress import Display, display
from opo_cli.train.warmstart import is_prepared

POLL_SECONDS = 0.1
DEVICES = "CUDA_VISIBLE_DEVICES"
THREADS = "OMP_NUM_THREADS"
CPU_RANKS = 2  # Where nobody says how many.
REASON = re.compile(r"error: |[\w.]*(Error|Exception)\b")  # As `complain` and tracebacks begin it.


def num_jobs(config: Config, asked: int | None = None) -> int:
    """Runs at once: one per core, or one per GPU, which every run takes whole.

    Raises:
        OpoError: fewer than one are asked for, or more than there are GPUs.
    """
    if asked is not None and asked < 1:
        raise OpoError(f"--jobs {asked}: at least one run at a time", "leave it out: one per core")
    if not training_device(config).is_gpu:
        return asked or num_cores()
    most = max(1, len(_devices()))
    if asked and asked > most:
        there = "one at a time" if most == 1 else f"{most} at a time, one on each"
        raise OpoError(
            f"--jobs {asked}: these runs train on a GPU, which each of them takes whole",
            f"leave it out: {there}; or --set runtime.device=cpu",
        )
    return asked or most


def ranks_to_launch(config: Config, asked: int | None = None) -> int:
    """By torchrun, for each run: what the preset was sized for where that is several GPUs, else all
    that are here."""
    if asked or not training_device(config).is_gpu:
        return asked or CPU_RANKS
    sized_for = config.runtime.num_gpus
    return sized_for if sized_for > 1 else max(1, len(gpus()))


def check_devices(cell: Cell) -> None:
    """Before anything is fetched or loaded.

    Raises:
        OpoError: the GPUs that the preset was sized for are not here, or are too few for the ranks.
    """
    config, count = cell.config, cell.config.runtime.num_gpus
    if not training_device(config).is_gpu:
        return
    found = len(gpus())
    if found and cell.ranks is None and needs_gpu(config) and count > 1:
        raise OpoError(
            f"preset {config.preset} needs {count} GPUs, each with a process of its own",
            "--launcher torchrun starts them",
        )
    if found and cell.ranks and cell.ranks > found:
        raise OpoError(
            f"{cell.ranks} ranks take a GPU each, and torch sees {found}",
            f"--ranks {found}, or fewer; or --set runtime.device=cpu",
        )
    check_gpus(with_ranks(config, 1) if found else config)


def visible_devices(named: str | None, count: int) -> list[str]:
    """GPUs as CUDA_VISIBLE_DEVICES names them.

    Args:
        named: what it says to this process; None: it is not set.
        count: how many GPUs torch sees.
    """
    if named is None:
        return [str(number) for number in range(count)]
    return [part.strip() for part in named.split(",")][:count]


def _devices() -> list[str]:
    return visible_devices(os.environ.get(DEVICES), len(gpus()))


def run_matrix(cells: Sequence[Cell], jobs: int) -> list[Cell]:
    """Runs every unfinished cell, `jobs` at a time; returns the cells that failed.

    Raises:
        OpoError: the base cannot be prepared.
        Interrupted: a signal came; every child has saved its state, unless a second one killed it.
    """
    missing = [cell for cell in cells if not cell.folder.is_finished]
    num_finished, ranks = len(cells) - len(missing), cells[0].ranks
    how = f"one after the other on {ranks} ranks" if ranks else f"{jobs} at once"
    note(f"{len(cells)} runs: {num_finished} finished, {len(missing)} to do, {how}")
    if not missing:
        return []
    # Of ranks, each finds its own.
    has_own_device = training_device(missing[0].config).is_gpu and not ranks
    with Interrupts().installed(), _leash() as leash:
        _prepare(missing[0], leash)
        with display(missing, jobs) as shown:
            devices = _devices() if has_own_device else []
            return _Pool(longest_first(missing), jobs, devices, leash, shown).run()


@contextmanager
def _leash() -> Iterator[int]:
    """What children take as stdin; it ends when we do."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(reading)
        os.close(writing)


def _command(*arguments: str, ranks: int | None = None) -> list[str]:
    on_ranks = [RANKS_OPTION, str(ranks)] if ranks else []
    return [sys.executable, "-m", "opo_cli.train.leash", *on_ranks, *arguments]


def _prepare(cell: Cell, leash: int) -> None:
    """Base and problems once, before several runs ask for them; the talk is ours."""
    if is_prepared(cell.config):
        return
    sets = set_options(cell.overrides)
    command = _command("prepare", "--preset", cell.config.preset, *sets)
    # As of every child, Ctrl-C is ours; leaving the block waits until its scratch is gone.
    with subprocess.Popen(
        command, stdin=leash, stdout=subprocess.DEVNULL, start_new_session=True
    ) as child:
        try:
            child.wait()
        except BaseException:
            child.terminate()
            raise
    if child.returncode:
        raise OpoError("base model or data could not be prepared", "the reason stands above")


@dataclass(frozen=True, slots=True)
class _Run:
    """What a child process is at."""

    cell: Cell
    device: str | None
    log_start: int
    """Bytes of its log that are of earlier processes."""


class _Pool:
    """Child processes, at most `jobs` at once, each on a device of its own where there are any."""

    def __init__(
        self,
        cells: Sequence[Cell],
        jobs: int,
        devices: Sequence[str],
        leash: int,
        shown: Display,
    ):
        self.waiting = list(cells)
        self.jobs, self.leash, self.shown = min(jobs, len(cells)), leash, shown
        self.free = list(devices)
        self.running: dict[subprocess.Popen, _Run] = {}
        self.failed: list[Cell] = []
        self._told: set[str] = set()

    def run(self) -> list[Cell]:
        try:
            while self.waiting or self.running:
                self._start_some()
                time.sleep(POLL_SECONDS)
                self.shown.watch()
                for child in list(self.running):
                    if child.poll() is not None:
                        self._end(child)
        except BaseException:  # Whatever ends us, no child goes on behind our back.
            self._stop()
            raise
        return self.failed

    def _start_some(self) -> None:
        """As many as there is room for; those at which others are at work stay for later."""
        for cell in list(self.waiting):
            if len(self.running) >= self.jobs:
                return
            if self._is_settled(cell):
                self.waiting.remove(cell)

    def _is_settled(self, cell: Cell) -> bool:
        """Starts the cell, or finds that another process has finished it; False: one is at it."""
        log = log_of(cell)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with _unlocked(cell.folder):
                    pass
            except (BlockingIOError, OpoError):
                if cell.name not in self._told:
                    note(f"{cell.name}: another process is at work on it and waited for")
                self._told.add(cell.name)
                return False
            if cell.folder.is_finished:
                note(f"{cell.name}: finished by another process")
                self.shown.skip(cell)
            else:
                self._start(cell, file)
        return True

    def _start(self, cell: Cell, log) -> None:
        """The child inherits the lock with its log."""
        device = self.free.pop(0) if self.free else None
        log_start = os.fstat(log.fileno()).st_size
        # A session of its own: Ctrl-C reaches the children through us, once.
        child = subprocess.Popen(
            _command(*cell.command(), ranks=cell.ranks),
            stdin=self.leash,
            stdout=log,
            stderr=log,
            env=self._environment(cell, device),
            start_new_session=True,
        )
        self.running[child] = _Run(cell, device, log_start)
        self.shown.start(cell)

    def _environment(self, cell: Cell, device: str | None) -> dict[str, str]:
        """The run's device; on a CPU its share of the threads, where neither config nor user says
        how many, and each run would take all. Ranks share them everywhere: torchrun would give one
        to each."""
        if device is not None:
            return {**os.environ, DEVICES: device}
        if cell.ranks:
            share = cell.config.runtime.num_threads or max(1, num_cores() // cell.ranks)
            return {THREADS: str(share), **os.environ}
        if cell.config.runtime.num_threads or self.jobs == 1:
            return dict(os.environ)
        return {THREADS: str(max(1, num_cores() // self.jobs)), **os.environ}

    def _end(self, child: subprocess.Popen) -> None:
        run = self.running.pop(child)
        if run.device is not None:
            self.free.insert(0, run.device)
        self.shown.end(run.cell)
        if child.returncode:
            self.failed.append(run.cell)
            log, code = log_of(run.cell), child.returncode
            warn(f"{run.cell.name} failed ({ending(code)}); the log: {log}")
            told = log.read_bytes()[run.log_start :].decode(errors="replace")
            for line in _reason(told.splitlines(), code):
                note(f"  {line}")

    def _stop(self) -> None:
        """Waits as long as it takes: a step, or the save behind it, may take minutes."""
        note("stopping: each run finishes its step and saves; a second signal kills them")
        try:
            for child in self.running:
                child.terminate()
            for child in self.running:
                child.wait()
        except Interrupted:
            for child in self.running:
                child.kill()
                child.wait()
        note("call the same command again to go on")


def _reason(lines: Sequence[str], code: int) -> Sequence[str]:
    """Of a log: its last error, with the hint, or exception; else its last two lines, which of a
    process that a signal ended say nothing of why."""
    places = [place for place, line in enumerate(lines) if REASON.match(line)]
    if not places:
        return lines[-2:] if code > 0 else []
    error, *after = lines[places[-1] : places[-1] + 2]
    return [error, *(line for line in after if line.startswith("hint: "))]


@contextmanager
def _unlocked(folder: RunFolder) -> Iterator[None]:
    """Raises OpoError where another process works on the run, if there is one yet."""
    if not folder.exists:
        yield
        return
    with folder.locked():
        yield


def log_of(cell: Cell) -> Path:
    return RUNS / ".logs" / f"{cell.name}.log"
