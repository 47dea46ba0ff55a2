"""How ranks share a lab: every prompt once, sampled with the same others whatever their number."""

from __future__ import annotations

import pytest

from opo_cli.lab import turns as module
from opo_cli.lab.turns import most_of_a_rank, own_of, rounds, to_main, turns


@pytest.fixture(params=[1, 2, 3, 8])
def count(request, monkeypatch) -> int:
    """Of ranks."""
    monkeypatch.setattr(module, "num_ranks", lambda: request.param)
    return request.param


def test_chunks_are_the_same_for_any_number_of_ranks(count):
    whole = [range(0, 4), range(4, 8), range(8, 12), range(12, 14)]
    found = rounds(14, 4, set(range(14)))
    assert [chunk for chunks in found for chunk in chunks] == whole
    assert all(len(chunks) == count for chunks in found[:-1])
    assert 0 < len(found[-1]) <= count
    left = rounds(14, 4, {5, 13})  # Whole ones, if some of their prompts are measured.
    assert [chunk for chunks in left for chunk in chunks] == [whole[1], whole[3]]
    assert rounds(14, 4, set()) == []


def test_prompts_of_a_turn_are_alike(count):
    weights = {row: 7 * row % 11 for row in range(10)}
    found = turns(weights)
    assert sorted(row for turn in found for row in turn) == list(range(10))
    assert all(len(turn) == count for turn in found[:-1])
    order = [weights[row] for turn in found for row in turn]
    assert order == sorted(order, reverse=True)


def test_what_a_rank_does_at_most_is_what_it_does(count):
    num_prompts, size = 29, 4
    sampled, measured = [0] * count, [0] * count
    for chunks in rounds(num_prompts, size, set(range(num_prompts))):
        for place, chunk in enumerate(chunks):
            sampled[place] += len(chunk)
        rows = [row for chunk in chunks for row in chunk]
        for turn in turns(dict.fromkeys(rows, 1)):
            for place, _ in enumerate(turn):
                measured[place] += 1
    most_sampled, most_measured = most_of_a_rank(num_prompts, size)
    assert max(sampled) <= most_sampled < max(sampled) + size  # The last chunk is a small one.
    assert most_measured == max(measured)
    if count == 1:
        assert most_sampled == num_prompts


def test_a_process_by_itself_has_all():
    assert own_of([4, 5]) == 4
    assert own_of([]) is None
    assert to_main("it", 0) == "it"
