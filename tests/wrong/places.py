"""What wrong inputs find in the working folder: a finished run and its like, and makers of what is
wrong, each a function of (working folder, folder of a real model)."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opo_cli.ledger import LINE, PER_TOKEN, Ledger
from opo_cli.presets import resolve

Maker = Callable[[Path, Path], None]
STEPS = 2
LONG = {"long": "x" * 5000, "deep": "x/" * 2500, "name": "x" * 300, "digits": "9" * 5000}
"""What else stands in braces."""


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """A wrong input and its two lines. `{here}` in any of them is the working folder, `{cache}` the
    cache."""

    line: str
    error: str
    hint: str
    makes: tuple[Maker, ...] = ()
    needs_torch: bool = False
    """Whether a model has to be looked at to see what is wrong; else torch must not be imported."""

    def arguments(self, **places: str) -> list[str]:
        return [filled(part, **places) for part in shlex.split(self.line)]


def filled(text: str, **places: str) -> str:
    for name, place in (LONG | places).items():
        text = text.replace(f"{{{name}}}", place)
    return text


# --- what is there whatever the row -------------------------------------------------------------


def make_workplace(here: Path) -> None:
    """A finished run, an unfinished one, one without a step, a model's config, a file."""
    config = resolve("smoke", named={"train": {"steps": STEPS}}).model_dump(mode="json")
    for name in ("run", "unfinished", "begun"):
        folder = here / name
        folder.mkdir()
        write_json(folder / "config.json", config)
        write_json(folder / "environment.json", {"initial_policy_id": "a", "versions": {}})
    for name in ("run", "unfinished"):
        steps = [_step(number) for number in range(1, STEPS + 1 if name == "run" else STEPS)]
        write_lines(here / name / "steps.jsonl", steps)
        ledger = Ledger(here / name / "rollouts")
        for record in steps:
            ledger.write(record["step"], _rollouts(record["step"]), 2**24)
    evals = [_evaluation("initial", 1), _evaluation("final", 3, step=STEPS)]
    write_lines(here / "run" / "evals.jsonl", evals)
    write_json(here / "run" / "model" / "config.json", {})
    write_json(here / "foreign" / "config.json", {"model_type": "qwen2"})
    (here / "occupied").mkdir()
    (here / "occupied" / "file").write_text("mine")


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def write_lines(path: Path, records: list[Any]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def _step(number: int) -> dict[str, Any]:
    return {
        "step": number,
        "step_seconds": 2.0,
        "num_tokens": 100,
        "num_samples": 64,
        "num_optimizer_steps": 1,
        "reward": 0.25,
        "off_policy_reasons": [],
    }


def _evaluation(policy: str, right: int, **more: Any) -> dict[str, Any]:
    """Of one problem with four samples."""
    return {
        "benchmark": "easy",
        "policy": policy,
        "num_samples": 4,
        "num_problems": 1,
        "accuracy": right / 4,
        "pass_at_k": {"1": right / 4, "4": 1.0},
        "maj_at_k": {"4": 1.0},
        "entropy": 0.5,
        "kl_exact_sequence": 1.0,
        "length": 20.0,
        "truncated": 0.0,
        "problems": [{"id": "easy/0", "num_correct": right}],
        **more,
    }


def _rollouts(step: int) -> dict[str, list[Any]]:
    """Two responses to one prompt, of two tokens each."""
    values: dict[str, Any] = dict.fromkeys(LINE, "text")
    values |= {name: [0.5, 0.5] for name in PER_TOKEN}
    values |= {"step": step, "group": 0, "policy_version": step - 1, "problem_id": "a/0"}
    values |= {"is_trained": True, "length": 2, "greedy_reward": None, "advantage": 0.0}
    values |= {"tokens": [1, 2], "pieces": ["te", "xt"], "values": None}
    rows = [
        {"row": row, "correct": bool(row), "reward": float(row), "advantages": [row - 0.5] * 2}
        for row in (0, 1)
    ]
    return {name: [(values | row)[name] for row in rows] for name in (*LINE, *PER_TOKEN)}


# --- what a row makes ---------------------------------------------------------------------------


def file(name: str, content: str | bytes) -> Maker:
    def make(here: Path, _: Path) -> None:
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def folder(name: str) -> Maker:
    return lambda here, _: (here / name).mkdir()


def gone(name: str) -> Maker:
    return lambda here, _: (here / name).unlink()


def loop(name: str) -> Maker:
    """A link to itself."""
    return lambda here, _: os.symlink(name, here / name)


def edited(name: str, change: Callable[[Any], Any]) -> Maker:
    """A JSON file, changed in place or for what `change` returns."""

    def make(here: Path, _: Path) -> None:
        content = json.loads((here / name).read_text())
        changed = change(content)
        write_json(here / name, content if changed is None else changed)

    return make


def edited_line(name: str, number: int, change: Callable[[Any], Any]) -> Maker:
    """A line of a JSONL file, likewise."""

    def make(here: Path, _: Path) -> None:
        records = [json.loads(line) for line in (here / name).read_text().splitlines()]
        changed = change(records[number])
        records[number] = records[number] if changed is None else changed
        write_lines(here / name, records)

    return make


def table(name: str, columns: dict[str, list[Any]]) -> Maker:
    """A Parquet file."""

    def make(here: Path, _: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table(columns), here / name)

    return make


def cut(name: str, size: int) -> Maker:
    return lambda here, _: os.truncate(here / name, size)


def model(name: str) -> Maker:
    """A copy of a real model as a user has it, without a manifest; others then spoil it."""
    ignored = shutil.ignore_patterns("manifest.json")
    return lambda here, base: shutil.copytree(base, here / name, ignore=ignored)


def sealed(name: str) -> Maker:
    """A copy of a model of our own."""
    return lambda here, base: shutil.copytree(base, here / name)


def copied(source: str, target: str) -> Maker:
    return lambda here, _: shutil.copytree(here / source, here / target)
