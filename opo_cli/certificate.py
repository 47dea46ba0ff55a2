"""The on-policy certificate: a step is exact on-policy only while it is shown to be.

It takes one optimizer step per rollout batch, responses by the current weights drawn at temperature
1 and top-p 1, and a policy whose probabilities agree with the sampler's and with the ratio's
denominator within stated bounds. Steps that fail are counted, by reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opo_cli.config import Config

KEY = "off_policy_reasons"
"""Of a step's record: the reasons, a list; empty for an exact step."""
NOT_RECORDED = "not recorded"
"""Of steps that a version without certificates has logged."""


def off_policy_reasons(
    config: Config, step: int, versions: Iterable[int], record: Mapping[str, Any]
) -> list[str]:
    """Why step `step` (from 0) is not exact on-policy; empty where it is.

    Args:
        versions: of the weights that sampled each group.
        record: the step's metrics; one that is not finite is None there, and exceeds any bound.
    """
    if config.off_policy_reasons:
        return config.off_policy_reasons
    bounds = config.certificate

    def exceeds(name: str, bound: float) -> bool:
        return record[name] is None or record[name] > bound

    found = {
        "no update": record["num_optimizer_steps"] != 1,
        "all masked": record["masked"] == 1,
        "older weights": set(versions) != {step},
        "ratio": exceeds("ratio_deviation", bounds.max_ratio_deviation),
        "mismatch": exceeds("sampler_mismatch", bounds.max_mismatch),
    }
    return [reason for reason, is_so in found.items() if is_so]


@dataclass(frozen=True, slots=True)
class Certificate:
    """Of a run, or of several together."""

    num_steps: int
    num_exact: int
    reasons: Mapping[str, int]
    """Reason -> steps that failed for it."""

    @property
    def label(self) -> str:
        if not self.num_steps:
            return "no step"
        if self.num_exact == self.num_steps:
            return "exact on-policy"
        if self.reasons.get(NOT_RECORDED) == self.num_steps:
            return NOT_RECORDED
        why = ", ".join(
            reason if count == self.num_steps else f"{reason}: {count}"
            for reason, count in self.reasons.items()
        )
        if not self.num_exact:
            return f"off-policy ({why})"
        return f"exact on-policy in {self.num_exact} of {self.num_steps} steps ({why})"

    @property
    def share(self) -> str:
        """`38/40`: exact steps of all; `-` where that was not recorded."""
        if NOT_RECORDED in self.reasons or not self.num_steps:
            return "-"
        return f"{self.num_exact}/{self.num_steps}"

    def as_record(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "num_steps": self.num_steps,
            "num_exact_steps": self.num_exact,
            "off_policy_steps_by_reason": dict(self.reasons),
        }


def certificate_of(steps: Sequence[Mapping[str, Any]]) -> Certificate:
    """From the records of `steps.jsonl`."""
    found = [step.get(KEY, [NOT_RECORDED]) for step in steps]
    return Certificate(
        num_steps=len(found),
        num_exact=sum(not reasons for reasons in found),
        reasons=dict(Counter(reason for reasons in found for reason in reasons)),
    )
