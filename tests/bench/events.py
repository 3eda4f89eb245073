"""Lease events from the wire into the history, beside the least that keeping them durably costs."""

import json
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from netaddr import IPNetwork
from pydantic_core import from_json
from sqlalchemy import insert

from bench.figures import Figure
from lab.postgres import postgres
from leasehold.config import Settings
from leasehold.domain.addresses import Mac
from leasehold.domain.subnets import address_at
from leasehold.domain.values import Subnet, SubnetSpec
from leasehold.service import hosts, ingest, networks, subnets
from leasehold.service.context import Context, open_context
from leasehold.store.tables import addresses, server_subnets

_TURNS = 5
_BATCH = 1_000
_BATCHES_A_TURN = 20
_CLIENTS = 50_000
_FIRST_MAC = 0x020000000000
_STRIDE = 7_919  # a prime: clients come in no order of their addresses
_ASKED_PER_S = 30_000


def ingestion() -> list[Figure]:
    """Batches of 1,000 renewals of 50,000 clients, in an order that is none of their addresses."""
    figures = []
    for name, opened in (("SQLite", _sqlite), ("PostgreSQL", _postgresql)):
        with opened() as ctx, tempfile.TemporaryDirectory() as directory:
            site = _Site(ctx)
            floor = _Floor(Path(directory) / "floor.sqlite")
            for _ in range(_CLIENTS // _BATCH):
                site.take(site.batch())
            ours, theirs = [], []
            for _ in range(_TURNS):
                batches = [site.batch() for _ in range(_BATCHES_A_TURN)]
                ours.append(_rate(site.take, batches))
                theirs.append(_rate(floor.take, batches))
            figures.append(
                Figure(
                    name=f"lease events taken in, {name}",
                    how=f"reports of {_BATCH:,} lease events, random among {_CLIENTS:,} reserved addresses, from the "
                    "lines to the commit, with lease states and promises looked up; theirs: the same lines, "
                    f"one row each, into a bare SQLite table, equally synced. Asked for are {_ASKED_PER_S:,}/s.",
                    asked="≥ 0.1",
                    is_reached=lambda ratio: ratio >= 0.1,
                    ours=ours,
                    theirs=theirs,
                    unit="/s",
                )
            )
    return figures


def _rate(take: Callable[[bytes], None], batches: list[bytes]) -> float:
    began = time.perf_counter()
    for batch in batches:
        take(batch)
    return len(batches) * _BATCH / (time.perf_counter() - began)


class _Site:
    """A subnet with all clients' addresses held, one server, and its hook."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._boot = str(uuid.uuid4())
        self._seq = 0
        networks.put(ctx, "blue", ipam_enabled=True, ipam_servers=1)
        hosts.put(ctx, "host-a", control_url="http://192.0.2.2:8000/", username="u", password="p", networks={})
        self._subnet: Subnet = subnets.create(ctx, SubnetSpec(network="blue", cidr=IPNetwork("10.0.0.0/8")))
        with ctx.db.write() as connection:
            connection.execute(
                insert(addresses),
                [
                    {
                        "subnet_id": self._subnet.id,
                        "offset": number + 1,
                        "state": "held",
                        "mac": _FIRST_MAC + number,
                        "vnic_id": f"vnic-{number}",
                        "revision": number + 1,
                    }
                    for number in range(_CLIENTS)
                ],
            )
            connection.execute(insert(server_subnets).values(host_id="host-a", subnet_id=self._subnet.id))

    def batch(self) -> bytes:
        """The next lines, as a hook sends them."""
        lines = []
        for _ in range(_BATCH):
            self._seq += 1
            number = self._seq * _STRIDE % _CLIENTS
            now_ms = time.time_ns() // 1_000_000
            line = {
                "seq": self._seq,
                "type": "lease.renewed",
                "at": now_ms,
                "subnet": self._subnet.id,
                "ip": str(address_at(self._subnet, number + 1)),
                "mac": str(Mac(_FIRST_MAC + number)),
                "valid_lft": 3600,
                "cltt": now_ms // 1000,
            }
            lines.append(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        return b"".join(lines)

    def take(self, batch: bytes) -> None:
        """As the API does."""
        ingest.ingest(self._ctx, "host-a", self._boot, 1, [from_json(line) for line in batch.splitlines()])


class _Floor:
    """A table of lines."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute("CREATE TABLE lines (position INTEGER PRIMARY KEY, line TEXT)")

    def take(self, batch: bytes) -> None:
        """One row a line."""
        self._connection.execute("BEGIN IMMEDIATE")
        rows = [(line.decode(),) for line in batch.splitlines()]
        self._connection.executemany("INSERT INTO lines (line) VALUES (?)", rows)
        self._connection.execute("COMMIT")


@contextmanager
def _sqlite() -> Iterator[Context]:
    with tempfile.TemporaryDirectory() as directory:
        yield from _opened(f"sqlite:///{directory}/leasehold.sqlite")


@contextmanager
def _postgresql() -> Iterator[Context]:
    with postgres() as server:
        yield from _opened(server.fresh_database())


def _opened(url: str) -> Iterator[Context]:
    ctx = open_context(Settings(database_url=url))
    yield ctx
    ctx.db.dispose()
