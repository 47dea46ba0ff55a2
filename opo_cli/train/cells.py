"""The matrix behind a comparison: algorithm x seed, and x value of a swept setting. No torch."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from opo_cli.config import Config
from opo_cli.data.tasks import TASKS
from opo_cli.errors import OpoError
from opo_cli.metrics import BUDGETS
from opo_cli.presets import check_key, parse_override, resolve, set_options
from opo_cli.records import RunFolder
from opo_cli.report.spending import cost_of_step
from opo_cli.train.outputs import check_data, default_folder, difference_from, with_ranks

OWN_KEYS = {
    "seed": "--seeds",
    "preset": "--preset",
    "algorithm.name": "--algorithms",
    "train.budget": "--budget",
    "train.budget_unit": "--match",
}
"""Settings that a comparison makes itself -> the option for them."""
SWEPT_SECTIONS = ("algorithm", "optim", "rollout")
"""Others change the base, the problems or what is measured: cells would share too little."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """One setting, at whose best value each algorithm competes."""

    key: str
    values: tuple[Any, ...]

    @property
    def overrides(self) -> list[str]:
        """`key=value` as `--set` takes it, one per value."""
        return [f"{self.key}={json.dumps(value)}" for value in self.values]


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of the matrix."""

    config: Config
    folder: RunFolder
    overrides: tuple[str, ...]
    """With which the preset becomes this config."""
    value: Any = None
    """Of the swept setting; None: there is none."""
    ranks: int | None = None
    """Processes of torchrun that work on it; None: one, without torchrun."""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def algorithm(self) -> str:
        return self.config.algorithm.name

    @property
    def seed(self) -> int:
        return self.config.seed

    @property
    def state(self) -> str:
        """finished, stopped after step n, or missing."""
        if self.folder.is_finished:
            return "finished"
        if not self.folder.exists:
            return "missing"
        return f"stopped after step {len(self.folder.steps())}"

    def on_ranks(self, count: int) -> Cell:
        """The same run, whatever its preset was sized for."""
        return replace(self, config=with_ranks(self.config, count), ranks=count)

    def command(self) -> list[str]:
        """Of the run, behind `python -m`; goes on where it exists."""
        config = self.config
        resume = ["--resume"] if self.folder.exists else []
        return [
            *("train", "--preset", config.preset),
            *("--algorithm", config.algorithm.name, "--seed", str(config.seed)),
            *("--out", str(self.folder.path), *set_options(self.overrides), *resume),
        ]


def parse_sweep(text: str) -> Sweep:
    """`section.key=A,B`, the values as TOML, or else as bare strings.

    Raises:
        OpoError: no such setting, one that a comparison makes itself or that no algorithm can be
            chosen by, or fewer than two values.
    """
    key, _, listed = (part.strip() for part in text.partition("="))
    try:
        values = tomllib.loads(f"values = [{listed}]")["values"]
    except (ValueError, RecursionError):
        values = [part.strip() for part in listed.split(",") if part.strip()]
    values = tuple(dict.fromkeys(values if _are_plain(values) else ()))
    if not key or len(values) < 2:
        raise OpoError(
            f"--sweep '{text}' is not section.key=VALUE,VALUE,... with two values or more",
            "for example: --sweep optim.learning_rate=1e-4,3e-4",
        )
    check_key(key)
    if key in OWN_KEYS:
        raise OpoError(f"--sweep {key}: a comparison sets that itself", f"use {OWN_KEYS[key]}")
    if key.partition(".")[0] not in SWEPT_SECTIONS:
        raise OpoError(
            f"--sweep {key}: runs that differ in it share no base, no problems or no measure",
            f"sweep a setting of {', '.join(SWEPT_SECTIONS)}, or compare such runs by their names",
        )
    return Sweep(key, values)


def _are_plain(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str | int | float | bool) for value in values)


def plan_matrix(
    preset: str,
    algorithms: Sequence[str] | None,
    seeds: Sequence[int] | None,
    overrides: Iterable[str] | None = (),
    *,
    sweep: Sweep | None = None,
    match: str | None = None,
    budget: int | None = None,
) -> list[Cell]:
    """Every cell, checked before anything runs; None takes the preset's own.

    Args:
        sweep: cells of a value that is the preset's own are the plain ones.
        match: the unit of the budget that all algorithms share.
        budget: how much of it; None: what `train.steps` steps of the first algorithm take.

    Raises:
        OpoError: an unknown name or value, a budget that a step would exceed, or a folder that
            holds another configuration's run.
    """
    overrides = tuple(overrides or ())
    _check_overrides(overrides, sweep, match, budget)
    preset_config = resolve(preset, overrides=overrides)
    defaults = preset_config.compare
    if sweep is not None and not preset_config.eval.validation:
        raise OpoError(
            f"--sweep {sweep.key}: no eval.validation to choose each algorithm's best value by",
            f"name some: --set 'eval.validation=[\"{_some_validation(preset_config)}\"]'",
        )
    names, unit = list(algorithms or defaults.algorithms), match or defaults.match
    first = resolve(preset, algorithm=names[0], overrides=overrides)
    amount = _amount(first, unit, budget)
    cells: dict[Path, Cell] = {}
    for algorithm in names:
        for seed in seeds or defaults.seeds:
            for value, swept in _values(sweep):
                sets = (*overrides, *swept)
                plain = resolve(preset, algorithm=algorithm, overrides=sets)
                sets += _ending(plain, unit, amount)
                cell = _cell(preset, algorithm, seed, sets, value)
                cells.setdefault(cell.folder.path, cell)
    return list(cells.values())


def _values(sweep: Sweep | None) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """(value, what sets it)."""
    if sweep is None:
        yield None, ()
        return
    for value, text in zip(sweep.values, sweep.overrides, strict=True):
        yield value, (text,)


def _cell(preset: str, algorithm: str, seed: int, overrides: tuple[str, ...], value: Any) -> Cell:
    """Raises OpoError where the cell cannot be run."""
    config = resolve(preset, algorithm=algorithm, named={"seed": seed}, overrides=overrides)
    check_data(config)
    cell = Cell(config, default_folder(config), overrides, value)
    if cell.folder.exists:
        changed = difference_from(config, cell.folder)
        if changed:
            raise OpoError(
                f"'{cell.folder.path}' holds another configuration's run: {changed}",
                "move it away, or compare in another folder",
            )
    return cell


def _check_overrides(
    overrides: Iterable[str], sweep: Sweep | None, match: str | None, budget: int | None
) -> None:
    own = dict(OWN_KEYS)
    if sweep is not None:
        own[sweep.key] = "--sweep"
    if budget is not None and match in (None, "steps"):
        own["train.steps"] = "--budget"
    for text in overrides:
        for key in _keys(parse_override(text)):
            if key in own:
                raise OpoError(
                    f"--set {text}: a comparison sets that itself", f"use {own[key]} instead"
                )


def _keys(tables: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in tables.items():
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _some_validation(config: Config) -> str:
    return "FILE.jsonl" if config.data.source else TASKS[config.data.task].validation


def _amount(first: Config, unit: str, budget: int | None) -> int | None:
    """How much of the unit every cell gets; None: the preset's steps.

    Args:
        first: the config of the first algorithm, whose `train.steps` steps are the default.

    Raises:
        OpoError: no such unit, or no such amount.
    """
    if unit not in BUDGETS:
        raise OpoError(f"--match '{unit}' is no budget", f"one of {', '.join(BUDGETS)}")
    if budget is not None and budget < 1:
        raise OpoError(f"--budget {budget}: at least 1", "leave it out: the preset's train.steps")
    if budget is not None or unit == "steps":
        return budget
    least, most = cost_of_step(first, unit)
    if unit == "tokens":
        raise OpoError(
            "--match tokens without a budget: how long responses get is not known beforehand",
            f"--budget {first.train.steps * most}: that many, train.steps = {first.train.steps} "
            f"steps of '{first.algorithm.name}' take at most",
        )
    return first.train.steps * least


def _ending(config: Config, unit: str, amount: int | None) -> tuple[str, ...]:
    """What makes a run end where the budget does: steps, where each is known to take as much.

    Raises:
        OpoError: the first step would take more than the whole budget.
    """
    if amount is None:
        return ()
    least, most = cost_of_step(config, unit)
    if least > amount:
        raise OpoError(
            f"a budget of {amount} {unit}: one step of '{config.algorithm.name}' takes {least}",
            f"--budget {least} or more",
        )
    if least == most:
        return (f"train.steps={math.ceil(amount / most)}",)
    return (f"train.budget={amount}", f'train.budget_unit="{unit}"')
