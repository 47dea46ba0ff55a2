"""What the lab keeps of what it measured, and its folder: `lab.json`, written first, says what is
measured; `prompts/000012.npz` holds the prompt of that row, whole or not there.

Shape legend: N responses of a prompt, k sketch.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from opo_cli.errors import OpoError
from opo_cli.files import read_json, sweep, write_file, write_json
from opo_cli.locks import locked_by_us
from opo_cli.records import environment


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptData:
    """What the lab keeps of one prompt."""

    problem_id: str
    gram: np.ndarray
    """(N, N) float64: g_i . g_j, g_i = gradient of sum_t log pi(y_i,t) over the measured parameters
    (preconditioned where asked)."""
    rewards: np.ndarray
    """(N,) float64, as training shapes them."""
    lengths: np.ndarray
    """(N,) int64 loss tokens; 0 of a response that training would leave out."""
    correct: np.ndarray
    """(N,) bool."""
    truncated: np.ndarray
    """(N,) bool."""
    logit_norms: np.ndarray
    """(N,) float64: sum_t (1 - 2 pi_t + sum_v pi_v^2)."""
    greedy_reward: float | None
    """Of the greedy response; None: not sampled."""
    sketch: np.ndarray
    """(N, k) float32: seeded random projection of g_i, E[<s_i, s_j>] = g_i . g_j across prompts."""
    token_gram: np.ndarray | None = None
    """(sum of lengths, same) float32, left on the disk: products of single-token scores, where they
    were asked for."""
    token_norms: np.ndarray | None = None
    """(sum of lengths,) per-token logit norms, in the order of token_gram."""


CHECKSUM = "token_gram_crc32"
FACTS = {"settings", "code", "whole_gigabytes", "is_whole"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LabData:
    settings: Mapping[str, Any]
    """As measured; `is_whole`: not projected."""
    prompts: Sequence[PromptData]


class LabFolder:
    """The files of one policy's lab."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def exists(self) -> bool:
        return (self.path / "lab.json").is_file()

    @property
    def settings(self) -> dict[str, Any]:
        return self._contents["settings"]

    @property
    def code(self) -> str:
        """A hash of the source code that measures."""
        return self._contents["code"]

    @property
    def whole_gigabytes(self) -> float:
        """The least --memory that keeps gradients whole."""
        return self._contents["whole_gigabytes"]

    @property
    def is_whole(self) -> bool:
        """Whether they were kept whole, not projected."""
        return self._contents["is_whole"]

    @property
    def _contents(self) -> dict[str, Any]:
        path, hint = self.path / "lab.json", "remove its folder, or choose another with --out"
        try:
            found = read_json(path)
        except OpoError as error:
            raise OpoError(error.message, hint) from None
        if not isinstance(found, dict) or not found.keys() >= FACTS:
            raise OpoError(f"'{path}' is none of this program's", hint)
        return found

    def start(
        self, settings: Mapping[str, Any], code: str, *, whole_gigabytes: float, is_whole: bool
    ) -> None:
        content = {
            "settings": settings,
            "code": code,
            "whole_gigabytes": whole_gigabytes,
            "is_whole": is_whole,
            "environment": environment(),
        }
        write_json(self.path / "lab.json", content)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """See `locked_by_us`. Whoever works here next tidies up behind who was killed."""
        with locked_by_us(self.path / "lab.json"):
            sweep(self.file(0).parent)
            yield

    def file(self, row: int) -> Path:
        return self.path / "prompts" / f"{row:06d}.npz"

    def tokens(self, row: int) -> Path:
        """Where products of single tokens were measured, they are here."""
        return self.path / "prompts" / f"{row:06d}-tokens.npy"

    def missing(self) -> list[int]:
        """Rows that are not measured yet."""
        return [row for row in range(self.settings["prompts"]) if not self.file(row).is_file()]

    def add(self, row: int, prompt: PromptData) -> None:
        target = self.file(row)
        values = {field.name: getattr(prompt, field.name) for field in fields(PromptData)}
        arrays = {name: np.asarray(value) for name, value in values.items() if value is not None}
        grams = arrays.pop("token_gram", None)
        if grams is not None:  # First: the other file makes the row, and has a checksum of this.
            grams = np.ascontiguousarray(grams, np.float32)
            arrays[CHECKSUM] = np.asarray(zlib.crc32(grams))
            write_file(self.tokens(row), lambda file: np.save(file, grams))
        write_file(target, lambda file: np.savez(file, **arrays))

    def read(self, row: int) -> PromptData:
        """Raises OpoError where the file is damaged."""
        path = self.file(row)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
                values: dict[str, Any] = {name: found[name] for name in found.files}
            values["problem_id"] = str(values["problem_id"])
            greedy = values.get("greedy_reward")
            values["greedy_reward"] = None if greedy is None else float(greedy)
            if "token_norms" in values:  # By far the largest: of all prompts they need not fit.
                values["token_gram"] = np.load(self.tokens(row), mmap_mode="r")
                if zlib.crc32(values["token_gram"]) != values.pop(CHECKSUM):
                    raise ValueError("its products of tokens were altered")
            return PromptData(**values)
        except Exception as error:  # A damaged file surfaces as almost any type.
            raise OpoError(
                f"'{path}' does not load: {type(error).__name__}",
                "remove it, and give the command again: it is measured anew",
            ) from error


def load_lab(folder: Path) -> LabData:
    """
    Raises:
        OpoError: no lab, one that is not finished, or a damaged file.
    """
    lab = LabFolder(folder)
    if not lab.exists:
        raise OpoError(f"there is no lab at '{folder}'", "opo lab measures one")
    missing = lab.missing()
    if missing:
        raise OpoError(
            f"the lab at '{folder}' lacks {len(missing)} of {lab.settings['prompts']} prompts",
            "give the command that began it again: it goes on",
        )
    prompts = [lab.read(row) for row in range(lab.settings["prompts"])]
    return LabData(settings=lab.settings | {"is_whole": lab.is_whole}, prompts=prompts)
