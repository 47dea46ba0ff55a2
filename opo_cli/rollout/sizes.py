"""What engines reserve; the plan of a run's memory counts with it, too. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from opo_cli.errors import OpoError
from opo_cli.model.device import GIGABYTE
from opo_cli.model.shape import Shape
from opo_cli.rollout.engine import EngineSettings

# Cache slots that our own sampler reserves ahead. All at once would cost attention half its speed:
# it reads a row's keys as one stretch of memory, and gaps between the stretches are cache misses.
SLOT_BLOCK = 32
USABLE = 0.95  # Of a memory: the rest is CUDA's own, and fragments.
MAX_CONTEXT = 32_768  # Where nothing longer is foreseen; a request's room, taken when it is used.
VLLM_BLOCK = 128  # Tokens of a cache block on a CPU, the largest that is in use.
VLLM_RESERVE = 3 * 2**30  # On a GPU: vLLM's activations and graphs, the trainer's, CUDA's own.
VLLM_GRAPHS = 2 * 2**30  # Of it, what stays on the GPU while vLLM sleeps. Assumed, not measured.
VLLM_CPU_SHARE = 1 / 4  # Of the memory that is free at the start, where no budget is stated.


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSize:
    """Of vLLM's keys and values, bytes."""

    budget: int
    """As stated, or what `max_rows` of the longest responses need, as far as there is room."""
    group: int
    """What it must hold at least."""
    group_tokens: int


def check_cache(size: CacheSize, stated: float) -> None:
    """
    Args:
        stated: `rollout.cache_gigabytes`.

    Raises:
        OpoError: it cannot hold one group.
    """
    if size.budget >= size.group:
        return
    room = "" if stated else f"there is room for {size.budget / GIGABYTE:.2g} GB, which "
    raise OpoError(
        f"rollout.cache_gigabytes = {stated:g}: {room}cannot hold one group of "
        f"{size.group_tokens} tokens",
        f"--set rollout.cache_gigabytes={size.group / GIGABYTE + 0.01:.2f}, or lower "
        "rollout.max_new_tokens or rollout.group_size",
    )


def part_of(shape: Shape, sharers: int) -> Shape:
    """A model as the cache of one of so many ranks that share it sees it."""
    return replace(shape, num_key_value_heads=max(1, shape.num_key_value_heads // sharers))


def longest_request(shape: Shape, settings: EngineSettings) -> int:
    """Prompt plus response, tokens, of what is foreseen."""
    return min(filter(None, (settings.max_tokens, shape.max_positions)), default=MAX_CONTEXT)


def vllm_cache(shape: Shape, settings: EngineSettings, max_tokens: int, room: int) -> CacheSize:
    """
    Args:
        max_tokens: longest prompt plus response.
        room: bytes that are free for it.
    """
    stated = int(settings.cache_gigabytes * GIGABYTE)
    tokens = min(settings.request_tokens or max_tokens, max_tokens)
    group = settings.group_size * in_blocks(tokens) + VLLM_BLOCK
    needed = max(settings.max_rows * in_blocks(max_tokens) + VLLM_BLOCK, group)
    return CacheSize(
        budget=stated or min(shape.cache_bytes(1, needed, settings.dtype), room),
        group=shape.cache_bytes(1, max(group, in_blocks(max_tokens) + VLLM_BLOCK), settings.dtype),
        group_tokens=settings.group_size * tokens,
    )


def in_blocks(num_tokens: int) -> int:
    """Rounded up; one more block is vLLM's own."""
    return -(-num_tokens // VLLM_BLOCK) * VLLM_BLOCK


def held_tokens(shape: Shape, settings: EngineSettings, cache_bytes: int) -> int:
    """That a cache can hold of one request."""
    block = shape.cache_bytes(1, VLLM_BLOCK, settings.dtype)
    return (cache_bytes // block - 1) * VLLM_BLOCK
