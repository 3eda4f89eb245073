"""free → held → draining → cooling → free, and what each server has confirmed."""

from typing import Any

import pytest
from netaddr import IPAddress, IPNetwork
from sqlalchemy import insert, select, update

from leasehold.domain.addresses import Mac
from leasehold.domain.replication import Batch, Resync, digest_of
from leasehold.domain.values import HostNetwork, Subnet, SubnetSpec, Vnic, VnicSpec
from leasehold.errors import (
    AddressOutOfRange,
    AddressTaken,
    InUse,
    MacTaken,
    NoIpamService,
    NoServer,
    NotConfirmed,
    SubnetExhausted,
    SubnetOverlap,
)
from leasehold.service import hosts, mac_pools, networks, replication, reservations, subnets, vnics
from leasehold.service.context import Context
from leasehold.service.replication import Advance
from leasehold.store.tables import leases, reservation_log, server_subnets, servers
from service.conftest import Clock


def a_subnet(ctx: Context, cidr: str = "192.0.2.0/24", **fields: Any) -> Subnet:
    networks.put(ctx, "blue", ipam_enabled=True, ipam_servers=2)
    return subnets.create(ctx, SubnetSpec(network="blue", cidr=IPNetwork(cidr), **fields))


def a_vnic(ctx: Context, name: str, subnet: Subnet | None, mac: str | None = None) -> Vnic:
    vnic, _ = vnics.put(
        ctx,
        VnicSpec(
            id=name,
            vm=f"vm-{name}",
            name="eth0",
            subnet=None if subnet is None else subnet.id,
            mac=None if mac is None else Mac.parse(mac),
        ),
    )
    return vnic


def a_server(ctx: Context, host: str, subnet: Subnet, confirmed: int | None = 0) -> None:
    hosts.put(ctx, host, control_url="http://192.0.2.1:8000", username="u", password="p", networks={})
    with ctx.db.write() as connection:
        connection.execute(insert(servers).values(host_id=host, network_id=subnet.network, state="running", since_ms=0))
        connection.execute(
            insert(server_subnets).values(
                host_id=host,
                subnet_id=subnet.id,
                confirmed_revision=confirmed,
                provided_revision=subnet.settings_revision,
                provided_cidr=str(subnet.cidr),
            )
        )


def start(ctx: Context, name: str, **options: Any) -> str:
    return str(vnics.start(ctx, name, wait="none", **options).ip)


def push(ctx: Context, host: str, subnet: Subnet) -> Batch | Resync | None:
    step = replication.next_step(ctx, host, subnet.id)
    if step is not None:
        replication.confirm(ctx, host, subnet.id, step.epoch, step.revision)
    return step


def test_a_new_vnic_has_a_mac_of_the_default_pool(ctx: Context) -> None:
    vnic = a_vnic(ctx, "a", None)
    (pool,) = mac_pools.list_pools(ctx)
    assert vnic.mac in pool.ranges[0]
    assert (pool.usage.used, pool.usage.free) == (1, 2**24 - 1)


def test_a_repeated_put_changes_nothing(ctx: Context) -> None:
    once, created = vnics.put(ctx, VnicSpec(id="a", vm="vm", name="eth0"))
    again, created_again = vnics.put(ctx, VnicSpec(id="a", vm="vm", name="eth0"))
    assert (once, created, created_again) == (again, True, False)


def test_a_mac_in_use_names_its_holder(ctx: Context) -> None:
    held = a_vnic(ctx, "a", None)
    with pytest.raises(MacTaken) as refusal:
        a_vnic(ctx, "b", None, str(held.mac))
    assert refusal.value.facts == {
        "mac": str(held.mac),
        "holders": [{"vnic": "a", "vm": "vm-a", "mac_pool": "default"}],
    }


def test_an_explicit_mac_of_the_pool_is_never_drawn(ctx: Context) -> None:
    (pool,) = mac_pools.list_pools(ctx)
    a_vnic(ctx, "a", None, str(pool.ranges[0].first))
    assert a_vnic(ctx, "b", None).mac.value == pool.ranges[0].first.value + 1


def test_a_deleted_vnics_mac_is_free_again(ctx: Context) -> None:
    mac = str(a_vnic(ctx, "a", None).mac)
    vnics.delete_vnic(ctx, "a")
    assert str(a_vnic(ctx, "b", None, mac).mac) == mac
    assert mac_pools.list_pools(ctx)[0].usage.used == 1


def test_a_started_vnic_keeps_its_address_however_often_it_starts(ctx: Context) -> None:
    subnet = a_subnet(ctx, gateway=IPAddress("192.0.2.1"))
    a_vnic(ctx, "a", subnet)
    assert [start(ctx, "a"), start(ctx, "a")] == ["192.0.2.2", "192.0.2.2"]
    assert subnets.get(ctx, subnet.id).revision == 1


def test_a_vnic_without_subnet_has_no_ipam_service(ctx: Context) -> None:
    a_vnic(ctx, "a", None)
    started = vnics.start(ctx, "a")
    assert (started.ipam, started.ip, started.servers, started.vnic.running) == (False, None, (), True)
    with pytest.raises(NoIpamService):
        start(ctx, "a", ip=IPAddress("192.0.2.7"))


def test_where_ipam_is_off_a_vnic_has_no_ipam_service(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_vnic(ctx, "a", subnet)
    networks.put(ctx, "blue", ipam_enabled=False, ipam_servers=None)
    started = vnics.start(ctx, "a")
    assert (started.ipam, started.ip, started.vnic.running) == (False, None, True)
    with pytest.raises(NoIpamService):
        start(ctx, "a", ip=IPAddress("192.0.2.7"))


def test_an_address_drains_until_every_server_has_confirmed(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    for host in ("one", "two"):
        a_server(ctx, host, subnet)
    a_vnic(ctx, "a", subnet)
    start(ctx, "a")
    push(ctx, "one", subnet)
    vnics.stop(ctx, "a")
    push(ctx, "one", subnet)
    reservations.sweep(ctx)
    assert vnics.get(ctx, "a").ip_state == "draining"
    while push(ctx, "two", subnet):
        pass
    reservations.sweep(ctx)
    assert vnics.get(ctx, "a").ip_state == "cooling"


def test_what_a_running_guest_left_is_free_when_its_lease_has_ended_for_sure(ctx: Context, clock: Clock) -> None:
    """Counted from when the last server has confirmed, which may have renewed it right before."""
    subnet = a_subnet(ctx, lease_time_s=600)
    other = subnets.create(ctx, SubnetSpec(network="blue", cidr=IPNetwork("198.51.100.0/24")))
    a_server(ctx, "one", subnet)
    a_vnic(ctx, "a", subnet)
    start(ctx, "a")
    vnics.change(ctx, "a", {"subnet": other.id}, wait="none")
    clock.advance(1000)
    while push(ctx, "one", subnet):
        pass
    reservations.sweep(ctx)
    clock.advance(599.9)
    reservations.sweep(ctx)
    assert subnets.get(ctx, subnet.id).usage.cooling == 1
    clock.advance(0.1)
    reservations.sweep(ctx)
    assert subnets.get(ctx, subnet.id).usage.cooling == 0


def test_a_longer_lease_of_an_earlier_time_is_waited_for(ctx: Context, clock: Clock) -> None:
    subnet = a_subnet(ctx, lease_time_s=60)
    other = subnets.create(ctx, SubnetSpec(network="blue", cidr=IPNetwork("198.51.100.0/24")))
    vnic = a_vnic(ctx, "a", subnet)
    start(ctx, "a")
    now_ms = ctx.now_ms()
    with ctx.db.write() as connection:
        connection.execute(
            insert(leases).values(
                subnet_id=subnet.id, offset=1, host_id="one", mac=vnic.mac.value, state="assigned", since_ms=now_ms,
                told_ms=now_ms, expires_ms=now_ms + 3_600_000, sequence=1, diverged=False,
            )
        )  # fmt: skip
    vnics.change(ctx, "a", {"subnet": other.id}, wait="none")
    reservations.sweep(ctx)
    clock.advance(3599.9)
    reservations.sweep(ctx)
    assert subnets.get(ctx, subnet.id).usage.cooling == 1
    clock.advance(0.1)
    reservations.sweep(ctx)
    assert subnets.get(ctx, subnet.id).usage.cooling == 0


def test_what_a_running_guest_has_back_is_an_address_like_any_other(ctx: Context, clock: Clock) -> None:
    subnet = a_subnet(ctx, lease_time_s=600)
    other = subnets.create(ctx, SubnetSpec(network="blue", cidr=IPNetwork("198.51.100.0/24")))
    a_vnic(ctx, "a", subnet)
    first = start(ctx, "a")
    vnics.change(ctx, "a", {"subnet": other.id}, wait="none")
    reservations.sweep(ctx)
    vnics.change(ctx, "a", {"subnet": subnet.id}, wait="none")
    assert str(vnics.get(ctx, "a").ip) == first
    vnics.stop(ctx, "a")
    reservations.sweep(ctx)
    clock.advance(60)
    reservations.sweep(ctx)
    assert subnets.get(ctx, subnet.id).usage.cooling == 0


def test_a_cooling_address_is_free_after_its_time_and_not_before(ctx: Context, clock: Clock) -> None:
    subnet = a_subnet(ctx)
    a_vnic(ctx, "a", subnet)
    start(ctx, "a")
    vnics.stop(ctx, "a")
    reservations.sweep(ctx)
    clock.advance(59.9)
    reservations.sweep(ctx)
    assert vnics.get(ctx, "a").ip_state == "cooling"
    clock.advance(0.1)
    reservations.sweep(ctx)
    assert vnics.get(ctx, "a").ip is None
    usage = subnets.get(ctx, subnet.id).usage
    assert (usage.size, usage.free) == (254, 254)


def test_the_old_owner_gets_its_address_back_while_it_drains_or_cools(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_vnic(ctx, "a", subnet)
    a_vnic(ctx, "b", subnet)
    first = start(ctx, "a")
    vnics.stop(ctx, "a")
    start(ctx, "b")
    assert start(ctx, "a") == first
    vnics.stop(ctx, "a")
    reservations.sweep(ctx)
    assert start(ctx, "a") == first


def test_a_draining_address_is_given_to_no_other_mac(ctx: Context) -> None:
    subnet = a_subnet(ctx, "192.0.2.0/30", gateway=IPAddress("192.0.2.1"))
    a_server(ctx, "one", subnet)
    a_vnic(ctx, "a", subnet)
    a_vnic(ctx, "b", subnet)
    start(ctx, "a")
    vnics.stop(ctx, "a")
    reservations.sweep(ctx)
    with pytest.raises(SubnetExhausted) as refusal:
        start(ctx, "b")
    assert refusal.value.facts == {
        "subnet": subnet.id,
        "held": 0,
        "draining": 1,
        "cooling": 0,
        "next_free_at": None,
        "waiting_for": ["one"],
    }
    assert "wait for one to confirm" in str(refusal.value)


def test_a_vnic_with_another_mac_does_not_take_over_its_own_draining_address(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_server(ctx, "cut-off", subnet)
    a_vnic(ctx, "a", subnet)
    first = start(ctx, "a")
    vnics.stop(ctx, "a")
    a_vnic(ctx, "a", subnet, "02:00:00:00:00:99")
    assert start(ctx, "a") != first


def test_a_deleted_vnics_address_drains_like_any(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_vnic(ctx, "a", subnet)
    start(ctx, "a")
    vnics.delete_vnic(ctx, "a")
    assert subnets.get(ctx, subnet.id).usage.draining == 1


def test_an_address_may_be_asked_for(ctx: Context) -> None:
    subnet = a_subnet(ctx, gateway=IPAddress("192.0.2.1"))
    a_vnic(ctx, "a", subnet)
    a_vnic(ctx, "b", subnet)
    assert start(ctx, "a", ip=IPAddress("192.0.2.77")) == "192.0.2.77"
    with pytest.raises(AddressTaken) as refusal:
        start(ctx, "b", ip=IPAddress("192.0.2.77"))
    assert refusal.value.facts["holder"] == "a"
    for outside in ("192.0.2.1", "192.0.2.255", "198.51.100.1"):
        with pytest.raises(AddressOutOfRange):
            start(ctx, "b", ip=IPAddress(outside))


def test_a_refused_start_changes_nothing(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_vnic(ctx, "a", subnet)
    start(ctx, "a")
    with pytest.raises(AddressOutOfRange):
        start(ctx, "a", ip=IPAddress("198.51.100.1"))
    assert vnics.get(ctx, "a").ip_state == "held"
    assert subnets.get(ctx, subnet.id).revision == 1


def test_a_running_vnic_does_not_change_subnet_or_mac(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_vnic(ctx, "a", subnet)
    start(ctx, "a")
    with pytest.raises(InUse):
        a_vnic(ctx, "a", None)
    with pytest.raises(InUse):
        a_vnic(ctx, "a", subnet, "02:00:00:00:00:99")


def test_a_hosts_own_address_is_never_handed_out(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    attached = {"blue": HostNetwork(interface="eth1", address=IPAddress("192.0.2.1"))}
    hosts.put(ctx, "one", control_url="http://h", username="u", password="p", networks=attached)
    a_vnic(ctx, "a", subnet)
    assert start(ctx, "a") == "192.0.2.2"
    with pytest.raises(AddressTaken):
        hosts.put(
            ctx,
            "two",
            control_url="http://h",
            username="u",
            password="p",
            networks={"blue": HostNetwork(interface="eth1", address=IPAddress("192.0.2.2"))},
        )
    hosts.delete_host(ctx, "one")
    assert subnets.get(ctx, subnet.id).usage.size == 254


def test_two_hosts_cannot_have_one_address(ctx: Context) -> None:
    attached = {"blue": HostNetwork(interface="eth1", address=IPAddress("192.0.2.1"))}
    hosts.put(ctx, "one", control_url="http://h", username="u", password="p", networks=attached)
    with pytest.raises(AddressTaken):
        hosts.put(ctx, "two", control_url="http://h", username="u", password="p", networks=attached)


def test_subnets_of_a_network_do_not_overlap(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    with pytest.raises(SubnetOverlap) as refusal:
        a_subnet(ctx, "192.0.0.0/16")
    assert refusal.value.facts["subnet"] == subnet.id


def test_a_subnet_in_use_stays(ctx: Context, clock: Clock) -> None:
    subnet = a_subnet(ctx)
    a_vnic(ctx, "a", subnet)
    start(ctx, "a")
    with pytest.raises(InUse):
        subnets.delete_subnet(ctx, subnet.id)
    vnics.delete_vnic(ctx, "a")
    with pytest.raises(InUse, match="1 draining"):
        subnets.delete_subnet(ctx, subnet.id)
    reservations.sweep(ctx)
    clock.advance(60)
    reservations.sweep(ctx)
    subnets.delete_subnet(ctx, subnet.id)
    assert subnets.list_subnets(ctx) == []


def test_without_a_server_start_says_so_and_keeps_the_promise(ctx: Context) -> None:
    a_vnic(ctx, "a", a_subnet(ctx))
    with pytest.raises(NoServer):
        vnics.start(ctx, "a")
    assert vnics.get(ctx, "a").ip_state == "held"


def test_start_names_the_hosts_that_have_not_confirmed(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_server(ctx, "one", subnet)
    a_server(ctx, "two", subnet)
    a_vnic(ctx, "a", subnet)
    with pytest.raises(NotConfirmed) as refusal:
        vnics.start(ctx, "a")
    assert refusal.value.facts["hosts"] == ["one", "two"]
    push(ctx, "two", subnet)
    assert vnics.start(ctx, "a", wait="one").servers[1].state == "confirmed"
    with pytest.raises(NotConfirmed) as refusal:
        vnics.start(ctx, "a", wait="all")
    assert refusal.value.facts["hosts"] == ["one"]


def test_a_batch_has_the_last_word_on_each_mac(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_server(ctx, "one", subnet)
    one, two = a_vnic(ctx, "a", subnet), a_vnic(ctx, "b", subnet)
    start(ctx, "a")
    start(ctx, "b")
    vnics.stop(ctx, "a")
    step = push(ctx, "one", subnet)
    assert isinstance(step, Batch)
    assert (step.base, step.revision) == (0, 3)
    assert step.set == ((two.mac, IPAddress("192.0.2.2"), None),)
    assert step.unset == (one.mac,)
    assert push(ctx, "one", subnet) is None


def test_a_server_that_confirmed_nothing_gets_the_whole_set(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_server(ctx, "one", subnet, confirmed=None)
    vnic = a_vnic(ctx, "a", subnet)
    start(ctx, "a")
    step = push(ctx, "one", subnet)
    assert isinstance(step, Resync)
    assert (step.revision, step.reservations) == (1, ((vnic.mac, IPAddress("192.0.2.1"), None),))


def test_where_the_log_does_not_reach_back_the_whole_set_is_sent(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_server(ctx, "one", subnet)
    a_vnic(ctx, "a", subnet)
    start(ctx, "a")
    with ctx.db.write() as connection:
        connection.execute(reservation_log.delete())
    assert isinstance(push(ctx, "one", subnet), Resync)


def test_a_confirmation_of_another_epoch_means_nothing(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_server(ctx, "one", subnet)
    a_vnic(ctx, "a", subnet)
    start(ctx, "a")
    replication.confirm(ctx, "one", subnet.id, "00000000-0000-0000-0000-000000000000", 1)
    assert {host: list(behind) for host, behind in replication.lagging(ctx).items()} == {"one": [subnet.id]}


def test_a_host_advances_from_where_it_is_known_to_be_and_from_nowhere_else(ctx: Context) -> None:
    """What it confirmed before somebody found it in another state is not taken for what it has now."""
    subnet = a_subnet(ctx)
    a_server(ctx, "one", subnet)
    with ctx.db.read() as connection:
        epoch = replication.epoch_of(connection)

    def advance(base: int, revision: int, of: str = epoch) -> None:
        told = Advance(subnet=subnet.id, epoch=of, base=base, revision=revision)
        replication.store(ctx, "one", [told])

    def confirmed() -> int | None:
        with ctx.db.read() as connection:
            value: int | None = connection.execute(select(server_subnets.c.confirmed_revision)).scalar_one()
            return value

    advance(0, 3)
    assert confirmed() == 3
    advance(0, 9)
    advance(4, 9)
    advance(3, 9, of="another")
    assert confirmed() == 3
    replication.forget(ctx, "one", subnet.id)
    advance(3, 9)
    assert confirmed() is None


def test_the_subnets_digest_is_that_of_its_reservations(ctx: Context) -> None:
    from leasehold.store.tables import subnets as table

    subnet = a_subnet(ctx)
    for name in "abc":
        a_vnic(ctx, name, subnet)
        start(ctx, name)
    vnics.stop(ctx, "b")
    held = reservations.list_reservations(ctx, subnet.id, limit=10)
    with ctx.db.read() as connection:
        kept = connection.execute(select(table.c.digest)).scalar_one()
    assert kept == digest_of([(each.mac, each.ip, None) for each in held])


def test_an_unreachable_server_does_not_count_as_ready(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    a_server(ctx, "one", subnet, confirmed=5)
    a_vnic(ctx, "a", subnet)
    with ctx.db.write() as connection:
        connection.execute(update(servers).values(state="unreachable", detail="no route to host"))
    with pytest.raises(NotConfirmed, match="no route to host"):
        vnics.start(ctx, "a")
