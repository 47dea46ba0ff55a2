"""What `opo eval` makes of a run's settings and of its own options."""

from __future__ import annotations

from pathlib import Path

import pytest

from opo_cli.config import Eval
from opo_cli.errors import OpoError
from opo_cli.evaluate.settings import eval_config
from opo_cli.presets import resolve
from opo_cli.records import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Of preset smoke: 4 samples, k 1 and 4, 32 tokens, 16 problems of tiny-easy and tiny-mid."""
    (tmp_path / "config.json").write_text(resolve("smoke").model_dump_json())
    return RunFolder(tmp_path)


def settings(run: RunFolder | None, names: list[str], *sets: str, **asked) -> Eval:
    tables = {"eval": {"benchmarks": names, **asked}}
    return eval_config(run, None if run else "some/model", tables, sets).eval


def test_own_benchmarks_are_evaluated_as_in_the_run_but_whole(run):
    found = settings(run, ["tiny-easy"])
    assert (found.samples, found.max_new_tokens, found.k, found.limit) == (4, 32, (1, 4), 0)


def test_other_benchmarks_have_their_own_numbers(run):
    found = settings(run, ["tiny-easy", "AIME24"])
    assert (found.samples, found.max_new_tokens, found.k, found.limit) == (0, 0, (), 0)


def test_evaluations_during_training_are_none_of_it(run):
    config = resolve("smoke", overrides=["eval.every=2", "eval.during=['gone.jsonl']"])
    (run.path / "config.json").write_text(config.model_dump_json())
    found = settings(run, ["tiny-easy"])
    assert (found.every, found.during) == (0, ())


def test_a_validation_split_is_the_runs_own_and_chooses_nothing_here(run):
    config = resolve("smoke", overrides=["eval.every=2", "eval.checkpoint=best"])
    (run.path / "config.json").write_text(config.model_dump_json())
    found = settings(run, ["tiny-validation"])
    assert (found.validation, found.checkpoint) == ((), "last")
    assert (found.samples, found.max_new_tokens, found.k, found.limit) == (4, 32, (1, 4), 0)


def test_a_runs_k_reach_as_far_as_the_benchmarks_own_samples(run):
    config = resolve("smoke", overrides=["eval.samples=0", "eval.k=[1,8]"])
    (run.path / "config.json").write_text(config.model_dump_json())
    assert settings(run, ["tiny-easy"]).k == (1, 8)
    assert settings(run, ["tiny-easy"], samples=4).k == (1,)
    assert settings(run, ["tiny-easy"], temperature=0.0).k == (1,)


def test_what_is_asked_for_wins(run):
    found = settings(run, ["tiny-easy"], "eval.top_p=0.9", samples=2, limit=5)
    assert (found.samples, found.k, found.limit, found.top_p) == (2, (1,), 5, 0.9)
    found = settings(run, ["AIME24"], samples=32, k=[1, 32])
    assert (found.samples, found.k) == (32, (1, 32))


def test_a_model_has_the_defaults():
    found = settings(None, ["AIME24"])
    assert found == Eval(benchmarks=("AIME24",))


def test_an_own_k_is_never_filtered(run):
    with pytest.raises(OpoError, match="k 8 exceeds the 4 samples"):
        settings(run, ["tiny-easy"], k=[8])
    with pytest.raises(OpoError, match="eval = 3"):
        settings(run, ["tiny-easy"], "eval=3")
