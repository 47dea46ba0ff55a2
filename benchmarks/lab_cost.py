"""What measuring gradients costs. Prints responses per CPU second, and memory.

    python benchmarks/lab_cost.py [--preset tiny] [--model FOLDER] [--prompts 8] [--responses 32]

One backward pass per response against `torch.func` over several at once, on the policy's own
responses, with their errors against float64; what keeping a gradient whole, or projected, adds; and
the whole measurement with its sampling, beside the memory that it foretells. One thread; the best
of three.
"""

from __future__ import annotations

import argparse
import copy
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from opo_cli.host import peak_resident_bytes
from opo_cli.lab import gradients
from opo_cli.lab.gradients import Layout, Vectors
from opo_cli.lab.measure import Lab
from opo_cli.lab.parameters import measured_parameters
from opo_cli.lab.plan import plan_lab, training_file
from opo_cli.lab.settings import CODE, PolicySource, Request
from opo_cli.model.sequences import Sequences
from opo_cli.presets import resolve
from opo_cli.records import source_digest
from opo_cli.train.warmstart import prepare
from opo_cli.types import Sampling


def cpu_seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """The best after one warm-up."""
    work()
    found = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def packed(lab: Lab, count: int) -> list[Sequences]:
    """The responses to each of four prompts."""
    sampling = Sampling(num_responses=count, max_new_tokens=lab.config.rollout.max_new_tokens)
    groups = lab.engine.generate(lab.prompts[:4], sampling, stream=(0,))
    return [
        Sequences.pack(
            [group.prompt.token_ids] * count,
            [each.token_ids for each in group.rollouts],
            lab.model.device,
        )
        for group in groups
    ]


def exact_rows(model, prompts: list[Sequences]) -> list[torch.Tensor]:
    """In float64, logits everywhere."""
    model = copy.deepcopy(model).double()
    rows = []
    for part in prompts:
        for row in range(len(part)):
            start, length = int(part.prompt_lengths[row]), int(part.lengths[row])
            ids = part.input_ids[row : row + 1, : start + length]
            logprobs = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
            total = logprobs.gather(-1, ids[0, 1:, None])[start - 1 :].sum()
            found = torch.autograd.grad(total, list(model.parameters()))
            rows.append(torch.cat([each.reshape(-1) for each in found]))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--model", help="instead of the preset's prepared base")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--responses", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    named = {"model": {"path": arguments.model}} if arguments.model else None
    config = resolve(arguments.preset, named=named)
    asked = Request(prompts=arguments.prompts, responses=arguments.responses)
    source = PolicySource(label="base", path=prepare(config)[1])
    training = training_file(config, asked)
    lab = Lab(config, asked, source, training)
    at_start = peak_resident_bytes()
    with tempfile.TemporaryDirectory() as scratch:
        plan = plan_lab(config, asked, [source], Path(scratch) / "lab", "base")[0]
        plan.folder.start(
            plan.settings,
            source_digest(*CODE),
            whole_gigabytes=lab.whole_gigabytes,
            is_whole=lab.is_whole,
        )
        foreseen = lab.foresee(arguments.prompts)
        start = time.process_time()
        lab.measure(plan.folder, "base")
        measured_seconds = time.process_time() - start
        peak = peak_resident_bytes()
        num_bytes = sum(path.stat().st_size for path in plan.folder.path.rglob("*.npz"))
    prompts, count = packed(lab, arguments.responses), 4 * arguments.responses
    lengths = torch.cat([each.lengths for each in prompts]).float()
    print(f"{count} responses, {lengths.mean():.0f} tokens on average, longest {lengths.max():.0f}")
    print(f"{'gradients':<28}{'responses per CPU second':>26}{'error, median and largest':>30}")

    with measured_parameters(lab.model, "all", 0) as parameters:

        def rows_of(way) -> list[torch.Tensor]:
            return [
                torch.cat(list(each.parts))
                for part in prompts
                for each in sorted(way(lab.model, parameters, part), key=lambda each: each.row)
            ]

        def drain(way) -> None:
            for part in prompts:
                for _ in way(lab.model, parameters, part):
                    pass

        expected = exact_rows(lab.model, prompts)
        ways = [("one by one", gradients.gradients_one_by_one, 1)]
        ways += [(f"{n} together", gradients.gradients_together, n) for n in (4, 8, 16, 32)]
        for name, way, size in ways:
            gradients.TOGETHER = size
            found = zip(rows_of(way), expected, strict=True)
            errors = torch.tensor([float((a - b).norm() / b.norm()) for a, b in found])
            seconds = cpu_seconds(lambda way=way: drain(way))
            shown = f"{errors.median():.1e} {errors.max():.1e}"
            print(f"{name:<28}{count / seconds:>26.0f}{shown:>30}")
        gradients.TOGETHER = 16
        sizes = [each.numel() for each in parameters.values()]
        one = [part.float() for part in expected[0].split(sizes)]
        for name, is_whole in (("whole", True), ("projected", False)):
            vectors = Vectors(Layout.of(parameters, seed=0, is_whole=is_whole), 32)

            def keep(vectors: Vectors = vectors) -> None:
                for row in range(32):
                    vectors.add(row, one)
                vectors.gram()

            print(f"{'keeping 32, ' + name:<28}{32 / cpu_seconds(keep):>26.0f}")

    total = arguments.prompts * arguments.responses
    print(f"{'all, with sampling':<28}{total / measured_seconds:>26.0f}")
    print(f"memory: {foreseen.peak_bytes / 1e6:.0f} MB foretold; the process held ", end="")
    print(f"{at_start / 1e6:.0f} MB before it measured and {peak / 1e6:.0f} after it")
    print(f"on disk: {num_bytes / arguments.prompts / 1e3:.0f} kB per prompt")


if __name__ == "__main__":
    main()
