"""Signals between steps, in a held step, and twice."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from opo_cli.interrupt import Interrupted, Interrupts, abandonable, shared


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


# --- of several ranks -------------------------------------------------------------------------


def test_with_other_ranks_a_signal_waits_until_work_can_be_abandoned():
    reached = []
    with Interrupts().installed(), shared(), pytest.raises(Interrupted):
        signal.raise_signal(signal.SIGTERM)
        reached.append("what ranks do together")
        with abandonable():
            reached.append("work of one")
    assert reached == ["what ranks do together"]


def test_with_other_ranks_a_signal_ends_the_work_of_one_at_once():
    reached = []
    with Interrupts().installed(), shared(), pytest.raises(Interrupted) as caught:
        with abandonable():
            signal.raise_signal(signal.SIGTERM)
            reached.append("work of one")
    assert not reached
    assert not caught.value.is_urgent


def test_with_other_ranks_a_held_step_comes_to_its_end():
    reached = []
    with Interrupts().installed() as interrupts, shared():
        with interrupts.step():
            interrupts.hold()
            signal.raise_signal(signal.SIGTERM)
            with abandonable():
                reached.append("the log")
        with pytest.raises(Interrupted), abandonable():
            reached.append("the next step")
    assert reached == ["the log"]


def test_what_torchrun_hands_on_is_no_second_signal():
    with Interrupts().installed() as interrupts, shared(), interrupts.step():
        interrupts.hold()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert interrupts.first == signal.SIGINT


def test_with_other_ranks_a_step_beyond_its_grace_saves_nothing():
    with Interrupts().installed() as interrupts, shared(), pytest.raises(Interrupted) as caught:
        with interrupts.step():
            interrupts.hold(0.05)
            signal.raise_signal(signal.SIGTERM)
            time.sleep(5)
    assert caught.value.is_urgent


def test_with_other_ranks_a_signal_that_is_not_heard_ends_the_process():
    """Python runs no handler within one long call."""
    script = (
        "import hashlib, os, signal, threading\n"
        "from opo_cli import interrupt\n"
        "interrupt.DEAF_SECONDS = 0.5\n"
        "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "with interrupt.Interrupts().installed(), interrupt.shared():\n"
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)\n"
    )
    started = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", script], timeout=120)
    assert ended.returncode == 128 + signal.SIGTERM
    assert time.monotonic() - started < 60
