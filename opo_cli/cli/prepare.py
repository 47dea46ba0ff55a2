"""`opo prepare`."""

from __future__ import annotations

from opo_cli.cli.options import (
    DEFAULT_PRESET,
    PresetOption,
    SetOption,
    prepare_process,
    set_threads,
)

NAME = "prepare"


def command(preset: PresetOption = DEFAULT_PRESET, overrides: SetOption = None) -> None:
    """Make a preset's training problems and base model, once."""
    from opo_cli.console import note, out
    from opo_cli.presets import resolve

    config = resolve(preset, overrides=overrides or ())
    prepare_process()
    set_threads(config)
    from opo_cli.train.warmstart import is_prepared
    from opo_cli.train.warmstart import prepare as make

    if is_prepared(config):
        note("already prepared")
    for path in make(config):
        out.print(str(path), soft_wrap=True, markup=False)
