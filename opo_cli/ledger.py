"""The rollout ledger: what was sampled in each step, and what became of it, as Parquet.

One file per step in the run's `rollouts/`, one line per response. It holds what estimators look at,
so that advantages can be computed again without a model.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opo_cli.errors import OpoError
from opo_cli.files import STEP_PREFIX, step_name, step_of, write_file, write_text

if TYPE_CHECKING:
    import pyarrow

FOOTER = b"opocrc32"  # Stands before the footer's checksum.
STRIDE = "stride"
"""File that says how many steps lie between those that are kept, once they are too many."""
LINE = {
    "step": "int32",
    "group": "int32",  # Place of the prompt within the step, from 0.
    "row": "int32",  # Place of the response within its group, from 0.
    "policy_version": "int32",
    "problem_id": "string",
    "prompt": "string",
    "answer": "string",  # The reference answer.
    "text": "string",
    "extracted": "string",  # The response's own answer; null: none.
    "grade_reason": "string",
    "finish_reason": "string",
    "correct": "bool",
    "is_trained": "bool",  # False: masked out of baseline and loss.
    "length": "int32",
    "reward": "float",  # As the estimator saw it, without a KL penalty.
    "greedy_reward": "float",  # Of the greedy response, where the estimator asked for it.
    "advantage": "float",  # Mean over the response's tokens.
}
PER_TOKEN = {
    "tokens": "int32",
    "pieces": "string",  # Each token's own text.
    "sampler_logprobs": "float",
    "logprobs": "float",  # The trainer's, at rollout weights.
    "reference_logprobs": "float",
    "entropy": "float",
    "logit_norms": "float",
    "values": "float",  # The critic's, where there is one.
    "advantages": "float",
}


def _schema() -> pyarrow.Schema:
    import pyarrow as pa

    def typed(name: str) -> pa.DataType:
        return {"bool": pa.bool_(), "float": pa.float32()}.get(name) or pa.type_for_alias(name)

    return pa.schema(
        [(name, typed(kind)) for name, kind in LINE.items()]
        + [(name, pa.list_(typed(kind))) for name, kind in PER_TOKEN.items()]
    )


class Ledger:
    """The ledger of one run."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, step: int) -> Path:
        return self.folder / f"{step_name(step)}.parquet"

    def steps(self) -> list[int]:
        """The steps whose rollouts are there, oldest first."""
        found = self.folder.glob(f"{STEP_PREFIX}*.parquet") if self.folder.is_dir() else []
        ours = [path for path in found if path.stem.removeprefix(STEP_PREFIX).isdecimal()]
        return sorted(map(step_of, ours))

    def kept(self) -> list[int]:
        """The steps, at least one.

        Raises:
            OpoError: there is none.
        """
        steps = self.steps()
        if not steps:
            raise OpoError(
                f"no rollouts in '{self.folder}'",
                "opo train keeps them from its first step on, unless ledger.every = 0",
            )
        return steps

    def write(self, step: int, columns: Mapping[str, Sequence[Any]], max_bytes: int) -> None:
        """Writes a step's lines, then thins out what is too much. They are on the disk when the
        step's checkpoint is."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table, sink = pa.table(dict(columns), schema=_schema()), pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
        content = _with_footer_checksum(sink.getvalue().to_pybytes())
        write_file(self.path(step), lambda file: file.write(content), use_sync=False)
        self._thin(max_bytes)

    def _thin(self, max_bytes: int) -> None:
        """Keeps every second, else every fourth, ... step from step 1 on, so that what is left
        spans the whole run evenly; the newest stays.

        Once it is every second, it stays so: a run that goes back to a checkpoint, where more of
        them were still there, ends with the same ones as if it had not.
        """
        stride = self._stride()
        self._keep_every(stride)
        while (size := self._sizes()) and sum(size.values()) > max_bytes and len(size) > 1:
            stride *= 2
            if stride > max(size):  # The first and the newest alone are too much.
                self.path(min(size)).unlink()
                return
            write_text(self.folder / STRIDE, f"{stride}\n")
            self._keep_every(stride)

    def _stride(self) -> int:
        try:
            return int((self.folder / STRIDE).read_text())
        except (FileNotFoundError, ValueError):  # Without it, only more is kept.
            return 1

    def _keep_every(self, stride: int) -> None:
        for step in self.steps()[:-1]:
            if (step - 1) % stride:
                self.path(step).unlink()

    def _sizes(self) -> dict[int, int]:
        """Step -> bytes, oldest first."""
        return {step: self.path(step).stat().st_size for step in self.steps()}

    def cut(self, last: int) -> None:
        """Drops what lies behind step `last`, where a run is resumed."""
        for step in self.steps():
            if step > last:
                self.path(step).unlink()

    def read(
        self, step: int, columns: Sequence[str] | None = None, group: int | None = None
    ) -> list[dict[str, Any]]:
        """The lines of a step, as dictionaries.

        Args:
            columns: only these; None: all.
            group: only its lines; None: all.

        Raises:
            OpoError: the step is not there, or its file is damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        steps = self.kept()
        if step not in steps:
            raise OpoError(
                f"no rollouts of step {step} in '{self.folder}'", f"it holds {told(steps)}"
            )
        wanted = None if columns is None else list(columns)
        lines = None if group is None else [("group", "=", group)]
        try:
            _check_footer(self.path(step))
            found = pq.read_table(
                self.path(step), columns=wanted, filters=lines, page_checksum_verification=True
            )
            return found.to_pylist()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise OpoError(
                f"'{self.path(step)}' does not read: {str(error).splitlines()[0]}",
                "the file is damaged; choose another step",
            ) from None


def _with_footer_checksum(content: bytes) -> bytes:
    """Parquet knows checksums of its pages alone. That of the footer goes before it, where no
    reader looks: all its offsets count from the start."""
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    footer = content[start:]
    return content[:start] + FOOTER + zlib.crc32(footer).to_bytes(4, "little") + footer


def _check_footer(path: Path) -> None:
    """Raises ValueError where it is not what was written; an older file has no checksum."""
    content = memoryview(path.read_bytes())
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    mark, told, footer = (
        content[start - 12 : start - 4],
        content[start - 4 : start],
        content[start:],
    )
    if mark == FOOTER and zlib.crc32(footer) != int.from_bytes(told, "little"):
        raise ValueError("its footer is not what was written, by its checksum")


def told(steps: Sequence[int]) -> str:
    """Steps in words: `step 3`, `steps 1, 2, 5`, `steps 1 to 40`, `12 steps from 1 to 40`."""
    if len(steps) == 1:
        return f"step {steps[0]}"
    if list(steps) == list(range(steps[0], steps[-1] + 1)):
        return f"steps {steps[0]} to {steps[-1]}"
    if len(steps) <= 8:
        return f"steps {', '.join(map(str, steps))}"
    return f"{len(steps)} steps from {steps[0]} to {steps[-1]}"
