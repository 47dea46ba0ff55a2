"""A whole run: base, evaluation of the initial policy, the steps, evaluation, the saved model."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from opo_cli.certificate import KEY, certificate_of
from opo_cli.config import Config
from opo_cli.console import note, progress, warn
from opo_cli.data.benchmarks import benchmark_title
from opo_cli.data.sources import TrainingPrompts
from opo_cli.errors import NotFiniteError, OpoError, OtherRankError
from opo_cli.evaluate.run import Evaluator, check_requests, over_all
from opo_cli.files import read_json, remove_folder, sync_tree, write_json
from opo_cli.grading.pool import Grader
from opo_cli.interrupt import Interrupted, Interrupts
from opo_cli.model.device import training_device
from opo_cli.model.export import save_policy
from opo_cli.model.folder import policy_id
from opo_cli.model.parallel import from_main, gathered, num_ranks, on_all_ranks, on_main
from opo_cli.model.policy import check_context, choose_device
from opo_cli.model.precision import Precision
from opo_cli.model.shape import Shape, shape_of
from opo_cli.model.sharding import load_to_shard
from opo_cli.ranks import is_joined, program
from opo_cli.records import RunFolder, cache_folder
from opo_cli.report.live import TrainView
from opo_cli.report.spending import Spending
from opo_cli.rollout.engine import Engine, check_tensor_parallel, engine_settings
from opo_cli.rollout.revival import start_engine
from opo_cli.train.batch import ledger_columns, merged_columns
from opo_cli.train.beginning import prepared, training_prompts
from opo_cli.train.best import best_step, load_best, save_best
from opo_cli.train.budget import evaluation_bytes
from opo_cli.train.check import worst_step
from opo_cli.train.checkpoint import Checkpoints, checkpoint_path
from opo_cli.train.forecast import check_lines
from opo_cli.train.learner import Learner, make_reference, new_learner
from opo_cli.train.outputs import start_run
from opo_cli.train.plan import asked_engine, engine_of
from opo_cli.train.snapshots import list_snapshots, save_snapshot
from opo_cli.train.step import StepResult, training_step
from opo_cli.types import GRADER_FAILURES


class Trainer:
    """One run in one folder."""

    def __init__(
        self, config: Config, folder: RunFolder, view: TrainView, started: float | None = None
    ):
        """`started`: by the monotonic clock, when the process began to get ready; None: now."""
        started = time.monotonic() if started is None else started
        self.config, self.folder, self.view = config, folder, view
        problems, self.model_path = prepared(config)
        self.device, _ = choose_device(config.runtime.device)
        precision = Precision.of(config.model)
        policy, self.tokenizer = load_to_shard(self.model_path, self.device, precision)
        self.base_id = from_main(lambda: policy_id(self.model_path))
        on_all_ranks(lambda: self._take_prompts(policy, problems))
        from_main(self._check_base)
        self._pieces: dict[int, str] = {}
        self.learner: Learner = new_learner(policy, make_reference(policy, config), config)
        self.engine: Engine = start_engine(
            *from_main(lambda: self._engine_name(shape_of(policy.config))),
            policy,
            self.tokenizer,
            lambda: engine_settings(config, bytes_to_come=self._bytes_to_come()),
        )
        place = Path(os.path.expanduser(self.model_path))
        facts = {
            "device": str(self.device),
            "num_ranks": num_ranks(),
            "engine": self.engine.name,
            "initial_policy": str(place.resolve()) if place.exists() else self.model_path,
            "initial_policy_id": self.base_id,
            "startup_seconds": round(time.monotonic() - started, 2),
            "training_data": read_json(problems.parent / "source.json")
            | {"audit": read_json(problems.parent / "audit.json")},
        }
        try:
            # When all that may fail at the start has not.
            from_main(lambda: start_run(config, folder, **facts))
        except BaseException:
            self.engine.close()
            raise

    def _take_prompts(self, policy, problems: Path) -> None:
        config = self.config
        prompts = training_prompts(config, problems, self.tokenizer)
        check_context(policy, prompts, config.rollout.max_new_tokens, "rollout")
        check_requests(config, policy, self.tokenizer)
        self.prompts = TrainingPrompts(prompts, config.seed)

    def _engine_name(self, shape: Shape) -> tuple[str, str]:
        """(engine, as it was asked for)."""
        name, _ = engine_of(self.config, self.folder, shape, self.device.type)
        check_tensor_parallel(self.config, shape, num_ranks(), name)
        return name, asked_engine(self.config, self.folder)

    def _bytes_to_come(self) -> int:
        """What trainer and evaluations will take beside an engine that is awake."""
        shape = shape_of(self.learner.policy.config)
        evaluation = evaluation_bytes(self.config, shape, training_device(self.config))
        return self.learner.bytes_to_come + evaluation

    def check(self, grader: Grader) -> None:
        """One worst-case step, which changes nothing, and what it took."""
        found = worst_step(self.config, self.prompts.prompts, self.learner, self.engine, grader)
        self.view.plan(check_lines(found, is_gpu=self.device.type == "cuda"))

    def run(self, interrupts: Interrupts, *, use_check: bool = False) -> None:
        """Trains to the last step.

        Args:
            use_check: see `check`, before anything else.

        Raises:
            Interrupted: a signal came; the folder holds a checkpoint of the last whole step (of an
                earlier one, where a second signal or `checkpoint.grace_seconds` did not wait for
                it).
            OpoError: a step cannot be made (memory, an engine that died twice); likewise.
        """
        settings = self.config.eval
        with (
            on_main(self.folder.locked),
            closing(self.engine),
            Grader(self.config.grading) as grader,
        ):
            if use_check:
                self.check(grader)
            evaluator = self._evaluator(grader)
            initial = self._evaluate(evaluator, settings.benchmarks, "initial policy", 0)
            self.checkpoints = Checkpoints(self.folder, self.learner, self.config.checkpoint.keep)
            done = self.checkpoints.load(needs_best=settings.checkpoint == "best")
            from_main(self._certify)
            self.engine.load_weights(self.learner.policy, done)
            last = self._train(done, evaluator, interrupts)
            step = self._choose(evaluator, last)
            names = (*settings.benchmarks, *settings.validation)
            final = self._evaluate(evaluator, names, "final policy", step)
            from_main(lambda: self._write_evals(initial, final))
            with interrupts.step():
                interrupts.hold()  # The run is finished, or it is not.
                self._save_model()

    def _write_evals(self, initial: list[dict[str, Any]], final: list[dict[str, Any]]) -> None:
        during = [record for record in self.folder.evals() if record["policy"] == "step"]
        self.folder.write_evals([*initial, *during, *final])

    def _train(self, done: int, evaluator: Evaluator, interrupts: Interrupts) -> int:
        """From the step behind `done` to the last; returns that."""
        spending = Spending.of(self.config, from_main(self.folder.steps))
        every, failures = self.config.checkpoint.every, 0.0
        warned: set[str] = set()
        is_whole = True  # No step has begun to change the weights and not ended.
        if done:
            self._keep_snapshot(done)  # A second signal may have come before it was written.

        def before_optimizer() -> None:
            nonlocal is_whole
            if is_whole:
                on_all_ranks(lambda: None)  # The last place where all can abandon the step.
            interrupts.hold(self.config.checkpoint.grace_seconds)
            is_whole = False

        try:
            with self.view.steps(done, spending.total):
                while not spending.is_over:
                    step = done
                    self._evaluate_during(evaluator, step)
                    with interrupts.step():
                        result = training_step(
                            step,
                            self.prompts,
                            self.config,
                            self.learner,
                            self.engine,
                            evaluator.grader,
                            progress=self.view.rollout,
                            before_update=self.view.updating,
                            before_optimizer=before_optimizer,
                        )
                        record = result.record | {"ledger_seconds": self._keep_rollouts(result)}
                        from_main(lambda record=record: self.folder.add_step(record))
                        done, is_whole = step + 1, True
                        interrupts.hold()  # Saving takes as long as it takes.
                        spending.add(record)
                        self.view.step(record, spending.total)
                        self._check_step(record)
                        self._keep_snapshot(done)
                        if done % every == 0 or spending.is_over:
                            self._checkpoint(done)
                    failed = sum(record[f"grader_{reason}"] for reason in GRADER_FAILURES)
                    failures += failed * record["num_sampled_groups"]
                    warned |= self._warn_off_policy(record, warned)
        except BaseException as stop:
            if isinstance(stop, Interrupted):
                interrupts.hold()  # It is known to all ranks, and what follows is for all.
            is_urgent = isinstance(stop, Interrupted) and stop.is_urgent
            # Ranks that do not stop together have nothing whole together.
            is_alone = is_joined() and not isinstance(stop, Interrupted)
            if done and is_whole and not is_urgent and not is_alone:
                self._save_last(done)
            if isinstance(stop, OtherRankError):
                raise
            if isinstance(stop, OpoError):
                raise OpoError(
                    f"step {step + 1}: {stop.message}", self._going_on(stop, step)
                ) from stop
            if isinstance(stop, BrokenPipeError):
                raise Interrupted(signal.SIGPIPE) from stop
            raise
        self.checkpoints.finish()  # Whatever becomes of the evaluations.
        if failures:
            count = round(failures * self.config.rollout.group_size)
            warn(f"the grader failed on {count} responses, which earned no reward: see steps.jsonl")
        return done

    def _going_on(self, stop: OpoError, step: int) -> str:
        """The hint of a run that stopped behind `step` steps: a setting of memory goes into the
        command; numbers that overflow want another run, for what shapes this one stays."""
        if isinstance(stop, NotFiniteError):
            return self._another_run() if step or "--set" not in stop.hint else stop.hint
        command = f"{program()} train --resume --out {self.folder.path}"
        setting, _, others = stop.hint.partition(", or ")
        if not setting.startswith("--set"):
            return f"{command} goes on; {stop.hint}"
        return f"{command} {setting}" + (f"; or {others}" if others else "")

    def _another_run(self) -> str:
        """From the newest snapshot, where there is one."""
        rate = self.config.optim.learning_rate
        kept = list_snapshots(self.folder)
        start = f" --model {kept[max(kept)]}" if kept else ""
        return (
            f"its state is kept; another run, for example with{start} --set "
            f"optim.learning_rate={rate / 10:g} (here {rate:g}) --out FOLDER"
        )

    def _keep_rollouts(self, result: StepResult) -> float:
        """Writes the step's rollouts to the ledger, where it is their turn; returns the seconds."""
        settings, started = self.config.ledger, time.monotonic()
        number = result.record["step"]
        if not settings.every or (number - 1) % settings.every:
            return 0.0
        parts = gathered(ledger_columns(number, result.batch, result.graded, self._piece))
        from_main(
            lambda: self.folder.ledger.write(
                number, merged_columns(parts), settings.max_megabytes * 2**20
            )
        )
        return round(time.monotonic() - started, 4)

    def _piece(self, token: int) -> str:
        """A token's own text; kept, as decoding one by one is slow."""
        if token not in self._pieces:
            self._pieces[token] = self.tokenizer.decode([token])
        return self._pieces[token]

    def _check_step(self, record: dict[str, Any]) -> None:
        """Raises NotFiniteError after `optim.max_skipped_steps` steps in a row that could update
        nothing, those before a resumption included."""
        if record["num_optimizer_steps"]:
            return
        steps = from_main(self.folder.steps)
        made = [step["num_optimizer_steps"] > 0 for step in reversed(steps)]
        in_a_row, most = [*made, True].index(True), self.config.optim.max_skipped_steps
        told = "no loss and gradient was finite, so no weight was updated"
        if in_a_row >= most:
            raise NotFiniteError(f"{told}, in {in_a_row} steps in a row", "another learning rate")
        self.view.warn(f"step {record['step']}: {told} ({in_a_row} in a row; {most} end the run)")

    def _warn_off_policy(self, record: dict[str, Any], warned: set[str]) -> set[str]:
        """Warns once per reason where a run that is meant to be exact on-policy is not."""
        if self.config.off_policy_reasons:
            return set()
        reasons = set(record[KEY]) - warned
        if reasons:
            largest = record["sampler_mismatch"]
            told = "not finite" if largest is None else f"{largest:.2g} nats"
            self.view.warn(
                f"step {record['step']} is not exact on-policy: {', '.join(sorted(reasons))} "
                f"(largest |dlogp| {told}); later ones are counted"
            )
        return reasons

    def _checkpoint(self, step: int) -> None:
        from_main(self._certify)
        self.checkpoints.save(step)

    def _has_checkpoint(self, step: int) -> bool:
        return from_main(checkpoint_path(self.folder.checkpoints, step).exists)

    def _save_last(self, step: int) -> None:
        """Where the run ends before its end."""
        self.checkpoints.finish()
        if not self._has_checkpoint(step):
            self._checkpoint(step)
            self.checkpoints.finish()

    def _certify(self) -> None:
        """Of the steps so far."""
        certificate = certificate_of(self.folder.steps()).as_record()
        bounds = self.config.certificate.model_dump()
        write_json(self.folder.path / "certificate.json", {**certificate, "bounds": bounds})

    def _keep_snapshot(self, step: int) -> None:
        settings = self.config.checkpoint
        if settings.snapshot_every and step % settings.snapshot_every == 0:
            moments = settings.snapshot_moments
            save_snapshot(self.folder, step, self.learner, self.tokenizer, use_moments=moments)

    def _check_base(self) -> None:
        """A resumed run goes on from the policy that it started from, its KL's anchor."""
        if not self.folder.exists:
            return
        if self.folder.environment().get("initial_policy_id") != self.base_id:
            raise OpoError(
                f"'{self.folder.path}' did not start from what is now '{self.model_path}'",
                "code, libraries or the model have changed since; start another run with --out",
            )

    def _evaluator(self, grader: Grader) -> Evaluator:
        return Evaluator(
            config=self.config,
            engine=self.engine,
            grader=grader,
            tokenizer=self.tokenizer,
            policy=self.learner.policy,
            initial=self.learner.reference,
        )

    def _evaluate(
        self, evaluator: Evaluator, names: Sequence[str], which: str, step: int
    ) -> list[dict[str, Any]]:
        """The records of the initial or of the final policy; none where there is no benchmark."""
        if not names:
            return []
        with progress(f"evaluate {which}", len(names)) as update:
            records = evaluator.evaluate(names, *self._samples(step), over_all(update))
        return self._labelled(which.split()[0], step, records)

    def _labelled(
        self, policy: str, step: int, records: Sequence[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """As in evals.jsonl; those of the validation split say so."""
        titles = {benchmark_title(name) for name in self.config.eval.validation}
        return [
            {
                "policy": policy,
                "step": step,
                **({"split": "validation"} if record["benchmark"] in titles else {}),
                **record,
            }
            for record in records
        ]

    def _evaluate_during(self, evaluator: Evaluator, step: int) -> None:
        """Every `eval.every` steps, before step `step` (from 0). A run that is resumed here does it
        again from the samples that are kept."""
        settings = self.config.eval
        if not settings.every or step == 0 or step % settings.every:
            return
        names = list(settings.during or settings.benchmarks)
        if settings.checkpoint == "best":
            names = list(dict.fromkeys([*names, *settings.validation]))
        records = evaluator.evaluate(names, *self._samples(step), self.view.evaluating)
        self._keep_evaluation(step, records)
        self.view.evaluated(step, records)
        if settings.checkpoint == "best" and self._best_step() == step:
            self.checkpoints.finish()
            if not self._has_checkpoint(step):
                self._checkpoint(step)
            save_best(self.folder.checkpoints, self.learner.policy, step)

    def _keep_evaluation(self, step: int, records: Sequence[dict[str, Any]]) -> None:
        """Of the policy after `step` steps, in the place of what was there of it."""

        def write() -> None:
            others = [record for record in self.folder.evals() if record["step"] != step]
            self.folder.write_evals([*others, *self._labelled("step", step, records)])

        from_main(write)

    def _best_step(self) -> int | None:
        return from_main(lambda: best_step(self.folder.evals()))

    def _choose(self, evaluator: Evaluator, last: int) -> int:
        """The step after which the final policy was, by `eval.checkpoint`; its weights are loaded
        where they are not those of the `last` step."""
        settings = self.config.eval
        if settings.checkpoint == "last":
            return last
        names = settings.validation
        with progress("validate the last step's policy", len(names)) as update:
            records = evaluator.evaluate(names, *self._samples(last), over_all(update))
        self._keep_evaluation(last, records)
        step = self._best_step()
        note(f"the final policy is that after step {step}, the best on the validation split")
        if step != last:
            load_best(self.folder.checkpoints, self.learner.policy, step)
            self.engine.load_weights(self.learner.policy, step)
        return step

    def _samples(self, step: int) -> tuple[Path, list[Any]]:
        """(where samples of the policy after `step` steps are kept, what tells its weights).
        Runs of one base share the initial policy's through the cache."""
        if step == 0:
            return cache_folder() / "evals", [self.base_id] * 2
        return self.folder.samples(step), [step, self.base_id]

    def _save_model(self) -> None:
        """`model/` marks the run as finished; from then on the logs have no copy."""
        self.checkpoints.finish()
        from_main(lambda: sync_tree(self.folder.path))
        save_policy(self.learner.policy, self.tokenizer, self.folder.model)
        from_main(lambda: remove_folder(self.folder.checkpoints))


def train(
    config: Config,
    folder: RunFolder,
    view: TrainView,
    *,
    use_check: bool = False,
    started: float | None = None,
) -> None:
    """See `Trainer`. Sets torch's threads first."""
    _set_threads(config)
    with Interrupts().installed() as interrupts:
        Trainer(config, folder, view, started).run(interrupts, use_check=use_check)


def check(config: Config, view: TrainView) -> None:
    """The worst-case step alone; nothing is left behind."""
    _set_threads(config)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(config, RunFolder(Path(scratch) / "run"), view)
        with closing(trainer.engine), Grader(config.grading) as grader:
            trainer.check(grader)


def _set_threads(config: Config) -> None:
    if config.runtime.num_threads:
        torch.set_num_threads(config.runtime.num_threads)
