"""The doctor finds what somebody did to the database, and nothing in one that nobody harmed."""

from collections.abc import Callable
from typing import Any

import pytest
from netaddr import IPAddress
from sqlalchemy import ColumnElement, Connection, Table, delete, insert, select, update

from leasehold.domain.addresses import Mac, MacRange
from leasehold.domain.values import HostNetwork, Subnet
from leasehold.service import doctor, hosts, mac_pools, macs, networks, reservations, subnets, vnics
from leasehold.service.context import Context
from leasehold.store import tables
from service.conftest import Clock
from service.test_life_of_an_address import a_server, a_subnet, a_vnic, start

Harm = Callable[[Connection], Any]


@pytest.fixture
def subnet(ctx: Context, clock: Clock) -> Subnet:
    """With addresses in each state, a host's own address, twins, MACs that cool, and a pool with a hole."""
    found = a_subnet(ctx, gateway=IPAddress("192.0.2.1"))
    attached = {"blue": HostNetwork(interface="eth1", address=IPAddress("192.0.2.9"))}
    hosts.put(ctx, "own", control_url="http://h", username="u", password="p", networks=attached)
    few = mac_pools.create(ctx, name="few", ranges=[MacRange(Mac(0x020000000000), Mac(0x02000000000F))])
    assert few.usage.size == 16
    for name in ("a", "b", "c", "d", "e", "f"):
        a_vnic(ctx, name, found, f"02:00:00:00:00:0{ord(name) - ord('a')}" if name < "d" else None)
        start(ctx, name)
    vnics.delete_vnic(ctx, "a")
    reservations.sweep(ctx)
    a_server(ctx, "one", found, confirmed=found.revision + 7)
    vnics.stop(ctx, "b")
    a_vnic(ctx, "g", found)
    vnics.make_twins(ctx, "g", "d")
    start(ctx, "g")
    return found


def codes(ctx: Context) -> list[str]:
    return sorted({each.code for each in doctor.examine(ctx)})


def test_in_a_sound_database_there_is_nothing(ctx: Context, subnet: Subnet) -> None:
    assert doctor.examine(ctx) == []


def space_of(connection: Connection, pool: str | None = None) -> int:
    """The space of a MAC pool by its name, or of the subnet."""
    own = select(tables.subnets.c.space_id)
    of_pool = select(tables.mac_pools.c.space_id).where(tables.mac_pools.c.name == pool)
    found: int = connection.execute(own if pool is None else of_pool).scalar_one()
    return found


def free_although_it_cools(connection: Connection) -> None:
    """192.0.2.2 was a's."""
    space_id = space_of(connection)
    connection.execute(insert(tables.free_extents).values(space_id=space_id, first=2, last=2))
    own = update(tables.spaces).where(tables.spaces.c.id == space_id)
    connection.execute(own.values(free=tables.spaces.c.free + 1))


def a_free_mac_forgotten(connection: Connection) -> None:
    own = tables.free_extents.c.space_id == space_of(connection, "few")
    connection.execute(delete(tables.free_extents).where(own))


def mac_row(number: int, **values: object) -> Harm:
    return lambda connection: connection.execute(
        update(tables.macs).where(tables.macs.c.mac == 0x020000000000 + number).values(**values)
    )


def vnic_row(name: str, **values: object) -> Harm:
    return lambda connection: connection.execute(update(tables.vnics).where(tables.vnics.c.id == name).values(**values))


def everywhere(table: Table, **values: object) -> Harm:
    return lambda connection: connection.execute(update(table).values(**values))


def forgotten(table: Table, *condition: ColumnElement[bool]) -> Harm:
    return lambda connection: connection.execute(delete(table).where(*condition))


HARMS: dict[str, list[Harm]] = {
    "free-and-taken": [free_although_it_cools],
    "lost": [a_free_mac_forgotten, forgotten(tables.addresses, tables.addresses.c.state == "cooling")],
    "count-wrong": [everywhere(tables.spaces, free=tables.spaces.c.free - 1)],
    "mac-count-wrong": [mac_row(2, holders=0), mac_row(2, free_at_ms=7), mac_row(0, free_at_ms=None)],
    "mac-twice": [forgotten(tables.twins)],
    "digest-wrong": [everywhere(tables.subnets, digest="0" * 16)],
    "log-wrong": [everywhere(tables.subnets, revision=tables.subnets.c.revision - 1)],
    "held-in-vain": [
        vnic_row("c", running=False),
        vnic_row("e", mac=0x020000000001),
        vnic_row("e", subnet_id=None),
        forgotten(tables.vnics, tables.vnics.c.id == "f"),
    ],
    "without-address": [everywhere(tables.addresses, state="draining")],
    "drains-for-nobody": [forgotten(tables.server_subnets)],
    "confirmed-ahead": [everywhere(tables.server_subnets, confirmed_revision=999)],
}


def test_harm_is_found(ctx: Context, subnet: Subnet) -> None:
    for code, harms in HARMS.items():
        for harm in harms:
            with ctx.db.write(dry_run=True) as connection:
                harm(connection)
                found = doctor.examine_in(connection, ctx.now_ms())
            assert code in {each.code for each in found}
            assert all(each.mend and each.subject and each.sentence for each in found)
    assert doctor.examine(ctx) == []


def test_what_cools_too_long_is_found_and_passes(ctx: Context, subnet: Subnet, clock: Clock) -> None:
    clock.advance(3600)
    assert codes(ctx) == ["cools-too-long"]
    assert all(each.passing for each in doctor.examine(ctx))
    reservations.sweep(ctx)
    macs.sweep(ctx)
    assert doctor.examine(ctx) == []


def test_who_started_before_ipam_was_turned_on_is_found(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_vnic(ctx, "a", subnet)
    networks.put(ctx, "blue", ipam_enabled=False, ipam_servers=1)
    vnics.start(ctx, "a")
    assert doctor.examine(ctx) == []
    networks.put(ctx, "blue", ipam_enabled=True, ipam_servers=1)
    (finding,) = doctor.examine(ctx)
    assert (finding.code, finding.subject) == ("without-address", "vnics/a")
    start(ctx, "a")
    assert doctor.examine(ctx) == []


def test_changed_subnets_and_pools_leave_nothing(ctx: Context, subnet: Subnet) -> None:
    pool = next(each for each in mac_pools.list_pools(ctx) if each.name == "few")
    part = (MacRange(Mac(0x020000000002), Mac(0x020000000003)), MacRange(Mac(0x020000000008), Mac(0x02000000000F)))
    mac_pools.change(ctx, pool.id, mac_pools.PoolChange(ranges=part))
    hosts.put(ctx, "own", control_url="http://h", username="u", password="p", networks={})
    assert subnets.get(ctx, subnet.id).usage.held
    assert doctor.examine(ctx) == []
