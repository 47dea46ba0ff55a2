"""Sparklines and mean curves."""

from __future__ import annotations

import math

import pytest

from opo_cli.report.curves import ASCII_BLOCKS, BLOCKS, mean_curve, sparkline


def test_a_ramp_shows_every_block():
    assert sparkline(range(8), 8, 0, 7) == BLOCKS


def test_the_scale_is_the_callers():
    assert sparkline([0.0, 0.5, 1.0], 3, 0, 2) == "▁▃▅"


def test_values_beyond_the_scale_are_cut():
    assert sparkline([-5.0, 9.0], 2, 0, 1) == "▁█"


def test_many_values_are_averaged_into_the_width():
    assert sparkline([0, 2, 7, 7, 3, 4], 3, 0, 7) == "▂█▅"


def test_few_values_are_not_stretched():
    assert sparkline([0.0, 1.0], 40, 0, 1) == "▁█"


@pytest.mark.parametrize("width", [1, 7, 40])
def test_no_line_is_wider_than_asked(width: int):
    assert len(sparkline(range(100), width, 0, 99)) == width


def test_a_constant_curve_is_flat():
    assert sparkline([3.0, 3.0, 3.0], 3, 3, 3) == "▁▁▁"


def test_ascii_blocks_are_ascii_and_as_many():
    assert sparkline(range(8), 8, 0, 7, ASCII_BLOCKS) == ASCII_BLOCKS
    assert ASCII_BLOCKS.isascii()
    assert len(ASCII_BLOCKS) == len(BLOCKS)


def test_a_gap_inside_an_average_is_skipped():
    assert sparkline([0.0, 0.0, math.nan, 7.0], 2, 0, 7) == "▁█"


@pytest.mark.parametrize("curve", [[math.nan, 7.0], [math.nan, math.nan]])
def test_a_gap_keeps_its_place(curve):
    assert len(sparkline(curve, 40, 0, 7)) == 2


def test_mean_curve_goes_as_far_as_the_shortest():
    assert mean_curve([[1.0, 2.0, 3.0], [3.0, 6.0]]) == [2.0, 4.0]


def test_mean_curve_is_nan_where_a_run_has_no_value():
    first, second = mean_curve([[1.0, 2.0], [None, 4.0]])
    assert math.isnan(first)
    assert second == 3.0


@pytest.mark.parametrize("curves", [[], [[]], [[1.0], []]])
def test_no_common_step_has_no_curve(curves):
    assert mean_curve(curves) == []
