"""Subnets changed and renumbered while their addresses are in use."""

import random
import threading
from dataclasses import replace
from typing import Any

import pytest
from netaddr import IPAddress, IPNetwork
from sqlalchemy import func, insert, select, update

from leasehold.domain.addresses import AddressRange, Mac, MacRange
from leasehold.domain.options import parse_option
from leasehold.domain.replication import Batch, digest_of
from leasehold.domain.values import HostNetwork, Subnet, SubnetSpec, VnicSpec
from leasehold.errors import (
    AddressOutOfRange,
    AddressTaken,
    InUse,
    LeaseholdError,
    RangeInvalid,
    RangeNotUnicast,
    RangesOverlap,
    RangesOverlapSubnets,
    RevisionMismatch,
    SubnetExhausted,
    SubnetInvalid,
    SubnetOverlap,
    SubnetRetiring,
)
from leasehold.service import (
    devices,
    events,
    hosts,
    ingest,
    leases,
    networks,
    renumbering,
    replication,
    reservations,
    subnet_changes,
    subnets,
    vnics,
)
from leasehold.service.context import Context
from leasehold.store.tables import addresses, free_extents, server_subnets, spaces
from leasehold.store.tables import subnets as subnets_table
from service.conftest import Clock
from service.statements import sent_to

DEVICE = Mac.parse("02:00:00:00:00:77")


def ip(text: str) -> IPAddress:
    return IPAddress(text)


def span(first: str, last: str) -> AddressRange:
    return AddressRange(ip(first), ip(last))


def a_subnet(ctx: Context, cidr: str = "192.0.2.0/24", **fields: Any) -> Subnet:
    networks.put(ctx, "blue", ipam_enabled=True, ipam_servers=2)
    return subnets.create(ctx, SubnetSpec(network="blue", cidr=IPNetwork(cidr), **fields))


def a_vnic(ctx: Context, name: str, subnet: Subnet) -> None:
    vnics.put(ctx, VnicSpec(id=name, vm=f"vm-{name}", name="eth0", subnet=subnet.id))


def start(ctx: Context, name: str, address: str | None = None) -> str:
    return str(vnics.start(ctx, name, wait="none", ip=None if address is None else ip(address)).ip)


def running(ctx: Context, subnet: Subnet, *wanted: str) -> None:
    """vNICs v0, v1, … with these addresses."""
    for number, address in enumerate(wanted):
        a_vnic(ctx, f"v{number}", subnet)
        start(ctx, f"v{number}", address)


def ips(ctx: Context, count: int) -> list[str | None]:
    found = (vnics.get(ctx, f"v{number}").ip for number in range(count))
    return [None if each is None else str(each) for each in found]


def assert_whole(ctx: Context) -> None:
    """I7 for every subnet, and the digest of what is held."""
    with ctx.db.read() as connection:
        for row in connection.execute(select(subnets_table)).all():
            in_range = {n for first, last in subnets.handed_out(connection, row) for n in range(first, last + 1)}
            free = {
                n
                for extent in connection.execute(select(free_extents).where(free_extents.c.space_id == row.space_id))
                for n in range(extent.first, extent.last + 1)
            }
            own = connection.execute(select(addresses).where(addresses.c.subnet_id == row.id)).all()
            used = {each.offset for each in own}
            assert not free & used
            assert free | (used & in_range) == in_range
            space = connection.execute(select(spaces).where(spaces.c.id == row.space_id)).one()
            assert (space.free, space.size) == (len(free), len(in_range))
            held = [(Mac(each.mac), subnets.address_of(row, each.offset), None) for each in own if each.state == "held"]
            assert row.digest == digest_of(held)


def test_settings_change_and_nothing_else_does(ctx: Context) -> None:
    subnet = a_subnet(ctx, gateway=ip("192.0.2.1"), domain="old.example")
    running(ctx, subnet, "192.0.2.10")
    wanted: dict[str, Any] = {
        "dns": (ip("192.0.2.53"),),
        "domain": None,
        "mtu": 9000,
        "lease_time_s": 600,
        "options": (parse_option("o", "boot.example", code=66),),
        "mac_ranges": (MacRange(Mac(2), Mac(9)),),
    }
    changed, effect = subnet_changes.change(ctx, subnet.id, wanted)
    assert changed == replace(subnet, **wanted, settings_revision=2, revision=1, usage=changed.usage)
    assert (effect.out_of_range, effect.out_of_range_count) == ((), 0)
    assert ips(ctx, 1) == ["192.0.2.10"]
    assert_whole(ctx)


def test_a_change_on_what_somebody_else_changed_is_refused(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    subnet_changes.change(ctx, subnet.id, {"mtu": 1400}, revision=1)
    with pytest.raises(RevisionMismatch):
        subnet_changes.change(ctx, subnet.id, {"mtu": 1500}, revision=1)
    with pytest.raises(SubnetInvalid):
        subnet_changes.change(ctx, subnet.id, {"gateway": ip("198.51.100.1")})
    assert subnets.get(ctx, subnet.id).mtu == 1400


def test_a_dry_run_says_who_would_be_out_of_range_and_changes_nothing(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    running(ctx, subnet, "192.0.2.10", "192.0.2.20")
    before = subnets.get(ctx, subnet.id)
    changed, effect = subnet_changes.change(
        ctx, subnet.id, {"ranges": (span("192.0.2.15", "192.0.2.30"),)}, dry_run=True
    )
    assert changed.usage.out_of_range == effect.out_of_range_count == 1
    assert [(str(each.ip), each.vnic, each.state) for each in effect.out_of_range] == [("192.0.2.10", "v0", "held")]
    assert subnets.get(ctx, subnet.id) == before


def test_addresses_out_of_range_stay_with_their_vnics_and_are_not_handed_out_again(ctx: Context, clock: Clock) -> None:
    subnet = a_subnet(ctx)
    running(ctx, subnet, "192.0.2.10", "192.0.2.20", "192.0.2.21")
    changed, _ = subnet_changes.change(
        ctx,
        subnet.id,
        {"ranges": (span("192.0.2.20", "192.0.2.22"),), "exclusions": (span("192.0.2.21", "192.0.2.21"),)},
    )
    usage = changed.usage
    assert (usage.size, usage.free, usage.held, usage.out_of_range) == (2, 1, 3, 2)
    assert_whole(ctx)
    assert start(ctx, "v0") == "192.0.2.10"
    vnics.stop(ctx, "v0")
    assert start(ctx, "v0") == "192.0.2.22", "one that was let go is not had back out of range"
    vnics.stop(ctx, "v2")
    for _ in range(2):
        reservations.sweep(ctx)
        clock.advance(60)
    usage = subnets.get(ctx, subnet.id).usage
    assert (usage.size, usage.free, usage.held, usage.out_of_range) == (2, 0, 2, 0)
    assert_whole(ctx)
    with pytest.raises(AddressOutOfRange):
        start(ctx, "v2", "192.0.2.21")
    with pytest.raises(SubnetExhausted):
        start(ctx, "v2")


def test_what_was_out_of_range_may_come_into_it_again(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    running(ctx, subnet, "192.0.2.10", "192.0.2.20")
    subnet_changes.change(ctx, subnet.id, {"ranges": (span("192.0.2.20", "192.0.2.22"),)})
    changed, _ = subnet_changes.change(ctx, subnet.id, {"ranges": ()})
    assert changed.usage == subnets.get(ctx, subnet.id).usage
    assert (changed.usage.size, changed.usage.free, changed.usage.out_of_range) == (254, 252, 0)
    assert_whole(ctx)


@pytest.mark.parametrize("cidr", ["192.0.2.0/23", "192.0.0.0/16", "192.0.2.0/25", "192.0.2.64/26"])
def test_a_cidr_grows_and_shrinks_and_no_address_changes(ctx: Context, cidr: str) -> None:
    subnet = a_subnet(ctx)
    running(ctx, subnet, "192.0.2.70", "192.0.2.80", "192.0.2.90")
    vnics.stop(ctx, "v2")
    devices.add(ctx, subnet.id, DEVICE, ip("192.0.2.100"))
    before = [(each.ip, each.mac) for each in reservations.list_reservations(ctx, subnet.id, limit=9)]
    changed, effect = subnet_changes.change(ctx, subnet.id, {"cidr": IPNetwork(cidr)})
    assert (changed.cidr, effect.out_of_range_count) == (IPNetwork(cidr), 0)
    assert changed.usage.size == IPNetwork(cidr).size - 2
    assert [(each.ip, each.mac) for each in reservations.list_reservations(ctx, subnet.id, limit=9)] == before
    assert ips(ctx, 3) == ["192.0.2.70", "192.0.2.80", "192.0.2.90"]
    assert_whole(ctx)
    assert start(ctx, "v2") == "192.0.2.90"
    a_vnic(ctx, "new", changed)
    assert start(ctx, "new", str(IPAddress(IPNetwork(cidr).last - 1)))
    assert_whole(ctx)


def test_leases_stay_where_they_are_when_a_cidr_begins_elsewhere(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    hosts.put(ctx, "one", control_url="http://h", username="u", password="p", networks={})
    line = {"type": "lease.assigned", "at": 1_893_456_000_000, "subnet": subnet.id, "valid_lft": 3600,
            "cltt": 1_893_456_000}  # fmt: skip
    lines = [line | {"seq": n, "ip": f"192.0.2.{69 + n}", "mac": f"02:00:00:00:00:0{n}"} for n in range(1, 4)]
    ingest.ingest(ctx, "one", "4b9c1e6a-7f0d-4c1b-9a55-2f6f0c7f2f11", 1, lines)
    assert leased(ctx) == ["192.0.2.70", "192.0.2.71", "192.0.2.72"]
    for cidr in ("192.0.2.64/26", "192.0.0.0/22"):
        subnet_changes.change(ctx, subnet.id, {"cidr": IPNetwork(cidr)})
        assert leased(ctx) == ["192.0.2.70", "192.0.2.71", "192.0.2.72"]


def leased(ctx: Context) -> list[str]:
    return [str(each.ip) for each in leases.list_leases(ctx, limit=9)]


def test_a_laggard_goes_on_by_the_log_over_a_change_of_the_network_address(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    with ctx.db.write() as connection:
        connection.execute(insert(server_subnets).values(host_id="one", subnet_id=subnet.id, confirmed_revision=0))
    running(ctx, subnet, "192.0.2.70", "192.0.2.80")
    vnics.stop(ctx, "v1")
    subnet_changes.change(ctx, subnet.id, {"cidr": IPNetwork("192.0.2.64/26")})
    step = replication.next_step(ctx, "one", subnet.id)
    assert isinstance(step, Batch)
    assert (step.base, step.revision) == (0, 3)
    assert [str(address) for _, address, _ in step.set] == ["192.0.2.70"]


@pytest.mark.parametrize(
    ("wanted", "lost"),
    [
        ({"cidr": IPNetwork("192.0.2.0/26")}, ["v1", "v2"]),
        ({"cidr": IPNetwork("192.0.2.80/28")}, ["v0", "v1"]),
        ({"cidr": IPNetwork("198.51.100.0/24")}, ["v0", "v1", "v2"]),
        ({"gateway": IPAddress("192.0.2.10")}, ["v0"]),
        ({"gateway": IPAddress("192.0.2.90")}, ["v2"]),
    ],
)
def test_nobody_loses_an_address_in_use(ctx: Context, wanted: dict[str, Any], lost: list[str]) -> None:
    subnet = a_subnet(ctx)
    running(ctx, subnet, "192.0.2.10", "192.0.2.80", "192.0.2.90")
    vnics.stop(ctx, "v2")
    before = subnets.get(ctx, subnet.id)
    with pytest.raises(InUse) as refusal:
        subnet_changes.change(ctx, subnet.id, wanted)
    assert refusal.value.facts["vnics"] == lost
    assert refusal.value.facts["count"] == len(lost)
    assert subnets.get(ctx, subnet.id) == before
    assert_whole(ctx)


def test_a_new_gateway_is_not_handed_out_and_the_old_one_is(ctx: Context) -> None:
    subnet = a_subnet(ctx, "192.0.2.0/29", gateway=ip("192.0.2.1"), ranges=(span("192.0.2.1", "192.0.2.2"),))
    subnet_changes.change(ctx, subnet.id, {"gateway": ip("192.0.2.2")})
    a_vnic(ctx, "a", subnet)
    assert start(ctx, "a") == "192.0.2.1"
    assert_whole(ctx)


def test_a_cidr_does_not_grow_into_another_subnet(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    other = a_subnet(ctx, "192.0.3.0/24")
    with pytest.raises(SubnetOverlap) as refusal:
        subnet_changes.change(ctx, subnet.id, {"cidr": IPNetwork("192.0.2.0/23")})
    assert refusal.value.facts["subnet"] == other.id


def test_hosts_own_addresses_stay_out_through_changes(ctx: Context) -> None:
    subnet = a_subnet(ctx, "192.0.2.0/25")
    attached = {"blue": HostNetwork(interface="eth1", address=ip("192.0.2.200"))}
    hosts.put(ctx, "one", control_url="http://h", username="u", password="p", networks=attached)
    changed, _ = subnet_changes.change(ctx, subnet.id, {"cidr": IPNetwork("192.0.2.0/24")})
    assert changed.usage.size == 253
    assert_whole(ctx)
    attached = {"blue": HostNetwork(interface="eth1", address=ip("192.0.2.201"))}
    hosts.put(ctx, "one", control_url="http://h", username="u", password="p", networks=attached)
    assert_whole(ctx)
    subnet_changes.change(ctx, subnet.id, {"ranges": (span("192.0.2.10", "192.0.2.20"),)})
    hosts.delete_host(ctx, "one")
    assert subnets.get(ctx, subnet.id).usage.size == 11
    assert_whole(ctx)


def test_a_host_does_not_take_an_address_that_is_held_out_of_range(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    running(ctx, subnet, "192.0.2.10")
    subnet_changes.change(ctx, subnet.id, {"ranges": (span("192.0.2.20", "192.0.2.30"),)})
    attached = {"blue": HostNetwork(interface="eth1", address=ip("192.0.2.10"))}
    with pytest.raises(AddressTaken) as refusal:
        hosts.put(ctx, "one", control_url="http://h", username="u", password="p", networks=attached)
    assert refusal.value.facts["holder"] == "v0"


def test_shrinking_tells_that_few_are_left(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    subnet_changes.change(ctx, subnet.id, {"ranges": (span("192.0.2.20", "192.0.2.21"),)})
    told = [each.type for each in events.list_events(ctx, limit=9)]
    assert told == ["subnet.low"]


def test_random_changes_keep_every_address_and_lose_none(ctx: Context, clock: Clock) -> None:
    dice = random.Random(7)
    subnet = a_subnet(ctx, "192.0.2.0/26")
    cidrs = [
        IPNetwork(each) for each in ("192.0.2.0/26", "192.0.2.0/25", "192.0.2.0/27", "192.0.2.32/27", "192.0.0.0/22")
    ]
    for number in range(8):
        a_vnic(ctx, f"v{number}", subnet)
    for _ in range(60):
        present = subnets.get(ctx, subnet.id)
        hosts_of = (int(present.cidr.first) + 1, int(present.cidr.last) - 1)
        ends = sorted(dice.randint(*hosts_of) for _ in range(2))
        wanted: dict[str, Any] = dice.choice(
            [
                {"cidr": dice.choice(cidrs), "ranges": (), "exclusions": ()},
                {"ranges": (AddressRange(*map(IPAddress, ends)),)},
                {"exclusions": (AddressRange(*map(IPAddress, ends)),)},
                {"ranges": (), "exclusions": ()},
            ]
        )
        before = ips(ctx, 8)
        try:
            subnet_changes.change(ctx, subnet.id, wanted)
        except InUse:
            assert "cidr" in wanted
        assert ips(ctx, 8) == before
        assert_whole(ctx)
        for name in dice.sample([f"v{number}" for number in range(8)], 3):
            try:
                start(ctx, name) if dice.random() < 0.5 else vnics.stop(ctx, name)
            except SubnetExhausted:
                assert subnets.get(ctx, subnet.id).usage.free == 0
        clock.advance(30)
        reservations.sweep(ctx)
        assert_whole(ctx)


def test_a_subnet_of_a_slash_8_costs_no_more_than_a_slash_28(ctx: Context) -> None:
    """Statements and rows, for its life from creation to a change of its CIDR."""

    def cost(network: str, cidr: str, wider: str) -> tuple[int, int]:
        networks.put(ctx, network, ipam_enabled=True, ipam_servers=None)
        with sent_to(ctx.db.engine) as sent:
            subnet = subnets.create(ctx, SubnetSpec(network=network, cidr=IPNetwork(cidr)))
            vnics.put(ctx, VnicSpec(id=network, vm="vm", name="eth0", subnet=subnet.id))
            start(ctx, network)
            subnet_changes.change(ctx, subnet.id, {"cidr": IPNetwork(wider)})
            vnics.stop(ctx, network)
            subnets.get(ctx, subnet.id)
        with ctx.db.read() as connection:
            rows: int = connection.execute(
                select(func.count())
                .select_from(free_extents)
                .join(subnets_table, subnets_table.c.space_id == free_extents.c.space_id)
                .where(subnets_table.c.id == subnet.id)
            ).scalar_one()
        return len(sent), rows

    # Twice the same, so that nothing is done for the first time.
    cost("first", "192.0.2.0/28", "192.0.2.0/27")
    assert cost("large", "10.0.0.0/8", "10.0.0.0/7") == cost("small", "192.0.2.0/28", "192.0.2.0/27")


def test_a_renumbered_subnet_takes_its_vnics_along(ctx: Context, clock: Clock) -> None:
    subnet = a_subnet(
        ctx,
        gateway=ip("192.0.2.1"),
        dns=(ip("192.0.2.53"),),
        ranges=(span("192.0.2.10", "192.0.2.100"),),
        mtu=1400,
    )
    running(ctx, subnet, "192.0.2.10", "192.0.2.20")
    a_vnic(ctx, "stopped", subnet)
    devices.add(ctx, subnet.id, DEVICE, ip("192.0.2.30"))
    subnet, _ = subnet_changes.change(ctx, subnet.id, {"mac_ranges": (MacRange(Mac(2), Mac(9)),)})
    with ctx.db.write() as connection:
        connection.execute(insert(server_subnets).values(host_id="one", subnet_id=subnet.id, confirmed_revision=3))
    dry = renumbering.renumber(ctx, subnet.id, IPNetwork("198.51.100.0/24"), {}, dry_run=True)
    assert [each.id for each in subnets.list_subnets(ctx)] == [subnet.id]
    done = renumbering.renumber(ctx, subnet.id, IPNetwork("198.51.100.0/24"), {}, revision=2)
    assert dry.moved == done.moved
    assert [(each.vnic, str(each.before), str(each.after)) for each in done.moved] == [
        ("v0", "192.0.2.10", "198.51.100.10"),
        ("v1", "192.0.2.20", "198.51.100.20"),
        (None, "192.0.2.30", "198.51.100.30"),
    ]
    new = done.subnet
    assert (new.gateway, new.dns, new.ranges, new.mac_ranges, new.mtu) == (
        ip("198.51.100.1"),
        subnet.dns,
        (span("198.51.100.10", "198.51.100.100"),),
        subnet.mac_ranges,
        1400,
    )
    old = subnets.get(ctx, subnet.id)
    assert (old.successor, old.usage.draining, old.usage.held, old.mac_ranges) == (new.id, 3, 0, ())
    assert {vnics.get(ctx, name).subnet for name in ("v0", "v1", "stopped")} == {new.id}
    assert ips(ctx, 2) == ["198.51.100.10", "198.51.100.20"]
    assert_whole(ctx)

    for refused in (
        lambda: a_vnic(ctx, "late", subnet),
        lambda: devices.add(ctx, subnet.id, Mac(2)),
        lambda: renumbering.renumber(ctx, subnet.id, IPNetwork("203.0.113.0/24"), {}),
    ):
        with pytest.raises(SubnetRetiring) as refusal:
            refused()
        assert refusal.value.facts["successor"] == new.id
    reservations.sweep(ctx)
    clock.advance(60)
    reservations.sweep(ctx)
    assert renumbering.remove_retired(ctx) == 0, "a host could still serve it"
    with ctx.db.write() as connection:
        connection.execute(update(server_subnets).values(confirmed_revision=9))
    reservations.sweep(ctx)
    clock.advance(old.lease_time_s - 0.1)
    reservations.sweep(ctx)
    assert renumbering.remove_retired(ctx) == 0, "a guest could still use its old address"
    clock.advance(0.1)
    reservations.sweep(ctx)
    assert renumbering.remove_retired(ctx) == 1
    assert [each.id for each in subnets.list_subnets(ctx)] == [new.id]


def test_renumbered_to_less_room_each_has_another_place(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    running(ctx, subnet, "192.0.2.200", "192.0.2.2", "192.0.2.201")
    wanted = {"ranges": (span("198.51.100.1", "198.51.100.3"),)}
    done = renumbering.renumber(ctx, subnet.id, IPNetwork("198.51.100.0/29"), wanted)
    assert {each.vnic: str(each.after) for each in done.moved} == {
        "v1": "198.51.100.2",
        "v0": "198.51.100.1",
        "v2": "198.51.100.3",
    }
    assert_whole(ctx)


def test_renumbered_to_too_little_room_nothing_changes(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    running(ctx, subnet, "192.0.2.2", "192.0.2.3", "192.0.2.4")
    before = subnets.get(ctx, subnet.id)
    with pytest.raises(SubnetExhausted):
        renumbering.renumber(ctx, subnet.id, IPNetwork("198.51.100.0/30"), {})
    with pytest.raises(SubnetOverlap):
        renumbering.renumber(ctx, subnet.id, IPNetwork("192.0.2.0/25"), {})
    with pytest.raises(SubnetInvalid):
        renumbering.renumber(ctx, subnet.id, IPNetwork("198.51.100.0/24"), {"gateway": ip("192.0.2.1")})
    assert subnets.list_subnets(ctx) == [before]
    assert ips(ctx, 3) == ["192.0.2.2", "192.0.2.3", "192.0.2.4"]


ENDS = "02:00:00:00:00:01", "02:00:00:00:00:09"


def mac_range(first: str, last: str) -> MacRange:
    return MacRange(Mac.parse(first), Mac.parse(last))


@pytest.mark.parametrize("how", ["create", "change"])
@pytest.mark.parametrize(
    ("ranges", "error", "told"),
    [
        ([mac_range(*reversed(ENDS))], RangeInvalid, {"field": "mac_ranges[0]", "from": ENDS[1], "to": ENDS[0]}),
        (
            [mac_range("00:00:00:00:00:00", ENDS[0])],
            RangeNotUnicast,
            {
                "unicast": [
                    {"from": "00:00:00:00:00:01", "to": "00:ff:ff:ff:ff:ff"},
                    {"from": "02:00:00:00:00:00", "to": ENDS[0]},
                ]
            },
        ),
        (
            [mac_range("01:00:00:00:00:00", "01:00:00:00:00:09")],
            RangeNotUnicast,
            {"field": "mac_ranges[0]", "unicast": []},
        ),
        ([mac_range(*ENDS), mac_range(ENDS[1], ENDS[1])], RangesOverlap, {}),
    ],
)
def test_macs_are_tied_in_ranges_that_a_pool_could_have(
    ctx: Context, how: str, ranges: list[MacRange], error: type[LeaseholdError], told: dict[str, object]
) -> None:
    with pytest.raises(error, match=r"^mac_ranges") as caught:
        tie(ctx, a_subnet(ctx, "198.51.100.0/24") if how == "change" else None, ranges)
    assert told.items() <= caught.value.facts.items()
    assert not any(each.mac_ranges for each in subnets.list_subnets(ctx))


def tie(ctx: Context, subnet: Subnet | None, ranges: list[MacRange]) -> Subnet:
    """Ties them to this subnet, or to a new one on a network of its own."""
    if subnet is not None:
        return subnet_changes.change(ctx, subnet.id, {"mac_ranges": tuple(ranges)})[0]
    networks.put(ctx, "green", ipam_enabled=False, ipam_servers=None)
    return subnets.create(ctx, SubnetSpec(network="green", cidr=IPNetwork("192.0.2.0/24"), mac_ranges=tuple(ranges)))


@pytest.mark.parametrize("how", ["create", "change"])
def test_a_mac_is_tied_to_one_subnet_at_most(ctx: Context, how: str) -> None:
    first = a_subnet(ctx, "198.51.100.0/24", mac_ranges=(mac_range(*ENDS),))
    second = a_subnet(ctx) if how == "change" else None
    with pytest.raises(RangesOverlapSubnets, match=rf"of subnet {first.id} \(198\.51\.100\.0/24\)") as caught:
        tie(ctx, second, [mac_range(ENDS[1], "02:00:00:00:00:ff")])
    assert caught.value.facts["overlaps"] == [
        {
            "range": {"from": ENDS[1], "to": "02:00:00:00:00:ff"},
            "subnet": first.id,
            "cidr": "198.51.100.0/24",
            "network": "blue",
            "other_range": {"from": ENDS[0], "to": ENDS[1]},
        }
    ]
    assert tie(ctx, second, [mac_range("02:00:00:00:00:0a", "02:00:00:00:00:ff")]).mac_ranges
    assert tie(ctx, first, [mac_range(ENDS[0], ENDS[0])]).mac_ranges == (mac_range(ENDS[0], ENDS[0]),)
    moved = renumbering.renumber(ctx, first.id, IPNetwork("203.0.113.0/24"), {}).subnet
    assert moved.mac_ranges == (mac_range(ENDS[0], ENDS[0]),)


def test_of_two_that_tie_a_mac_at_once_one_is_refused(ctx: Context) -> None:
    tied = [a_subnet(ctx), a_subnet(ctx, "198.51.100.0/24")]
    answers: list[object] = []

    def work(subnet: Subnet) -> None:
        try:
            answers.append(tie(ctx, subnet, [mac_range(*ENDS)]).id)
        except RangesOverlapSubnets as refusal:
            answers.append(type(refusal))

    threads = [threading.Thread(target=work, args=(each,)) for each in tied]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert RangesOverlapSubnets in answers
    assert len(answers) == len(set(answers)) == 2
