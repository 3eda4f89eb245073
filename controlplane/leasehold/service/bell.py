"""Wakes whoever waits for a commit: in this process, and, over PostgreSQL, in all others on the same database."""

import logging
import threading
import uuid
from collections.abc import Callable
from dataclasses import astuple, dataclass
from enum import Flag, auto

import psycopg
from sqlalchemy.exc import DBAPIError

from leasehold.store.database import Database
from leasehold.store.notices import Notices

log = logging.getLogger(__name__)

_POLL_S = 1.0
_AFTER_A_FAULT_S = 0.5
_MOST_FACTS = 30  # a NOTIFY has 8,000 octets; who misses a fact finds it in the database


class News(Flag):
    """What changed: who waits for one kind leaves the processor to others when it is another."""

    PLAN = auto()
    """What hosts, networks and subnets there are, and who is to serve what."""
    LOG = auto()
    """Reservations came or went."""
    CONFIRMED = auto()
    """A server has them, or is known not to answer."""
    EVENTS = auto()
    """There is something to tell webhooks."""
    FACTS = auto()
    """A server has reservations, which is not yet stored: see Fact."""
    ALL = PLAN | LOG | CONFIRMED | EVENTS


@dataclass(frozen=True)
class Fact:
    """A host has a subnet's reservations at this revision on disk: true from when it is told, whether stored or not."""

    host: str
    subnet: int
    epoch: str
    revision: int


class Bell:
    """A counter that threads wait on. Ring it after the commit: who wakes then sees what was committed."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._counts = dict.fromkeys(News, 0)
        self._facts: dict[tuple[str, int, str], tuple[int, int]] = {}

    @property
    def count(self) -> int:
        """How often it rang, whatever for."""
        return self.heard(News.ALL)

    def heard(self, of: News) -> int:
        """How much news of these kinds there was. Ask it before looking at the database, so that no ring between look
        and wait is lost."""
        with self._condition:
            return self._sum(of)

    def ring(self, of: News = News.ALL) -> None:
        """Wakes all who wait for news of these kinds."""
        with self._condition:
            for each in of:
                self._counts[each] += 1
            self._condition.notify_all()

    def wait(self, seen: int, timeout_s: float, of: News = News.ALL) -> int:
        """Returns what `heard` says as soon as it differs from `seen`, else after `timeout_s` seconds."""
        with self._condition:
            self._condition.wait_for(lambda: self._sum(of) != seen, timeout_s)
            return self._sum(of)

    def _sum(self, of: News) -> int:
        return sum(self._counts[each] for each in of)

    def tell(self, *facts: Fact) -> None:
        """Wakes all who wait for facts, with these."""
        with self._condition:
            self._counts[News.FACTS] += 1
            for fact in facts:
                self._facts[fact.host, fact.subnet, fact.epoch] = self._counts[News.FACTS], fact.revision
            self._condition.notify_all()

    def told(self, host: str, subnet: int, epoch: str, since: int) -> int | None:
        """The revision that was told last of the host's subnet, if that was after `heard(News.FACTS)` said `since`.
        What was told before may be true no longer, and is in the database."""
        with self._condition:
            at, revision = self._facts.get((host, subnet, epoch), (0, 0))
            return revision if at > since else None

    def start(self) -> None:
        """From now on it also rings when a bell of another process does."""

    def stop(self) -> None:
        """No other process's rings come in or go out any more."""


class SharedBell(Bell):
    """A bell that rings in all processes on a PostgreSQL database, by NOTIFY.

    That is only a hint, which a broken connection loses; so each bell that was started also rings by itself every
    second. Rings that come close together go out as one. One that was not started, as in a command that ends soon,
    tells others before `ring` returns.
    """

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database
        self._name = str(uuid.uuid4())
        self._untold = News(0)
        self._untold_facts: list[Fact] = []
        self._is_untold = threading.Condition()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def ring(self, of: News = News.ALL) -> None:
        """Wakes all who wait for news of these kinds, here and elsewhere."""
        super().ring(of)
        if self._threads:
            with self._is_untold:
                self._untold |= of
                self._is_untold.notify()
            return
        try:
            notices = Notices(self._database.engine)
            notices.tell(self._name, of.value, [])
            notices.close()
        except (psycopg.Error, DBAPIError) as error:
            log.info("Other processes hear of a change only when they look next: %s", error)

    def tell(self, *facts: Fact) -> None:
        """Wakes all who wait for facts, here and elsewhere."""
        super().tell(*facts)
        with self._is_untold:
            self._untold_facts += facts
            self._is_untold.notify()

    def start(self) -> None:
        """See Bell."""
        self._stopping.clear()
        self._threads = [
            threading.Thread(target=self._repeat, args=(each,), name=name, daemon=True)
            for name, each in (("bell: tell", self._tell), ("bell: hear", self._hear))
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """See Bell. What was rung before has gone out."""
        self._stopping.set()
        threads, self._threads = self._threads, []
        with self._is_untold:
            self._is_untold.notify()
        super().ring()
        for thread in threads:
            thread.join(2 * _POLL_S)

    def _repeat(self, use: "Use") -> None:
        """Uses a connection until it breaks, and then another."""
        while not self._stopping.is_set():
            try:
                notices = Notices(self._database.engine)
                try:
                    use(notices)
                finally:
                    notices.close()
            except (psycopg.Error, DBAPIError) as error:
                log.warning("Changes by other processes are heard of by looking only, until this is over: %s", error)
                super().ring()
                self._stopping.wait(_AFTER_A_FAULT_S)

    def _tell(self, notices: Notices) -> None:
        while True:
            with self._is_untold:
                self._is_untold.wait_for(lambda: self._untold or self._untold_facts or self._stopping.is_set())
                told, self._untold = self._untold, News(0)
                facts, self._untold_facts = self._untold_facts[:_MOST_FACTS], []
            if told or facts:
                notices.tell(self._name, told.value, [astuple(fact) for fact in facts])
            if self._stopping.is_set():
                return

    def _hear(self, notices: Notices) -> None:
        notices.listen()
        while not self._stopping.is_set():
            told = list(notices.hear(_POLL_S))
            of = News(0) if told else News.ALL
            for sender, what, facts in told:
                if sender != self._name:
                    of |= News(what)
                    super().tell(*(Fact(*fact) for fact in facts))
            if of:
                super().ring(of)


Use = Callable[[Notices], None]
