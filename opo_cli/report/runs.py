"""Finished runs as a comparison reads them, and which of them are replicates. No torch."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from opo_cli.certificate import KEY, NOT_RECORDED, Certificate, certificate_of
from opo_cli.errors import OpoError
from opo_cli.lines import are_whole, read_lines
from opo_cli.presets import completed
from opo_cli.records import RunFolder, shaping
from opo_cli.report.labels import algorithm_label
from opo_cli.shapes import COMPARED, EVAL, checked

Record = Mapping[str, Any]
READ = (
    *("step", "num_tokens", "num_samples", "num_sampled_groups", "num_optimizer_steps"),
    *("step_seconds", "memory_gigabytes"),
)
"""What every comparison reads of a step, beside the metrics that it shows."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The columns of `steps.jsonl` that were asked for: name -> (steps,), nan where a step has no
    such number."""

    columns: Mapping[str, np.ndarray]
    certificate: Certificate

    def __len__(self) -> int:
        return len(self.columns["step"])

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]


@dataclass(frozen=True)
class Run:
    """What a comparison needs of a finished run."""

    path: Path
    config: dict[str, Any]
    """With the defaults of keys that an older version did not have."""
    environment: dict[str, Any]
    steps: Steps
    evals: Sequence[Record]

    @property
    def label(self) -> str:
        return algorithm_label(self.config)

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def initial_policy_id(self) -> str:
        return self.environment.get("initial_policy_id", "")

    @cached_property
    def initial(self) -> dict[str, Record]:
        """Benchmark -> evaluation of the initial policy."""
        return self._of("initial")

    @cached_property
    def final(self) -> dict[str, Record]:
        return self._of("final")

    @cached_property
    def validation(self) -> dict[str, Record]:
        """Benchmark -> evaluation of the final policy, on what settings are chosen by."""
        return self._of("final", "validation")

    def _of(self, policy: str, split: str | None = None) -> dict[str, Record]:
        return {
            r["benchmark"]: r
            for r in self.evals
            if r["policy"] == policy and r.get("split") == split
        }

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that shapes the run but its seed, flat: `section.key` -> value."""
        return {k: v for k, v in flat(shaping(self.config)).items() if k != "seed"}

    @cached_property
    def used(self) -> dict[str, np.ndarray]:
        """Unit of a budget, or "seconds" -> how much of it was used with each step, (steps,)."""
        steps = self.steps
        samples = steps["num_sampled_groups"] * self.config["rollout"]["group_size"]
        each = {
            "steps": np.ones(len(steps)),
            "samples": np.where(np.isnan(steps["num_samples"]), samples, steps["num_samples"]),
            "gradient-steps": steps["num_optimizer_steps"],
            "tokens": steps["num_tokens"],
            "seconds": steps["step_seconds"],
        }
        return {unit: np.cumsum(np.nan_to_num(values)) for unit, values in each.items()}

    def total(self, unit: str) -> float:
        used = self.used[unit]
        return float(used[-1]) if len(used) else 0.0


@dataclass(frozen=True, slots=True)
class Arm:
    """Replicates: distinct seeds of one setting and one initial policy, in the order of seeds."""

    label: str
    runs: Sequence[Run]

    @property
    def algorithm(self) -> str:
        return self.runs[0].config["algorithm"]["name"]

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]

    @property
    def certificate(self) -> Certificate:
        """Over all steps of all its runs."""
        found = [run.steps.certificate for run in self.runs]
        reasons: dict[str, int] = {}
        for certificate in found:
            for reason, count in certificate.reasons.items():
                reasons[reason] = reasons.get(reason, 0) + count
        return Certificate(
            num_steps=sum(each.num_steps for each in found),
            num_exact=sum(each.num_exact for each in found),
            reasons=reasons,
        )


def read_runs(folders: Sequence[RunFolder], metrics: Sequence[str]) -> list[Run]:
    """`read_run` of each, side by side: parsing leaves Python's lock."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return list(pool.map(lambda folder: read_run(folder, metrics), folders))


def read_run(folder: RunFolder, metrics: Sequence[str]) -> Run:
    """
    Args:
        metrics: columns of the steps that are read beside `READ`.

    Raises:
        OpoError: the run is not finished, or a file of it is damaged.
    """
    folder.check_finished()
    run = Run(
        path=folder.path,
        config=completed(folder.config()),
        environment=folder.environment(),
        steps=read_steps(folder.path / "steps.jsonl", metrics),
        evals=folder.evals(),
    )
    for number, record in enumerate(run.evals, start=1):
        where = f"{folder.path}/evals.jsonl:{number}"
        checked(record, EVAL, where, "restore it, or leave the run out", COMPARED)
    _check_whole(run)
    return run


def _check_whole(run: Run) -> None:
    """Raises OpoError where the log lacks steps of a run that is finished."""
    train, found = run.config["train"], len(run.steps)
    expected = 0 if train["budget"] else train["steps"]
    if found < max(1, expected) or (found and run.steps["step"][-1] != found):
        raise OpoError(
            f"{run.path}/steps.jsonl is damaged: {found} steps"
            + (f" of {expected}" if expected else ""),
            "restore it, or leave the run out",
        )


def read_steps(path: Path, metrics: Sequence[str]) -> Steps:
    """Some columns of a log of steps, which as a whole is megabytes.

    Raises:
        OpoError: a line is damaged.
    """
    import pyarrow as pa
    from pyarrow import json

    names = list(dict.fromkeys([*READ, *metrics]))
    schema = pa.schema([(n, pa.float64()) for n in names] + [(KEY, pa.list_(pa.string()))])
    try:
        content = path.read_bytes()
        if not are_whole(content):
            return _steps_of(path, names)  # Slower; it names the damaged line.
        table = json.read_json(
            pa.BufferReader(content),
            # One block, so that columns are whole; runs are read beside each other instead.
            json.ReadOptions(use_threads=False, block_size=len(content) + 1),
            json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except (pa.ArrowException, OSError):
        return _steps_of(path, names)
    # By DLPack: pyarrow's own to_numpy imports pandas, half a second.
    columns = {
        name: np.from_dlpack(table[name].combine_chunks().fill_null(math.nan)) for name in names
    }
    return Steps(columns, _certificate(table[KEY].combine_chunks()))


def _certificate(reasons: Any) -> Certificate:
    """As `certificate_of`, of a column."""
    found = reasons.flatten().value_counts().tolist()
    counted = {each["values"]: each["counts"] for each in found}
    if reasons.null_count:
        counted[NOT_RECORDED] = reasons.null_count
    num_exact = reasons.value_lengths().tolist().count(0)
    return Certificate(num_steps=len(reasons), num_exact=num_exact, reasons=counted)


def _steps_of(path: Path, names: Sequence[str]) -> Steps:
    """Raises OpoError where a value is no number."""
    records = read_lines(path)
    columns = {name: np.full(len(records), math.nan) for name in names}
    for place, record in enumerate(records):
        for name in names:
            value = record.get(name)
            if value is not None and not isinstance(value, int | float):
                raise OpoError(
                    f"{path}:{place + 1}: {name} is {value!r}, no number",
                    "restore the file from a copy, or leave the run out",
                )
            columns[name][place] = math.nan if value is None else value
    return Steps(columns, certificate_of(records))


def flat(tables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as `section.key` -> value."""
    found: dict[str, Any] = {}
    for key, value in tables.items():
        inner = flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        found |= inner
    return found


def make_arms(runs: Sequence[Run]) -> list[Arm]:
    """Runs of one setting and one initial policy are replicates, if their seeds are distinct. The
    label is the algorithm; where an algorithm has several settings, with what tells them apart."""
    by_label: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        identity = repr((sorted(run.settings.items()), run.initial_policy_id))
        by_label.setdefault(run.label, {}).setdefault(identity, []).append(run)
    arms: list[Arm] = []
    for label, groups in by_label.items():
        names = _names(label, [group[0] for group in groups.values()])
        for name, group in zip(names, groups.values(), strict=True):
            arms += _replicates(name, group)
    return arms


def _names(label: str, runs: Sequence[Run]) -> list[str]:
    """One per setting; the run's path where settings alone do not tell them apart."""
    keys = changed_keys([run.settings for run in runs])
    names = [
        " ".join(
            [label, *(f"{k.rpartition('.')[2]}={value_text(run.settings.get(k))}" for k in keys)]
        )
        for run in runs
    ]
    return names if len(set(names)) == len(runs) else [str(run.path) for run in runs]


def _replicates(name: str, runs: Sequence[Run]) -> list[Arm]:
    """One arm; of runs with equal seeds, which are no sample of anything, one each."""
    if len({run.seed for run in runs}) == len(runs):
        return [Arm(name, sorted(runs, key=lambda run: run.seed))]
    return [Arm(str(run.path), [run]) for run in runs]


def changed_keys(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values are not all equal."""
    keys = dict.fromkeys(key for each in settings for key in each)
    return [k for k in keys if any(each.get(k) != settings[0].get(k) for each in settings[1:])]


def value_text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
