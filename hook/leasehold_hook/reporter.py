"""The reporter: a background thread that brings lease events from the queue to the spool and the control plane."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from leasehold_hook.border import Border, Level
from leasehold_hook.parameters import InvalidParameter, Parameters
from leasehold_hook.spool import Spool

if TYPE_CHECKING:
    from leasehold_hook.sender import Sender

MAX_BATCH = 1_000

_TURN_S = 0.05
_STATISTICS_S = 1.0
_LEAST_BACK_OFF_S = 0.2
_MOST_BACK_OFF_S = 30.0
_RESTART_S = 1.0
# Of the queue, between two batches that are sent: more than any Kea can fill in that time.
_MAX_DRAINS = 64
_UNAUTHORIZED = 401
# Answers of 4xx that say nothing against the batch itself.
_NOT_THE_BATCH = (_UNAUTHORIZED, 403, 404, 408, 429)


@dataclass(frozen=True)
class Figures:
    """How reporting goes; `spooled` counts lines."""

    spooled: int = 0
    spooled_octets: int = 0
    sent: int = 0
    lost: int = 0
    last_sequence: int = 0
    reporting: bool = False
    last_error: str | None = None


class Reporter:
    """Reports the events of one process. `start` once; `configure` as often as Kea loads the library anew.

    `figures` may be read by any thread; it is renewed at every turn.
    """

    def __init__(self, spool: Spool, border: Border, parameters: Parameters, reservations: Callable[[], int]) -> None:
        """`reservations` gives the number of all that are in force, for the statistics."""
        self._spool = spool
        self._border = border
        self._parameters = parameters
        self._reservations = reservations
        # What batches are posted with, made of the parameters beside it.
        self._sender: tuple[Parameters, Sender] | None = None
        self._token = ""
        # Around spool and drains. Never held during network I/O, since Kea's main thread takes it at unload.
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._rejections_due_s = 0.0
        self._statistics_due_s = 0.0
        self._post_due_s = 0.0
        self._failures = 0
        self.figures = Figures()
        self._thread: threading.Thread | None = None

    def configure(self, parameters: Parameters) -> None:
        """Go on with these parameters, and try to report at once."""
        with self._lock:
            self._parameters = parameters
            self._spool.limit = parameters.spool_limit
            self._post_due_s = 0.0

    def start(self) -> None:
        """Start the thread; harmless if it runs."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="leasehold-reporter", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread, and bring everything to disk."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def flush(self) -> None:
        """Bring everything that waits to disk."""
        with self._lock:
            self._drain_events()
            self._drain_rejections()
            self._spool.close()
            self._renew_figures()

    def _run(self) -> None:
        self._border.lower_priority()
        try:
            while not self._stop.is_set():
                if not self._turn():
                    self._stop.wait(_TURN_S)
        finally:
            # After a defect, which threading.excepthook logs: the next thread goes on, and events are not lost.
            if not self._stop.wait(_RESTART_S):
                self._thread = None
                self.start()

    def _turn(self) -> bool:
        """Everything that is due; whether more waits to be sent."""
        now_s = time.monotonic()
        with self._lock:
            parameters = self._parameters
            self._drain_events()
            if now_s >= self._rejections_due_s:
                self._drain_rejections()
                self._rejections_due_s = now_s + parameters.rejection_window
            self._spool.check_one()
            due = now_s >= self._statistics_due_s
            if due:
                self._spool.sync()
            self._renew_figures()
        if due:
            self._statistics_due_s = now_s + _STATISTICS_S
            self._set_statistics()
        if parameters.report_url is None or now_s < self._post_due_s:
            return False
        return self._post(parameters)

    def _drain_events(self) -> None:
        for _ in range(_MAX_DRAINS):
            lines, count = self._border.drain_events(self._spool.last_sequence + 1)
            if not count:
                return
            self._spool.append(lines, count)

    def _drain_rejections(self) -> None:
        for _ in range(_MAX_DRAINS):
            lines, count = self._border.drain_rejections(self._spool.last_sequence + 1)
            if not count:
                return
            self._spool.append(lines, count)

    def _post(self, parameters: Parameters) -> bool:
        """Send the oldest batch; whether it was taken."""
        with self._lock:
            batch = self._spool.batch(MAX_BATCH)
        if batch is None:
            return False
        from leasehold_hook.sender import Backlog, Undelivered  # heavy, and not needed where nothing is reported

        try:
            sender = self._sender_for(parameters)
            figures = self.figures
            backlog = Backlog(figures.spooled, figures.spooled_octets, figures.lost)
            acknowledged = sender.post(batch, self._token, backlog)
        except Undelivered as error:
            if error.status == _UNAUTHORIZED:
                self._sender = None  # the token may be a new one by now
            bad_batch = error.status is not None and 400 <= error.status < 500 and error.status not in _NOT_THE_BATCH
            self._failed(Level.ERROR if bad_batch else Level.WARN, str(error))
            return False
        except InvalidParameter as error:
            self._failed(Level.ERROR, str(error))
            return False
        with self._lock:
            self._spool.acknowledge(batch, acknowledged)
            self._renew_figures()
            self.figures = replace(self.figures, last_error=None)
        if self._failures:
            self._border.log(Level.INFO, "REPORTING", f"events reach {parameters.report_url} again")
        self._failures = 0
        return True

    def _sender_for(self, parameters: Parameters) -> "Sender":
        from leasehold_hook.sender import Sender  # as in _post

        if self._sender is not None and self._sender[0] is parameters:
            return self._sender[1]
        if self._sender is not None:
            self._sender[1].close()
            self._sender = None
        url = parameters.report_url or ""
        self._token = parameters.read_token()
        tls = parameters.tls_context() if url.startswith("https:") else None
        sender = Sender(url, parameters.host_id, tls)
        self._sender = (parameters, sender)
        return sender

    def _failed(self, level: Level, text: str) -> None:
        """Log it, unless it is what was logged last, and wait, the longer the more often it happened."""
        if text != self.figures.last_error:
            self._border.log(level, "NOT_REPORTED", f"{text}; events are kept in the spool, and sent again")
        with self._lock:
            self.figures = replace(self.figures, last_error=text)
        pause_s = min(_MOST_BACK_OFF_S, _LEAST_BACK_OFF_S * 2 ** min(self._failures, 10))
        # Jitter: many hosts lose the control plane at the same moment, and must not all come back at the same moment.
        self._post_due_s = time.monotonic() + pause_s * random.SystemRandom().uniform(0.5, 1.0)
        self._failures += 1

    def _renew_figures(self) -> None:
        self.figures = replace(
            self.figures,
            spooled=self._spool.count,
            spooled_octets=self._spool.octets,
            sent=self._spool.sent,
            lost=self._border.counters().lost + self._spool.lost,
            last_sequence=self._spool.last_sequence,
            reporting=self._parameters.report_url is not None,
        )

    def _set_statistics(self) -> None:
        counters = self._border.counters()
        for name, value in {
            "events-queued": counters.queued,
            "events-sent": self.figures.sent,
            "events-lost": self.figures.lost,
            "spool-octets": self.figures.spooled_octets,
            "rejected-unknown": counters.rejected_unknown,
            "rejected-withdrawn": counters.rejected_withdrawn,
            "rejected-doubt": counters.rejected_doubt,
            "reservations": self._reservations(),
        }.items():
            self._border.set_statistic(name, value)
