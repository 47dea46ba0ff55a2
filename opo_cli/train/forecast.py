"""What `opo train` says of memory and time: foreseen by `--dry-run`, measured by `--check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from opo_cli.config import Config, changed
from opo_cli.model.device import Device, training_device
from opo_cli.model.lookup import find_shape
from opo_cli.model.shape import Shape
from opo_cli.report.tables import Table
from opo_cli.rollout.engine import engine_settings
from opo_cli.rollout.sizes import USABLE
from opo_cli.train.budget import (
    PHASES,
    Bytes,
    Load,
    fits,
    learner_parts,
    levers,
    load_of,
    memory_parts,
    peak,
    planned_ranks,
    totals,
    what_to_lower,
)
from opo_cli.train.duration import in_words
from opo_cli.train.speed import (
    BANDWIDTH_SHARE,
    COMPUTE_SHARE,
    flops_per_second,
    peak_of,
    step_seconds,
)

if TYPE_CHECKING:
    from opo_cli.train.check import Checked


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Of the worst step of a run."""

    config: Config
    engine: str
    device: Device
    shape: Shape
    shape_source: str
    load: Load
    parts: dict[str, Bytes]


def forecast(config: Config, engine: str) -> Forecast | str:
    """In words why there is none, where the model's shape is not to be had."""
    shape, source = find_shape(config.model)
    if shape is None:
        return f"unknown: '{config.model.path}': {source}"
    device = training_device(config)
    load = load_of(config, shape)
    parts = memory_parts(config, shape, device, engine, load)
    return Forecast(
        config=config,
        engine=engine,
        device=device,
        shape=shape,
        shape_source=source,
        load=load,
        parts=parts,
    )


def memory_table(found: Forecast) -> Table:
    """One row per part, one column per phase that the run has."""
    unit, size = unit_of(peak(found.parts)[0])
    sums, ranks = totals(found.parts), planned_ranks(found.config)
    count = len([n for n in sums if n])

    def cells(numbers: Bytes) -> list[str]:
        return [f"{n / size:.2f}" if n else "-" for n in numbers[:count]]

    rows = [[name, *cells(numbers)] for name, numbers in found.parts.items()]
    return Table(
        f"memory of the worst step, {unit}" + (f", one rank of {ranks}" if ranks > 1 else ""),
        ["part", *PHASES[:count]],
        [*rows, ["together", *cells(sums)]],
        "head, layers: backward pass; AdamW: its step; eval: scoring of an evaluation",
    )


def unit_of(num_bytes: int) -> tuple[str, int]:
    return ("GB", 10**9) if num_bytes >= 10**9 else ("MB", 10**6)


def bytes_in_words(num_bytes: float) -> str:
    unit, size = unit_of(int(num_bytes))
    return f"{num_bytes / size:.1f} {unit}"


def lines(found: Forecast) -> list[tuple[str, str]]:
    """(title, text) rows below the table."""
    shape, load = found.shape, found.load
    number, ranks = sum(shape.num_parameters.values()), planned_ranks(found.config)
    each = f" on each of {ranks} ranks" if ranks > 1 else ""
    return [
        ("parameters", f"{number:,} (shape: {found.shape_source})"),
        (
            "worst step",
            f"{load.num_rows} rows of {load.prompt} + {load.response} tokens{each} = "
            f"{load.num_rows * load.length:,}; {load.microbatch:,} in a microbatch",
        ),
        ("rough time", time_line(found)),
    ]


def fit_line(found: Forecast) -> str:
    num_bytes, phase = peak(found.parts)
    device = found.device
    size, room = bytes_in_words(num_bytes), bytes_in_words(device.num_bytes)
    told = f"{size} at most ({phase}) of {room}, {device.name}"
    if (ranks := planned_ranks(found.config)) > 1:
        told += f", one rank of {ranks}"
    if fits(found.parts, device):
        return f"{told}: fits"
    settings = what_to_lower(found.config, found.shape, device, found.engine)
    if settings is None:
        return f"{told}: DOES NOT FIT{_why_never(found)}"
    changes = " ".join(f"--set {key}={_toml(value)}" for key, value in settings.items())
    return f"{told}: DOES NOT FIT (beyond {USABLE:.0%}); fits with {changes}"


def _why_never(found: Forecast) -> str:
    config, more = found.config, _ranks_that_hold(found)
    for lever in levers(config):
        config = changed(config, lever)
    least, _ = peak(learner_parts(config, found.shape, found.device))
    if least > USABLE * found.device.num_bytes:
        return (
            f": weights, gradients and optimizer alone take {bytes_in_words(least)}; take a "
            f"smaller model{more}"
        )
    smaller = "take a smaller model or less rollout.max_new_tokens"
    return f" with any setting of memory; {smaller}{more}"


def _ranks_that_hold(found: Forecast) -> str:
    """How many GPUs would do, where the run's are too few; empty where no number does."""
    count = planned_ranks(found.config)
    for more in (count * 2**i for i in range(1, 8)):
        config = changed(found.config, {"runtime.num_gpus": more})
        if what_to_lower(config, found.shape, found.device, found.engine) is not None:
            return f", or {more} GPUs (--set runtime.num_gpus={more} shows how)"
    return ""


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def time_line(found: Forecast) -> str:
    known = peak_of(found.device) if found.device.is_gpu else None
    if known is None:
        return "unknown here; --check measures a step"
    dtype = found.config.model.compute_dtype
    sampled = engine_settings(found.config).dtype if found.engine == "vllm" else dtype
    speed = flops_per_second(known, dtype) / 1e12
    rollout, score, update = step_seconds(found.config, found.shape, found.load, known, sampled)
    return (
        f"rollout {in_words(rollout)}, score {in_words(score)}, update {in_words(update)}, if "
        f"every response goes to its limit, at {COMPUTE_SHARE:.0%} of {speed:.0f} "
        f"TFLOP/s and {BANDWIDTH_SHARE:.0%} of {known.bandwidth / 1e12:.3g} TB/s ({known.title})"
    )


def check_lines(found: Checked, *, is_gpu: bool) -> list[tuple[str, str]]:
    """(title, text) rows of a measured worst step."""
    load, record = found.load, found.record
    updated = found.num_ranks * load.num_rows * load.length / record["update_seconds"]
    sampled = record["num_tokens"] / record["rollout_seconds"]
    share = f", model FLOPs utilisation {found.utilisation:.1%}" if found.utilisation else ""
    each = f" on each of {found.num_ranks} ranks" if found.num_ranks > 1 else ""
    where = "allocated" if is_gpu else "resident, libraries included"
    return [
        (
            "checked",
            f"{load.num_rows} rows of {load.prompt} + {load.response} tokens{each} in "
            f"{record['step_seconds']:.1f} s; nothing was changed by it",
        ),
        ("rollout", f"{record['rollout_seconds']:.2f} s, {sampled:,.0f} tokens/s"),
        (
            "update",
            f"{record['update_seconds']:.2f} s, {updated:,.0f} tokens/s, prompts included{share}",
        ),
        (
            "memory",
            f"at most {bytes_in_words(found.peak_bytes)} {where}; predicted for tensors: "
            f"{bytes_in_words(found.predicted_bytes)}",
        ),
    ]
