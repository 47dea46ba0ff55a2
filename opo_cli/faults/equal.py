"""Whether two runs are the same, file by file: logs, ledger, samples, weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opo_cli.errors import brief

OF_THE_MACHINE = ("seconds", "_per_second", "_gigabytes", "crc32")
"""Ends of keys that tell of the machine, or of a line as a whole."""
NOT_COMPARED = ("environment.json",)  # When, where and by which command.
METRICS = ("steps.jsonl", "evals.jsonl")
ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that is not the same in two runs."""

    file: str
    """Relative to the runs' folders."""
    place: str
    """Where in it: line, step, key; row and column; tensor."""
    key: str
    expected: Any
    found: Any

    @property
    def is_metric(self) -> bool:
        return Path(self.file).name in METRICS

    @property
    def relative(self) -> float | None:
        """|a - b| / max(|a|, |b|), of two zeros 0; None where they are no numbers."""
        pair = (self.expected, self.found)
        if not all(isinstance(value, int | float) for value in pair):
            return None
        return abs(pair[0] - pair[1]) / (max(map(abs, pair)) or 1)

    def __str__(self) -> str:
        place = " ".join(filter(None, (self.place, self.key)))
        return f"{self.file}: {place}: {brief(self.expected)} there, {brief(self.found)} here"


def differences(reference: Path, other: Path) -> Iterator[Difference]:
    """Between all that two folders hold, logs first: a file or folder that only one of them has is
    a difference, so that nothing temporary is overlooked."""
    there, here = _names(reference), _names(other)
    for name in sorted(there ^ here, key=_order):
        pair = ("there", ABSENT) if name in there else (ABSENT, "there")
        yield Difference(name, "", "", *pair)
    for name in sorted(there & here, key=_order):
        if (reference / name).is_file():
            compare = KINDS.get(Path(name).suffix, _bytes)
            for place, key, expected, found in compare(reference, other, name):
                yield Difference(name, place, key, expected, found)


def _names(root: Path) -> set[str]:
    found = (path for path in root.rglob("*") if path.name not in NOT_COMPARED)
    return {str(path.relative_to(root)) for path in found}


def _order(name: str) -> tuple[bool, bool, str]:
    return not name.endswith("steps.jsonl"), not name.endswith("evals.jsonl"), name


Found = Iterator[tuple[str, str, Any, Any]]
"""(place, key, expected, found)."""


def _json(reference: Path, other: Path, name: str) -> Found:
    pair = (json.loads(_text(root, name)) for root in (reference, other))
    yield from _records("", *pair)


def _lines(reference: Path, other: Path, name: str) -> Found:
    there, here = (_text(root, name).splitlines() for root in (reference, other))
    if len(there) != len(here):
        yield "", "lines", len(there), len(here)
    for number, (expected, found) in enumerate(zip(there, here, strict=False), start=1):
        pair = json.loads(expected), json.loads(found)
        step = f" (step {pair[0]['step']})" if "step" in pair[0] else ""
        yield from _records(f"line {number}{step}", *pair)


def _text(root: Path, name: str) -> str:
    """With paths as if all roots were one."""
    return (root / name).read_text().replace(str(root), "")


def _records(place: str, there: Any, here: Any) -> Found:
    expected, found = dict(_leaves(there)), dict(_leaves(here))
    for key in dict.fromkeys([*expected, *found]):
        pair = expected.get(key, ABSENT), found.get(key, ABSENT)
        if not key.endswith(OF_THE_MACHINE) and not _is_same(*pair):
            yield place, key, *pair


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list) and value:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for name, part in pairs:
            yield from _leaves(part, f"{key}.{name}".lstrip("."))
    else:
        yield key, value


def _is_same(first: Any, second: Any) -> bool:
    """Bit for bit: NaN is itself, and 0.0 is not -0.0."""
    return type(first) is type(second) and repr(first) == repr(second)


def _table(reference: Path, other: Path, name: str) -> Found:
    import pyarrow.parquet as pq

    there, here = (pq.read_table(root / name) for root in (reference, other))
    if there.schema != here.schema or there.num_rows != here.num_rows:
        yield "", "schema and rows", _outline(there), _outline(here)
        return
    for column in there.column_names:
        pairs = zip(there[column].to_pylist(), here[column].to_pylist(), strict=True)
        for row, pair in enumerate(pairs):
            if not _is_same(*pair):
                yield f"row {row}", column, *pair


def _outline(table) -> str:
    return f"{table.num_rows} rows of {', '.join(table.column_names)}"


def _weights(reference: Path, other: Path, name: str) -> Found:
    """Byte for byte; where they differ, the tensors, each by its value that is farthest off."""
    if (reference / name).read_bytes() == (other / name).read_bytes():
        return
    from safetensors.torch import load_file

    there, here = (load_file(root / name) for root in (reference, other))
    if there.keys() != here.keys():
        yield "", "tensors", sorted(there), sorted(here)
        return
    yield "", "bytes", "these", "others"
    for key, expected in there.items():
        if expected.shape != here[key].shape:
            yield "", key, tuple(expected.shape), tuple(here[key].shape)
            continue
        flat, other_flat = expected.double().flatten(), here[key].double().flatten()
        place = int((flat - other_flat).abs().argmax())
        if flat[place] != other_flat[place]:
            yield f"value {place}", key, flat[place].item(), other_flat[place].item()


def _bytes(reference: Path, other: Path, name: str) -> Found:
    there, here = (reference / name).read_bytes(), (other / name).read_bytes()
    if there != here:
        first = next((i for i, (a, b) in enumerate(zip(there, here, strict=False)) if a != b), -1)
        place = f"byte {first}" if first >= 0 else "size"
        yield place, "", *((there[first], here[first]) if first >= 0 else (len(there), len(here)))


KINDS: dict[str, Callable[[Path, Path, str], Found]] = {
    ".json": _json,
    ".jsonl": _lines,
    ".parquet": _table,
    ".safetensors": _weights,
}
"""Ending of a file's name -> how it is compared; others byte for byte."""
