"""The grader grades and the engines sample, for real. Engines run in processes of their own: one
that crashes or hangs is a finding like others.

`python -m opo_cli.doctor.selftests ENGINE` is such a process: it prints a line and exits with 0, or
with 1 where the line is an error.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from opo_cli.doctor.findings import Finding, ok, pip_install, reinstall
from opo_cli.errors import OpoError, first_line

ENGINE_SECONDS = 300  # Imports and vLLM's start on a busy machine.
QUESTIONS = ("7-1+9=?", "3+4=?")
FALLBACK = "until it is mended: --engine transformers"


def check_grader() -> Iterator[Finding]:
    from opo_cli.config import Grading
    from opo_cli.grading.workers import Workers

    start = time.monotonic()
    try:
        import math_verify  # noqa: F401  (workers could not say why they do not start)
    except ImportError as error:
        mend = pip_install("--force-reinstall", "math-verify[antlr4-13-2]>=0.9,<0.10")
        yield Finding("grader", "problem", f"math-verify: {first_line(error)}", mend)
        return
    Workers(Grading()).close()
    seconds = time.monotonic() - start
    yield ok("grader", f"right, wrong and hanging answers are told apart; {seconds:.1f} s")


def check_transformers() -> Iterator[Finding]:
    yield _engine("transformers", reinstall())


def check_vllm() -> Iterator[Finding]:
    from opo_cli.rollout.engine import vllm_version

    if vllm_version() is not None:
        yield _engine("vllm", FALLBACK)


def _engine(name: str, mend: str) -> Finding:
    what = f"engine {name}"
    command = [sys.executable, "-m", "opo_cli.doctor.selftests", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ENGINE_SECONDS)
    except subprocess.TimeoutExpired:
        return Finding(what, "problem", f"no tokens within {ENGINE_SECONDS} s", mend)
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
    said = lines[-1] if lines else "without a word"
    if done.returncode == 0:
        return ok(what, said)
    if done.returncode < 0:
        said = f"its process died of {signal.Signals(-done.returncode).name}"
    return Finding(what, "problem", said, mend)


def _try(name: str) -> str:
    """Samples from a model with random weights, and holds the logprobs against the trainer's.

    Raises:
        OpoError: they differ, or the engine fails.
    """
    import torch

    from opo_cli.config import Certificate, Embedded
    from opo_cli.data.prompts import make_prompts, resolve_template
    from opo_cli.model.folder import hush_transformers
    from opo_cli.model.policy import choose_device
    from opo_cli.model.precision import Precision, set_precision
    from opo_cli.model.scores import score
    from opo_cli.model.sequences import Sequences
    from opo_cli.model.tiny import build_model, build_tokenizer
    from opo_cli.rollout.engine import EngineSettings, choose_engine, create_engine
    from opo_cli.types import Problem, Sampling

    hush_transformers()
    device = choose_device("auto")[0]
    choose_engine(name, None, device.type)
    tokenizer = build_tokenizer()
    model = build_model(Embedded(num_heads=2), tokenizer, seed=0).to(device).eval()
    set_precision(model, Precision())
    problems = [
        Problem(id=str(i), question=text, answer="0", benchmark="doctor")
        for i, text in enumerate(QUESTIONS)
    ]
    template = resolve_template("line", tokenizer, is_embedded=True)
    prompts = make_prompts(problems, template, tokenizer)
    engine = create_engine(name, model, tokenizer, EngineSettings(max_rows=8, max_tokens=64))
    start = time.monotonic()
    groups = engine.generate(prompts, Sampling(num_responses=4, max_new_tokens=16), stream=(0, 0))
    seconds = time.monotonic() - start
    rows = [(group.prompt, rollout) for group in groups for rollout in group.rollouts]
    sequences = Sequences.pack(
        [prompt.token_ids for prompt, _ in rows], [r.token_ids for _, r in rows], device
    )
    ours = score(model, sequences, 1024).logprobs[sequences.mask]
    theirs = torch.tensor([value for _, r in rows for value in r.sampler_logprobs], device=device)
    engine.close()
    largest = float((ours - theirs).abs().max())
    told = f"{len(ours)} tokens on {device.type} in {seconds:.1f} s, largest |Δlogp| {largest:.1g}"
    if not largest <= Certificate().max_mismatch:
        raise OpoError(f"sampler and trainer disagree: {told}", FALLBACK)
    return told


def _main() -> int:
    try:
        print(_try(sys.argv[1]), flush=True)
    except OpoError as error:
        print(error.message, flush=True)
        return 1
    except Exception as error:
        print(f"{type(error).__name__}: {first_line(error)}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    # vLLM leaves threads that may not end.
    os._exit(_main())
