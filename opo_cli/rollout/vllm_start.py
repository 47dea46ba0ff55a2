"""How vLLM is started in our process, and how much memory it is given."""

from __future__ import annotations

import secrets
from pathlib import Path

import torch

from opo_cli.errors import OpoError
from opo_cli.files import is_whole, make_folder
from opo_cli.host import available_bytes
from opo_cli.model.device import GIGABYTE
from opo_cli.model.parallel import from_main, is_joined, on_all_ranks
from opo_cli.model.shape import BYTES, Shape, shape_of
from opo_cli.model.sharding import device_of
from opo_cli.ranks import num_local_ranks
from opo_cli.records import cache_folder, digest
from opo_cli.rollout.engine import EngineSettings
from opo_cli.rollout.sizes import (
    MAX_CONTEXT,
    USABLE,
    VLLM_CPU_SHARE,
    VLLM_RESERVE,
    check_cache,
    held_tokens,
    longest_request,
    part_of,
    vllm_cache,
)

BATCH_TOKENS = 8192  # Of one forward pass, prompts included.
SHARED_MEMORY = Path("/dev/shm")


def start_vllm(model, settings: EngineSettings, cache_bytes: int, max_tokens: int):
    """Where ranks work together, all of them have to come along, after the policy is in shards."""
    is_cpu = device_of(model).type == "cpu"
    name = from_main(lambda: f"opo_{secrets.token_hex(8)}") if is_joined() else ""
    is_eager = settings.execution == "eager" or (is_cpu and settings.execution == "auto")
    if is_cpu:
        _skip_compiled_helpers()
    from vllm import LLM

    folder = cache_folder() / "vllm" / digest(model.config.to_json_string())
    on_all_ranks(lambda: _write_config(folder, model.config))
    llm = LLM(
        model=str(folder),
        skip_tokenizer_init=True,
        load_format="dummy",
        dtype=settings.dtype,
        hf_overrides=(
            {"head_dtype": settings.head_dtype} if settings.head_dtype != settings.dtype else None
        ),
        max_model_len=max_tokens,
        max_num_seqs=settings.max_rows,
        kv_cache_memory_bytes=cache_bytes,
        logprobs_mode="processed_logprobs",
        enforce_eager=is_eager,
        # A prompt that is cut makes vLLM rewind the request's generator, which on a CPU fails.
        enable_chunked_prefill=not is_cpu,
        max_num_batched_tokens=max(BATCH_TOKENS, max_tokens) if is_cpu else BATCH_TOKENS,
        enable_prefix_caching=True,
        disable_log_stats=True,
        seed=0,
        **({} if is_cpu else _colocated(model, settings, cache_bytes)),
        **(_launched(name, settings) if name else {}),
    )
    _unlink(name)
    return llm


def _write_config(folder: Path, config) -> None:
    """All that vLLM reads: weights come from the trainer. Equal configs lie in the same folder, as
    vLLM keeps what it compiles under its name."""
    if not is_whole(folder):
        make_folder(folder, config.save_pretrained)


def _launched(name: str, settings: EngineSettings) -> dict:
    """What makes vLLM a part of the ranks that torchrun has started, neighbours of them sharing one
    model. With one rank per engine, too: vLLM's own executor takes GPU 0 on every rank.

    On a CPU such neighbours exchange activations through shared memory, whose name would be the
    same in all runs of a machine: the second one would not start, nor the first after a crash.

    Args:
        name: of nothing else on this machine, the same on all ranks.
    """
    from vllm.v1.executor.uniproc_executor import ExecutorWithExternalLauncher

    class Launched(ExecutorWithExternalLauncher):
        def _distributed_args(self) -> tuple[str, int, int]:
            _, rank, local_rank = super()._distributed_args()
            return f"env:{name}", rank, local_rank  # The process group is there already.

    return {
        "distributed_executor_backend": Launched,
        "tensor_parallel_size": settings.tensor_parallel,
        "distributed_timeout_seconds": settings.timeout_seconds,
        "cpu_distributed_timeout_seconds": settings.timeout_seconds,
    }


def _unlink(name: str) -> None:
    """All have opened the shared memory by now; nameless, it goes when they end, however."""
    if name and SHARED_MEMORY.is_dir():
        for path in SHARED_MEMORY.glob(f"{name}*"):
            path.unlink(missing_ok=True)


def _skip_compiled_helpers() -> None:
    """Small helpers that vLLM compiles for 20 s at their first use. Not a public setting."""
    from vllm.platforms import current_platform

    if hasattr(type(current_platform), "simple_compile_backend"):
        type(current_platform).simple_compile_backend = "eager"


def _colocated(model, settings: EngineSettings, cache_bytes: int) -> dict:
    """What lets trainer and engine share a GPU. vLLM refuses to start unless this share of the card
    is free: its weights, the cache and its own reserve."""
    free, total = torch.cuda.mem_get_info(device_of(model))
    needed = _weight_bytes(model, settings) + cache_bytes + VLLM_RESERVE
    if needed > free:
        raise OpoError(
            f"vLLM needs {needed / GIGABYTE:.1f} GB of the GPU, {cache_bytes / GIGABYTE:.1f} of "
            f"them for its cache; {free / GIGABYTE:.1f} GB are free",
            "lower rollout.cache_gigabytes or rollout.max_rows",
        )
    return {"enable_sleep_mode": True, "gpu_memory_utilization": round(needed / total, 4)}


def context_of(model, settings: EngineSettings, cache_bytes: int) -> int:
    """Longest prompt plus response, tokens: what the model takes, as far as the cache holds it."""
    shape = _shape(model, settings)
    held = held_tokens(shape, settings, cache_bytes)
    return min(shape.max_positions or MAX_CONTEXT, max(settings.max_tokens, MAX_CONTEXT), held)


def _shape(model, settings: EngineSettings) -> Shape:
    return part_of(shape_of(model.config), settings.tensor_parallel)


def _weight_bytes(model, settings: EngineSettings) -> int:
    numbers = sum(p.numel() for p in model.parameters())
    return numbers * BYTES[settings.dtype] // settings.tensor_parallel


def cache_budget(model, settings: EngineSettings) -> int:
    """Bytes of the key/value cache, see `CacheSize`; the same on all ranks: those that share a
    model schedule each on its own, and have to come to the same schedule.

    Raises:
        OpoError: it cannot hold one group; OtherRankError where that is so on another rank.
    """
    return min(on_all_ranks(lambda: _cache_budget(model, settings)))


def _cache_budget(model, settings: EngineSettings) -> int:
    shape = _shape(model, settings)
    longest = longest_request(shape, settings)
    size = vllm_cache(shape, settings, longest, _room(model, settings))
    if settings.cache_gigabytes and size.budget > (free := _free(model)):
        raise OpoError(
            f"rollout.cache_gigabytes = {settings.cache_gigabytes:g}: {free / GIGABYTE:.1f} GB are "
            "free",
            "--set rollout.cache_gigabytes=0 takes what there is room for",
        )
    check_cache(size, settings.cache_gigabytes)
    return size.budget


def _free(model) -> int:
    """Of this rank's GPU; on a CPU its share."""
    if device_of(model).type == "cpu":
        return available_bytes() // num_local_ranks()
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device_of(model))[0]


def _room(model, settings: EngineSettings) -> int:
    if device_of(model).type == "cpu":
        return int(VLLM_CPU_SHARE * _free(model))
    free, (_, total) = _free(model), torch.cuda.mem_get_info(device_of(model))
    others = settings.bytes_to_come + _weight_bytes(model, settings) + VLLM_RESERVE
    return max(0, free - others - int((1 - USABLE) * total))
