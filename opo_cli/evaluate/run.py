"""Benchmarks -> samples -> one record per benchmark."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from opo_cli.config import Eval
from opo_cli.data.benchmarks import load_problems
from opo_cli.data.prompts import make_prompts
from opo_cli.data.sources import EVALUATION_STREAM
from opo_cli.evaluate.estimators import pass_at_k, standard_error
from opo_cli.grading.pool import Grader
from opo_cli.model.policy import check_context, divergence, score
from opo_cli.model.sequences import Sequences
from opo_cli.rl.objectives import k1, k3
from opo_cli.rollout.engine import Engine
from opo_cli.types import GRADER_FAILURES, GradedGroup, Sampling

Report = Callable[[str, int, int], None]
"""Called with (benchmark, rows finished, rows in all)."""


def evaluate(
    engine: Engine,
    grader: Grader,
    settings: Eval,
    template: str,
    *,
    tokenizer,
    policy,
    initial,
    report: Report,
    token_budget: int,
) -> list[dict[str, Any]]:
    """One record per benchmark of `settings`, ready for `evals.jsonl`.

    The samples' randomness is keyed by (settings.seed, benchmark, row), apart from training's.

    Args:
        policy: the model whose weights the engine holds, for exact entropy.
        initial: the initial policy, for KL(policy || initial); None where there is none to compare.
            Left out of the record as well where temperature or top-p is not 1.
    """
    sampling = Sampling(
        num_responses=settings.samples,
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
    )
    if settings.temperature != 1 or settings.top_p != 1:
        initial = None  # The samples are not the policy's: their log-ratios estimate no KL.
    records = []
    for benchmark in settings.benchmarks:
        started = time.monotonic()
        prompts = make_prompts(load_problems(benchmark, settings.limit), template, tokenizer)
        check_context(policy, prompts, settings.max_new_tokens, "eval")
        groups = engine.generate(
            prompts,
            sampling,
            stream=(EVALUATION_STREAM, settings.seed, *benchmark.encode()),
            progress=lambda done, total, name=benchmark: report(name, done, total),
        )
        graded = grader.grade(groups)
        records.append(
            {
                "benchmark": benchmark,
                **_accuracy(graded, settings.k),
                **_behaviour(graded, policy, initial, token_budget),
                "settings": settings.model_dump(mode="json", exclude={"benchmarks", "k"})
                | {"template": template},
                "seconds": round(time.monotonic() - started, 2),
            }
        )
    return records


def _accuracy(graded: Sequence[GradedGroup], ks: Sequence[int]) -> dict[str, Any]:
    num_samples = [len(group.grades) for group in graded]
    num_correct = [sum(grade.correct for grade in group.grades) for group in graded]
    shares = pass_at_k(num_samples, num_correct, 1)
    passes = {k: pass_at_k(num_samples, num_correct, k) for k in ks}
    return {
        "num_problems": len(graded),
        "num_samples": num_samples[0],
        "accuracy": float(shares.mean()),
        "accuracy_se": standard_error(shares),
        "pass_at_k": {str(k): float(values.mean()) for k, values in passes.items()},
        "pass_at_k_se": {str(k): standard_error(values) for k, values in passes.items()},
        "problems": [
            {"id": group.group.prompt.problem.id, "num_correct": correct}
            for group, correct in zip(graded, num_correct, strict=True)
        ],
    }


def _behaviour(graded, policy, initial, token_budget: int) -> dict[str, Any]:
    """Length, truncation, failures, entropy and KL over all responses, at temperature 1."""
    rollouts = [rollout for group in graded for rollout in group.group.rollouts]
    reasons = Counter(grade.reason for group in graded for grade in group.grades)
    sequences = Sequences.pack(
        [group.group.prompt.token_ids for group in graded for _ in group.grades],
        [rollout.token_ids for rollout in rollouts],
        policy.device,
    )
    num_tokens, num_rows = int(sequences.lengths.sum()), len(rollouts)
    record: dict[str, Any] = {
        "length": num_tokens / num_rows,
        "truncated": sum(r.finish_reason == "length" for r in rollouts) / num_rows,
        "reasons": dict(reasons),
        "grader_failures": sum(reasons[reason] for reason in GRADER_FAILURES),
    }
    if initial is None:
        entropy = score(policy, sequences, token_budget).entropy
        return record | {"entropy": float(entropy.sum()) / num_tokens}
    found = divergence(policy, initial, sequences, token_budget)
    return record | {
        "entropy": float(found.entropy.sum()) / num_tokens,
        "kl_exact_sequence": float(found.kl.sum()) / num_rows,
        "kl_k1_sequence": float(k1(found.log_ratio).sum()) / num_rows,
        "kl_k3_sequence": float(k3(found.log_ratio).sum()) / num_rows,
    }
