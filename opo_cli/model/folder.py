"""Model folders, as far as they can be checked without loading one. No torch."""

from __future__ import annotations

from pathlib import Path

from opo_cli.errors import OpoError
from opo_cli.records import cache_folder, digest


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
    folder = Path(path).expanduser()
    is_hub_id = (
        path.count("/") == 1 and not path.startswith((".", "/", "~")) and not folder.exists()
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
    """What tells one version of a model folder from another, without reading gigabytes.

    A prepared base has it in its name; else names, sizes and times of the files count.
    """
    folder = Path(model_path).expanduser().resolve()
    if folder.parent == cache_folder().resolve():
        return folder.name
    files = sorted(path for path in folder.glob("*") if path.is_file())
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return digest(model_path if not files else stats)
