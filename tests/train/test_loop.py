"""What a run leaves when a step cannot be made."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from opo_cli.errors import OpoError
from opo_cli.files import read_json, write_json
from opo_cli.interrupt import Interrupts
from opo_cli.presets import resolve
from opo_cli.records import RunFolder
from opo_cli.report.live import TrainView
from opo_cli.rollout.engine import EngineError, vllm_version
from opo_cli.train.loop import Trainer
from opo_cli.train.outputs import difference_from

OVERRIDES = ("train.steps=4", "checkpoint.every=4", "eval.benchmarks=[]", "measure.probe_every=0")


class Failing:
    """A real engine, but for its n-th batch."""

    def __init__(self, engine, at: int, error: Exception):
        self.engine, self.name, self.left, self.error = engine, engine.name, at, error

    def generate(self, *arguments, **keys):
        self.left -= 1
        if self.left == 0:
            raise self.error
        return self.engine.generate(*arguments, **keys)

    def __getattr__(self, name):
        return getattr(self.engine, name)


def run(folder: RunFolder, failing: tuple[int, Exception] | None = None) -> None:
    config = resolve("smoke", overrides=OVERRIDES)
    with open("/dev/null", "w") as sink, Interrupts().installed() as interrupts:
        trainer = Trainer(config, folder, TrainView(Console(file=sink)))
        if failing is not None:
            trainer.engine = Failing(trainer.engine, *failing)
        trainer.run(interrupts)


def records(folder: RunFolder) -> list[dict]:
    left_out = ("_seconds", "_per_second", "_gigabytes")
    return [{k: v for k, v in s.items() if not k.endswith(left_out)} for s in folder.steps()]


@pytest.mark.parametrize(
    "error", [EngineError("vLLM died", "look"), OpoError("no memory", "--set rollout.max_rows=8")]
)
def test_the_last_whole_step_is_kept_and_gone_on_from(error, base, in_tmp: Path):
    whole, cut = RunFolder(in_tmp / "whole"), RunFolder(in_tmp / "cut")
    run(whole)
    with pytest.raises(OpoError) as caught:
        run(cut, (3, error))
    assert caught.value.message == f"step 3: {error.message}"
    again = f"opo train --resume --out {cut.path}"
    typed = error.hint.startswith("--set")
    assert caught.value.hint == (f"{again} {error.hint}" if typed else f"{again} goes on; look")
    assert [path.name for path in cut.checkpoints.iterdir()] == ["step-000002"]
    # Other settings of memory, as the hint may have said, are no other run.
    less = resolve("smoke", overrides=OVERRIDES, named={"rollout": {"max_rows": 8}})
    assert difference_from(less, cut) == ""
    run(cut)
    assert records(cut) == records(whole)
    weights = [(each.model / "model.safetensors").read_bytes() for each in (whole, cut)]
    assert weights[0] == weights[1]


@pytest.mark.skipif(vllm_version() is not None, reason="vLLM is installed")
def test_an_engine_of_another_kind_does_not_take_over(base, in_tmp: Path):
    """A run begun with vLLM is not gone on with in silence where vLLM is gone."""
    folder = RunFolder(in_tmp / "run")
    with pytest.raises(OpoError):
        run(folder, (2, EngineError("died", "")))
    facts = read_json(folder.path / "environment.json")
    write_json(folder.path / "environment.json", facts | {"engine": "vllm"})
    with pytest.raises(OpoError, match="run' began with vLLM, and vLLM is not installed"):
        run(folder)
