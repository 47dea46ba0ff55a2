"""How work is dealt out; what ranks do together is tested in tests/distributed."""

from __future__ import annotations

import itertools
import random

import pytest

from opo_cli.errors import OpoError
from opo_cli.model.parallel import balanced, from_main, gathered, largest, on_all_ranks, share_of


@pytest.mark.parametrize(("count", "shares"), [(0, 3), (2, 3), (7, 1), (7, 3), (64, 5)])
def test_shares_are_neighbours_each_once_and_near_equal(count: int, shares: int):
    parts = [share_of(count, place, shares) for place in range(shares)]
    assert list(itertools.chain(*parts)) == list(range(count))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_groups_are_dealt_by_tokens():
    assert balanced([5, 100, 5, 90, 5], 2) == [[1, 4], [0, 2, 3]]
    assert balanced([3, 3, 3], 4) == [[0], [1], [2], []]
    assert balanced([7, 1, 4], 1) == [[0, 1, 2]]
    assert balanced([], 2) == [[], []]


def test_the_largest_share_is_near_the_best_there_is():
    """Within 4/3 - 1/(3 m), against every way to deal them out."""
    rng = random.Random(0)
    for _ in range(20):
        weights, shares = [rng.randint(1, 50) for _ in range(7)], rng.choice([2, 3])
        dealt = balanced(weights, shares)
        assert sorted(itertools.chain(*dealt)) == list(range(7))
        ours = max(sum(weights[i] for i in share) for share in dealt)
        ways = itertools.product(range(shares), repeat=7)
        best = min(max(_sums(weights, places, shares)) for places in ways)
        assert ours <= best * (4 / 3 - 1 / (3 * shares)) + 1e-9


def _sums(weights: list[int], places: tuple[int, ...], shares: int) -> list[int]:
    sums = [0] * shares
    for weight, place in zip(weights, places, strict=True):
        sums[place] += weight
    return sums


def test_a_process_by_itself_meets_nobody():
    assert on_all_ranks(lambda: 3) == gathered(3) == [3]
    assert from_main(lambda: 4) == largest(4) == 4
    with pytest.raises(OpoError, match="its own"):
        from_main(lambda: (_ for _ in ()).throw(OpoError("its own", "hint")))
