"""Benchmarks -> samples -> one record per benchmark."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from opo_cli.config import Config
from opo_cli.console import Update
from opo_cli.data.benchmarks import Benchmark, benchmark_row, load_benchmark
from opo_cli.data.prompts import Template, make_prompts, resolve_template
from opo_cli.data.sources import EVALUATION_STREAM
from opo_cli.evaluate import diversity
from opo_cli.evaluate.samples import ProblemSamples, Response, SampleFile
from opo_cli.evaluate.settings import num_samples, takes_kl
from opo_cli.evaluate.summary import summarise
from opo_cli.grading.grader import grader_version
from opo_cli.grading.pool import Grader
from opo_cli.model.memory import out_of_memory
from opo_cli.model.parallel import from_main, num_ranks, on_all_ranks, on_main, share_of
from opo_cli.model.policy import check_context, room_for_response
from opo_cli.model.scores import divergence, score
from opo_cli.model.sequences import Sequences
from opo_cli.model.sharding import device_of, put_away
from opo_cli.ranks import rank
from opo_cli.records import source_digest
from opo_cli.rl.objectives import k1, k3
from opo_cli.rollout.engine import Engine, engine_settings, not_finite
from opo_cli.rollout.shares import graded_groups
from opo_cli.types import GradedGroup, ProblemSet, Prompt, Sampling

CODE = ("evaluate", "grading", "rollout", "data", "model", "types.py", "rl/objectives.py")
"""Sources that shape a sample: with other code, other files."""

Report = Callable[[str, int, int], None]
"""Called with (benchmark, responses so far, responses in all); at the end of each with all."""


def over_all(update: Update) -> Report:
    """To a bar whose unit is one benchmark; they come in whatever order."""
    places: dict[str, int] = {}

    def report(benchmark: str, done: int, total: int) -> None:
        update(places.setdefault(benchmark, len(places)) + done / total, benchmark)

    return report


@dataclass(frozen=True, slots=True)
class _Job:
    """One benchmark, ready to be sampled."""

    benchmark: str
    prompts: list[Prompt]
    sampling: Sampling
    stream: tuple[int, ...]
    settings: dict[str, Any]
    """What stands with the result."""
    file: SampleFile


def requests_of(
    config: Config, row: Benchmark, loaded: ProblemSet, policy, tokenizer
) -> tuple[Template, list[Prompt], int]:
    """(template, prompts, longest response in tokens).

    Raises:
        OpoError: they do not fit into the model's context.
    """
    settings, data = config.eval, config.data
    template = resolve_template(
        data.template, tokenizer, is_embedded=row.is_embedded, answer_format=data.answer_format
    )
    prompts = make_prompts(loaded.problems[: settings.limit or None], template, tokenizer)
    longest = settings.max_new_tokens or room_for_response(policy, prompts, row.max_new_tokens)
    check_context(policy, prompts, longest, "eval")
    return template, prompts, longest


def check_requests(config: Config, policy, tokenizer) -> None:
    """Of all evaluations, before an engine is started for them.

    Raises:
        OpoError: a benchmark cannot be had, or does not fit into the model's context.
    """
    for name in config.eval.every_benchmark:
        row, loaded = benchmark_row(name), load_benchmark(name, config.eval.columns)
        requests_of(config, row, loaded, policy, tokenizer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluator:
    """Evaluates what an engine holds."""

    config: Config
    engine: Engine
    grader: Grader
    tokenizer: Any
    policy: Any
    """The model whose weights the engine holds, for exact entropy."""
    initial: Any = None
    """The initial policy, for KL(policy || initial); None where there is none to compare with."""

    def evaluate(
        self, names: Sequence[str], folder: Path, policy_id: Any, report: Report
    ) -> list[dict[str, Any]]:
        """One record per benchmark, ready for `evals.jsonl`.

        Samples are kept in `folder` as they come: called again, it goes on with the problems that
        are missing. Their randomness is keyed by (eval.seed, benchmark, row), apart from that of
        training.

        Args:
            policy_id: tells these weights, and the initial policy compared with, from all others
                whose samples `folder` holds.

        Raises:
            OpoError: a benchmark cannot be had, or does not fit into the model's context.
        """
        jobs = {name: self._job(name, folder, policy_id) for name in names}
        records: dict[str, dict[str, Any]] = {}
        while len(records) < len(jobs):
            left = [name for name in jobs if name not in records]
            # Runs that start together share the initial policy's evaluation.
            free = (name for name in left if not jobs[name].file.is_busy)
            name = from_main(lambda free=free, left=left: next(free, left[0]))
            records[name] = self._record(jobs[name], report)
        return [records[name] for name in names]

    def _record(self, job: _Job, report: Report) -> dict[str, Any]:
        started, file = time.monotonic(), job.file
        with on_main(file.locked):
            done = from_main(file.read)
            for part in self._missing(job, done, report):
                from_main(lambda part=part: file.add(part))
                done |= {each.id: each for each in part}
        count = len(job.prompts) * job.sampling.num_responses
        report(job.benchmark, count, count)
        return {
            "benchmark": job.benchmark,
            **summarise(
                [done[prompt.problem.id] for prompt in job.prompts],
                [prompt.problem for prompt in job.prompts],
                self.config.eval.k,
            ),
            "settings": job.settings,
            "samples_file": str(file.path),
            "seconds": round(time.monotonic() - started, 2),
        }

    def _job(self, name: str, folder: Path, policy_id: Any) -> _Job:
        row, loaded = benchmark_row(name), load_benchmark(name, self.config.eval.columns)
        template, prompts, longest = requests_of(
            self.config, row, loaded, self.policy, self.tokenizer
        )
        sampling = Sampling(
            num_responses=num_samples(self.config.eval, row),
            max_new_tokens=longest,
            temperature=self.config.eval.temperature,
            top_p=self.config.eval.top_p,
        )
        settings = self._settings(loaded, template, sampling)
        identity = settings | {
            "policy": policy_id,
            "has_kl": self._compared is not None,
            "device": device_of(self.policy).type,
            "sampler_dtype": (
                engine_settings(self.config).dtype if self.engine.name == "vllm" else "the policy's"
            ),
            "code": source_digest(*CODE),
        }
        return _Job(
            benchmark=loaded.name,
            prompts=prompts,
            sampling=sampling,
            stream=(EVALUATION_STREAM, self.config.eval.seed, *loaded.name.encode()),
            settings=settings,
            file=SampleFile(folder, loaded.name, identity),
        )

    def _settings(
        self, loaded: ProblemSet, template: Template, sampling: Sampling
    ) -> dict[str, Any]:
        return {
            "source": loaded.source,
            "revision": loaded.revision,
            "problems_sha256": loaded.sha256,
            "template": template.name,
            "template_text": template.text,
            "template_digest": template.digest,
            "answer_format": template.answer_format,
            "samples": sampling.num_responses,
            "max_new_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": self.config.eval.seed,
            "require_stop": self.config.eval.require_stop,
            "engine": self.engine.name,
            "compute_dtype": self.config.model.compute_dtype,
            "head_dtype": self.config.model.head_dtype,
            "grader": grader_version(),
            "grader_limits": self.config.grading.limits,
        }

    @property
    def _compared(self):
        """The initial policy where KL to it can be measured."""
        return self.initial if takes_kl(self.config.eval) else None

    def _missing(
        self, job: _Job, done: dict[str, ProblemSamples], report: Report
    ) -> Iterator[list[ProblemSamples]]:
        """Samples what is not `done`, as many problems at a time as are decoded at once."""
        count, total = job.sampling.num_responses, len(job.prompts)
        width = min(self.config.rollout.tensor_parallel, num_ranks())
        num_engines = num_ranks() // width
        size = max(1, self.config.rollout.max_rows // count) * num_engines
        for start in range(0, total, size):
            part = job.prompts[start : start + size]
            if all(prompt.problem.id in done for prompt in part):
                continue
            graded = graded_groups(
                part,
                job.sampling,
                self.engine,
                self.grader,
                stream=job.stream,
                first_row=start * count,
                ranks_per_engine=width,
                require_stop=self.config.eval.require_stop,
                progress=lambda rows, _, first=start * count: report(
                    job.benchmark, first + rows * num_engines, total * count
                ),
            )
            found = self._measured(graded)
            yield [each for each in found if each.id not in done]

    def _measured(self, graded: Sequence[GradedGroup]) -> list[ProblemSamples]:
        """Grades, and what the policy says of each response, as samples. Each rank scores a share;
        all get all."""
        version = graded[0].group.policy_version
        rows = share_of(len(graded), rank(), num_ranks())
        graded = graded[rows.start : rows.stop]
        prompts = [group.group.prompt.token_ids for group in graded for _ in group.grades]
        responses = [rollout.token_ids for group in graded for rollout in group.group.rollouts]
        with out_of_memory("scoring the evaluation", self._what_to_lower(prompts, responses)):
            sequences = Sequences.pack(prompts, responses, device_of(self.policy))
            columns = self._columns(sequences)
        put_away(self.policy)  # Beside an engine that is awake.
        shares = on_all_ranks(lambda: self._samples(graded, columns, version))
        return [samples for share in shares for samples in share]

    def _samples(
        self, graded: Sequence[GradedGroup], columns: dict[str, Tensor], version: int
    ) -> list[ProblemSamples]:
        """Raises NotFiniteError."""
        sums = iter(self._sums(columns, version))
        return [
            ProblemSamples(
                id=group.group.prompt.problem.id,
                answer=group.group.prompt.problem.answer,
                responses=tuple(
                    Response(
                        text=rollout.text,
                        extracted=grade.extracted,
                        correct=grade.correct,
                        reason=grade.reason,
                        finish_reason=rollout.finish_reason,
                        length=len(rollout.token_ids),
                        grading_seconds=grade.seconds,
                        **next(sums),
                    )
                    for rollout, grade in zip(group.group.rollouts, group.grades, strict=True)
                ),
                diversity=diversity.of_group(group),
            )
            for group in graded
        ]

    def _what_to_lower(self, prompts: list, responses: list) -> str:
        """Where scores do not fit beside the engine, which is awake."""
        budget = self.config.train.microbatch_tokens
        if not responses or budget > max(
            len(p) + len(r) for p, r in zip(prompts, responses, strict=True)
        ):
            hint = f"--set train.microbatch_tokens={budget // 2}"
        else:  # A microbatch is one row already.
            half = max(1, max(map(len, responses)) // 2)
            hint = f"another run with --set eval.max_new_tokens={half}"
        is_vllm = self.engine.name == "vllm"
        return f"{hint}, or a smaller rollout.cache_gigabytes" if is_vllm else hint

    def _columns(self, sequences: Sequences) -> dict[str, Tensor]:
        """(B, T) each, nats."""
        budget = self.config.train.microbatch_tokens
        if self._compared is None:
            return {"entropy": score(self.policy, sequences, budget).entropy}
        found = divergence(self.policy, self._compared, sequences, budget)
        return {
            "entropy": found.entropy,
            "kl": found.kl,
            "kl_k1": k1(found.log_ratio),
            "kl_k3": k3(found.log_ratio),
        }

    def _sums(self, columns: dict[str, Tensor], version: int) -> list[dict[str, float]]:
        """Per response, over its tokens. Raises NotFiniteError."""
        sums = torch.stack([values.sum(1) for values in columns.values()], dim=1)
        if not sums.isfinite().all():  # The engine's own, in another precision, may be.
            raise not_finite(self.policy, version)
        return [dict(zip(columns, row, strict=True)) for row in sums.tolist()]
