"""What a run's files hold, as far as others rely on it: a value of another type, from an edit or
another program, is told by its name instead of failing in the middle of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opo_cli.errors import OpoError, brief

Types = Mapping[str, type | tuple[type, ...]]
NUMBER = (int, float)
CONFIG: Types = {
    "preset": str,
    "seed": int,
    "algorithm": dict,
    "algorithm.name": str,
    "train": dict,
    "train.steps": int,
    "train.budget": int,
    "rollout": dict,
    "rollout.group_size": int,
    "runtime": dict,
}
OF_EVERY_RUN = ("preset", "seed", "algorithm.name", "train.steps")
"""What every version has written."""
STEP: Types = {"step": int, "off_policy_reasons": list}
EVAL: Types = {
    "policy": str,
    "benchmark": str,
    "step": int,
    "num_samples": int,
    "accuracy": NUMBER,
    "pass_at_k": dict,
    "maj_at_k": dict,
    "settings": dict,
    "problems": list,
}
COMPARED = ("policy", "benchmark", "num_samples", "accuracy", "problems")
"""What a comparison needs of an evaluation."""


def misshapen(record: Any, types: Types, needed: tuple[str, ...] = ()) -> str:
    """What is wrong with a record, in words; empty where nothing is.

    Args:
        types: dotted key -> type of the value, where there is one.
        needed: keys that must be there.
    """
    if not isinstance(record, dict):
        return f"{brief(record)} is no table"
    for key, type_ in types.items():
        value = _found(record, key)
        if value is None and key in needed:
            return f"there is no {key}"
        is_bool = isinstance(value, bool)
        if value is not None and (is_bool or not isinstance(value, type_)):
            return f"{key} is {brief(value)}"
    return ""


def checked(record: Any, types: Types, where: str, hint: str, needed: tuple[str, ...] = ()) -> Any:
    """`record`. Raises OpoError where it is not what `types` says."""
    wrong = misshapen(record, types, needed)
    if wrong:
        raise OpoError(f"{where} is not as it was written: {wrong}", hint)
    return record


def _found(record: Any, key: str) -> Any:
    for part in key.split("."):
        record = record.get(part) if isinstance(record, dict) else None
    return record
