"""What a run needs of the machine, and what is there. Torch is imported only to ask for GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from opo_cli.config import Config
from opo_cli.console import warn
from opo_cli.errors import OpoError
from opo_cli.host import available_bytes, peak_resident_bytes
from opo_cli.ranks import is_launched, local_rank, num_local_ranks

if TYPE_CHECKING:
    import torch

GIGABYTE = 10**9
SOLD_SHARE = 0.9  # A card sold with N GB shows up to a tenth less: ECC, and 2^30 for 10^9.
HINT = "opo train --preset qwen-math-smoke runs the same path on a CPU; --dry-run prints the plan"
ANYWAY = "; --set runtime.gpu_gigabytes=0 tries it anyway"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Where a run trains."""

    name: str
    num_bytes: int
    """Of a GPU its whole memory, of a CPU what the machine has available, for each of its ranks."""
    is_gpu: bool
    is_here: bool = True
    """False: the GPU that the config was sized for, as there is none."""


def training_device(config: Config) -> Device:
    found = [] if config.runtime.device == "cpu" else gpus()
    if found:
        name, num_bytes = found[min(local_rank(), len(found) - 1)]
        return Device(name=name, num_bytes=num_bytes, is_gpu=True)
    if needs_gpu(config):
        size = config.runtime.gpu_gigabytes
        return Device(
            name=f"a GPU of {size:g} GB",
            num_bytes=int(size * GIGABYTE),
            is_gpu=True,
            is_here=False,
        )
    num_bytes = available_bytes() // num_local_ranks()
    return Device(name="this machine's memory", num_bytes=num_bytes, is_gpu=False)


def gpus() -> list[tuple[str, int]]:
    """(name, bytes) of each that torch sees."""
    import torch

    properties = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [(found.name, found.total_memory) for found in properties]


def peak_bytes(device: torch.device) -> int:
    """Most that this process has held so far: on a GPU what torch has allocated there (since its
    statistics were reset), on a CPU all of the process."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    return peak_resident_bytes()


def needs_gpu(config: Config) -> bool:
    return bool(config.runtime.gpu_gigabytes) and config.runtime.device != "cpu"


def gpu_obstacle(config: Config) -> str | None:
    """What is missing of the GPUs that the config was sized for; None: nothing."""
    if not needs_gpu(config):
        return None
    count, size = config.runtime.num_gpus, config.runtime.gpu_gigabytes
    needed = f"preset {config.preset} needs {count} GPU{'s' * (count > 1)} of {size:g} GB"
    found = gpus()
    if not found:
        return f"{needed}; torch sees none here"
    if count > 1 and not is_launched():
        return f"{needed}, each with a process of its own; this is one process"
    ranks = num_local_ranks()  # All of them, so that each rank finds the same.
    if ranks > len(found):
        return f"{needed}; {ranks} ranks of this machine take one each, torch sees {len(found)}"
    name, num_bytes = min(found[:ranks], key=lambda each: each[1])
    if num_bytes < SOLD_SHARE * size * GIGABYTE:
        return f"{needed}; {name} has {num_bytes / GIGABYTE:.0f} GB"
    return None


def check_gpus(config: Config) -> None:
    """Before anything is fetched or loaded.

    Raises:
        OpoError: the GPUs that the config was sized for are not here.
    """
    obstacle = gpu_obstacle(config)
    if obstacle is None:
        return
    count = config.runtime.num_gpus
    if count > 1 and not is_launched() and gpus():
        raise OpoError(
            obstacle,
            f"torchrun --standalone --nproc-per-node {count} -m opo_cli train --preset "
            f"{config.preset}",
        )
    raise OpoError(obstacle, HINT + (ANYWAY if count == 1 else ""))


def warn_gpus(config: Config) -> None:
    """Where the plan alone is wanted."""
    obstacle = gpu_obstacle(config)
    if obstacle is not None:
        warn(obstacle)
