"""The cached data and base."""

from __future__ import annotations

import subprocess

import pytest

from opo_cli.data import tiny
from opo_cli.data.sources import load_problems
from opo_cli.presets import resolve
from opo_cli.train.warmstart import base_folder, data_folder, is_prepared, prepare, schedule


def test_what_shapes_the_base_names_its_folder(smoke):
    same = resolve("smoke", algorithm="ppo", named={"seed": 3}, overrides=["train.steps=9"])
    assert base_folder(same) == base_folder(smoke)
    for change in ("warmstart.seed=1", "data.max_terms=4", "model.embedded.num_layers=2"):
        assert base_folder(resolve("smoke", overrides=[change])) != base_folder(smoke)
    assert data_folder(resolve("smoke", overrides=["data.seed=1"])) != data_folder(smoke)


def test_a_prepared_base_is_used_again(smoke, base):
    weights = base / "model.safetensors"
    made = weights.stat().st_mtime_ns
    assert is_prepared(smoke)
    assert prepare(smoke)[1] == str(base)
    assert weights.stat().st_mtime_ns == made


def test_training_problems_are_held_out_of_every_tier(smoke, base):
    questions = {problem.question for problem in load_problems(prepare(smoke)[0])}
    assert len(questions) == smoke.data.num_problems
    for tier in tiny.TIERS:
        assert not questions & {problem.question for problem in tiny.tier_problems(tier)}


def test_an_own_model_needs_no_warm_start(base, smoke):
    config = resolve("smoke", named={"model": {"path": "somewhere"}})
    problems, path = prepare(config)
    assert problems.is_file()
    assert path == "somewhere"


def test_the_base_is_the_same_every_time(smoke, base, tmp_path, monkeypatch):
    short = [
        "warmstart.stages=[{num_tokens=9000, learning_rate=0.005, styles={worked={share=1.0}}}]"
    ]
    config = resolve("smoke", overrides=short)
    weights = []
    for place in ("first", "second"):
        monkeypatch.setenv("OPO_CACHE", str(tmp_path / place))
        path = prepare(config)[1]
        weights.append(subprocess.check_output(["cat", f"{path}/model.safetensors"]))
    assert weights[0] == weights[1]


def test_nothing_is_left_behind(cache, base):
    assert not list(cache.glob(".preparing-*"))


def test_the_schedule_warms_up_and_ends_low():
    settings = resolve("tiny").warmstart
    rates = [schedule(step, 100, settings) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 20)
    assert max(rates) == rates[20] == 1
    assert rates[100] == pytest.approx(settings.final_learning_rate_fraction)
