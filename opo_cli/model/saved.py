"""Named tensors, whole or in shards over ranks, as folders of safetensors files.

Written and read by torch.distributed.checkpoint: each rank writes its part, and a reader takes of
them what its own part needs, whatever the number of ranks was; so does a process without others.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from opo_cli.errors import OpoError, OtherRankError
from opo_cli.files import disk_errors, new_folder
from opo_cli.model.parallel import from_main, is_joined
from opo_cli.model.sharding import put_away
from opo_cli.ranks import rank

FILE_BYTES = 2**30
"""Of tensors in one file: safetensors puts it together in host memory."""


Beside = Callable[[Path], object]


def _nothing(folder: Path) -> None:
    pass


def tensors_of(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """`prefix.name` -> the tensor itself, without gradient: parameters, one of two names (tied)
    once, and the buffers that its state holds."""
    put_away(module)
    kept = module.state_dict().keys()
    buffers = {name: each for name, each in module.named_buffers() if name in kept}
    named = {**dict(module.named_parameters()), **buffers}
    return {f"{prefix}.{name}": tensor.detach() for name, tensor in named.items()}


# --- writing --------------------------------------------------------------------------------------


def write(target: Path, state: dict[str, Tensor], beside: Beside = _nothing) -> None:
    """`target`, a sealed folder (see `new_folder`). Every rank has to come along, with the same
    names.

    Args:
        beside: writes other files into it, called on rank 0.
    """
    with disk_errors(target), ExitStack() as opened:
        scratch = from_main(lambda: _begin(opened, target, beside))
        try:
            with _hushed():
                dcp.save(state, storage_writer=_writer(state, scratch), no_dist=not is_joined())
        except CheckpointException as error:
            raise own_failure(error) from error
        from_main(opened.close)


def write_later(
    target: Path, state: dict[str, Tensor], group: dist.ProcessGroup, beside: Beside = _nothing
) -> Future[None]:
    """As `write`, where ranks share the work: returns when the tensors are copied to host memory.
    The future ends behind this rank's part, on rank 0 behind all and the seal.

    Args:
        group: of all ranks, over gloo, that nobody else uses meanwhile.
    """
    with ExitStack() as opened:
        scratch = from_main(lambda: _begin(opened, target, beside))
        opened.enter_context(disk_errors(target))
        writer = _writer(state, scratch)
        writer.per_thread_copy_ahead = 0  # It would take streams of a GPU, which has no part in it.
        writing = dcp.async_save(state, storage_writer=writer, process_group=group)
        background = ThreadPoolExecutor(1)
        sealing = background.submit(_seal, writing, opened.pop_all())
        background.shutdown(wait=False)
    return sealing


def _begin(opened: ExitStack, target: Path, beside: Beside) -> Path:
    scratch = opened.enter_context(new_folder(target))
    beside(scratch)
    return scratch


def _seal(writing: Future, opened: ExitStack) -> None:
    """Done, it has been written by all: torch gathers on rank 0 what each rank has written before
    it ends on any."""
    with opened:
        try:
            writing.result()
        except CheckpointException as error:
            raise own_failure(error) from error


def _writer(state: Mapping[str, Tensor], folder: Path) -> HuggingFaceStorageWriter:
    files, size = {}, 0
    for name, tensor in state.items():
        files[name] = 1 + size // FILE_BYTES
        size += tensor.numel() * tensor.element_size()
    return HuggingFaceStorageWriter(str(folder), files, save_distributed=True)


# --- reading --------------------------------------------------------------------------------------


def read(state: dict[str, Tensor], folder: Path) -> None:
    """Fills the tensors from a folder that holds them and no others. Every rank has to come along.

    Raises:
        OpoError: it holds others, or cannot be read.
    """
    from_main(lambda: _check_same(_facts_in(folder), state, folder))
    _load(state, folder, no_dist=not is_joined())


def read_whole(folder: Path, is_wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    """Name -> tensor, in host memory; for a process by itself.

    Raises:
        OpoError: it cannot be read.
    """
    state = {
        name: torch.empty(facts.size, dtype=facts.properties.dtype)
        for name, facts in _facts_in(folder).items()
        if is_wanted(name)
    }
    _load(state, folder, no_dist=True)
    return state


def names_in(folder: Path) -> set[str]:
    """Of all that a folder holds; see `read_whole`."""
    return set(_facts_in(folder))


def _facts_in(folder: Path) -> dict[str, TensorStorageMetadata]:
    try:
        return HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    except Exception as error:  # What does not fit surfaces as almost any type.
        raise _unreadable(folder, type(error).__name__) from error


def _check_same(
    there: Mapping[str, TensorStorageMetadata], state: Mapping[str, Tensor], folder: Path
) -> None:
    for name in sorted(there.keys() ^ state.keys()):
        raise _unreadable(folder, f"'{name}' is {'too much' if name in there else 'missing'}")
    for name, tensor in state.items():
        if there[name].size != tensor.shape:
            shapes = f"{tuple(there[name].size)}, not {tuple(tensor.shape)}"
            raise _unreadable(folder, f"'{name}' has the shape {shapes}")


def _load(state: dict[str, Tensor], folder: Path, *, no_dist: bool) -> None:
    reader = HuggingFaceStorageReader(str(folder))
    try:
        with _hushed():
            dcp.load(state, storage_reader=reader, no_dist=no_dist)
    except CheckpointException as error:
        failure = own_failure(error)
        if isinstance(failure, OpoError) or not isinstance(failure, Exception):
            raise failure from error
        raise _unreadable(folder, type(failure).__name__) from error


def _unreadable(folder: Path, why: str) -> OpoError:
    return OpoError(
        f"'{folder}' is whole and does not load: {why}",
        "go on with the version that wrote it, or start anew with --out",
    )


# --- torch's ways ---------------------------------------------------------------------------------


@contextmanager
def _hushed() -> Iterator[None]:
    """Without the warning that there are no other ranks: we know."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield


def own_failure(error: CheckpointException) -> BaseException:
    """What failed on this rank, as it was, a signal too; OtherRankError where nothing did. torch
    gathers what failed on which rank, and raises that on all."""
    found = error.failures.get(rank() if is_joined() else 0)
    return found[0] if found else OtherRankError()
