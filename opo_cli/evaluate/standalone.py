"""A saved model, evaluated by itself: what `opo eval` does."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import torch

from opo_cli.config import Config
from opo_cli.console import note, progress, warn
from opo_cli.errors import OpoError, OtherRankError
from opo_cli.evaluate.run import Evaluator, check_requests, over_all
from opo_cli.grading.pool import Grader
from opo_cli.model.folder import policy_id
from opo_cli.model.parallel import from_main, num_ranks, on_all_ranks
from opo_cli.model.policy import choose_device
from opo_cli.model.precision import Precision
from opo_cli.model.shape import shape_of
from opo_cli.model.sharding import load_to_shard, shard
from opo_cli.ranks import is_joined
from opo_cli.records import RunFolder, cache_folder, check_cache
from opo_cli.rollout.engine import check_tensor_parallel, choose_engine, engine_settings
from opo_cli.rollout.revival import start_engine


def evaluate_model(config: Config, folder: RunFolder | None) -> list[dict[str, Any]]:
    """Evaluates `folder`'s trained model, or `config.model`; by all ranks, where there are several.

    KL to the initial policy is measured where a run says what that was.

    Raises:
        OpoError: the model does not load.
    """
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
    place = from_main(lambda: _initial_place(folder))
    initial = _initial_policy(place, home, precision)
    name, why = from_main(lambda: _engine_name(config, policy, device))
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
    compared = None if initial is None else place[1]
    identity = from_main(lambda: [policy_id(path), compared])
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
        records = evaluator.evaluate(names, cache_folder() / "evals", identity, over_all(update))
    for record in records:
        note(f"{record['benchmark']}: responses and grades in {record['samples_file']}")
    return records


def _initial_place(folder: RunFolder | None) -> tuple[str, str] | None:
    """(path, id) of the policy that the run started from."""
    environment = folder.environment() if folder else {}
    path = environment.get("initial_policy")
    return (path, environment.get("initial_policy_id")) if path else None


def _initial_policy(place: tuple[str, str] | None, device, precision):
    """The policy that the run started from, or None where it cannot be had any more."""
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


def _engine_name(config: Config, policy, device: torch.device) -> tuple[str, str]:
    """(name, why)."""
    shape = shape_of(policy.config)
    name, why = choose_engine(config.runtime.engine, shape, device.type)
    if is_joined():  # A process by itself takes a whole one, whatever its run had.
        check_tensor_parallel(config, shape, num_ranks(), name)
    return name, why
