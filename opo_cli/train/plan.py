"""The plan of a run, before anything is loaded: its device, its engine, its memory."""

from __future__ import annotations

from dataclasses import dataclass

from opo_cli.config import Config
from opo_cli.console import warn
from opo_cli.errors import OpoError
from opo_cli.model.device import training_device
from opo_cli.model.lookup import find_shape
from opo_cli.model.policy import choose_device
from opo_cli.model.shape import Shape
from opo_cli.records import RunFolder
from opo_cli.report.plan import plan_rows
from opo_cli.rollout.engine import choose_engine, engine_settings, vllm_obstacle, without_effect
from opo_cli.rollout.sizes import check_cache, longest_request, part_of, vllm_cache
from opo_cli.train.forecast import Forecast, fit_line, forecast


@dataclass(frozen=True, slots=True)
class Plan:
    rows: list[tuple[str, str]]
    """(title, text)."""
    forecast: Forecast | str
    """Memory and time of the worst step; in words why they are unknown."""


def plan(config: Config, folder: RunFolder) -> Plan:
    """
    Raises:
        OpoError: a device or an engine that is not there, or sizes with which no run can start.
    """
    planned = training_device(config)
    if planned.is_here:
        device, why_device = choose_device(config.runtime.device)
        kind = device.type
    else:
        kind, why_device = "cuda", f"{planned.name}, which is not here"
    shape, _ = find_shape(config.model)
    engine, why_engine = engine_of(config, folder, shape, kind)
    if shape is not None:
        _check_sizes(config, shape, engine)
    for setting in () if folder.exists else without_effect(config, engine):
        warn(f"{setting} has no effect: it concerns vLLM, and the engine is {engine}")
    found = forecast(config, engine)
    rows = plan_rows(
        config,
        device=f"{kind} ({why_device})",
        engine=f"{engine} ({why_engine})",
        memory=found if isinstance(found, str) else fit_line(found),
        out=str(folder.path),
    )
    return Plan(rows, found)


def _check_sizes(config: Config, shape: Shape, engine: str) -> None:
    """Raises OpoError where a run of this shape could not start."""
    longest, most = config.rollout.max_new_tokens, shape.max_positions
    if most is not None and longest >= most:
        raise OpoError(
            f"rollout.max_new_tokens = {longest}: the model takes {most} tokens, prompt included",
            f"--set rollout.max_new_tokens={most // 2}",
        )
    if engine == "vllm" and config.rollout.cache_gigabytes:
        settings, part = engine_settings(config), part_of(shape, config.rollout.tensor_parallel)
        size = vllm_cache(part, settings, longest_request(shape, settings), room=0)
        check_cache(size, settings.cache_gigabytes)


def engine_of(
    config: Config, folder: RunFolder, shape: Shape | None, device: str
) -> tuple[str, str]:
    """(engine, why it). A run goes on with the engine that it began with."""
    asked = asked_engine(config, folder)
    if folder.exists and asked == "vllm":
        obstacle = vllm_obstacle(shape, device)
        if obstacle is not None:
            raise OpoError(
                f"'{folder.path}' began with vLLM, and {obstacle[0]}",
                "resume it where vLLM runs: another engine draws other responses; or start "
                "another run with --out",
            )
    return choose_engine(asked, shape, device)


def asked_engine(config: Config, folder: RunFolder) -> str:
    began_with = folder.environment().get("engine") if folder.exists else None
    return (began_with or "auto") if config.runtime.engine == "auto" else config.runtime.engine
