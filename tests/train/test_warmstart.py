"""The cached data and base."""

from __future__ import annotations

import subprocess

import pytest

from opo_cli.data.sources import load_problems
from opo_cli.data.tasks import TASKS
from opo_cli.data.tiny import CHAINS
from opo_cli.errors import OpoError
from opo_cli.presets import resolve
from opo_cli.train.warmstart import (
    base_folder,
    check_base,
    data_folder,
    is_prepared,
    prepare,
    schedule,
)
from tests.damage import flip_a_bit


def test_what_shapes_the_base_names_its_folder(smoke):
    same = resolve("smoke", algorithm="ppo", named={"seed": 3}, overrides=["train.steps=9"])
    assert base_folder(same) == base_folder(smoke)
    changes = ("warmstart.seed=1", "data.max_terms=4", "model.embedded.num_layers=2")
    for change in (*changes, "data.task=search"):
        assert base_folder(resolve("smoke", overrides=[change])) != base_folder(smoke)
    for change in ("data.seed=1", "data.task=search"):
        assert data_folder(resolve("smoke", overrides=[change])) != data_folder(smoke)


def test_a_prepared_base_is_used_again(smoke, base):
    weights = base / "model.safetensors"
    made = weights.stat().st_mtime_ns
    assert is_prepared(smoke)
    assert prepare(smoke)[1] == str(base)
    assert weights.stat().st_mtime_ns == made


def test_training_problems_are_held_out_of_every_tier(smoke, base):
    questions = {problem.question for problem in load_problems(prepare(smoke)[0])}
    assert len(questions) == smoke.data.num_problems
    for tier in CHAINS.tiers:
        assert not questions & {problem.question for problem in CHAINS.tier_problems(tier)}


def test_an_own_model_needs_no_warm_start(base, smoke):
    config = resolve("smoke", named={"model": {"path": "somewhere"}})
    problems, path = prepare(config)
    assert problems.is_file()
    assert path == "somewhere"


@pytest.mark.parametrize("task", TASKS)
def test_the_base_is_the_same_every_time(task, tmp_path, monkeypatch):
    short = "warmstart.stages=[{num_tokens=9000, learning_rate=0.005, styles={worked={share=1.0}}}]"
    config = resolve("smoke", overrides=[short, f"data.task={task}"])
    weights = []
    for place in ("first", "second"):
        monkeypatch.setenv("OPO_CACHE", str(tmp_path / place))
        path = prepare(config)[1]
        weights.append(subprocess.check_output(["cat", f"{path}/model.safetensors"]))
        names = {problem.benchmark for problem in load_problems(prepare(config)[0])}
        assert names == {TASKS[task].training}
    assert weights[0] == weights[1]


def test_nothing_is_left_behind(cache, base):
    assert not list(cache.glob(".writing-*"))


@pytest.mark.parametrize("place", ["base", "data"])
def test_what_is_damaged_in_the_cache_is_told_and_made_again(place, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("OPO_CACHE", str(tmp_path))
    config = resolve("smoke", overrides=RANDOM)
    prepare(config)
    (folder,) = tmp_path.glob(f"{place}-*")
    file = folder / {"base": "model.safetensors", "data": "train.jsonl"}[place]
    content = file.read_bytes()
    flip_a_bit(file)
    assert not is_prepared(config)
    capfd.readouterr()
    prepare(config)
    assert f"'{file}' is damaged: not what was written, by its checksum; made again" in (
        capfd.readouterr().err
    )
    assert file.read_bytes() == content
    assert is_prepared(config)
    assert not list(tmp_path.glob(".writing-*"))


def test_the_schedule_warms_up_and_ends_low():
    settings = resolve("tiny").warmstart
    rates = [schedule(step, 100, settings) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 20)
    assert max(rates) == rates[20] == 1
    assert rates[100] == pytest.approx(settings.final_learning_rate_fraction)


# --- without stages ---------------------------------------------------------------------------

RANDOM = ["warmstart.stages=[]", "model.embedded.tokenizer=bytes", "eval.benchmarks=[]"]


def weights(folder) -> dict:
    from safetensors.torch import load_file

    return load_file(f"{folder}/model.safetensors")


def test_without_stages_the_base_is_at_its_random_weights():
    """Those of `build_model`, and of the seed and the shape alone."""
    from opo_cli.model.tiny import build_model, build_tokenizer

    config = resolve("smoke", overrides=[*RANDOM, "warmstart.seed=5"])
    found = weights(prepare(config)[1])
    made = build_model(config.model.embedded, build_tokenizer("bytes"), 5).state_dict()
    assert all(made[name].equal(found[name]) for name in found)
    assert len(found) == len(made) - 1  # The head is the embedding.
    for change in ("data.template=boxed", "data.max_terms=4", "warmstart.beta2=0.5"):
        other = resolve("smoke", overrides=[*RANDOM, "warmstart.seed=5", change])
        assert base_folder(other) == base_folder(config)
    other = resolve("smoke", overrides=[*RANDOM, "warmstart.seed=6"])
    assert base_folder(other) != base_folder(config)


def test_an_embedding_smaller_than_the_tokenizer_is_refused():
    with pytest.raises(OpoError, match=r"vocab_size = 100: .* has 259 tokens") as caught:
        check_base(resolve("smoke", overrides=[*RANDOM, "model.embedded.vocab_size=100"]))
    assert "--set model.embedded.vocab_size=259 " in caught.value.hint
    check_base(resolve("smoke", overrides=[*RANDOM, "model.embedded.vocab_size=259"]))


def test_text_that_the_tasks_tokenizer_cannot_read_is_refused(in_tmp):
    (in_tmp / "own.jsonl").write_text('{"question": "What is 2+2?", "answer": "4"}\n')
    source = ["data.source=own.jsonl", "eval.benchmarks=[]"]
    with pytest.raises(OpoError, match="no token for 'W', which is in the prompt") as caught:
        prepare(resolve("smoke", overrides=[*source, "data.template=line"]))
    way_out = caught.value.hint.removeprefix("--set ").partition(",")[0]
    prepare(resolve("smoke", overrides=[*source, "warmstart.stages=[]", way_out]))


def test_text_that_it_can_read_is_taken(in_tmp):
    (in_tmp / "own.jsonl").write_text('{"question": "2+2=?", "answer": "4"}\n')
    source = ["data.source=own.jsonl", "data.template=line", "eval.benchmarks=[]"]
    prepare(resolve("smoke", overrides=[*source, "warmstart.stages=[]"]))
