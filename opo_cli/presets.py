"""One validated config from: an algorithm's row, a preset, named options, `--set`.

A preset is a TOML file in `presets/`; the file name is its name. Later layers win:
algorithm row < preset < the preset's [per_algorithm.NAME] < named options < --set.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from opo_cli.algorithms import ALGORITHMS
from opo_cli.choose import choose, did_you_mean
from opo_cli.config import Config, Section, check
from opo_cli.errors import OpoError, brief
from opo_cli.records import RunFolder


def presets_folder() -> Path:
    """`presets/` inside the installed package, or beside it in a checkout."""
    inside = Path(__file__).parent / "presets"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "presets"


def preset_names() -> dict[str, Path]:
    return dict(sorted((path.stem, path) for path in presets_folder().glob("*.toml")))


def load_preset(name: str) -> dict[str, Any]:
    """The preset's raw tables, laid on those of the preset that it `extends`.

    Raises:
        OpoError: unknown preset.
    """
    tables = tomllib.loads(choose(name, preset_names(), "preset").read_text())
    parent = tables.pop("extends", None)
    return merged(load_preset(parent), tables) if parent else tables


def parse_override(text: str) -> dict[str, Any]:
    """`section.key=value` as nested tables; the value as TOML, or else as a bare string.

    Raises:
        OpoError: no `=`, or an empty key.
    """
    key, equals, value = text.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise OpoError(
            f"--set '{text}' is not section.key=value", "for example: --set rollout.group_size=8"
        )
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):  # No TOML, more digits than Python reads, a deep nest.
        parsed = value.strip()
    for part in reversed(key.strip().split(".")):
        parsed = {part: parsed}
    return parsed


def set_options(overrides: Iterable[str]) -> list[str]:
    """`--set TEXT` for each, as a command takes them."""
    return [part for text in overrides for part in ("--set", text)]


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, table by table."""
    result = dict(base)
    for key, value in over.items():
        both_tables = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both_tables else value
    return result


def resolve(
    preset: str,
    *,
    algorithm: str | None = None,
    named: Mapping[str, Any] | None = None,
    overrides: Iterable[str] = (),
) -> Config:
    """The config of a run.

    Args:
        preset: a preset's name.
        algorithm: a row of `ALGORITHMS`; None: the preset's.
        named: tables from the command's own options.
        overrides: `section.key=value` strings, the last word.

    Raises:
        OpoError: an unknown name, key or value, or settings that do not fit together.
    """
    raw = load_preset(preset)
    per_algorithm = raw.pop("per_algorithm", {})
    tables: dict[str, Any] = {}
    for text in overrides:
        tables = merged(tables, parse_override(text))
    name = str(_algorithm_of(tables) or algorithm or _algorithm_of(raw) or "opo")
    row = choose(name, ALGORITHMS, "algorithm")
    result: dict[str, Any] = {"preset": preset, "algorithm": {**row.settings, "name": name}}
    for layer in (raw, per_algorithm.get(name, {}), named or {}, tables):
        result = merged(result, layer)
    return validated(result)


def defaults(overrides: Iterable[str] = ()) -> Config:
    """The config of a command that goes without a preset.

    Raises:
        OpoError: an unknown key or value.
    """
    tables: dict[str, Any] = {"preset": "", "description": ""}
    for text in overrides:
        tables = merged(tables, parse_override(text))
    return validated(tables)


def _algorithm_of(tables: Mapping[str, Any]) -> Any:
    section = tables.get("algorithm")
    return section.get("name") if isinstance(section, Mapping) else None


def validated(tables: Mapping[str, Any]) -> Config:
    """Tables -> Config.

    Raises:
        OpoError: for the first thing that is wrong.
    """
    try:
        # Through JSON, where pydantic's strict mode takes a list for a tuple.
        config = Config.model_validate_json(json.dumps(tables, default=str))
    except ValidationError as error:
        raise _explained(error) from None
    check(config)
    return config


def stored(folder: RunFolder) -> Config:
    """A run's own.

    Raises:
        OpoError: its file is no config of this version.
    """
    tables = folder.config()
    try:
        return validated(tables)
    except OpoError as error:
        raise OpoError(
            f"{folder.path / 'config.json'}: {error.message}",
            "restore the file from a copy, or go on with the version that wrote it",
        ) from None


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's config with the defaults of keys that the version that wrote it did not have."""
    return merged(Config(preset="", description="").model_dump(mode="json"), config)


def _explained(error: ValidationError) -> OpoError:
    first = error.errors()[0]
    parts, value = first["loc"], first["input"]
    depth = next((n for n, part in enumerate(parts) if isinstance(part, int)), len(parts))
    setting = list(parts[:depth])  # What `--set` can name; the rest lies within its list.
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)[1:]
    if first["type"] == "extra_forbidden" and setting == list(parts):
        return _unknown_key(setting)
    if first["type"] == "extra_forbidden":
        return OpoError(f"unknown config key '{key}'", _remedy(setting))
    if first["type"] == "missing":
        return OpoError(f"config key '{key}' is missing", _remedy(setting))
    if first["type"] == "value_error":
        where = ".".join(setting)
        return OpoError(
            f"{key}: {first['ctx']['error']}", f"change {where} in the preset or by --set"
        )
    shown = repr(value) if isinstance(value, str) else brief(value)
    return OpoError(f"{key} = {shown}: {first['msg'].lower()}", _remedy(setting))


def check_key(key: str) -> None:
    """
    Raises:
        OpoError: no setting is called `key`, or it is a whole section.
    """
    location = key.split(".")
    for depth in range(len(location)):
        if location[depth] not in _keys_at(location[:depth]):
            raise _unknown_key(location[: depth + 1])
    if _model_at(location) is not _model_at(location[:-1]):
        first = _keys_at(location)[0]
        raise OpoError(f"config key '{key}' is a section", f"name a setting: {key}.{first}")


def _unknown_key(location: list[str]) -> OpoError:
    """`location`: where the last part is none of the keys."""
    prefix = "".join(f"{part}." for part in location[:-1])
    nearest = did_you_mean(location[-1], _keys_at(location[:-1]), "key")
    hint = nearest.replace("mean '", f"mean '{prefix}")
    return OpoError(f"unknown config key '{'.'.join(location)}'", hint)


def _model_at(location: Iterable[str]) -> type[Section]:
    model: type[Section] = Config
    for part in location:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, Section)):
            break
        model = annotation
    return model


def _keys_at(location: Iterable[str]) -> list[str]:
    return list(_model_at(location).model_fields)


def _remedy(location: list[str]) -> str:
    key = ".".join(location)
    if _model_at(location) is not _model_at(location[:-1]):
        return f"it is a section: --set {key}.{_keys_at(location)[0]}=VALUE and the like"
    field = _model_at(location[:-1]).model_fields.get(location[-1]) if location else None
    about = (field.description or "see the preset") if field else "see the preset"
    return f"--set {key}=VALUE; {' '.join(about.split())}"
