"""`opo eval`'s request as a config, and its execution. No torch until it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any

from opo_cli.config import Config, Eval
from opo_cli.console import note, progress, warn
from opo_cli.data.benchmarks import Benchmark, benchmark_row, benchmark_title, check_names
from opo_cli.data.prompts import check_template
from opo_cli.errors import OpoError, OtherRankError
from opo_cli.presets import defaults, merged, parse_override, stored, validated
from opo_cli.ranks import is_joined
from opo_cli.records import RunFolder, cache_folder, check_cache

NEVER_INHERITED = ("limit", "every", "during", "validation", "checkpoint")
OF_OWN_BENCHMARKS = ("samples", "k", "max_new_tokens")


def eval_config(
    folder: RunFolder | None,
    model: str | None,
    asked: Mapping[str, Any],
    overrides: Iterable[str] = (),
) -> Config:
    """The run's own settings, or for a model the defaults, and what was asked on top.

    What a run says of numbers of samples and tokens holds for its own benchmarks; others have
    theirs. A limit is never inherited: a score of the first problems is none of the benchmark.
    Without an own `k`, those of the run that the samples can carry.

    Args:
        asked: tables from the command's own options.

    Raises:
        OpoError: a value that does not fit.
    """
    start = defaults() if folder is None else stored(folder)
    given: dict[str, Any] = dict(asked)
    for text in overrides:
        given = merged(given, parse_override(text))
    tables = start.model_dump(mode="json")
    if model is not None:
        tables["model"]["path"] = model
    names = asked["eval"]["benchmarks"]
    are_own = set(names) <= {*start.eval.benchmarks, *start.eval.validation}
    reset = (*NEVER_INHERITED, *(() if are_own else OF_OWN_BENCHMARKS))
    tables["eval"] |= {key: Eval().model_dump(mode="json")[key] for key in reset}
    tables = merged(tables, given)
    own = given.get("eval")
    has_own_k = not isinstance(own, dict) or "k" in own
    return validated(tables if has_own_k else _with_fitting_k(tables, names))


def _with_fitting_k(tables: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The run's k, as far as the samples reach."""
    settings = validated(merged(tables, {"eval": {"k": []}})).eval
    most = min(num_samples(settings, benchmark_row(name)) for name in names)
    return merged(tables, {"eval": {"k": [k for k in tables["eval"]["k"] if k <= most]}})


def num_samples(settings: Eval, row: Benchmark) -> int:
    """Responses per problem: as asked, else the benchmark's own number; one where all are equal."""
    return settings.samples or (row.num_samples if settings.temperature else 1)


def takes_kl(settings: Eval) -> bool:
    """Whether KL to the initial policy can be measured: at another temperature or top-p the samples
    are not the policy's, and their log-ratios estimate no KL."""
    return settings.temperature == 1 and settings.top_p == 1


def check_evaluation(config: Config) -> None:
    """What can be told of evaluations before anything is loaded.

    Raises:
        OpoError: an unknown benchmark or template, or a k without enough samples.
    """
    names, most = config.eval.every_benchmark, max(config.eval.k, default=0)
    check_names(names)
    check_template(config.data.template)
    for name in names:
        count = num_samples(config.eval, benchmark_row(name))
        if most > count:
            raise OpoError(
                f"k {most} exceeds the {count} samples per problem of '{benchmark_title(name)}'",
                f"--set eval.samples={most}, or a smaller eval.k",
            )


def _initial_place(folder: RunFolder | None) -> tuple[str, str] | None:
    """(path, id) of the policy that the run started from."""
    environment = folder.environment() if folder else {}
    path = environment.get("initial_policy")
    return (path, environment.get("initial_policy_id")) if path else None


def _initial_policy(place: tuple[str, str] | None, device, precision):
    """The policy that the run started from, or None where it cannot be had any more."""
    from opo_cli.model.folder import policy_id
    from opo_cli.model.parallel import from_main
    from opo_cli.model.sharding import load_to_shard

    if place is None:
        return None
    path, identity = place
    try:
        policy = load_to_shard(path, device, precision)[0]
    except OtherRankError:  # Rank 0 says why.
        return None
    except OpoError as error:
        warn(f"no KL to the initial policy: {error.message}")
        return None
    if from_main(lambda: policy_id(path)) != identity:
        warn(f"no KL to the initial policy: '{path}' is not what the run started from")
        return None
    return policy


def evaluate_model(config: Config, folder: RunFolder | None) -> list[dict[str, Any]]:
    """Evaluates `folder`'s trained model, or `config.model`; by all ranks, where there are several.

    KL to the initial policy is measured where a run says what that was.

    Raises:
        OpoError: the model does not load.
    """
    import torch

    from opo_cli.evaluate.run import Evaluator, check_requests, over_all
    from opo_cli.grading.pool import Grader
    from opo_cli.model.folder import policy_id
    from opo_cli.model.parallel import from_main, num_ranks, on_all_ranks
    from opo_cli.model.policy import choose_device
    from opo_cli.model.precision import Precision
    from opo_cli.model.shape import shape_of
    from opo_cli.model.sharding import load_to_shard, shard
    from opo_cli.rollout.engine import check_tensor_parallel, choose_engine, engine_settings
    from opo_cli.rollout.revival import start_engine

    check_cache()  # It keeps the samples.
    if config.runtime.num_threads:
        torch.set_num_threads(config.runtime.num_threads)
    device, _ = choose_device(config.runtime.device)
    path = str(folder.model if folder else config.model.path)
    precision = Precision.of(config.model)
    policy, tokenizer = load_to_shard(path, device, precision)
    on_all_ranks(lambda: check_requests(config, policy, tokenizer))
    is_offloaded = config.train.use_reference_offload
    home = torch.device("cpu") if is_offloaded and not is_joined() else device
    initial = _initial_policy(from_main(lambda: _initial_place(folder)), home, precision)

    def engine_name() -> tuple[str, str]:
        shape = shape_of(policy.config)
        name, why = choose_engine(config.runtime.engine, shape, device.type)
        if is_joined():  # A process by itself takes a whole one, whatever its run had.
            check_tensor_parallel(config, shape, num_ranks(), name)
        return name, why

    name, why = from_main(engine_name)
    frozen = {"is_trained": False, "use_offload": config.train.use_cpu_offload}
    shard(policy, policy.base_model, device, precision, **frozen)
    if initial is not None:
        frozen["use_offload"] = is_offloaded
        shard(initial, initial.base_model, device, precision, **frozen)
    note(f"engine: {name} ({why})")
    engine = start_engine(
        name,
        config.runtime.engine,
        policy,
        tokenizer,
        lambda: engine_settings(config, is_training=False),
    )
    names = list(config.eval.benchmarks)

    def identify() -> list[Any]:
        place = _initial_place(folder)
        return [policy_id(path), None if initial is None or place is None else place[1]]

    identity = from_main(identify)
    with (
        closing(engine),
        Grader(config.grading) as grader,
        progress("evaluate", len(names)) as update,
    ):
        evaluator = Evaluator(
            config=config,
            engine=engine,
            grader=grader,
            tokenizer=tokenizer,
            policy=policy,
            initial=initial,
        )
        records = evaluator.evaluate(
            names,
            cache_folder() / "evals",
            identity,
            over_all(update),
        )
    for record in records:
        note(f"{record['benchmark']}: responses and grades in {record['samples_file']}")
    return records
