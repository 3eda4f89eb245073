"""Statements that go to the driver: on both databases they answer what SQLAlchemy's do, and nothing that is wrong with
one is lost in PostgreSQL's pipeline."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from netaddr import IPAddress, IPNetwork
from sqlalchemy import Connection, Executable, insert, select, text, update

from leasehold.domain.addresses import AddressRange
from leasehold.domain.options import Route
from leasehold.domain.values import SubnetSpec
from leasehold.errors import DatabaseUnavailable
from leasehold.service import networks, subnets
from leasehold.service.context import Context
from leasehold.store import driver
from leasehold.store.database import Violation, part_of
from leasehold.store.prepared import prepared
from leasehold.store.tables import networks as networks_table
from leasehold.store.tables import spaces
from leasehold.store.tables import subnets as subnets_table


@prepared
def add_network(network_id: Any) -> Executable:
    return insert(networks_table).values(id=network_id, ipam_enabled=True)


@prepared
def turn_off(network_id: Any) -> Executable:
    return update(networks_table).where(networks_table.c.id == network_id).values(ipam_enabled=False)


@prepared
def is_on(network_id: Any) -> Executable:
    return select(networks_table.c.ipam_enabled).where(networks_table.c.id == network_id)


@prepared
def all_networks() -> Executable:
    return select(networks_table).order_by(networks_table.c.id)


def written(ctx: Context, *steps: Callable[[Connection], object]) -> None:
    """One transaction."""
    with ctx.db.write() as connection:
        for step in steps:
            step(connection)


def adding(name: str) -> Callable[[Connection], object]:
    return lambda connection: add_network(connection, network_id=name)


def asking(name: str) -> Callable[[Connection], object]:
    return lambda connection: is_on(connection, network_id=name).scalar_one()


def asking_by_sqlalchemy(connection: Connection) -> None:
    connection.execute(text("SELECT 1"))


def names(ctx: Context) -> list[str]:
    return [each.id for each in networks.list_networks(ctx)]


def test_rows_are_those_of_sqlalchemy(ctx: Context) -> None:
    """With documents, truth values and nulls."""
    networks.put(ctx, "blue", ipam_enabled=True, ipam_servers=None)
    subnet = subnets.create(
        ctx,
        SubnetSpec(
            network="blue",
            cidr=IPNetwork("192.0.2.0/24"),
            dns=(IPAddress("192.0.2.53"),),
            ranges=(AddressRange(IPAddress("192.0.2.10"), IPAddress("192.0.2.20")),),
            routes=(Route(destination=IPNetwork("203.0.113.0/24"), gateway=IPAddress("192.0.2.1")),),
        ),
    )
    query = select(subnets_table, spaces.c.cursor, spaces.c.free, spaces.c.size).join(
        spaces, spaces.c.id == subnets_table.c.space_id
    )
    with ctx.db.read() as connection:
        theirs = connection.execute(query).one()
        ours = subnets.require(connection, subnet.id)
        on = is_on(connection, network_id="blue").scalar_one()
    assert ours._asdict() == theirs._asdict()
    assert on is True


def test_a_row_that_is_not_there_is_none_and_two_are_not_one(ctx: Context) -> None:
    with ctx.db.write() as connection:
        assert is_on(connection, network_id="blue").one_or_none() is None
        add_network(connection, network_id="blue")
        add_network(connection, network_id="red")
        rows = all_networks(connection)
        assert ([row.id for row in rows], len(rows), rows[1].id) == (["blue", "red"], 2, "red")
        with pytest.raises(ValueError, match="unpack"):
            rows.one()


def test_what_was_written_is_seen_by_what_is_read_next(ctx: Context) -> None:
    with ctx.db.write() as connection:
        add_network(connection, network_id="blue")
        before, _, after = is_on(connection, network_id="blue"), turn_off(connection, network_id="blue"), None
        after = is_on(connection, network_id="blue")
        assert (before.scalar_one(), after.scalar_one()) == (True, False)
        assert driver.in_pipeline(connection) is not ctx.db.is_sqlite
        add_network(connection, network_id="red")
        theirs = connection.execute(select(networks_table.c.id).order_by(networks_table.c.id)).scalars().all()
        assert theirs == ["blue", "red"]
    assert names(ctx) == ["blue", "red"]


def test_a_broken_constraint_is_told_at_the_end_at_the_latest_and_nothing_is_written(ctx: Context) -> None:
    with pytest.raises(Violation) as violation:
        written(ctx, adding("blue"), adding("blue"))
    assert violation.value.constraint == "pk_networks"
    assert names(ctx) == []
    with ctx.db.write() as connection:
        add_network(connection, network_id="blue")
    assert names(ctx) == ["blue"]


def test_a_broken_constraint_is_told_by_whatever_is_asked_next(ctx: Context) -> None:
    with pytest.raises(Violation) as violation:
        written(ctx, adding("blue"), adding("blue"), adding("red"), asking("red"))
    assert violation.value.constraint == "pk_networks"
    assert names(ctx) == []


def test_a_broken_constraint_is_told_before_sqlalchemy_asks_anything(ctx: Context) -> None:
    with pytest.raises(Violation):
        written(ctx, adding("blue"), asking_by_sqlalchemy, adding("blue"), asking_by_sqlalchemy)
    assert names(ctx) == []


def test_a_part_that_is_undone_takes_along_what_the_driver_was_given(ctx: Context) -> None:
    with ctx.db.write() as connection:
        add_network(connection, network_id="blue")
        with part_of(connection) as part:
            add_network(connection, network_id="red")
            part.rollback()
        add_network(connection, network_id="green")
    assert names(ctx) == ["blue", "green"]


def test_a_dry_run_writes_nothing(ctx: Context) -> None:
    with ctx.db.write(dry_run=True) as connection:
        add_network(connection, network_id="blue")
        assert is_on(connection, network_id="blue").scalar_one() is True
    assert names(ctx) == []


def test_a_look_sees_what_was_written_last(ctx: Context) -> None:
    for value in (True, False):
        networks.put(ctx, "blue", ipam_enabled=value, ipam_servers=None)
        with ctx.db.look() as connection:
            assert is_on(connection, network_id="blue").scalar_one() is value


def test_a_connection_that_breaks_in_a_pipeline_is_told_as_a_database_that_is_away(ctx: Context) -> None:
    if ctx.db.is_sqlite:
        return  # It has no connections that could break.
    pids: list[int] = []

    def note(connection: Connection) -> None:
        pids.append(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())

    def end(_connection: Connection) -> None:
        written(ctx, lambda other: other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pids[-1]}))

    for after in ([asking("blue")], [asking_by_sqlalchemy], []):
        with pytest.raises(DatabaseUnavailable):
            written(ctx, note, adding("blue"), end, *after)
        assert names(ctx) == []


def test_a_log_that_was_given_room_does_not_grow_with_a_commit(ctx: Context) -> None:
    if not ctx.db.is_sqlite:
        return  # PostgreSQL keeps its own log's files.
    ctx.db.make_room()
    log = Path(ctx.settings.database_url.removeprefix("sqlite:///") + "-wal")
    sizes = []
    for number in range(3):
        networks.put(ctx, f"n{number}", ipam_enabled=True, ipam_servers=None)
        sizes.append(log.stat().st_size)
    assert len(set(sizes)) == 1
    assert sizes[0] > 10_000 * 4096
    assert len(names(ctx)) == 3
