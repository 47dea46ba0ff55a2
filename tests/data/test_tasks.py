"""What every embedded task keeps to: the split, the tiers, the training problems, the words."""

from __future__ import annotations

import random

import pytest

from opo_cli.config import Data, Style, Styles
from opo_cli.data.embedded import (
    CHARACTERS,
    PROBLEMS_PER_TIER,
    WORDS,
    Task,
    is_heldout,
    wrong_total,
)
from opo_cli.data.tasks import TASKS, embedded_problems
from opo_cli.errors import OpoError
from opo_cli.grading.extract import last_box
from opo_cli.types import Problem

EVERY_TASK = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
EVERY_TIER = pytest.mark.parametrize(
    ("task", "tier"), [(task, tier) for task in TASKS.values() for tier in task.tiers]
)
EVERY_STYLE = pytest.mark.parametrize(
    ("task", "name"), [(task, name) for task in TASKS.values() for name in task.writers]
)


def small(**changes) -> Data:
    return Data(**{"num_problems": 300, "min_terms": 3, "max_terms": 4} | changes)


def keys_of(task: Task, terms: tuple[int, int], *, heldout: bool) -> dict[str, str]:
    """Question -> key of problems that are drawn."""
    drawn = task.draws(random.Random(5), terms, heldout=heldout)
    items = [next(drawn) for _ in range(300)]
    return {task.text_of(item): task.key_of(item) for item in items}


def assert_distinct(problems: list[Problem], name: str):
    assert len({problem.question for problem in problems}) == len(problems)
    assert len({problem.id for problem in problems}) == len(problems)
    assert {problem.benchmark for problem in problems} == {name}


@EVERY_TIER
def test_every_tier(task, tier):
    problems = embedded_problems(tier)
    assert len(problems) == PROBLEMS_PER_TIER
    assert_distinct(problems, tier)
    assert task.tier_problems(tier) == problems


@EVERY_TASK
def test_validation_problems_are_of_no_tier(task):
    problems = embedded_problems(task.validation)
    assert len(problems) == PROBLEMS_PER_TIER
    assert_distinct(problems, task.validation)
    questions = {problem.question for problem in problems}
    for tier in task.tiers:
        assert questions.isdisjoint(problem.question for problem in task.tier_problems(tier))


def test_only_a_tasks_own_names_are_known():
    with pytest.raises(KeyError, match="tiny-train"):
        embedded_problems("tiny-train")


@EVERY_TASK
def test_tiers_are_disjoint_in_length(task):
    ranges = [set(range(low, high + 1)) for low, high in task.tiers.values()]
    assert len(set().union(*ranges)) == sum(map(len, ranges))


@EVERY_TASK
def test_training_problems(task):
    problems = task.training_problems(small())
    assert len(problems) == 300
    assert_distinct(problems, task.training)
    assert task.training_problems(small()) == problems
    others = task.training_problems(small(seed=1))
    assert {p.question for p in problems} != {p.question for p in others}


@EVERY_TIER
@pytest.mark.parametrize("seed", [0, 1])
def test_no_tier_holds_a_training_problem(task, tier, seed):
    fewest, most = task.tiers[tier]
    data = small(min_terms=fewest, max_terms=most, seed=seed)
    trained = {problem.question for problem in task.training_problems(data)}
    assert trained.isdisjoint(problem.question for problem in task.tier_problems(tier))


@EVERY_TASK
def test_both_sides_of_the_split_are_drawn(task):
    for heldout in (True, False):
        keys = keys_of(task, (3, 5), heldout=heldout)
        assert all(is_heldout(key) == heldout for key in keys.values())


@EVERY_TASK
def test_as_many_problems_as_can_be_had_and_no_more(task):
    most = int(task.count(2) * 0.7 * 0.8)
    data = small(num_problems=most, min_terms=2, max_terms=2)
    assert len(task.training_problems(data)) == most
    with pytest.raises(OpoError, match=rf"data.num_problems = {most + 1}: only {most} ") as caught:
        task.training_problems(data.model_copy(update={"num_problems": most + 1}))
    assert "data.max_terms" in caught.value.hint


# --- solutions --------------------------------------------------------------------------------


@EVERY_STYLE
def test_without_errors_every_solution_is_right(task, name):
    rng = random.Random(0)
    items = task.draws(rng, (2, 4), heldout=True)
    for _ in range(200):
        item = next(items)
        found = last_box(task.writers[name](rng, item, Style(repeats=(1, 2, 3))))
        assert found in (task.answer_of(item), None)  # A search may come to no end.


@EVERY_STYLE
def test_every_solution_is_spelled_in_the_vocabulary(task, name):
    style = Style(error_rate=0.5, fix_rate=0.5, no_answer_rate=0.5, repeats=(1, 2))
    rng = random.Random(0)
    items = task.draws(rng, (2, 9), heldout=False)
    text = "".join(task.writers[name](rng, next(items), style) for _ in range(300))
    for word in WORDS:
        text = text.replace(word, "")
    assert set(text) <= set(CHARACTERS)


@EVERY_STYLE
def test_solutions_are_a_function_of_their_random_state(task, name):
    item = next(task.draws(random.Random(1), (5, 5), heldout=False))
    style = Style(error_rate=0.3, repeats=(1, 2))
    first, again = (
        [task.writers[name](rng, item, style) for _ in range(20)]
        for rng in (random.Random(3), random.Random(3))
    )
    assert first == again
    assert len(set(first)) > 1


@EVERY_TASK
def test_every_style_has_its_writer(task):
    assert set(task.writers) == set(Styles.model_fields)


def test_wrong_total_is_wrong():
    rng = random.Random(0)
    assert all(wrong_total(rng, total) != total for total in range(21) for _ in range(100))
