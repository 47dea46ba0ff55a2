"""The plan that stands before step 0: every derived number, and the objective in one line."""

from __future__ import annotations

from opo_cli.config import Config, Eval
from opo_cli.report.spending import Spending
from opo_cli.rl.objectives import LOSSES, policy_gradient, sequence_ratio


def plan_rows(
    config: Config, *, device: str, engine: str, memory: str, out: str
) -> list[tuple[str, str]]:
    """(title, text) rows; `device` and `engine` come with their reasons."""
    rollout, algorithm = config.rollout, config.algorithm
    rows_per_update = config.num_rows // algorithm.minibatches_per_step
    updates = f"{algorithm.minibatches_per_step} of {rows_per_update} responses"
    if config.has_one_update:
        updates += " (ratio 1: clipping is inactive and the surrogate loss says nothing)"
    else:
        updates += " (off-policy after the first)"
    rounds = algorithm.max_sampling_rounds
    dynamic = f"; all right or all wrong: drawn again, {rounds} rounds" if rounds > 1 else ""
    threads = (
        f"{config.runtime.num_threads} thread(s)" if config.runtime.num_threads else "all threads"
    )
    return [
        ("run", f"{out}, preset {config.preset}, seed {config.seed}"),
        ("model", config.model.path or "embedded tiny Qwen2"),
        (
            "data",
            f"{config.data.source or 'the embedded task'}, template {config.data.template}, "
            f"prompts of at most {config.data.max_prompt_tokens} tokens",
        ),
        ("algorithm", algorithm.name),
        ("objective", objective_line(config)),
        (
            "batch",
            f"{rollout.prompts_per_step} prompts x group of {rollout.group_size} = "
            f"{config.num_rows} responses of at most {rollout.max_new_tokens} tokens" + dynamic,
        ),
        ("updates", f"per batch {updates}"),
        ("certificate", certificate_line(config)),
        (
            "optimizer",
            f"AdamW, learning rate {config.optim.learning_rate:g}, "
            f"gradient norm at most {config.optim.max_gradient_norm:g}, {precision_line(config)}",
        ),
        ("steps", f"{steps_line(config)}, checkpoint every {config.checkpoint.every}"),
        ("device", f"{device}, {threads}"),
        ("engine", engine),
        ("memory", memory),
        (
            "evaluation",
            evaluation_line(config.eval),
        ),
    ]


def precision_line(config: Config) -> str:
    """Of weights and products, and what is computed twice or kept elsewhere to save memory."""
    parts = ["fp32 weights"]
    if config.model.compute_dtype != "float32":
        parts.append(f"{config.model.compute_dtype} products")
    if config.train.use_activation_checkpointing:
        parts.append("activation checkpointing")
    if config.train.use_reference_offload:
        parts.append("reference policy in host memory")
    if config.train.use_cpu_offload:
        parts.append("weights, gradients and moments in host memory")
    return ", ".join(parts)


def steps_line(config: Config) -> str:
    """How many, and what ends them."""
    spending = Spending(config)
    if spending.unit == "steps":
        return str(spending.total)
    return f"{spending.total}: those that take {spending.limit} {spending.unit}"


def evaluation_line(settings: Eval) -> str:
    """What is evaluated, how, and when."""
    during = settings.during or settings.benchmarks
    parts = []
    if settings.benchmarks:
        parts.append(f"{', '.join(settings.benchmarks)} before and after")
    if settings.validation and settings.checkpoint == "last":
        parts.append(f"{', '.join(settings.validation)} (validation) after")
    if settings.every and during:
        parts.append(f"{', '.join(during)} every {settings.every} steps")
    if settings.checkpoint == "best":
        names = ", ".join(settings.validation)
        when = f"every {settings.every} steps and the last"
        parts.append(f"the final policy is the best on {names} of those after {when}")
    if not parts:
        return "none"
    samples = f"{settings.samples} samples" if settings.samples else "the benchmark's own samples"
    only = f" of the first {settings.limit} problems" if settings.limit else " per problem"
    return f"{'; '.join(parts)}; {samples}{only}"


def objective_line(config: Config) -> str:
    """The effective objective in one line."""
    algorithm = config.algorithm
    loss = LOSSES[algorithm.loss]
    is_score = loss.per_token is policy_gradient and config.has_one_update
    parts = [
        f"maximise {algorithm.reduction} of {'A log(pi)' if is_score else loss.formula}",
        algorithm.estimator.formula
        + (f", gamma = {algorithm.gamma:g}" if algorithm.gamma != 1 else "")
        + (f", lambda = {algorithm.gae_lambda:g}" if algorithm.gae_lambda != 1 else "")
        + (f", c = {algorithm.length_exponent:g}" if algorithm.advantage == "length-power" else "")
        + (", whitened over the step" if algorithm.whiten_advantages else ""),
    ]
    if loss.uses_clipping:
        name = "s" if loss.ratio is sequence_ratio else "rho"
        parts.append(f"{name} in [{1 - algorithm.clip_low:g}, {1 + algorithm.clip_high:g}]")
    if algorithm.dual_clip:
        parts.append(f"rho at most {algorithm.dual_clip:g} where A < 0")
    if algorithm.kl_in == "none" or not algorithm.kl_coefficient:
        parts.append("no KL")
    else:
        parts.append(
            f"{algorithm.kl_coefficient:g} KL({algorithm.kl_estimator}) in the {algorithm.kl_in}"
        )
    parts.append(
        f"{algorithm.entropy_coefficient:g} entropy"
        if algorithm.entropy_coefficient
        else "no entropy"
    )
    if algorithm.tis != "none":
        parts.append(f"TIS per {algorithm.tis}, at most {algorithm.tis_cap:g}")
    if algorithm.overlong == "mask":
        parts.append("truncated responses left out")
    if algorithm.overlong == "punish":
        parts.append(f"the last {algorithm.overlong_buffer:.0%} of the length punished")
    if algorithm.misfit is not None:
        parts.append("MISMATCHED REDUCTION")
    return "; ".join(parts)


def certificate_line(config: Config) -> str:
    """What the run may call itself, and on what condition."""
    if config.off_policy_reasons:
        return f"none: off-policy ({', '.join(config.off_policy_reasons)})"
    bounds = config.certificate
    return (
        "exact on-policy while one update per batch, its own weights' samples, |dlogp| to the "
        f"sampler at most {bounds.max_mismatch:g} nats and |rho - 1| at most "
        f"{bounds.max_ratio_deviation:g}"
    )
