"""A comparison as records for programs: what CSV and JSON print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opo_cli.certificate import Certificate
from opo_cli.metrics import BUDGETS
from opo_cli.report.compare_tables import (
    BEHAVIOUR,
    DIVERSITY,
    dynamics,
    measures,
    of_benchmark,
    peak_memory,
)
from opo_cli.report.contrasts import Contrast
from opo_cli.report.estimate import over_seeds
from opo_cli.report.learning import learning_records
from opo_cli.report.runs import Arm
from opo_cli.report.shared import benchmarks_of, totals
from opo_cli.report.sweep import Tried

UNITS = (*BUDGETS, "seconds")

if TYPE_CHECKING:
    from opo_cli.report.compare import Comparison


def records_of(comparison: Comparison) -> list[dict[str, Any]]:
    """Tidy: one record per number, each with the certificate of its arm."""
    records = [record for arm in comparison.arms for record in _of_arm(arm, comparison)]
    records += learning_records(comparison.learning)
    records += [record for arm in comparison.chosen for record in _of_dynamics(arm)]
    if comparison.sweep:
        records += [_of_tried(each) for each in comparison.sweep.tried]
    families = {"": comparison.contrasts} | comparison.same_setting
    for value, contrasts in families.items():
        found = (*contrasts.overall, *contrasts.each)
        records += [_of_contrast(contrast, comparison, value) for contrast in found]
    certificates = {arm.label: arm.certificate for arm in comparison.arms}
    return [record | _certified(certificates[record["algorithm"]]) for record in records]


def _certified(certificate: Certificate) -> dict[str, Any]:
    return {
        "certificate": certificate.label,
        "num_exact_steps": certificate.num_exact,
        "num_steps": certificate.num_steps,
    }


def _of_arm(arm: Arm, comparison: Comparison) -> list[dict[str, Any]]:
    keys = {key: (lambda r, k=key: r.get(k)) for key in (*BEHAVIOUR, *DIVERSITY)}
    records: list[dict[str, Any]] = []
    for benchmark in benchmarks_of([arm]):
        for title, read in (measures(comparison.arms) | keys).items():
            before = of_benchmark(arm.runs, "initial", benchmark, read)
            after = of_benchmark(arm.runs, "final", benchmark, read)
            records.append(
                {
                    "algorithm": arm.label,
                    "benchmark": benchmark,
                    "measure": title,
                    "initial": before.mean,
                    "final": after.mean,
                    "half_width_95": after.half_width,
                    "sd_between_seeds": after.sd,
                    "num_seeds": after.num_seeds,
                }
            )
    used = {f"training_{u.replace('-', '_')}": totals(arm, u).tolist() for u in UNITS}
    costs = {name: over_seeds(values) for name, values in used.items()}
    costs["peak_memory_gigabytes"] = over_seeds([peak_memory(run) for run in arm.runs])
    for name, cost in costs.items():
        records.append(
            {
                "algorithm": arm.label,
                "measure": name,
                "final": cost.mean,
                "sd_between_seeds": cost.sd,
                "num_seeds": cost.num_seeds,
            }
        )
    return records


def _of_dynamics(arm: Arm) -> list[dict[str, Any]]:
    return [
        {
            "algorithm": arm.label,
            "measure": name,
            "step": step,
            "final": found.mean,
            "half_width_95": found.half_width,
            "sd_between_seeds": found.sd,
            "num_seeds": found.num_seeds,
        }
        for step, values in dynamics(arm)
        for name, found in values.items()
    ]


def _of_tried(tried: Tried) -> dict[str, Any]:
    return {
        "algorithm": tried.arm.label,
        "measure": "validation_accuracy",
        "final": tried.validation.mean,
        "half_width_95": tried.validation.half_width,
        "sd_between_seeds": tried.validation.sd,
        "num_seeds": tried.validation.num_seeds,
        "swept_value": tried.value,
        "is_chosen": tried.is_best,
    }


def _of_contrast(contrast: Contrast, comparison: Comparison, value: str) -> dict[str, Any]:
    found, verdict = contrast.difference, contrast.verdict
    return {
        "algorithm": contrast.labels[0],
        "against": contrast.labels[1],
        "benchmark": contrast.benchmark,
        "measure": f"difference {comparison.options.measure}",
        "final": found.mean,
        "low_95": found.low,
        "high_95": found.high,
        "p": found.p,
        "p_holm": verdict.p_holm,
        "p_permutation": contrast.permutation.p if contrast.permutation else None,
        "least_p_permutation": contrast.permutation.least if contrast.permutation else None,
        "probability_of_improvement": contrast.improvement.value,
        "improvement_low_95": contrast.improvement.low,
        "improvement_high_95": contrast.improvement.high,
        "verdict": verdict.word,
        "sentence": contrast.sentence,
        "num_more_seeds": verdict.num_more_seeds,
        "num_problems_needed": verdict.num_problems_needed,
        "margin": comparison.options.margin,
        "num_seeds": found.num_seeds,
        "num_problems": found.num_problems,
        **({"same_setting": value} if value else {}),
    }
