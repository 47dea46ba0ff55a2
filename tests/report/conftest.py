"""Run folders as training leaves them, with results that a test chooses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from opo_cli.presets import resolve
from opo_cli.records import RunFolder

SAMPLES = 4


def evaluation(benchmark: str, policy: str, correct: Sequence[int], **more) -> dict:
    """A record of evals.jsonl; `correct`: right samples of each problem, of four."""
    accuracy = sum(correct) / (SAMPLES * len(correct))
    return {
        "benchmark": benchmark,
        "policy": policy,
        "num_samples": SAMPLES,
        "num_problems": len(correct),
        "accuracy": accuracy,
        "pass_at_k": {"1": accuracy, "4": sum(c > 0 for c in correct) / len(correct)},
        "maj_at_k": {"4": accuracy},
        "entropy": 0.5,
        "kl_exact_sequence": 1.0,
        "length": 20.0,
        "truncated": 0.0,
        "self_bleu": 0.25,
        "problems": [{"id": f"{benchmark}/{i}", "num_correct": c} for i, c in enumerate(correct)],
        **more,
    }


def step(number: int, **metrics: float) -> dict:
    return {
        "step": number,
        "step_seconds": 2.0,
        "num_tokens": 100,
        "num_samples": 64,
        "num_optimizer_steps": 1,
        "reward": 0.25,
        "off_policy_reasons": [],
        **metrics,
    }


@pytest.fixture
def make_run(tmp_path: Path):
    def make(
        name: str,
        correct: Mapping[str, Sequence[int]] | Sequence[int] = (2, 2),
        *,
        seed: int = 0,
        base: str = "a",
        sets: Sequence[str] = (),
        steps: Sequence[dict] = (step(1),),
        validation: Sequence[int] | None = None,
        **options,
    ) -> RunFolder:
        """`correct`: right samples per problem of 'easy', or of each benchmark."""
        folder = RunFolder(tmp_path / name)
        folder.model.mkdir(parents=True)
        overrides = [f"train.steps={len(steps) or 1}", *sets]
        config = resolve("smoke", named={"seed": seed}, overrides=overrides, **options)
        files = {
            "config.json": config.model_dump_json(),
            "environment.json": json.dumps({"initial_policy_id": base, "versions": {"opo": "1"}}),
            "model/config.json": "{}",
            "steps.jsonl": "".join(json.dumps(each) + "\n" for each in steps),
        }
        for file, text in files.items():
            (folder.path / file).write_text(text)
        by_benchmark = correct if isinstance(correct, Mapping) else {"easy": correct}
        records = []
        for benchmark, counts in by_benchmark.items():
            records.append(evaluation(benchmark, "initial", [0] * len(counts)))
            records.append(evaluation(benchmark, "final", counts, step=len(steps)))
        if validation is not None:
            records.append(evaluation("held", "final", validation, split="validation"))
        folder.write_evals(records)
        return folder

    return make
