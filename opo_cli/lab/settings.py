"""What `opo lab` is asked, checked before anything is loaded: policies and sizes. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from opo_cli.choose import check_known
from opo_cli.config import Config
from opo_cli.errors import OpoError
from opo_cli.files import step_of
from opo_cli.presets import merged, parse_override, stored, validated
from opo_cli.records import RunFolder
from opo_cli.train.snapshots import MOMENTS, list_snapshots

CHOICES = {
    "parameters": ("all", "last-block", "lm-head", "lora"),
    "precondition": ("none", "adam"),
}
CODE = ("lab", "model", "rollout", "grading", "data", "types.py", "rl/objectives.py")
"""Sources that shape what is measured: a lab goes on under the same ones alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """How much is measured, and of what."""

    prompts: int = 256
    responses: int = 32
    problems: str = ""
    """A benchmark or a data file; empty: the training problems."""
    parameters: str = "all"
    precondition: str = "none"
    token_gradients: bool = False
    seed: int = 0
    memory_gigabytes: float = 4.0
    """For the gradients of one prompt. Where they do not fit, projections are kept. Which of the
    two tells labs apart, not the number: see `LabFolder.whole_gigabytes`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySource:
    """Where a policy's weights are."""

    label: str
    path: str
    """A Hugging Face folder or hub id, with tokenizer."""
    step: int | None = None
    """Of a run; None: it is no run's."""
    checkpoint: Path | None = None
    """A run's checkpoint, whose weights and optimizer take the place of the path's."""


def check_request(asked: Request, group_sizes: Sequence[int]) -> None:
    """
    Raises:
        OpoError: a number or a choice that cannot be.
    """
    for name, options in CHOICES.items():
        check_known(getattr(asked, name), options, name)
    if asked.prompts < 2:
        raise OpoError(f"--prompts {asked.prompts}: a lab needs 2 at least", "--prompts 64")
    if asked.responses < 4:
        raise OpoError(f"--responses {asked.responses}: a lab needs 4 at least", "--responses 32")
    if asked.seed < 0:
        raise OpoError(f"--seed {asked.seed} is below 0", "--seed 0")
    if not 0 < asked.memory_gigabytes < float("inf"):
        raise OpoError(f"--memory {asked.memory_gigabytes:g} is no size in GB", "--memory 4")
    for size in group_sizes:
        if size < 2 or 2 * size > asked.responses:
            raise OpoError(
                f"--group-size {size} with --responses {asked.responses}: groups have 2 or more, "
                "and two of them are drawn at a time",
                f"--group-size {asked.responses // 2}, or --responses {max(4, 2 * size)}",
            )
    if asked.precondition == "adam" and asked.parameters == "lora":
        raise OpoError(
            "--precondition adam with --parameters lora: the optimizer knows no fresh adapters",
            "leave one of the two out",
        )


def check_count(asked: Request, num_problems: int) -> None:
    """Raises OpoError where more are asked for than there are."""
    if asked.prompts > num_problems:
        raise OpoError(
            f"--prompts {asked.prompts}: there are {num_problems} problems",
            f"--prompts {num_problems} or fewer, or another --problems",
        )


def check_config(config: Config) -> None:
    """
    Raises:
        OpoError: samples would not be the policy's own, so that its score would not be 0 on
            average; or an engine is to span ranks.
    """
    if config.rollout.tensor_parallel > 1:
        raise OpoError(
            f"rollout.tensor_parallel = {config.rollout.tensor_parallel}: in the lab each rank has "
            "the whole policy, and an engine of its own",
            "--set rollout.tensor_parallel=1",
        )
    for name, value in (
        ("temperature", config.rollout.temperature),
        ("top_p", config.rollout.top_p),
    ):
        if value != 1:
            raise OpoError(
                f"rollout.{name} = {value:g}: the lab measures the policy that is sampled from",
                f"--set rollout.{name}=1",
            )


def left_out_terms(config: Config) -> list[str]:
    """The terms of the objective that no gradient of the lab holds, in words; none: no line."""
    algorithm = config.algorithm
    terms = {
        f"KL in the {algorithm.kl_in} (algorithm.kl_coefficient": algorithm.kl_coefficient,
        "entropy (algorithm.entropy_coefficient": algorithm.entropy_coefficient,
    }
    found = " and ".join(f"{text} = {value:g})" for text, value in terms.items() if value)
    if not found:
        return []
    return [f"not measured: the objective's {found}; the gradient here is that of the reward alone"]


def run_config(folder: RunFolder, overrides: Iterable[str]) -> Config:
    """A run's own, each engine within a rank, and what is said on top.

    Raises:
        OpoError: a value that does not fit.
    """
    tables = merged(stored(folder).model_dump(mode="json"), {"rollout": {"tensor_parallel": 1}})
    for text in overrides:
        tables = merged(tables, parse_override(text))
    return validated(tables)


# --- policies -----------------------------------------------------------------------------------


def policy_of_run(folder: RunFolder, asked: Request) -> PolicySource:
    """The final policy of a finished run, the newest checkpoint's of another.

    Raises:
        OpoError: neither is there, or what the preconditioner needs is not.
    """
    from opo_cli.train.checkpoint import list_checkpoints

    found = list_checkpoints(folder.checkpoints)
    if folder.is_finished:
        if asked.precondition == "adam":
            _refuse_adam(f"run '{folder.path}' is finished, and its optimizer is gone")
        return PolicySource(label=folder.name, path=str(folder.model), step=folder.final_step)
    if not found:
        raise OpoError(
            f"run '{folder.path}' has no checkpoint yet", f"opo train --resume --out {folder.path}"
        )
    newest, initial = found[-1], folder.environment()["initial_policy"]
    return PolicySource(label=folder.name, path=initial, step=step_of(newest), checkpoint=newest)


def policies_along(folder: RunFolder, asked: Request) -> list[PolicySource]:
    """The initial policy, the snapshots, and the final policy of a finished run, by step.

    Raises:
        OpoError: there are no snapshots, or they lack what the preconditioner needs.
    """
    snapshots = list_snapshots(folder)
    if not snapshots:
        raise OpoError(
            f"run '{folder.path}' has no snapshots",
            "a run keeps them with --set checkpoint.snapshot_every=10",
        )
    initial = folder.environment()["initial_policy"]
    found = {0: initial} | {step: str(path) for step, path in snapshots.items()}
    if folder.is_finished:
        found.setdefault(folder.final_step, str(folder.model))
    if asked.precondition == "adam":
        bare = [step for step, path in snapshots.items() if not has_moments(path)]
        if bare:
            _refuse_adam(f"the snapshot of step {bare[0]} of '{folder.path}' has no moments")
        found = {step: path for step, path in found.items() if step in snapshots}
    return [
        PolicySource(label=f"{folder.name} step {step}", path=path, step=step)
        for step, path in sorted(found.items())
    ]


def has_moments(path: str | Path) -> bool:
    return (Path(path) / MOMENTS).is_file()


def check_moments(source: PolicySource, asked: Request) -> None:
    """Raises OpoError where a preconditioner is asked for and the policy has no optimizer."""
    has_one = source.checkpoint is not None or has_moments(source.path)
    if asked.precondition == "adam" and not has_one:
        _refuse_adam(f"'{source.path or source.label}' has no optimizer's second moments")


def _refuse_adam(why: str) -> None:
    raise OpoError(
        f"--precondition adam: {why}",
        "--run of a stopped run, or --along one with --set checkpoint.snapshot_every=10 --set "
        "checkpoint.snapshot_moments=true; or --precondition none",
    )


# --- identity -----------------------------------------------------------------------------------


def settings_of(
    config: Config,
    asked: Request,
    source: PolicySource,
    *,
    policy_id: str,
    problems: Mapping[str, Any],
) -> dict[str, Any]:
    """All that shapes what is measured, as in `lab.json`: a lab goes on, and is read again, where
    it is the same."""
    algorithm, rollout = config.algorithm, config.rollout
    return {
        "policy": source.label,
        "step": source.step,
        "policy_id": policy_id,
        **{name: value for name, value in asdict(asked).items() if name != "memory_gigabytes"},
        "problem_set": dict(problems),
        "template": config.data.template,
        "answer_format": config.data.answer_format,
        "max_new_tokens": rollout.max_new_tokens,
        "max_prompt_tokens": config.data.max_prompt_tokens,
        "overlong": [algorithm.overlong, algorithm.overlong_buffer],
        "require_stop": config.grading.require_stop,
        "grader_limits": config.grading.limits,
        "compute_dtype": config.model.compute_dtype,
        "head_dtype": config.model.head_dtype,
    }
