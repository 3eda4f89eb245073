"""Loops that turn, mend themselves and end."""

import logging
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold.service.bell import Bell
from leasehold.service.pulse import pulse
from leasehold.worker.loops import Loop, backoff_s

PATIENCE_S = 20
LONG_S = 600


class Turns:
    """A turn that counts, and raises when it is told to."""

    def __init__(self, *faults: int) -> None:
        self.count = 0
        self._faults = faults
        self._turned = threading.Condition()

    def __call__(self) -> float:
        with self._turned:
            self.count += 1
            self._turned.notify_all()
        if self.count in self._faults:
            raise RuntimeError("this turn was told to fail")
        return LONG_S

    def wait_for(self, count: int) -> None:
        with self._turned:
            assert self._turned.wait_for(lambda: self.count >= count, PATIENCE_S)


def end(loop: Loop) -> None:
    loop.stop()
    assert loop.join(time.monotonic() + PATIENCE_S)


def test_a_loop_turns_again_when_it_is_woken() -> None:
    turns = Turns()
    loop = Loop("test", turns)
    loop.start()
    turns.wait_for(1)
    loop.wake()
    turns.wait_for(2)
    end(loop)


def test_a_loop_turns_again_when_its_bell_rings() -> None:
    turns, bell = Turns(), Bell()
    loop = Loop("test", turns, bell=bell)
    loop.start()
    turns.wait_for(1)
    bell.ring()
    turns.wait_for(2)
    end(loop)


def test_a_loop_that_failed_says_so_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    turns = Turns(1)
    loop = Loop("test", turns)
    with caplog.at_level(logging.ERROR):
        loop.start()
        turns.wait_for(2)
    end(loop)
    assert "The loop test failed" in caplog.text
    assert "this turn was told to fail" in caplog.text


@pytest.mark.parametrize("bell", [None, Bell()])
def test_a_loop_that_waits_ends_when_it_is_told_to(bell: Bell | None) -> None:
    turns = Turns()
    loop = Loop("test", turns, bell=bell)
    loop.start()
    turns.wait_for(1)
    end(loop)


def test_a_loop_says_good_bye() -> None:
    said: list[str] = []
    loop = Loop("test", Turns(), at_end=lambda: said.append("good bye"))
    loop.start()
    end(loop)
    assert said == ["good bye"]


@given(st.integers(1, 10_000))
def test_a_back_off_is_within_its_bounds(failures: int) -> None:
    assert 0.1 <= backoff_s(failures, 0.2, 5) <= 5


@given(st.integers(1, 4))
def test_a_back_off_doubles(failures: int) -> None:
    """Its lower bound is the upper bound of the one before it."""
    whole_s = 0.2 * 2 ** (failures - 1)
    assert whole_s / 2 <= backoff_s(failures, 0.2, 5) <= whole_s


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_loop_that_ends_by_itself_is_told_and_one_that_was_ended_is_not() -> None:
    def dies() -> float:
        raise SystemExit

    dead, ended = Loop("doomed", dies), Loop("well", Turns())
    dead.start()
    ended.start()
    assert dead.join(time.monotonic() + PATIENCE_S)
    assert pulse.troubles() == ["The loop doomed has ended."]
    dead.stop()
    end(ended)
    assert pulse.troubles() == []


def test_a_turn_that_never_ends_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leasehold.worker.loops._STALLED_S", 0)
    entered, leave = threading.Event(), threading.Event()

    def stuck() -> float:
        entered.set()
        leave.wait(PATIENCE_S)
        return LONG_S

    loop = Loop("stuck", stuck)
    loop.start()
    assert entered.wait(PATIENCE_S)
    (trouble,) = pulse.troubles()
    assert trouble.startswith("The loop stuck has not come round")
    leave.set()
    end(loop)
