"""Problem files, and which problems a step sees."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from opo_cli.data.sources import (
    TrainingPrompts,
    items_of_step,
    load_problems,
    save_problems,
)
from opo_cli.errors import OpoError
from opo_cli.types import Problem, Prompt

PROBLEMS = [
    Problem(id="a/0", question="1+1=?", answer="2", benchmark="a"),
    Problem(id="a/1", question='{"π"}\nand\u2028more\\n', answer="\\frac{1}{2}", benchmark="a"),
]


def test_problems_survive_a_round_trip(tmp_path: Path):
    save_problems(PROBLEMS, tmp_path / "p.jsonl")
    assert load_problems(tmp_path / "p.jsonl") == PROBLEMS


@pytest.mark.parametrize(
    "line", ["{", "", "[]", "null", "{}", '{"id": "x"}', '{"id": 1, "colour": 2}'], ids=repr
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str):
    path = tmp_path / "p.jsonl"
    save_problems(PROBLEMS, path)
    good = path.read_text().splitlines()
    path.write_text("\n".join([*good, line, *good]))
    with pytest.raises(OpoError) as caught:
        load_problems(path)
    assert caught.value.message.startswith(f"{path}:3: ")


ITEMS = "abcdefghij"


def drawn(seed: int, count: int, num_steps: int) -> list[str]:
    return [item for step in range(num_steps) for item in items_of_step(ITEMS, seed, step, count)]


@pytest.mark.parametrize("count", [1, 3, 5, 10, 25])
def test_every_epoch_is_a_permutation(count: int):
    items = drawn(seed=7, count=count, num_steps=60 // count + 1)
    epochs = ["".join(items[start : start + 10]) for start in range(0, 60, 10)]
    assert all(sorted(epoch) == sorted(ITEMS) for epoch in epochs)
    assert len(set(epochs)) == len(epochs)


@pytest.mark.parametrize("count", [1, 3, 25])
def test_the_order_does_not_depend_on_the_step_size(count: int):
    assert drawn(seed=7, count=count, num_steps=20)[:20] == drawn(seed=7, count=10, num_steps=2)


def test_a_step_is_a_function_of_seed_and_step():
    assert items_of_step(ITEMS, 3, 4, 5) == items_of_step(list(ITEMS), 3, 4, 5)
    steps = Counter(tuple(items_of_step(ITEMS, seed, 4, 5)) for seed in range(20))
    assert len(steps) > 15


def test_a_step_larger_than_the_epoch():
    assert Counter(items_of_step(ITEMS, 0, 0, 30)) == Counter(ITEMS * 3)


def prompts_of(count: int) -> list[Prompt]:
    problems = [
        Problem(id=str(i), question=str(i), answer="0", benchmark="tiny-train")
        for i in range(count)
    ]
    return [Prompt(problem=problem, text=problem.question, token_ids=(1,)) for problem in problems]


def test_replacements_follow_from_seed_step_and_round():
    prompts = prompts_of(100)
    first, second = TrainingPrompts(prompts, 0), TrainingPrompts(prompts, 1)
    assert first.of_step(3, 8) == items_of_step(prompts, 0, 3, 8)
    drawn = first.replacements(3, 1, 8, set())
    assert drawn == TrainingPrompts(prompts, 0).replacements(3, 1, 8, set())
    others = [
        first.replacements(3, 2, 8, set()),
        first.replacements(4, 1, 8, set()),
        second.replacements(3, 1, 8, set()),
        first.of_step(3, 8),
    ]
    assert all(drawn != other for other in others)


def test_replacements_are_others_as_long_as_there_are_any():
    source = TrainingPrompts(prompts_of(10), 0)
    seen = {str(i) for i in range(7)}
    assert sorted(p.problem.id for p in source.replacements(0, 1, 3, seen)) == ["7", "8", "9"]
    assert len(source.replacements(0, 1, 5, seen)) == 3
    assert len(source.replacements(0, 1, 4, {str(i) for i in range(10)})) == 4


def test_a_probe_is_no_longer_than_there_are_prompts():
    prompts = prompts_of(5)
    assert sorted(p.problem.id for p in TrainingPrompts(prompts, 0).probe(16)) == list("01234")
