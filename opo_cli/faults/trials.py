"""Runs killed at drawn points, resumed until they end, and held against one never interrupted."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from opo_cli.console import Update, note
from opo_cli.errors import OpoError
from opo_cli.faults.child import MARK, Children, Doom, Ending, new_mark, orphans
from opo_cli.faults.draw import Reference, draw_trial, told
from opo_cli.faults.equal import Difference, differences
from opo_cli.faults.phases import phase_of
from opo_cli.files import STEP_PREFIX, step_of
from opo_cli.records import RunFolder

PATIENCE = (60, 20)
"""A run that takes longer than so many seconds, and so many times the reference, hangs."""
MOST_ATTEMPTS = 5  # To kill a run before it ends.


@dataclass(frozen=True, slots=True)
class Killed:
    """One kill of a run."""

    when: str
    phase: str
    after_step: int
    """The last step in its log."""
    resumed_from: int | None
    """The step of its newest checkpoint, 0 where there is none; None: the run was finished."""


@dataclass(slots=True)
class Trial:
    """One run that was killed, once or more often."""

    number: int
    kills: list[Killed] = field(default_factory=list)
    found: list[Difference] = field(default_factory=list)
    failure: str = ""
    """Why it did not end as it should, or what it left behind."""

    @property
    def is_equal(self) -> bool:
        return not self.failure and not self.found

    @property
    def are_weights_equal(self) -> bool:
        return not self.failure and not any(
            each.file.endswith(".safetensors") for each in self.found
        )

    def is_within(self, tolerance: float) -> bool:
        """Whether all metrics are equal up to a relative difference, and the same files there.
        Other files hold what was sampled: where metrics may differ, so may they."""
        if self.failure:
            return False
        if not tolerance:
            return self.is_equal
        held = [each for each in self.found if each.is_metric or not each.place + each.key]
        return all(d.relative is not None and d.relative <= tolerance for d in held)


@dataclass(frozen=True, slots=True)
class Bench:
    """The folder in which all runs are made, and how they are started."""

    scratch: Path
    start: Sequence[str]
    """The command's arguments but `--out`: train, --preset, ..."""
    prepare: Sequence[str]
    num_threads: int = 0
    """Of each run; 0: as its config says, or torch."""
    use_keep: bool = False
    """Whether folders of runs that are equal stay."""
    children: Children = field(default_factory=Children)

    def place(self, name: str) -> Path:
        return self.scratch / name

    def command(
        self, name: str, arguments: Sequence[str], doom: Doom | None = None, mark: str = "", **keys
    ) -> Ending:
        """Runs `opo ARGUMENTS` with cache and temporary files below `scratch/name`."""
        root = self.place(name)
        (root / "tmp").mkdir(parents=True, exist_ok=True)
        environment = {
            "OPO_CACHE": str(root / "files/cache"),
            "TMPDIR": str(root / "tmp"),
            "PYTHONDONTWRITEBYTECODE": "1",  # A kill would leave half of one among the libraries.
            MARK: mark,
        }
        if self.num_threads:
            environment["OMP_NUM_THREADS"] = str(self.num_threads)
        return self.children.run(
            arguments, folders=[root / "files"], environment=environment, doom=doom, **keys
        )

    def train(self, name: str, doom: Doom | None = None, **keys) -> Ending:
        """Starts the run, or goes on with it, as its messages say."""
        run = self.run(name)
        go_on = ["train", "--resume"] if run.exists else self.start
        return self.command(name, [*go_on, "--out", str(run.path)], doom, **keys)

    def run(self, name: str) -> RunFolder:
        return RunFolder(self.place(name) / "files/run")


def make_reference(bench: Bench) -> Reference:
    """Prepares `prepared`, and trains `reference` without a stop.

    Raises:
        OpoError: one of the two fails.
    """
    note("prepare ...")
    _check(bench.command("prepared", bench.prepare), shlex.join(["opo", *bench.prepare]))
    shutil.copytree(bench.place("prepared"), bench.place("reference"))
    note("train without a stop ...")
    log = bench.place("writes.txt")
    ending = bench.train("reference", Doom(log=str(log)))
    _check(ending, shlex.join(["opo", *bench.start]))
    reference = reference_of(log, ending.seconds)
    note(f"trained in {ending.seconds:.1f} s, with {len(reference.writes)} writes")
    return reference


def reference_of(log: Path, seconds: float) -> Reference:
    """From the log of its writes. The log of steps is first written right before the first step."""
    lines = log.read_text().splitlines()
    writes = [float(line.split()[0]) for line in lines]
    steps = [when for when, line in zip(writes, lines, strict=True) if "steps.jsonl" in line]
    return Reference(seconds, writes, (steps[0], steps[-1]))


def _check(ending: Ending, what: str) -> None:
    if ending.code != 0:
        hint = told_by(ending, "hint: ") or f"{what} by itself shows more"
        raise OpoError(f"{what} failed: {reason_of(ending)}", hint)


def told_by(ending: Ending, mark: str) -> str:
    """The last line of a command's talk that begins with a mark, without it."""
    lines = [line for line in ending.stderr.splitlines() if line.startswith(mark)]
    return lines[-1].removeprefix(mark) if lines else ""


def reason_of(ending: Ending) -> str:
    """Why a command failed, in a line."""
    last = (ending.stderr.strip().splitlines() or ["it said nothing"])[-1]
    how = "it does not end" if ending.code is None else f"exit code {ending.code}"
    return told_by(ending, "error: ") or f"{how}: {last}"


def run_trials(
    bench: Bench, reference: Reference, seed: int, count: int, jobs: int, update: Update
) -> list[Trial]:
    """`count` runs, `jobs` at a time; returned in order."""
    trials: list[Trial] = []
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(_trial, bench, reference, seed, n) for n in range(1, count + 1)]
        try:
            for future in as_completed(futures):
                trials.append(future.result())
                equal = sum(trial.is_equal for trial in trials)
                update(len(trials), f"{equal} of {len(trials)} equal")
        except BaseException:  # Whatever ends us, no child goes on behind our back.
            pool.shutdown(wait=False, cancel_futures=True)
            bench.children.stop()
            raise
    return sorted(trials, key=lambda trial: trial.number)


def _trial(bench: Bench, reference: Reference, seed: int, number: int) -> Trial:
    """One run, until it has ended and been compared; one that ended before its kill is made anew,
    with other points."""
    root = bench.place(f"trial-{number:03d}")
    for attempt in range(MOST_ATTEMPTS):
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(bench.place("prepared"), root)
        dooms = draw_trial(seed, number, reference, attempt)
        trial = _killed_run(bench, reference, Trial(number), root.name, dooms)
        if trial.kills or trial.failure:
            break
    if not trial.failure:
        trial.found = list(differences(bench.place("reference/files"), root / "files"))
    if trial.is_equal and not bench.use_keep:
        shutil.rmtree(root)
    return trial


def _killed_run(
    bench: Bench, reference: Reference, trial: Trial, name: str, dooms: Sequence[Doom]
) -> Trial:
    """Trains until no doom is left and the run has ended."""
    mark, run = new_mark(), bench.run(name)
    limit = PATIENCE[0] + PATIENCE[1] * reference.seconds
    for doom in [*dooms, None]:
        was_finished = run.is_finished  # Killed at its very end: going on says so, and tidies up.
        ending = bench.train(name, doom, mark=mark, timeout_seconds=limit)
        if ending.was_killed:
            trial.kills.append(_killed(doom, ending, run))
        elif ending.code != (2 if was_finished else 0):
            trial.failure = f"resumed, it fails: {reason_of(ending)}"
            break
        elif run.is_finished:
            break
    left = orphans(mark)
    trial.failure = trial.failure or (f"a process is left: {left[0]}" if left else "")
    return trial


def _killed(doom: Doom, ending: Ending, run: RunFolder) -> Killed:
    log = run.path / "steps.jsonl"
    saved = [step_of(path) for path in run.checkpoints.glob(f"{STEP_PREFIX}*")]
    other = "end" if run.is_finished else "other" if run.exists else "start"
    return Killed(
        when=told(doom),
        phase=phase_of(ending.stack) or other,
        after_step=log.read_bytes().count(b"\n") if log.is_file() else 0,
        resumed_from=None if run.is_finished else max(saved, default=0),
    )
