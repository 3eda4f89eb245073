"""Threads that turn until they are told to stop."""

import logging
import random
import threading
import time
from collections.abc import Callable

from leasehold.errors import Unavailable
from leasehold.service.bell import Bell, News
from leasehold.service.pulse import pulse
from leasehold.store.database import DutyLost

log = logging.getLogger(__name__)

_AFTER_A_FAULT_S = 1.0
_REST_PER_WORK = 5
_STALLED_S = 1800
_DICE = random.SystemRandom()


class Loop:
    """Calls `turn` over and over in a thread of its own, until `stop`.

    `turn` returns how many seconds it can wait for its next turn. `wake` ends the wait, or, for a loop with a `bell`,
    its ringing for `news`; but for `least_pause_s`, and a rest that keeps the loop's share of the processor small. What
    `turn` raises is a fault of ours or of the database: it is logged with its traceback, and the loop mends itself by
    turning again after a pause, since every turn begins from what is stored. With DutyLost it ends by itself. `at_end`
    is called once, in the thread, after the last turn.
    """

    def __init__(
        self,
        name: str,
        turn: Callable[[], float],
        *,
        bell: Bell | None = None,
        news: News = News.ALL,
        least_pause_s: float = 0,
        at_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self._turn = turn
        self._bell = bell
        self._news = news
        self._at_end = at_end
        self._least_pause_s = least_pause_s
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._turning_since: float | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begins to turn."""
        self._thread.start()
        pulse.watch(self, self._trouble)

    def wake(self) -> None:
        """Ends the present wait, or the next one."""
        if self._bell is not None:
            self._bell.ring(self._news)
        self._woken.set()

    def stop(self) -> None:
        """Lets the turn that runs be the last; does not wait for its end."""
        self._stopping.set()
        self.wake()

    def join(self, deadline: float) -> bool:
        """Waits for the end until `time.monotonic()` is `deadline`; True if it came in time."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def rest(self, seconds: float) -> None:
        """A pause within a turn, which ends when it is told to stop."""
        self._stopping.wait(seconds)

    @property
    def stopping(self) -> bool:
        """True once it was told to stop."""
        return self._stopping.is_set()

    def _trouble(self) -> str | None:
        """What is wrong with it while it should turn."""
        since = self._turning_since
        if self.stopping:
            return None
        if not self._thread.is_alive():
            return f"The loop {self.name} has ended."
        if since is not None and time.monotonic() - since > _STALLED_S:
            return f"The loop {self.name} has not come round for {time.monotonic() - since:.0f} s."
        return None

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._woken.clear()
            heard = 0 if self._bell is None else self._bell.heard(self._news)
            began = self._turning_since = time.monotonic()
            try:
                pause_s = self._turn()
            except DutyLost as lost:
                log.warning("The loop %s ends: another process goes on. %s.", self.name, lost)
                self._stopping.set()
                break
            except Unavailable as error:
                log.warning("The loop %s goes on in %.0f s: %s", self.name, _AFTER_A_FAULT_S, error)
                self._stopping.wait(_AFTER_A_FAULT_S)
                continue
            except Exception:
                log.exception("The loop %s failed, and goes on in %.0f s.", self.name, _AFTER_A_FAULT_S)
                self._stopping.wait(_AFTER_A_FAULT_S)
                continue
            self._turning_since = None
            if self._least_pause_s:
                self._stopping.wait(max(self._least_pause_s, (time.monotonic() - began) * _REST_PER_WORK))
            if self._stopping.is_set():
                break
            if self._bell is not None:
                self._bell.wait(heard, pause_s, self._news)
            else:
                self._woken.wait(pause_s)
        self._at_end()
        pulse.unwatch(self)


def backoff_s(failures: int, first_s: float, most_s: float) -> float:
    """Seconds to wait after so many failures in a row (from 1): doubled each time, and at random the upper half of it,
    so that those who failed together do not come back together."""
    whole_s: float = min(most_s, first_s * 2 ** min(failures - 1, 30))
    return whole_s * _DICE.uniform(0.5, 1)
