"""Wakes whoever waits for a commit: in this process, and, over PostgreSQL, in all others on the same database."""

import json
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from enum import Flag, auto

import psycopg
from sqlalchemy.exc import DBAPIError

from leasehold.store.database import Database
from leasehold.store.notices import Notices

log = logging.getLogger(__name__)

_POLL_S = 1.0
_CALM_S = 0.05
_AFTER_A_FAULT_S = 0.5
_MOST_OCTETS = 7_000  # a NOTIFY has less than 8,000; who misses a message finds what it says in the database


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


@dataclass(frozen=True)
class Due:
    """A host that is at revision `confirmed` of a subnet, as far as is stored, is to get this reservation, which is the
    entry `revision` of the subnet's log. Told so, whoever pushes to the host need not look for it."""

    host: str
    confirmed: int | None
    subnet: int
    epoch: str
    revision: int
    mac: str
    ip: str


Take = Callable[[Sequence[Due]], None]


class Bell:
    """A counter that threads wait on. Ring it after the commit: who wakes then sees what was committed."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._counts = dict.fromkeys(News, 0)
        self._facts: dict[tuple[str, int, str], tuple[int, int]] = {}
        self._take_due: Take | None = None

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

    def due(self, *dues: Due) -> None:
        """Hands these to whoever pushes. After the commit, as `ring`, which it takes the place of."""
        take = self._take_due
        if take is not None and dues:
            take(dues)

    def hand_due_to(self, take: Take | None) -> None:
        """Who takes what `due` hands over; it is called in threads of others, and does not wait for anything."""
        self._take_due = take

    def start(self) -> None:
        """From now on it also rings when a bell of another process does."""

    def stop(self) -> None:
        """No other process's rings come in or go out any more."""


class SharedBell(Bell):
    """A bell that rings in all processes on a PostgreSQL database, by NOTIFY.

    That is only a hint, which a broken connection loses; so each bell that was started also rings by itself every
    second. A NOTIFY takes the processor from all who hear it, and so each kind of news has a channel, which is heard
    where somebody asked for it. Dues and facts go out at once; rings a moment later, those of that moment as one. A
    bell that was not started, as in a command that ends soon, tells others before `ring` returns.
    """

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database
        self._name = str(uuid.uuid4())
        self._is_untold = threading.Condition()
        self._untold: dict[str, deque[str]] = {_DUE: deque(), _channel(News.FACTS): deque()}
        self._untold_news = News(0)
        self._news_at = 0.0
        self._asked_for = News.PLAN
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def ring(self, of: News = News.ALL) -> None:
        """Wakes all who wait for news of these kinds, here and elsewhere."""
        super().ring(of)
        if self._threads:
            with self._is_untold:
                if not self._untold_news:
                    self._news_at = time.monotonic() + _CALM_S
                    self._is_untold.notify()
                self._untold_news |= of
            return
        try:
            notices = Notices(self._database.engine)
            notices.tell({_channel(each): self._payload([]) for each in of})
            notices.close()
        except (psycopg.Error, DBAPIError) as error:
            log.info("Other processes hear of a change only when they look next: %s", error)

    def tell(self, *facts: Fact) -> None:
        """Wakes all who wait for facts, with these, here and elsewhere."""
        super().tell(*facts)
        self._send(_channel(News.FACTS), facts)

    def heard(self, of: News) -> int:
        """See Bell. From now on, or a moment later, what others ring of these kinds is heard too."""
        self._asked_for |= of
        return super().heard(of)

    def due(self, *dues: Due) -> None:
        """See Bell; who pushes may be in another process. A bell that was not started rings instead."""
        super().due(*dues)
        if self._threads:
            self._send(_DUE, dues)
        elif dues:
            self.ring(News.LOG)

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

    def _send(self, channel: str, messages: Sequence[Fact | Due]) -> None:
        if messages and self._threads:
            with self._is_untold:
                self._untold[channel] += [json.dumps(astuple(each)) for each in messages]
                self._is_untold.notify()

    def _payload(self, messages: Sequence[str]) -> str:
        return f'["{self._name}",[{",".join(messages)}]]'

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
        while (following := self._next()) is not None:
            notices.tell({channel: self._payload(messages) for channel, messages in following.items()})

    def _next(self) -> dict[str, list[str]] | None:
        """What goes out next, as much as a NOTIFY has room for, by channel; None at the end."""
        with self._is_untold:
            while True:
                for channel, untold in self._untold.items():
                    messages: list[str] = []
                    room = _MOST_OCTETS
                    while untold and (room := room - len(untold[0]) - 1) >= 0:
                        messages.append(untold.popleft())
                    if messages:
                        return {channel: messages}
                is_ending = self._stopping.is_set()
                wait_s = self._news_at - time.monotonic() if self._untold_news else None
                if wait_s is not None and (wait_s <= 0 or is_ending):
                    news, self._untold_news = self._untold_news, News(0)
                    return {_channel(each): [] for each in news}
                if is_ending:
                    return None
                self._is_untold.wait(wait_s)

    def _hear(self, notices: Notices) -> None:
        while not self._stopping.is_set():
            kinds = {_channel(each): each for each in self._asked_for}
            notices.listen([*kinds, *([_DUE] if self._take_due is not None else [])])
            told = list(notices.hear(_POLL_S))
            for channel, payload in told:
                sender, messages = json.loads(payload)
                if sender == self._name:
                    continue
                if channel == _DUE:
                    super().due(*(Due(*each) for each in messages))
                elif messages:
                    super().tell(*(Fact(*each) for each in messages))
                else:
                    super().ring(kinds[channel])
            if not told:
                super().ring()


def _channel(kind: News) -> str:
    return f"leasehold_{str(kind.name).lower()}"


_DUE = "leasehold_due"
Use = Callable[[Notices], None]
