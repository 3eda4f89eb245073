"""A database that begins a new history while it is in use: on both databases."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from netaddr import IPNetwork
from sqlalchemy import text, update

from lab.waiting import wait_until
from leasehold.domain.values import SubnetSpec
from leasehold.service import events, lineage, networks, subnets
from leasehold.service.context import Context
from leasehold.service.replication import epoch_of
from leasehold.store.tables import subnets as subnets_table

PATIENCE_S = 20


@pytest.fixture
def subnet_ids(ctx: Context) -> list[int]:
    """Two subnets."""
    networks.put(ctx, "blue", ipam_enabled=True, ipam_servers=1)
    cidrs = "192.0.2.0/24", "198.51.100.0/24"
    return [subnets.create(ctx, SubnetSpec(network="blue", cidr=IPNetwork(each))).id for each in cidrs]


def epoch(ctx: Context) -> str:
    with ctx.db.read() as connection:
        return epoch_of(connection)


def somebody_waits(ctx: Context) -> bool:
    """Whether a transaction waits for another one's lock; SQLite has writers wait before they begin."""
    if ctx.db.is_sqlite:
        return True
    with ctx.db.read() as connection:
        sessions = connection.execute(
            text("SELECT wait_event_type FROM pg_stat_activity WHERE datname = current_database()")
        ).scalars()
        return "Lock" in sessions.all()


@pytest.mark.parametrize("number", [0, 1])
def test_a_new_history_waits_for_who_has_a_subnet_and_will_tell_of_it(
    ctx: Context, subnet_ids: list[int], number: int
) -> None:
    """As a start has one: it queues for events at its end, while the new history waits for its subnet."""
    before = epoch(ctx)
    with ThreadPoolExecutor(1) as other:
        with ctx.db.write() as connection:
            subnets.require(connection, subnet_ids[number], lock=True)
            drawing = other.submit(lineage.begin_new_history, ctx)
            wait_until(lambda: somebody_waits(ctx), PATIENCE_S, "the new history waits")
            events.emit(connection, ctx.now_ms(), "subnet.low", "subnets/1", {})
        drawing.result(PATIENCE_S)
    assert epoch(ctx) != before


def test_a_new_history_locks_subnets_in_the_order_of_all_others(ctx: Context, subnet_ids: list[int]) -> None:
    """Also where the rows lie in another one."""
    first, second = subnet_ids
    with ctx.db.write() as connection:
        connection.execute(update(subnets_table).where(subnets_table.c.id == first).values(domain="moved"))
    with ThreadPoolExecutor(1) as other:
        with ctx.db.write() as connection:
            subnets.require(connection, first, lock=True)
            drawing = other.submit(lineage.begin_new_history, ctx)
            wait_until(lambda: somebody_waits(ctx), PATIENCE_S, "the new history waits")
            subnets.require(connection, second, lock=True)
        drawing.result(PATIENCE_S)
