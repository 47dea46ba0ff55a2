"""Signals between steps, in a held step, and twice."""

from __future__ import annotations

import signal

import pytest

from opo_cli.interrupt import Interrupted, Interrupts


def test_a_signal_before_hold_abandons_the_step():
    reached = []
    with Interrupts().installed() as interrupts, pytest.raises(Interrupted) as caught:
        with interrupts.step():
            signal.raise_signal(signal.SIGINT)
            reached.append("update")
    assert caught.value.number == signal.SIGINT
    assert not reached


def test_a_signal_after_hold_waits_for_the_end_of_the_step():
    reached = []
    with Interrupts().installed() as interrupts, pytest.raises(Interrupted) as caught:
        with interrupts.step():
            interrupts.hold()
            signal.raise_signal(signal.SIGTERM)
            reached.append("update")
    assert caught.value.number == signal.SIGTERM
    assert reached == ["update"]


def test_a_second_signal_does_not_wait():
    reached = []
    with Interrupts().installed() as interrupts, pytest.raises(Interrupted):
        with interrupts.step():
            interrupts.hold()
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            reached.append("update")
    assert not reached


def test_the_handlers_of_before_come_back():
    before = signal.getsignal(signal.SIGINT)
    with Interrupts().installed():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before
