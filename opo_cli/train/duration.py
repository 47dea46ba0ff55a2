"""About how long runs will take: as runs like them did, else by the arithmetic of `speed`. No torch
where one has run."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opo_cli.config import Config
from opo_cli.data.benchmarks import benchmark_row
from opo_cli.errors import OpoError
from opo_cli.evaluate.settings import num_samples
from opo_cli.model.device import training_device
from opo_cli.model.lookup import find_shape
from opo_cli.records import RunFolder, list_runs
from opo_cli.report.spending import Spending, cost_of_step
from opo_cli.report.tables import Table
from opo_cli.train.budget import load_of
from opo_cli.train.cells import Cell
from opo_cli.train.outputs import stored_config
from opo_cli.train.speed import peak_of, score_flops, step_seconds, update_flops

ENOUGH = 3  # Runs of an algorithm behind an estimate; the newest.
MACHINE = ("device", "engine", "num_threads", "num_gpus")  # The last: ranks that took part.
SCALED_PHASES = ("rollout", "score", "update")
LIKE = "as runs of it took"
SCALED = "scaled from another algorithm's runs"
ROUGH = "rough: by arithmetic alone, without evaluations"
SOURCES = (LIKE, SCALED, ROUGH)


@dataclass(frozen=True, slots=True)
class Duration:
    """Of what is left of a run."""

    seconds: float | None
    """None: unknown."""
    source: str = ""
    """One of `SOURCES`."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What a run took."""

    config: Config
    phases: dict[str, float]
    """Seconds of a step, on average: of `SCALED_PHASES`, and of the rest."""
    per_response: float
    """Seconds of an evaluated response."""
    start: float
    """Seconds before the first evaluation."""

    @classmethod
    def of(cls, folder: RunFolder) -> Pace | None:
        """None where the run has no step, is damaged, or is another version's."""
        try:
            config, steps, evals = stored_config(folder, {}), folder.steps(), folder.evals()
            start = folder.environment().get("startup_seconds", 0.0)
        except OpoError:
            return None
        if not steps:
            return None
        phases = {name: _mean(steps, f"{name}_seconds") for name in SCALED_PHASES}
        whole = _mean(steps, "step_seconds") + _mean(steps, "ledger_seconds")
        evals = [r for r in evals if r["policy"] in ("step", "final")]
        responses = sum(r["num_problems"] * r["num_samples"] for r in evals)
        return cls(
            config=config,
            phases=phases | {"rest": whole - sum(phases.values())},
            per_response=sum(r["seconds"] for r in evals) / max(1, responses),
            start=start,
        )

    def seconds(self, config: Config, num_done: int, num_steps: int) -> float:
        """Of what is left of a run of `config`, `num_done` of its `num_steps` steps behind it."""
        phases = dict(self.phases)
        if config.algorithm != self.config.algorithm:
            phases |= self._scaled(config)
        step = sum(phases.values())
        evaluated = self.per_response * num_responses(config, num_done, num_steps)
        return self.start + (num_steps - num_done) * step + evaluated

    def _scaled(self, config: Config) -> dict[str, float]:
        """Phases in which another algorithm's steps differ, by samples and by FLOPs."""
        shape, _ = find_shape(config.model)
        theirs, ours = cost_of_step(self.config, "samples")[0], cost_of_step(config, "samples")[0]
        scaled = {"rollout": self.phases["rollout"] * ours / theirs}
        if shape is None:
            return scaled
        load = load_of(config, shape)
        rate = self.phases["update"] / update_flops(self.config, shape, load)
        more = score_flops(config, shape, load) - score_flops(self.config, shape, load)
        return scaled | {
            "score": max(0.0, self.phases["score"] + rate * more),
            "update": rate * update_flops(config, shape, load),
        }


def _mean(steps: Sequence[dict[str, Any]], key: str) -> float:
    return sum(step.get(key) or 0.0 for step in steps) / len(steps)


def num_responses(config: Config, num_done: int, num_steps: int) -> int:
    """Responses of the evaluations to come; those to the initial policy are mostly kept."""
    settings = config.eval
    names = [*settings.benchmarks, *settings.validation]
    if settings.every:
        count = max(0, num_steps - 1) // settings.every - num_done // settings.every
        during = [*(settings.during or settings.benchmarks)]
        during += settings.validation if settings.checkpoint == "best" else ()
        names += list(dict.fromkeys(during)) * max(0, count)
    rows = [benchmark_row(name) for name in names]
    return sum(
        min(row.num_problems, settings.limit or row.num_problems) * num_samples(settings, row)
        for row in rows
    )


class Paces:
    """Of the runs under `runs/`."""

    def __init__(self):
        self._configs: dict[Path, dict[str, Any]] = {}
        """The newest first; damaged runs are left out."""
        for folder in list_runs()[::-1]:
            with suppress(OpoError):
                self._configs[folder.path] = folder.config()
        self._read: dict[Path, Pace | None] = {}

    def like(self, config: Config, *, same_algorithm: bool) -> list[Pace]:
        """The newest runs of the same sizes on the same kind of device."""
        wanted, found = _sizes(config.model_dump(mode="json"), same_algorithm), []
        for path, theirs in self._configs.items():
            if _sizes(theirs, same_algorithm) != wanted:
                continue
            if path not in self._read:
                self._read[path] = Pace.of(RunFolder(path))
            pace = self._read[path]
            found += [] if pace is None else [pace]
            if len(found) == ENOUGH:
                break
        return found


def _sizes(config: dict[str, Any], has_algorithm: bool) -> list[Any]:
    """What runs must share for one to tell of the other's time."""
    algorithm = config.get("algorithm", {})
    return [
        *(config.get(section) for section in ("model", "rollout", "grading", "measure")),
        *(config.get("runtime", {}).get(key) for key in MACHINE),
        (algorithm.get("name"), algorithm.get("minibatches_per_step")) if has_algorithm else None,
    ]


def expected(cells: Iterable[Cell]) -> dict[str, Duration]:
    """Cell's name -> what is left of it."""
    cells = list(cells)
    missing = [cell for cell in cells if not cell.folder.is_finished]
    found = dict.fromkeys((cell.name for cell in cells), Duration(0.0, LIKE))
    paces = Paces() if missing else None  # Which reads every run's config.
    for cell in missing:
        spending = Spending.of(cell.config, cell.folder.steps() if cell.folder.exists else ())
        found[cell.name] = _of_cell(cell.config, spending, paces)
    return found


def _of_cell(config: Config, spending: Spending, paces: Paces) -> Duration:
    done, total = spending.num_steps, spending.total.steps
    for source, same in ((LIKE, True), (SCALED, False)):
        found = paces.like(config, same_algorithm=same)
        if found:
            seconds = [pace.seconds(config, done, total) for pace in found]
            return Duration(sum(seconds) / len(seconds), source)
    shape, _ = find_shape(config.model)
    device = training_device(config)
    peak = peak_of(device) if device.is_gpu else None
    if shape is None or peak is None:
        return Duration(None)
    load, dtype = load_of(config, shape), config.model.compute_dtype
    return Duration((total - done) * sum(step_seconds(config, shape, load, peak, dtype)), ROUGH)


def together(durations: Iterable[Duration], jobs: int) -> float | None:
    """Seconds of all, `jobs` at a time, the longest first; None where one is unknown."""
    seconds = [duration.seconds for duration in durations]
    if None in seconds:
        return None
    ends = [0.0] * jobs
    for length in sorted(seconds, reverse=True):
        heapq.heapreplace(ends, ends[0] + length)
    return max(ends)


def longest_first(cells: Sequence[Cell]) -> list[Cell]:
    """So that no straggler is left at the end. Where no time is known, those with a critic first,
    then those of many updates."""
    durations = expected(cells)

    def cost(cell: Cell) -> tuple:
        algorithm, seconds = cell.config.algorithm, durations[cell.name].seconds
        return seconds or 0.0, algorithm.estimator.needs_critic, algorithm.minibatches_per_step

    return sorted(cells, key=cost, reverse=True)


def plan_table(cells: Sequence[Cell], jobs: int) -> Table:
    """What exists of the matrix, what is missing, and about how long that takes."""
    durations = expected(cells)
    has_value = any(cell.value is not None for cell in cells)
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        key = (cell.algorithm, str(cell.value)) if has_value else (cell.algorithm,)
        groups.setdefault(key, []).append(cell)
    rows = []
    for key, group in groups.items():
        states = [cell.state.partition(" ")[0] for cell in group]
        counts = [str(states.count(state) or "-") for state in ("finished", "stopped", "missing")]
        left = [durations[cell.name] for cell in group if not cell.folder.is_finished]
        rows.append([*key, *counts, _each(left)])
    head = ["algorithm", *(["value"] if has_value else [])]
    head += ["finished", "stopped", "missing", "left of each"]
    return Table("runs", head, rows, _note(list(durations.values()), jobs))


def _each(left: Sequence[Duration]) -> str:
    if not left:
        return "-"
    seconds = [duration.seconds for duration in left]
    return "unknown" if None in seconds else f"about {in_words(sum(seconds) / len(seconds))}"


def _note(durations: Sequence[Duration], jobs: int) -> str:
    left = [duration for duration in durations if duration.seconds != 0]
    if not left:
        return "nothing is missing"
    whole = together(left, jobs)
    if whole is None:
        return "how long is unknown: no run like these has been here yet"
    sources = [source for source in SOURCES if any(d.source == source for d in left)]
    return f"about {in_words(whole)} with {jobs} at once ({'; '.join(sources)})"


def in_words(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
