"""Every row of the benchmark table."""

from __future__ import annotations

import pytest

from opo_cli.data.benchmarks import BENCHMARKS, check_names, load_problems
from opo_cli.errors import OpoError


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark(name: str):
    problems = load_problems(name)
    assert problems
    assert len({problem.id for problem in problems}) == len(problems)
    assert all(problem.question and problem.answer for problem in problems)
    assert {problem.benchmark for problem in problems} == {name}
    assert BENCHMARKS[name].description


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_limit_takes_the_first(name: str):
    assert load_problems(name, limit=3) == load_problems(name)[:3]
    assert load_problems(name, limit=10**6) == load_problems(name)


def test_an_unknown_name_gets_the_nearest():
    check_names(["tiny-easy", "tiny-ood"])
    with pytest.raises(OpoError) as caught:
        check_names(["TINY-EASY"])
    assert "did you mean 'tiny-easy'?" in caught.value.hint


@pytest.mark.parametrize("function", [load_problems, lambda name: check_names((name,))])
def test_an_unknown_name_gets_a_suggestion(function):
    with pytest.raises(OpoError, match="unknown benchmark 'tiny-esy'") as caught:
        function("tiny-esy")
    assert caught.value.hint == "did you mean 'tiny-easy'?"
