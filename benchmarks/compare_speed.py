"""How long `opo compare` takes over many finished runs, against parsing their logs line by line.

    python benchmarks/compare_speed.py [--runs 200] [--steps 1000]

The runs are made up: five arms, every metric in every step. Prints seconds of the whole command (a
process of its own, report included), of `json.loads` over the same logs, and their ratio.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from opo_cli.lines import as_lines
from opo_cli.metrics import METRICS
from opo_cli.presets import resolve

ARMS = ("opo", "opo-loo", "rloo", "dr-grpo", "grpo")
NUM_PROBLEMS, NUM_SAMPLES = 100, 8
CHECK = (
    "import sys; from opo_cli.cli import main; code = main(sys.argv[1:]); "
    "sys.exit(code or ('torch' in sys.modules))"
)


def make_run(folder: Path, algorithm: str, seed: int, num_steps: int) -> None:
    rng = random.Random(f"{algorithm}/{seed}")
    (folder / "model").mkdir(parents=True)
    (folder / "model/config.json").write_text("{}")
    config = resolve("tiny", algorithm=algorithm, named={"seed": seed})
    (folder / "config.json").write_text(config.model_dump_json())
    (folder / "environment.json").write_text('{"initial_policy_id": "a"}')
    with (folder / "steps.jsonl").open("w") as file:
        for step in range(1, num_steps + 1):
            record = {name: round(rng.random(), 6) for name in METRICS}
            record |= {"step": step, "num_samples": 192, "num_optimizer_steps": 1}
            record |= {"reward": 1 - math.exp(-step / 300), "off_policy_reasons": []}
            file.write(as_lines([record]))
    records = [
        evaluation(name, policy, num_steps, rng)
        for name in config.eval.benchmarks
        for policy in ("initial", "final")
    ]
    (folder / "evals.jsonl").write_text(as_lines(records))


def evaluation(benchmark: str, policy: str, num_steps: int, rng: random.Random) -> dict:
    chance = 0.5 if policy == "final" else 0.2
    counts = [sum(rng.random() < chance for _ in range(NUM_SAMPLES)) for _ in range(NUM_PROBLEMS)]
    accuracy = sum(counts) / NUM_PROBLEMS / NUM_SAMPLES
    return {
        "policy": policy,
        "step": num_steps if policy == "final" else 0,
        "benchmark": benchmark,
        "num_samples": NUM_SAMPLES,
        "num_problems": NUM_PROBLEMS,
        "accuracy": accuracy,
        "pass_at_k": {"1": accuracy, "8": 1.0},
        "maj_at_k": {"8": accuracy},
        "problems": [{"id": str(i), "num_correct": count} for i, count in enumerate(counts)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--steps", type=int, default=1000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / f"{i:04d}" for i in range(asked.runs)]
        for i, folder in enumerate(folders):
            make_run(folder, ARMS[i % len(ARMS)], i // len(ARMS), asked.steps)
        logs = [folder / "steps.jsonl" for folder in folders]
        size = sum(log.stat().st_size for log in logs) / 1e6
        started = time.monotonic()
        command = [sys.executable, "-c", CHECK, "compare", *map(str, folders)]
        subprocess.run([*command, "--out", f"{scratch}/out"], check=True, capture_output=True)
        ours = time.monotonic() - started
        report = (Path(scratch) / "out/report.html").stat().st_size / 1e6
        started = time.monotonic()
        for log in logs:
            with log.open() as file:
                for line in file:
                    json.loads(line)
        plain = time.monotonic() - started
    print(f"{asked.runs} runs x {asked.steps} steps, {size:.0f} MB of logs")
    print(f"opo compare  {ours:6.2f} s, torch not imported, report {report:.1f} MB")
    print(f"json.loads   {plain:6.2f} s, {plain / ours:.2f}x the whole command")


if __name__ == "__main__":
    main()
