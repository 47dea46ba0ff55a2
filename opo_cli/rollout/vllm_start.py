"""How vLLM is started in our process, and how much memory it is given."""

from __future__ import annotations

import tempfile

import torch

from opo_cli.errors import OpoError
from opo_cli.model.device import GIGABYTE, available_bytes
from opo_cli.model.shape import BYTES, shape_of
from opo_cli.rollout.engine import EngineSettings
from opo_cli.rollout.sizes import (
    MAX_CONTEXT,
    USABLE,
    VLLM_CPU_SHARE,
    VLLM_RESERVE,
    check_cache,
    held_tokens,
    longest_request,
    vllm_cache,
)

BATCH_TOKENS = 8192  # Of one forward pass, prompts included.


def start_vllm(model, settings: EngineSettings, cache_bytes: int, max_tokens: int):
    is_cpu = model.device.type == "cpu"
    is_eager = settings.execution == "eager" or (is_cpu and settings.execution == "auto")
    if is_cpu:
        _skip_compiled_helpers()
    from vllm import LLM

    with tempfile.TemporaryDirectory() as folder:
        model.config.save_pretrained(folder)  # All that vLLM reads: weights come from the trainer.
        return LLM(
            model=folder,
            skip_tokenizer_init=True,
            load_format="dummy",
            dtype=settings.dtype,
            hf_overrides=(
                {"head_dtype": settings.head_dtype}
                if settings.head_dtype != settings.dtype
                else None
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
        )


def _skip_compiled_helpers() -> None:
    """Small helpers that vLLM compiles for 20 s at their first use. Not a public setting."""
    from vllm.platforms import current_platform

    if hasattr(type(current_platform), "simple_compile_backend"):
        type(current_platform).simple_compile_backend = "eager"


def _colocated(model, settings: EngineSettings, cache_bytes: int) -> dict:
    """What lets trainer and engine share a GPU. vLLM refuses to start unless this share of the card
    is free: its weights, the cache and its own reserve."""
    free, total = torch.cuda.mem_get_info(model.device)
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
    shape = shape_of(model.config)
    held = held_tokens(shape, settings, cache_bytes)
    return min(shape.max_positions or MAX_CONTEXT, max(settings.max_tokens, MAX_CONTEXT), held)


def _weight_bytes(model, settings: EngineSettings) -> int:
    return sum(p.numel() for p in model.parameters()) * BYTES[settings.dtype]


def cache_budget(model, settings: EngineSettings) -> int:
    """Bytes of the key/value cache, see `CacheSize`.

    Raises:
        OpoError: it cannot hold one group.
    """
    shape = shape_of(model.config)
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
    if model.device.type == "cpu":
        return available_bytes()
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(model.device)[0]


def _room(model, settings: EngineSettings) -> int:
    if model.device.type == "cpu":
        return int(VLLM_CPU_SHARE * _free(model))
    free, (_, total) = _free(model), torch.cuda.mem_get_info(model.device)
    others = settings.bytes_to_come + _weight_bytes(model, settings) + VLLM_RESERVE
    return max(0, free - others - int((1 - USABLE) * total))
