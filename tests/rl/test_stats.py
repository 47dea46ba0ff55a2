"""Sums and correlation within groups, and whitening. Shape legend: B rows, T tokens."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr

from opo_cli.rl.stats import (
    effective_sample_size,
    group_correlation,
    group_is_constant,
    group_sum,
    group_totals,
    whiten,
)

quick = settings(deadline=None, derandomize=True)
numbers = st.floats(-100, 100, width=32)
rows = st.lists(st.tuples(numbers, st.integers(0, 4)), min_size=1, max_size=12)


def unpacked(pairs) -> tuple[torch.Tensor, torch.Tensor]:
    values, groups = zip(*pairs, strict=True)
    return torch.tensor(values, dtype=torch.float64), torch.tensor(groups)


@quick
@given(rows)
def test_group_sum_is_the_sum_over_rows_of_one_group(pairs):
    expected = [sum(x for x, g in pairs if g == own) for _, own in pairs]
    assert group_sum(*unpacked(pairs)).tolist() == pytest.approx(expected, abs=1e-9)


@quick
@given(st.lists(st.tuples(numbers, numbers, st.integers(0, 4)), min_size=1, max_size=12))
def test_group_sum_of_two_dimensions_sums_each_column(triples):
    *columns, groups = zip(*triples, strict=True)
    x = torch.tensor(columns, dtype=torch.float64).T
    groups = torch.tensor(groups)
    expected = torch.stack([group_sum(column, groups) for column in x.T], 1)
    torch.testing.assert_close(group_sum(x, groups), expected)
    torch.testing.assert_close(group_totals(x, groups)[groups], expected)


def test_group_totals_have_a_place_for_every_index():
    totals = group_totals(torch.tensor([1.0, 2, 4]), torch.tensor([3, 0, 3]))
    assert totals.tolist() == [2, 0, 0, 5]


@quick
@given(rows)
def test_group_is_constant_compares_with_the_whole_group(pairs):
    expected = [len({x for x, g in pairs if g == own}) == 1 for _, own in pairs]
    everything = torch.ones(len(pairs), dtype=torch.bool)
    assert group_is_constant(*unpacked(pairs), everything).tolist() == expected


def test_group_is_constant_leaves_out_what_is_not_valid():
    x, groups = torch.tensor([1.0, 2.0, 1.0, float("nan")]), torch.zeros(4, dtype=torch.int64)
    valid = torch.tensor([True, False, True, False])
    assert group_is_constant(x, groups, valid).all()
    assert group_is_constant(x, groups, torch.zeros(4, dtype=torch.bool)).all()
    assert not group_is_constant(x, groups, torch.tensor([True, True, True, False])).any()


def test_no_rows():
    x, groups = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    assert group_sum(x, groups).shape == (0,)
    assert group_totals(x, groups).shape == (0,)
    assert group_sum(torch.zeros(0, 3), groups).shape == (0, 3)
    assert group_is_constant(x, groups, x.bool()).shape == (0,)


whole = st.integers(-20, 20)
three = st.lists(st.tuples(whole, whole, st.integers(0, 2)), min_size=2, max_size=12)


@quick
@given(three)
def test_group_correlation_is_that_of_what_is_left_of_the_group_means(triples):
    x, y, groups = (torch.tensor(part, dtype=torch.float64) for part in zip(*triples, strict=True))

    def centred(values: torch.Tensor) -> list[float]:
        means = torch.stack([values[groups == g].mean() for g in groups])
        return (values - means).where((values - means).abs() > 1e-9, values.new_zeros(())).tolist()

    left = [centred(x), centred(y)]
    result = group_correlation(x, y, groups.long()).item()
    if all(map(any, left)):
        assert result == pytest.approx(pearsonr(*left).statistic, abs=1e-9)
    else:
        assert math.isnan(result)


def test_group_correlation_does_not_see_differences_between_groups():
    """Within both groups y falls with x; over all rows it would rise."""
    x, y = torch.tensor([1.0, 2, 3, 11, 12, 13]), torch.tensor([3.0, 2, 1, 13, 12, 11])
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    assert group_correlation(x, y, groups).item() == pytest.approx(-1)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.25])
def test_group_correlation_without_variation_is_nan(value: float, size: int):
    x, y = torch.full((size,), value), torch.arange(float(size))
    groups = torch.zeros(size, dtype=torch.int64)
    assert group_correlation(x, y, groups).isnan()
    assert group_correlation(y, x, groups).isnan()


def test_group_correlation_of_an_inexact_constant_is_nan():
    x, groups = torch.full((7,), 0.1), torch.zeros(7, dtype=torch.int64)
    assert group_correlation(x, torch.arange(7.0), groups).isnan()


def test_effective_sample_size_constants():
    weights = (0.5, 1.0, 1.0, 2.0)
    share = effective_sample_size(sum(weights), sum(w**2 for w in weights), 4)
    assert share == pytest.approx(3.24 / 4)
    assert effective_sample_size(8.0, 16.0, 4) == 1
    assert effective_sample_size(0.0, 0.0, 4) is None
    assert effective_sample_size(0.0, 0.0, 0) is None


tokens = st.lists(st.tuples(numbers, st.booleans()), min_size=2, max_size=20).filter(
    lambda pairs: sum(kept for _, kept in pairs) > 1
)


@quick
@given(tokens)
def test_whiten_against_statistics(pairs):
    x, mask = (torch.tensor([part]) for part in zip(*pairs, strict=True))
    kept = [value for value, is_kept in pairs if is_kept]
    centre, scale = statistics.fmean(kept), (statistics.variance(kept) + 1e-8) ** -0.5
    expected = [(value - centre) * scale if is_kept else 0.0 for value, is_kept in pairs]
    assert whiten(x.double(), mask)[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_whitening_rewards_over_tokens():
    """REINFORCE++ of theory: tokens of six responses, each holding its response's reward."""
    lengths = torch.tensor([1, 3, 2, 4, 5, 5])
    mask = torch.arange(5) < lengths[:, None]
    x = torch.tensor([1.0, 0, 1, 0, 1, 1])[:, None].expand(6, 5)
    right, wrong = whiten(x, mask)[:2, 0].tolist()
    assert (right, wrong) == pytest.approx((0.715219, -1.328264), abs=1e-6)


@pytest.mark.parametrize("value", [0.5, 0.1, -100.3])
@pytest.mark.parametrize("shape", [(2, 3), (10, 1000)])
def test_whiten_of_a_constant_is_zero(value: float, shape: tuple[int, int]):
    """Of one that is not exact as well: its mean may be off by a rounding error."""
    result = whiten(torch.full(shape, value), torch.ones(shape, dtype=torch.bool))
    assert result.dtype == torch.float32
    assert result.eq(0).all()


@pytest.mark.parametrize("num_kept", [0, 1])
def test_whiten_of_too_few_tokens_is_zero(num_kept: int):
    mask = torch.arange(4)[None] < num_kept
    assert whiten(torch.tensor([[3.0, 1, 4, 1]]), mask).eq(0).all()


def test_whiten_ignores_what_is_masked():
    mask = torch.tensor([[True, True, False]])
    result = whiten(torch.tensor([[1.0, 3.0, float("nan")]]), mask)
    assert result.equal(whiten(torch.tensor([[1.0, 3.0, 0.0]]), mask))


def test_whiten_over_ranks_is_whiten_over_all_rows():
    """Two ranks with the same rows: every sum over ranks is twice the rank's own."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    mask = torch.rand(3, 5, generator=generator) < 0.7
    together = whiten(torch.cat([x, x]), torch.cat([mask, mask]))
    torch.testing.assert_close(whiten(x, mask, all_sum=lambda s: 2 * s), together[:3])
