"""A whole run: base, evaluation of the initial policy, the steps, evaluation, the saved model."""

from __future__ import annotations

import copy
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from opo_cli.certificate import KEY, certificate_of
from opo_cli.config import Config
from opo_cli.console import progress, warn
from opo_cli.data.prompts import make_prompts
from opo_cli.data.sources import TrainingPrompts, load_problems
from opo_cli.errors import OpoError
from opo_cli.evaluate.run import evaluate
from opo_cli.grading.pool import Grader
from opo_cli.model.policy import check_context, choose_device, load_policy
from opo_cli.records import (
    RunFolder,
    cache_folder,
    digest,
    disk_errors,
    read_json,
    source_digest,
    write_json,
)
from opo_cli.report.live import TrainView
from opo_cli.report.plan import plan_rows
from opo_cli.rollout.engine import Engine, choose_engine, create_engine
from opo_cli.train.batch import ledger_columns
from opo_cli.train.checkpoint import (
    checkpoint_path,
    load_checkpoint,
    remove_checkpoints,
    save_checkpoint,
)
from opo_cli.train.interrupt import Interrupted, Interrupts
from opo_cli.train.learner import Learner, new_learner
from opo_cli.train.outputs import start_run
from opo_cli.train.step import StepResult, training_step
from opo_cli.train.warmstart import prepare
from opo_cli.types import GRADER_FAILURES

EVALUATION_SOURCES = ("evaluate", "grading", "rollout", "data", "model")


def plan(config: Config, folder: RunFolder) -> list[tuple[str, str]]:
    """The plan before step 0.

    Raises:
        OpoError: a device that is not there.
    """
    device, why_device = choose_device(config.runtime.device)
    engine, why_engine = choose_engine(config.runtime.engine)
    return plan_rows(
        config,
        device=f"{device} ({why_device})",
        engine=f"{engine} ({why_engine})",
        out=str(folder.path),
    )


class Trainer:
    """One run in one folder."""

    def __init__(self, config: Config, folder: RunFolder, view: TrainView):
        self.config, self.folder, self.view = config, folder, view
        problems, self.model_path = prepare(config)
        self.device, _ = choose_device(config.runtime.device)
        policy, self.tokenizer = load_policy(self.model_path, self.device)
        prompts = make_prompts(load_problems(problems), config.data.template, self.tokenizer)
        check_context(policy, prompts, config.rollout.max_new_tokens, "rollout")
        self.prompts = TrainingPrompts(prompts, config.seed)
        place = Path(self.model_path).expanduser()
        start_run(
            config,
            folder,
            device=str(self.device),
            initial_policy=str(place.resolve()) if place.exists() else self.model_path,
            initial_policy_id=policy_id(self.model_path),
        )
        self._check_base()
        self._pieces: dict[int, str] = {}
        reference = copy.deepcopy(policy).requires_grad_(False)
        self.learner: Learner = new_learner(policy, reference, config)
        engine, _ = choose_engine(config.runtime.engine)
        self.engine: Engine = create_engine(
            engine, policy, self.tokenizer, max_rows=config.rollout.max_rows
        )

    def run(self, interrupts: Interrupts) -> None:
        """Trains to the last step.

        Raises:
            Interrupted: a signal came; the folder holds a checkpoint of the last whole step (of an
                earlier one, where a second signal did not wait for it).
        """
        with self.folder.locked(), Grader(self.config.grading) as grader:
            initial = self._initial_evals(grader)
            done = load_checkpoint(self.folder.checkpoints, self.learner)
            self.folder.keep_steps(done)
            self.engine.load_weights(self.learner.policy, done)
            self._train(done, grader, interrupts)
            final = self._evaluate("final policy", grader) if self.config.eval.benchmarks else []
            self.folder.write_evals(
                [{"policy": "initial", "step": 0, **record} for record in initial]
                + [
                    {"policy": "final", "step": self.config.train.steps, **record}
                    for record in final
                ]
            )
            self._save_model()
        self.engine.close()

    def _train(self, done: int, grader: Grader, interrupts: Interrupts) -> None:
        total, every = self.config.train.steps, self.config.checkpoint.every
        failures = 0.0

        warned: set[str] = set()

        def before_update() -> None:
            interrupts.hold()
            self.view.updating()

        try:
            with self.view.steps(done, total):
                for step in range(done, total):
                    with interrupts.step():
                        result = training_step(
                            step,
                            self.prompts,
                            self.config,
                            self.learner,
                            self.engine,
                            grader,
                            progress=self.view.rollout,
                            before_update=before_update,
                        )
                        record = result.record | {"ledger_seconds": self._keep_rollouts(result)}
                        self.folder.add_step(record)
                        done = step + 1
                        self.view.step(record)
                        self._check_step(record)
                        if done % every == 0 or done == total:
                            self._checkpoint(done)
                    failed = sum(record[f"grader_{reason}"] for reason in GRADER_FAILURES)
                    failures += failed * record["num_sampled_groups"]
                    warned |= self._warn_off_policy(record, warned)
        except Interrupted as signal:
            is_saved = not done or checkpoint_path(self.folder.checkpoints, done).exists()
            if signal.is_between_steps and not is_saved:
                self._checkpoint(done)
            raise
        if failures:
            count = round(failures * self.config.rollout.group_size)
            warn(f"the grader failed on {count} responses, which earned no reward: see steps.jsonl")

    def _keep_rollouts(self, result: StepResult) -> float:
        """Writes the step's rollouts to the ledger, where it is their turn; returns the seconds."""
        settings, started = self.config.ledger, time.monotonic()
        number = result.record["step"]
        if not settings.every or (number - 1) % settings.every:
            return 0.0
        columns = ledger_columns(number, result.batch, result.graded, self._piece)
        with disk_errors(self.folder.ledger.path(number)):
            self.folder.ledger.write(number, columns, settings.max_megabytes * 2**20)
        return round(time.monotonic() - started, 4)

    def _piece(self, token: int) -> str:
        """A token's own text; kept, as decoding one by one is slow."""
        if token not in self._pieces:
            self._pieces[token] = self.tokenizer.decode([token])
        return self._pieces[token]

    def _check_step(self, record: dict[str, Any]) -> None:
        """Raises OpoError where a step could not update anything."""
        if not record["num_optimizer_steps"]:
            raise OpoError(
                f"step {record['step']}: no gradient was finite, so no weight was updated",
                f"lower optim.learning_rate (now {self.config.optim.learning_rate:g})",
            )

    def _warn_off_policy(self, record: dict[str, Any], warned: set[str]) -> set[str]:
        """Warns once per reason where a run that is meant to be exact on-policy is not."""
        if self.config.off_policy_reasons:
            return set()
        reasons = set(record[KEY]) - warned
        if reasons:
            largest = record["sampler_mismatch"]
            told = "not finite" if largest is None else f"{largest:.2g} nats"
            warn(
                f"step {record['step']} is not exact on-policy: {', '.join(sorted(reasons))} "
                f"(largest |dlogp| {told}); later ones are counted"
            )
        return reasons

    def _checkpoint(self, step: int) -> None:
        certificate = certificate_of(self.folder.steps()).as_record()
        bounds = self.config.certificate.model_dump()
        write_json(self.folder.path / "certificate.json", {**certificate, "bounds": bounds})
        save_checkpoint(self.folder.checkpoints, self.learner, step, self.config.checkpoint.keep)

    def _check_base(self) -> None:
        """A resumed run goes on from the policy that it started from, its KL's anchor."""
        if self.folder.environment().get("initial_policy_id") != policy_id(self.model_path):
            raise OpoError(
                f"'{self.folder.path}' did not start from what is now '{self.model_path}'",
                "code, libraries or the model have changed since; start another run with --out",
            )

    def _initial_evals(self, grader: Grader) -> list[dict[str, Any]]:
        """The initial policy's records; runs of one base share them through the cache."""
        if not self.config.eval.benchmarks:
            return []
        key = digest(
            policy_id(self.model_path),
            self.config.eval.model_dump(mode="json"),
            self.config.data.template,
            self.config.grading.model_dump(),
            self.device.type,
            source_digest(*EVALUATION_SOURCES),
        )
        path = cache_folder() / "evals" / f"{key}.json"
        if not path.is_file():
            write_json(path, self._evaluate("initial policy", grader))
        return read_json(path)

    def _evaluate(self, which: str, grader: Grader) -> list[dict[str, Any]]:
        names = self.config.eval.benchmarks
        with progress(f"evaluate {which}", len(names)) as update:

            def report(benchmark: str, done: int, total: int) -> None:
                update(names.index(benchmark) + done / total, benchmark)

            return evaluate(
                self.engine,
                grader,
                self.config.eval,
                self.config.data.template,
                tokenizer=self.tokenizer,
                policy=self.learner.policy,
                initial=self.learner.reference,
                report=report,
                token_budget=self.config.train.microbatch_tokens,
            )

    def _save_model(self) -> None:
        """Into a temporary folder, then renamed: `model/` marks the run as finished."""
        with tempfile.TemporaryDirectory(dir=self.folder.path, prefix=".writing-") as scratch:
            written = Path(scratch) / "model"
            with disk_errors(self.folder.model):
                self.learner.policy.save_pretrained(written)
                self.tokenizer.save_pretrained(written)
            written.rename(self.folder.model)
        remove_checkpoints(self.folder.checkpoints)


def policy_id(model_path: str) -> str:
    """What tells one version of a model folder from another, without reading gigabytes.

    A prepared base has it in its name; else names, sizes and times of the files count.
    """
    folder = Path(model_path).expanduser().resolve()
    if folder.parent == cache_folder().resolve():
        return folder.name
    files = sorted(path for path in folder.glob("*") if path.is_file())
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return digest(model_path if not files else stats)


def train(config: Config, folder: RunFolder, view: TrainView) -> None:
    """See `Trainer.run`. Sets torch's threads first."""
    if config.runtime.num_threads:
        torch.set_num_threads(config.runtime.num_threads)
    with Interrupts().installed() as interrupts:
        Trainer(config, folder, view).run(interrupts)
