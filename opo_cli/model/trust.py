"""No code of a model's makers is run: no Python file beside its weights, no kernel that its config
names on the hub, no pickle with more in it than tensors."""

from __future__ import annotations

from pickle import UnpicklingError

from opo_cli.errors import OpoError

NAMES_CODE = ("_attn_implementation", "_experts_implementation")
"""Of a config, where `owner/name` stands for a program on the hub."""


def trusted_config(source: str):
    """The config of a model folder or hub id.

    Raises:
        OpoError: it asks for a program from the hub.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    for key in NAMES_CODE:
        value = getattr(config, key, None)
        if "/" in str(value):
            raise OpoError(
                f"model '{source}' asks for a program from the hub: "
                f"{key.removeprefix('_')} = '{value}'",
                "no code of a model is run here; remove that line from its config.json",
            )
    return config


def refusal(error: Exception, path: str) -> OpoError | None:
    """What to say where code would have had to run; None: it failed for another reason."""
    if isinstance(error, UnpicklingError):
        return OpoError(
            f"model '{path}': its weights are a pickle with more in it than tensors",
            "no code of a model is run here; give weights as safetensors",
        )
    if "trust_remote_code" in str(error):
        return OpoError(
            f"model '{path}' brings code of its own (auto_map in its config.json)",
            "no code of a model is run here; choose an architecture that transformers knows",
        )
    return None
