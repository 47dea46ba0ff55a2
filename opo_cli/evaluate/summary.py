"""From the samples of a benchmark to its record: accuracy with intervals, and what goes with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from opo_cli.evaluate.estimators import (
    interval,
    ks_for,
    maj_at_k,
    most_trials_of,
    standard_error,
)
from opo_cli.evaluate.samples import ProblemSamples, Response
from opo_cli.grading.normal import canonical
from opo_cli.report.estimate import pass_at_k
from opo_cli.types import GRADER_FAILURES, Mean, Problem


def summarise(
    samples: Sequence[ProblemSamples], problems: Sequence[Problem], ks: Sequence[int]
) -> dict[str, Any]:
    """One record; every problem has as many responses.

    Args:
        problems: in the order of `samples`.
        ks: those asked for of pass@k and maj@k; see `ks_for`.
    """
    num_samples = len(samples[0].responses)
    shares = np.array([problem.num_correct / num_samples for problem in samples])
    return {
        "num_problems": len(samples),
        "num_samples": num_samples,
        "accuracy": float(shares.mean()),
        "accuracy_se": standard_error(shares),
        "accuracy_95": interval(shares),
        **_measures(samples, ks_for(num_samples, ks)),
        **_behaviour([r for problem in samples for r in problem.responses]),
        **_diversity(samples),
        "by_level": _by(shares, [problem.level for problem in problems]),
        "by_subject": _by(shares, [problem.subject for problem in problems]),
        "problems": [{"id": each.id, "num_correct": each.num_correct} for each in samples],
    }


def _measures(samples: Sequence[ProblemSamples], ks: Sequence[int]) -> dict[str, Any]:
    """pass@k and maj@k of every k from the same samples."""
    votes = [_votes(problem) for problem in samples]
    correct = [problem.num_correct for problem in samples]
    counts = [len(problem.responses) for problem in samples]
    found = {
        "pass_at_k": {k: pass_at_k(counts, correct, k) for k in ks},
        "maj_at_k": {k: np.array([maj_at_k(*vote, k) for vote in votes]) for k in ks if k > 1},
    }
    record: dict[str, Any] = {}
    for name, values in found.items():
        record[name] = {str(k): float(each.mean()) for k, each in values.items()}
        record[f"{name}_95"] = {
            str(k): interval(each, most_trials_of(sum(counts), k)) for k, each in values.items()
        }
    return record


def _votes(problem: ProblemSamples) -> tuple[int, list[int], int]:
    """(right, of each wrong answer, without an answer). All right responses are one answer, however
    they write it; wrong ones are told apart by their canonical form."""
    wrong = Counter(
        canonical(response.extracted)
        for response in problem.responses
        if response.extracted and not response.correct
    )
    right = problem.num_correct
    return right, list(wrong.values()), len(problem.responses) - right - wrong.total()


def _behaviour(responses: Sequence[Response]) -> dict[str, Any]:
    """Length, truncation, reasons, entropy and KL over all responses."""
    reasons = Counter(response.reason for response in responses)
    cut = [response for response in responses if response.finish_reason == "length"]
    completed = [response for response in responses if response.finish_reason == "stop"]
    num_tokens, num_rows = sum(r.length for r in responses), len(responses)
    record = {
        "length": num_tokens / num_rows,
        "length_right": _mean(r.length for r in responses if r.correct),
        "length_wrong": _mean(r.length for r in responses if not r.correct),
        "truncated": len(cut) / num_rows,
        "accuracy_completed": _mean(r.correct for r in completed),
        "accuracy_truncated": _mean(r.correct for r in cut),
        "reasons": dict(reasons),
        "grader_failures": sum(reasons[reason] for reason in GRADER_FAILURES),
        "grading_seconds": round(sum(r.grading_seconds for r in responses), 3),
        "entropy": sum(r.entropy for r in responses) / num_tokens,
    }
    if responses[0].kl is not None:
        record["kl_exact_sequence"] = _mean(r.kl for r in responses)
        record["kl_k1_sequence"] = _mean(r.kl_k1 for r in responses)
        record["kl_k3_sequence"] = _mean(r.kl_k3 for r in responses)
    return record


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return sum(values) / len(values) if values else None


def _diversity(samples: Sequence[ProblemSamples]) -> dict[str, float | None]:
    names = samples[0].diversity
    return {
        name: reduce(Mean.__add__, (problem.diversity[name] for problem in samples)).value
        for name in names
    }


def _by(shares: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Accuracy by a property of the problems; empty where the data has none."""
    if not any(names):
        return {}
    parts = {name: shares[[other == name for other in names]] for name in sorted(set(names))}
    return {
        name: {
            "num_problems": len(part),
            "accuracy": float(part.mean()),
            "accuracy_95": interval(part),
        }
        for name, part in parts.items()
    }
