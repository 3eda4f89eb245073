"""Unique under fire: many processes change vNICs at random while one is killed every second (I2, I7)."""

import json
import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from lab.postgres import Postgres
from leasehold.config import Settings
from leasehold.domain.addresses import Mac, MacRange
from leasehold.service import mac_pools, macs, scopes
from leasehold.service.context import Context, open_context, utc_now
from leasehold.store.tables import free_extents, mac_ranges, spaces
from leasehold.store.tables import mac_pools as pools_table
from leasehold.store.tables import macs as macs_table
from leasehold.store.tables import vnics as vnics_table
from service import fire

PROCESSES = 16
PATIENCE_S = 30
KINDS = {"allocate", "name", "free", "move", "import", "bulk", "fight", "resize", "sweep"}


@pytest.mark.parametrize("seconds", [8, pytest.param(60, marks=pytest.mark.long)])
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_no_mac_is_twice_and_none_is_lost(
    database: str, seconds: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server: Postgres | None = request.getfixturevalue("postgres_server") if database == "postgresql" else None
    url = f"sqlite:///{tmp_path}/leasehold.sqlite" if server is None else server.fresh_database()
    settings = fire.fire_settings(url)
    resized_pool = lay_out(settings)
    journals = under_fire(url, resized_pool, tmp_path, seconds)
    with opened(settings) as ctx:
        assert_told_what_is(ctx, journals)
        assert_consistent(ctx)
        rested = Context(ctx.db, ctx.settings, lambda: utc_now() + timedelta(hours=1))
        while macs.sweep(rested):
            pass
        assert_consistent(ctx)
        with ctx.db.read() as connection:
            assert not connection.execute(select(macs_table).where(macs_table.c.holders == 0)).all()
    assert server is None or not server.deadlocks()


def lay_out(settings: Settings) -> str:
    """Makes the pools and scopes; returns the id of the pool whose ranges are to change."""
    with opened(settings) as ctx:
        pools = {
            name: mac_pools.create(
                ctx,
                name=name,
                allow_duplicates=name == "shared",
                ranges=[MacRange(Mac(base), Mac(base + size - 1))],
            ).id
            for name, base, size in (
                ("single", fire.SINGLE_BASE, fire.SINGLE_SIZE),
                ("shared", fire.SHARED_BASE, fire.SHARED_SIZE),
                ("resized", fire.RESIZED_BASE, fire.RESIZED_SIZE),
            )
        }
        for cluster in fire.CLUSTERS:
            scopes.put(ctx, "cluster", cluster, mac_pool=pools[cluster])
        scopes.put(ctx, "vm_pool", fire.VM_POOL, parent="single")
    return pools["resized"]


def under_fire(url: str, resized_pool: str, folder: Path, seconds: float) -> list[list[Path]]:
    """Keeps the processes at work, and kills one each second; returns the journals of each slot, in their order."""
    # Forked from a process that has imported all of it and has no threads.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["pytest", "leasehold.service.vnics", "psycopg"])
    dice = random.Random(1)
    end = time.monotonic() + seconds
    journals: list[list[Path]] = [[] for _ in range(PROCESSES)]

    def start(slot: int) -> BaseProcess:
        journal = folder / f"{slot}-{len(journals[slot])}.jsonl"
        journals[slot].append(journal)
        orders = fire.Orders(
            database_url=url,
            resized_pool=resized_pool,
            slot=slot,
            seed=dice.getrandbits(32),
            journal=journal,
            seconds=end,
        )
        process = processes.Process(target=fire.work, args=(orders,), daemon=True)
        process.start()
        return process

    working = [start(slot) for slot in range(PROCESSES)]
    killed = 0
    while time.monotonic() < end - 1:
        time.sleep(1)
        slot = dice.randrange(PROCESSES)
        working[slot].kill()
        working[slot].join()
        working[slot] = start(slot)
        killed += 1
    for process in working:
        process.join(PATIENCE_S)
    assert [process.exitcode for process in working] == [0] * PROCESSES, unexpected(journals)
    assert killed >= seconds / 2
    return journals


@dataclass(frozen=True)
class Holding:
    """A vNIC has surely had a MAC under a pool from `since` to `until`, instants of time.monotonic()."""

    vnic: str
    mac: str
    pool: str
    since: float
    until: float


@dataclass
class Told:
    """What the journals of a slot say. `has` is what its vNICs have now; `unknown` those that a killed process was
    about to change."""

    has: dict[str, tuple[str, str]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    holdings: list[Holding] = field(default_factory=list)
    since: dict[str, float] = field(default_factory=dict)

    def end(self, vnic: str, at: float) -> None:
        """The vNIC may have another MAC from now on."""
        if vnic in self.since:
            self.holdings.append(Holding(vnic, *self.has[vnic], self.since.pop(vnic), at))

    def read(self, journal: Path) -> None:
        begun: list[str] = []
        for line in lines(journal):
            at = line["at"]
            if "begun" in line:
                begun = line["begun"]
                for vnic in begun:
                    self.end(vnic, at)
                continue
            if "done" in line:
                for vnic in begun:
                    self.has.pop(vnic, None)
                self.gone -= set(begun)
                self.unknown -= set(begun)
                self.gone |= set(line["gone"])
                self.has |= {vnic: (mac, pool) for vnic, (mac, pool) in line["has"].items()}
            self.since |= {vnic: at for vnic in begun if vnic in self.has}
            begun = []
        for vnic in begun:
            self.has.pop(vnic, None)
        self.gone -= set(begun)
        self.unknown |= set(begun)


def assert_told_what_is(ctx: Context, journals: list[list[Path]]) -> None:
    """What was answered is in the database, and no two vNICs were told to have a MAC at once."""
    assert not unexpected(journals)
    done = Counter(line["done"] for each in journals for path in each for line in lines(path) if "done" in line)
    assert done.keys() == KINDS, done
    end = time.monotonic()
    holdings: dict[str, list[Holding]] = {}
    with ctx.db.read() as connection:
        present = {row.id: (str(Mac(row.mac)), row.mac_pool_id) for row in connection.execute(select(vnics_table))}
        allowing = set(
            connection.execute(select(pools_table.c.id).where(pools_table.c.allow_duplicates.is_(True))).scalars()
        )
    for of_slot in journals:
        told = Told()
        for journal in of_slot:
            told.read(journal)
        assert {vnic: present.get(vnic) for vnic in told.has} == told.has
        assert not told.gone & present.keys()
        for vnic in list(told.has):
            told.end(vnic, end)
        for holding in told.holdings:
            holdings.setdefault(holding.mac, []).append(holding)
    assert sum(map(len, holdings.values())) > 0
    for of_mac in holdings.values():
        # Those that overlap at all overlap with a neighbour by their beginnings, but for ones that allow it.
        strict = sorted(of_mac, key=lambda each: each.since)
        for index, one in enumerate(strict):
            for other in strict[index + 1 :]:
                if other.since >= one.until:
                    break
                assert one.vnic == other.vnic or {one.pool, other.pool} <= allowing, (one, other)


def assert_consistent(ctx: Context) -> None:
    """I2 and I7, from the tables alone."""
    with ctx.db.read() as connection:
        pools = connection.execute(select(pools_table)).all()
        rows = connection.execute(select(vnics_table.c.mac, vnics_table.c.mac_pool_id)).all()
        known = {row.mac: row for row in connection.execute(select(macs_table))}
        of_space = {row.id: row for row in connection.execute(select(spaces))}
        ranges = connection.execute(select(mac_ranges)).all()
        free = connection.execute(select(free_extents).order_by(free_extents.c.first)).all()
    allowing = {pool.id for pool in pools if pool.allow_duplicates}
    under: dict[int, list[str]] = {}
    for row in rows:
        under.setdefault(row.mac, []).append(row.mac_pool_id)
    assert all(len(own) == 1 or set(own) <= allowing for own in under.values())
    assert {mac: row.holders for mac, row in known.items() if row.holders} == {
        mac: len(own) for mac, own in under.items()
    }
    assert all((row.free_at_ms is None) == (row.holders > 0) for row in known.values())
    for pool in pools:
        own_ranges = [(row.first, row.last) for row in ranges if row.mac_pool_id == pool.id]
        own_free = [(row.first, row.last) for row in free if row.space_id == pool.space_id]
        space = of_space[pool.space_id]
        size = sum(last - first + 1 for first, last in own_ranges)
        not_free = sum(any(first <= mac <= last for first, last in own_ranges) for mac in known)
        assert all(one[1] < other[0] for one, other in pairwise(own_free)), pool.name
        assert all(any(a <= first and last <= b for a, b in own_ranges) for first, last in own_free), pool.name
        assert not any(first <= mac <= last for mac in known for first, last in own_free), pool.name
        assert space.free == sum(last - first + 1 for first, last in own_free), pool.name
        assert space.size == size, pool.name
        assert space.free + not_free == size, pool.name


def unexpected(journals: list[list[Path]]) -> list[str]:
    """What the processes were told that no caller should be."""
    return [line["unexpected"] for each in journals for path in each for line in lines(path) if "unexpected" in line]


def lines(journal: Path) -> list[dict[str, Any]]:
    """Those of a journal. A process that was killed before its first call has written none."""
    return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []


@contextmanager
def opened(settings: Settings) -> Iterator[Context]:
    ctx = open_context(settings)
    try:
        yield ctx
    finally:
        ctx.db.dispose()
