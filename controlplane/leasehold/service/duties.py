"""Which duties this process has, of those that one process at a time has for all: to manage, to push to a host, to
deliver to a webhook. They are shared out evenly among the processes that would have them."""

import logging
import math
import os
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import insert, select, update

from leasehold.service.context import Context, from_ms
from leasehold.store.duties import Claims, claims
from leasehold.store.tables import duties

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The process that took a duty over last, in which term, and when."""

    duty: str
    machine: str
    pid: int
    term: int
    since: datetime


def holders(ctx: Context) -> list[Holder]:
    """All duties that anybody ever had, by name."""
    with ctx.db.read() as connection:
        rows = connection.execute(select(duties).order_by(duties.c.name)).all()
    return [
        Holder(
            duty=row.name,
            machine=row.holder.rpartition(":")[0],
            pid=int(row.holder.rpartition(":")[2]),
            term=row.term,
            since=from_ms(row.since_ms),
        )
        for row in rows
    ]


class Duties:
    """Used by one thread; others may read `held`. A process that stands still loses all after `duty_timeout_s`."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._claims: Claims | None = None
        self._held: dict[str, dict[str, Context]] = {}

    def open(self) -> None:
        """Raises DatabaseUnavailable, on SQLite also when another process has the duties."""
        if self._claims is None:
            self._claims = claims(self._ctx.db, self._ctx.settings.duty_timeout_s)

    def held(self, kind: str) -> Mapping[str, Context]:
        """What this process has of a kind: by name the context to do it with, whose writes raise DutyLost once another
        has taken it over."""
        return self._held.get(kind, {})

    def share(self, wanted: Mapping[str, Collection[str]]) -> bool:
        """Takes this process's part of the names of each kind, and gives back what is more than that, or not wanted any
        more. Returns whether `held` changed. Whatever it raises, all is lost then, and the next call begins anew."""
        try:
            self.open()
            if self._claims is None:
                raise RuntimeError("the duties were opened and are not open")
            before = dict(self._held)
            peers = max(1, self._claims.peers())
            for kind, names in wanted.items():
                self._held[kind] = self._share(self._claims, kind, set(names), math.ceil(len(names) / peers))
        except BaseException:
            self.close()
            raise
        return self._held != before

    def close(self) -> None:
        """Gives all back."""
        self._held = {}
        own, self._claims = self._claims, None
        if own is not None:
            own.close()

    def _share(self, own: Claims, kind: str, names: set[str], most: int) -> dict[str, Context]:
        have = self._held.get(kind, {})
        kept = dict(sorted((name, each) for name, each in have.items() if name in names)[:most])
        own.give_back([_duty(kind, name) for name in have.keys() - kept.keys()])
        took: list[str] = []
        for name in sorted(names - have.keys()):
            if len(kept) + len(took) >= most:
                break
            if own.take([_duty(kind, name)]):
                took.append(name)
        return kept | (self._begin(kind, took) if took else {})

    def _begin(self, kind: str, names: list[str]) -> dict[str, Context]:
        """Begins the next term of each. Who had it before has committed, or writes nothing more."""
        holder = f"{socket.gethostname()}:{os.getpid()}"
        terms: dict[str, int] = {}
        with self._ctx.db.write() as connection:
            for name in names:
                duty = _duty(kind, name)
                values = {"holder": holder, "since_ms": self._ctx.now_ms()}
                term = connection.execute(
                    update(duties)
                    .where(duties.c.name == duty)
                    .values(term=duties.c.term + 1, **values)
                    .returning(duties.c.term)
                ).scalar_one_or_none()
                if term is None:
                    term = 1
                    connection.execute(insert(duties).values(name=duty, term=term, **values))
                terms[name] = term
        log.info("Took over.", extra={"facts": {"kind": kind, "terms": terms}})
        return {name: self._ctx.fenced(_duty(kind, name), term) for name, term in terms.items()}


def _duty(kind: str, name: str) -> str:
    return f"{kind} {name}"
