"""What reservations do beside vNICs' lives: the last free address, devices, and what is told of them."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from netaddr import IPAddress, IPNetwork
from sqlalchemy import insert, update

from leasehold.domain.addresses import AddressRange, Mac
from leasehold.domain.values import Subnet, SubnetSpec, VnicSpec
from leasehold.errors import AddressTaken, InUse, MacReserved, ReservationNotFound, SubnetExhausted
from leasehold.service import devices, events, hosts, networks, reservations, subnets, vnics
from leasehold.service.context import Context
from leasehold.store.tables import leases, server_subnets
from service.conftest import Clock

DEVICE = Mac.parse("02:00:00:00:00:77")
SPAN = AddressRange(IPAddress("192.0.2.2"), IPAddress("192.0.2.3"))


def a_subnet(ctx: Context, cidr: str = "192.0.2.0/24", **fields: Any) -> Subnet:
    networks.put(ctx, "blue", ipam_enabled=True, ipam_servers=2)
    return subnets.create(ctx, SubnetSpec(network="blue", cidr=IPNetwork(cidr), **fields))


def a_vnic(ctx: Context, name: str, subnet: Subnet, mac: Mac | None = None) -> None:
    vnics.put(ctx, VnicSpec(id=name, vm=f"vm-{name}", name="eth0", subnet=subnet.id, mac=mac))


def start(ctx: Context, name: str) -> str:
    return str(vnics.start(ctx, name, wait="none").ip)


def told(ctx: Context, prefix: str) -> list[tuple[str, dict[str, Any]]]:
    return [(each.type, dict(each.data)) for each in events.list_events(ctx, limit=100) if each.type.startswith(prefix)]


def test_of_twenty_starts_for_the_last_address_one_has_it_and_the_others_hear_why(ctx: Context, clock: Clock) -> None:
    subnet = a_subnet(ctx, "192.0.2.0/29", gateway=IPAddress("192.0.2.1"))
    names = [f"v{number}" for number in range(20)]
    for name in ("held", "cooling", "draining-1", "draining-2", *names):
        a_vnic(ctx, name, subnet)
    for name in ("held", "cooling", "draining-1", "draining-2"):
        start(ctx, name)
    vnics.stop(ctx, "cooling")
    reservations.sweep(ctx)
    hosts.put(ctx, "cut-off", control_url="http://h", username="u", password="p", networks={})
    with ctx.db.write() as connection:
        connection.execute(insert(server_subnets).values(host_id="cut-off", subnet_id=subnet.id, confirmed_revision=0))
    vnics.stop(ctx, "draining-1")
    vnics.stop(ctx, "draining-2")
    reservations.sweep(ctx)
    assert subnets.get(ctx, subnet.id).usage.free == 1

    barrier = threading.Barrier(len(names))
    won: list[str] = []
    lost: list[SubnetExhausted] = []

    def run(name: str) -> None:
        barrier.wait()
        try:
            won.append(start(ctx, name))
        except SubnetExhausted as refusal:
            lost.append(refusal)

    threads = [threading.Thread(target=run, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    free_at = (clock.now + timedelta(seconds=60)).isoformat(timespec="milliseconds")
    assert [each.facts for each in lost] == [
        {
            "subnet": subnet.id,
            "held": 2,
            "draining": 2,
            "cooling": 1,
            "next_free_at": free_at,
            "waiting_for": ["cut-off"],
        }
    ] * 19
    assert free_at in str(lost[0])
    assert "cut-off" in str(lost[0])
    clock.advance(60)
    reservations.sweep(ctx)
    loser = next(name for name in names if vnics.get(ctx, name).ip is None)
    assert start(ctx, loser)


def test_an_address_that_every_server_let_go_is_free_after_its_cool_down_at_the_latest(
    ctx: Context, clock: Clock
) -> None:
    subnet = a_subnet(ctx, "192.0.2.0/30", gateway=IPAddress("192.0.2.1"))
    a_vnic(ctx, "a", subnet)
    a_vnic(ctx, "b", subnet)
    start(ctx, "a")
    vnics.stop(ctx, "a")
    with pytest.raises(SubnetExhausted) as refusal:
        start(ctx, "b")
    assert refusal.value.facts["next_free_at"] == (clock.now + timedelta(seconds=60)).isoformat(timespec="milliseconds")


def test_an_address_that_a_guest_found_in_use_is_not_free_before_its_probation_is_over(
    ctx: Context, clock: Clock
) -> None:
    subnet = a_subnet(ctx, "192.0.2.0/29", gateway=IPAddress("192.0.2.1"), ranges=(SPAN,))
    for name in ("a", "b", "c"):
        a_vnic(ctx, name, subnet)
    assert (start(ctx, "a"), start(ctx, "b")) == ("192.0.2.2", "192.0.2.3")
    vnics.stop(ctx, "a")
    reservations.sweep(ctx)
    clock.advance(10)
    vnics.stop(ctx, "b")
    reservations.sweep(ctx)
    now_ms = ctx.now_ms()
    with ctx.db.write() as connection:
        connection.execute(
            insert(leases).values(
                subnet_id=subnet.id, offset=2, host_id="one", mac=2, state="declined", since_ms=now_ms,
                told_ms=now_ms, expires_ms=now_ms + 300_000, sequence=1, diverged=False,
            )
        )  # fmt: skip
    with pytest.raises(SubnetExhausted) as refusal:
        start(ctx, "c")
    assert refusal.value.facts["next_free_at"] == (clock.now + timedelta(seconds=60)).isoformat(timespec="milliseconds")


def test_few_and_no_free_addresses_are_told_once_each(ctx: Context) -> None:
    subnet = a_subnet(ctx, "192.0.2.0/29")  # six addresses, and three are few
    for number in range(6):
        a_vnic(ctx, f"v{number}", subnet)
        start(ctx, f"v{number}")
        start(ctx, f"v{number}")
    a_vnic(ctx, "late", subnet)
    with pytest.raises(SubnetExhausted):
        start(ctx, "late")
    common = {"subnet": subnet.id, "network": "blue", "cidr": "192.0.2.0/29", "size": 6}
    assert told(ctx, "subnet.") == [
        ("subnet.low", common | {"free": 3}),
        ("subnet.exhausted", common | {"free": 0}),
    ]


def test_what_comes_and_goes_is_told(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_vnic(ctx, "a", subnet)
    ip = start(ctx, "a")
    start(ctx, "a")
    vnics.stop(ctx, "a")
    vnics.stop(ctx, "a")
    data = {"subnet": subnet.id, "network": "blue", "ip": ip, "mac": str(vnics.get(ctx, "a").mac), "vnic": "a"}
    assert told(ctx, "reservation.") == [("reservation.added", data), ("reservation.removed", data)]


def test_nothing_is_told_of_what_was_refused(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_vnic(ctx, "a", subnet)
    devices.add(ctx, subnet.id, DEVICE, dry_run=True)
    with pytest.raises(AddressTaken):
        promise_twice(ctx, subnet)
    assert told(ctx, "reservation.") == []


def promise_twice(ctx: Context, subnet: Subnet) -> None:
    with ctx.db.write() as connection:
        reservations.promise(ctx, connection, subnet.id, None, DEVICE, IPAddress("192.0.2.7"))
        reservations.promise(ctx, connection, subnet.id, "a", Mac(2), IPAddress("192.0.2.7"))


def test_a_device_lives_as_a_vnic_does(ctx: Context, clock: Clock) -> None:
    subnet = a_subnet(ctx)
    with ctx.db.write() as connection:
        connection.execute(insert(server_subnets).values(host_id="one", subnet_id=subnet.id, confirmed_revision=0))
    made, created = devices.add(ctx, subnet.id, DEVICE)
    again, created_again = devices.add(ctx, subnet.id, DEVICE)
    assert (made, created, created_again) == (again, True, False)
    devices.remove(ctx, subnet.id, made.ip)
    reservations.sweep(ctx)
    assert subnets.get(ctx, subnet.id).usage.draining == 1
    with ctx.db.write() as connection:
        connection.execute(update(server_subnets).values(confirmed_revision=2))
    reservations.sweep(ctx)
    assert subnets.get(ctx, subnet.id).usage.cooling == 1
    back, _ = devices.add(ctx, subnet.id, DEVICE)
    assert back.ip == made.ip
    devices.remove(ctx, subnet.id, made.ip)
    with pytest.raises(AddressTaken, match=str(DEVICE)):
        devices.add(ctx, subnet.id, Mac(2), made.ip)
    with ctx.db.write() as connection:
        connection.execute(update(server_subnets).values(confirmed_revision=9))
    reservations.sweep(ctx)
    clock.advance(subnet.lease_time_s - 0.1)
    reservations.sweep(ctx)
    assert subnets.get(ctx, subnet.id).usage.cooling == 1, "the device may use it on until its lease ends"
    clock.advance(0.1)
    reservations.sweep(ctx)
    assert subnets.get(ctx, subnet.id).usage.free == subnet.usage.free


def test_a_mac_has_one_reservation_of_a_subnet_be_it_a_devices_or_a_vnics(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_vnic(ctx, "a", subnet, DEVICE)
    devices.add(ctx, subnet.id, DEVICE)
    with pytest.raises(MacReserved, match="A device"):
        start(ctx, "a")
    with pytest.raises(MacReserved):
        devices.add(ctx, subnet.id, DEVICE, IPAddress("192.0.2.99"))
    devices.remove(ctx, subnet.id, reservations.list_reservations(ctx, subnet.id, limit=1)[0].ip)
    ip = start(ctx, "a")
    with pytest.raises(MacReserved) as refusal:
        devices.add(ctx, subnet.id, DEVICE)
    assert refusal.value.facts["holder"] == "a"
    with pytest.raises(InUse):
        devices.remove(ctx, subnet.id, IPAddress(ip))
    with pytest.raises(ReservationNotFound):
        devices.remove(ctx, subnet.id, IPAddress("198.51.100.1"))
