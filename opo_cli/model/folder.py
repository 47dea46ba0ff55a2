"""Model folders, as far as they can be checked without loading one. No torch."""

from __future__ import annotations

import os
import re
from pathlib import Path

from opo_cli.errors import OpoError
from opo_cli.files import MANIFEST
from opo_cli.records import digest

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
PREPARED = re.compile(r"base-[0-9a-f]{12}")


def hush_transformers() -> None:
    """No progress bars and advice on stderr; errors still come as exceptions."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def model_source(path: str) -> str:
    """What `from_pretrained` is to be given: a folder's path, or a hub id as it is.

    Raises:
        OpoError: a path that holds no model.
    """
    folder = Path(os.path.expanduser(path))
    is_hub_id = (
        HUB_ID.fullmatch(path)
        and not folder.exists()
        and not any(folder.parent.glob("*/config.json"))  # Beside models it is meant as a path.
    )
    if is_hub_id:
        return path
    if not (folder / "config.json").is_file():
        problem = "has no config.json" if folder.is_dir() else "does not exist"
        raise OpoError(
            f"model folder '{path}' {problem}",
            "give a Hugging Face model folder (config.json, tokenizer.json, model.safetensors)",
        )
    return str(folder)


def policy_id(model_path: str) -> str:
    """What tells one version of a model from another, without reading gigabytes; call it when the
    model has been loaded.

    A prepared base has it in its name, a hub id in the commit that is in the hub's cache. Of a
    sealed folder, as runs leave them, the seal counts, so that copies are the same model; of other
    folders names, sizes and times of the files.
    """
    folder = Path(os.path.expanduser(model_path)).resolve()
    if PREPARED.fullmatch(folder.name):
        return folder.name
    seal = folder / MANIFEST
    if seal.is_file():
        return digest(seal.read_text())
    files = sorted(path for path in folder.glob("*") if path.is_file())
    if files:
        return digest([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files])
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model_path, "config.json")
    return digest(model_path, Path(found).parent.name if isinstance(found, str) else None)
