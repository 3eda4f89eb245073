"""The state of leases as events tell it, and the alarms about it: each once, until it ends."""

from collections.abc import Callable
from typing import Any

import pytest
from netaddr import IPAddress, IPNetwork
from sqlalchemy import insert, update

from events.test_ingest import BOOT
from leasehold.domain.addresses import Mac
from leasehold.domain.values import Event, Subnet, SubnetSpec, VnicSpec
from leasehold.errors import AddressTaken
from leasehold.service import events, hosts, ingest, leases, networks, reservations, settling, subnets, vnics
from leasehold.service.context import Context, from_ms
from leasehold.store.tables import server_subnets
from service.conftest import Clock

MAC = "02:00:00:00:00:01"
OTHER = "02:00:00:00:00:02"
LEASE_S = 3600


class Site:
    """Subnets that two hosts serve, which confirm when they are told to, and report what they are told to."""

    def __init__(self, ctx: Context, clock: Clock) -> None:
        self.ctx = ctx
        self.clock = clock
        self._seq = dict.fromkeys(("host-a", "host-b"), 0)
        for name in self._seq:
            hosts.put(ctx, name, control_url="http://192.0.2.2:8000/", username="u", password="p", networks={})
        self.blue = self.network("blue", "192.0.2.0/24")

    def network(self, name: str, cidr: str) -> Subnet:
        networks.put(self.ctx, name, ipam_enabled=True, ipam_servers=2)
        subnet = subnets.create(self.ctx, SubnetSpec(network=name, cidr=IPNetwork(cidr)))
        with self.ctx.db.write() as connection:
            for host in self._seq:
                connection.execute(insert(server_subnets).values(host_id=host, subnet_id=subnet.id))
        return subnet

    def confirm(self, subnet: Subnet | None = None) -> None:
        """Both hosts have all that is reserved on the subnet now. A while passes before and after."""
        self.clock.advance(60)
        subnet = subnets.get(self.ctx, (subnet or self.blue).id)
        with self.ctx.db.write() as connection:
            connection.execute(
                update(server_subnets)
                .where(server_subnets.c.subnet_id == subnet.id)
                .values(confirmed_revision=subnet.revision, confirmed_ms=self.ctx.now_ms())
            )
        self.clock.advance(60)

    def start(self, vnic: str, mac: str = MAC, subnet: Subnet | None = None) -> str:
        """Its address."""
        subnet = subnet or self.blue
        spec = VnicSpec(id=vnic, vm=f"vm-of-{vnic}", name="eth0", subnet=subnet.id, mac=Mac.parse(mac))
        vnics.put(self.ctx, spec)
        address = str(vnics.start(self.ctx, vnic, wait="none").ip)
        self.confirm(subnet)
        return address

    def report(self, kind: str, ip: str, mac: str = MAC, *, host: str = "host-a", ago_s: float = 0) -> None:
        self._seq[host] += 1
        at_ms = self.ctx.now_ms() - round(ago_s * 1000)
        line = {
            "seq": self._seq[host],
            "type": f"lease.{kind}",
            "at": at_ms,
            "subnet": self._subnet_of(ip),
            "ip": ip,
            "mac": mac,
            "valid_lft": LEASE_S,
            "cltt": at_ms // 1000,
        }
        ingest.ingest(self.ctx, host, BOOT if host == "host-a" else f"{BOOT[:-1]}9", 1, [line])

    def alarms(self, kind: str = "lease.diverged") -> list[Event]:
        return events.list_events(self.ctx, limit=1000, types=(kind,))

    def states(self) -> list[tuple[str, str, str]]:
        """Host, address and state of each lease."""
        return [(each.host, str(each.ip), each.state) for each in leases.list_leases(self.ctx, limit=100)]

    def _subnet_of(self, ip: str) -> int:
        found = [each.id for each in subnets.list_subnets(self.ctx) if IPAddress(ip) in each.cidr]
        return found[0] if found else self.blue.id


@pytest.fixture
def site(ctx: Context, clock: Clock) -> Site:
    return Site(ctx, clock)


def told(alarms: list[Event]) -> list[Any]:
    return [each.data["status"] for each in alarms]


# ---- What is reserved does not diverge


def test_a_lease_of_what_is_reserved_is_right(site: Site) -> None:
    ip = site.start("vnic-1")
    site.report("assigned", ip)
    assert site.alarms() == []
    assert site.states() == [("host-a", ip, "assigned")]


def test_what_was_reserved_when_it_was_granted_is_right(site: Site) -> None:
    """Granted, then withdrawn and confirmed as withdrawn, and only then heard of."""
    ip = site.start("vnic-1")
    site.clock.advance(300)
    vnics.stop(site.ctx, "vnic-1")
    site.confirm()
    site.report("assigned", ip, ago_s=200)
    assert site.alarms() == []


def test_a_server_that_has_not_heard_of_the_withdrawal_is_right(site: Site) -> None:
    ip = site.start("vnic-1")
    vnics.stop(site.ctx, "vnic-1")
    site.report("renewed", ip)
    assert site.alarms() == []


def test_what_was_free_again_when_it_was_heard_of_is_right(site: Site) -> None:
    ip = site.start("vnic-1")
    vnics.stop(site.ctx, "vnic-1")
    site.confirm()
    for _ in range(3):
        reservations.sweep(site.ctx)
        site.clock.advance(60)
    site.report("assigned", ip, ago_s=310)
    assert site.alarms() == []


# ---- What diverges, and until when


def test_a_lease_of_what_is_not_reserved_diverges(site: Site) -> None:
    site.confirm()
    site.report("assigned", "192.0.2.77")
    (alarm,) = site.alarms()
    assert (alarm.subject, alarm.data["status"]) == (f"subnets/{site.blue.id}/addresses/192.0.2.77", "raised")
    assert (alarm.data["host"], alarm.data["mac"], alarm.data["reserved_for"]) == ("host-a", MAC, None)
    assert alarm.data["reason"] == "the address is not reserved"


def test_a_lease_of_what_is_anothers_diverges_and_says_whose(site: Site) -> None:
    ip = site.start("vnic-1")
    site.report("assigned", ip, OTHER)
    (alarm,) = site.alarms()
    assert (alarm.data["mac"], alarm.data["reserved_for"]) == (OTHER, MAC)


def test_a_lease_after_its_withdrawal_was_confirmed_diverges(site: Site) -> None:
    ip = site.start("vnic-1")
    vnics.stop(site.ctx, "vnic-1")
    site.confirm()
    site.report("renewed", ip)
    (alarm,) = site.alarms()
    assert (alarm.data["reason"], alarm.data["vnic"]) == ("the reservation was withdrawn", "vnic-1")


def test_a_host_that_is_no_server_diverges(site: Site, ctx: Context) -> None:
    hosts.put(ctx, "host-c", control_url="http://192.0.2.3:8000/", username="u", password="p", networks={})
    site._seq["host-c"] = 0
    site.report("assigned", "192.0.2.77", host="host-c")
    assert [each.data["reason"] for each in site.alarms()] == ["this host is no server of the network"]


def test_a_divergence_is_told_once_however_often_it_is_renewed(site: Site) -> None:
    site.confirm()
    site.report("assigned", "192.0.2.77")
    for _ in range(3):
        site.clock.advance(60)
        site.report("renewed", "192.0.2.77")
    assert told(site.alarms()) == ["raised"]


@pytest.mark.parametrize("kind", ["released", "expired", "declined"])
def test_a_divergence_ends_with_its_lease_and_may_begin_again(site: Site, kind: str) -> None:
    site.confirm()
    site.report("assigned", "192.0.2.77")
    site.report(kind, "192.0.2.77")
    site.report("assigned", "192.0.2.77")
    assert told(site.alarms()) == ["raised", "cleared", "raised"]


def test_a_divergence_ends_when_the_address_is_reserved_so(site: Site) -> None:
    site.confirm()
    site.report("assigned", "192.0.2.1")
    assert site.start("vnic-1") == "192.0.2.1"
    site.report("renewed", "192.0.2.1")
    assert told(site.alarms()) == ["raised", "cleared"]


def test_a_divergence_ends_by_time_where_no_event_ends_it(site: Site) -> None:
    site.confirm()
    site.report("assigned", "192.0.2.77")
    settling.settle(site.ctx)
    assert told(site.alarms()) == ["raised"]
    site.clock.advance(LEASE_S + 10)
    settling.settle(site.ctx)
    settling.settle(site.ctx)
    assert told(site.alarms()) == ["raised", "cleared"]


def test_another_mac_on_the_address_is_another_divergence(site: Site) -> None:
    site.confirm()
    site.report("assigned", "192.0.2.77")
    site.report("assigned", "192.0.2.77", OTHER)
    assert [(each.data["status"], each.data["mac"]) for each in site.alarms()] == [
        ("raised", MAC),
        ("cleared", MAC),
        ("raised", OTHER),
    ]


def test_each_server_diverges_for_itself(site: Site) -> None:
    site.confirm()
    site.report("assigned", "192.0.2.77")
    site.report("assigned", "192.0.2.77", host="host-b")
    site.report("released", "192.0.2.77")
    assert [(each.data["status"], each.data["host"]) for each in site.alarms()] == [
        ("raised", "host-a"),
        ("raised", "host-b"),
        ("cleared", "host-a"),
    ]


def test_events_and_alarms_of_an_address_are_numbered_together(site: Site) -> None:
    site.confirm()
    site.report("assigned", "192.0.2.77")
    site.report("assigned", "192.0.2.77", host="host-b")
    site.report("released", "192.0.2.77")
    subject = f"subnets/{site.blue.id}/addresses/192.0.2.77"
    found = events.list_events(site.ctx, limit=100, subject=subject)
    assert [each.sequence for each in found] == [1, 2, 3, 4, 5, 6]


# ---- One MAC, two leases


@pytest.fixture
def twins(site: Site) -> tuple[str, str]:
    """The addresses of two twins that run, on two networks."""
    red = site.network("red", "198.51.100.0/24")
    for name, subnet in (("vnic-1", site.blue), ("vnic-2", red)):
        vnics.put(site.ctx, VnicSpec(id=name, vm=f"vm-of-{name}", name="eth0", subnet=subnet.id))
    vnics.make_twins(site.ctx, "vnic-2", "vnic-1")
    addresses = [str(vnics.start(site.ctx, name, wait="none").ip) for name in ("vnic-1", "vnic-2")]
    site.confirm()
    site.confirm(red)
    return addresses[0], addresses[1]


@pytest.fixture
def shared(site: Site, twins: tuple[str, str]) -> str:
    """Their MAC."""
    return str(vnics.get(site.ctx, "vnic-1").mac)


def test_twins_that_both_hold_a_lease_are_told_once(site: Site, twins: tuple[str, str], shared: str) -> None:
    for address in (*twins, *twins):
        site.report("assigned", address, shared)
    site.report("assigned", twins[1], shared, host="host-b")
    (alarm,) = site.alarms("mac.conflict")
    assert (alarm.subject, alarm.data["status"]) == (f"macs/{shared}", "raised")
    held: Any = alarm.data["leases"]
    assert [(each["ip"], each["vnic"]) for each in held] == [(twins[0], "vnic-1"), (twins[1], "vnic-2")]


def test_one_twin_at_a_time_is_no_conflict(site: Site, twins: tuple[str, str], shared: str) -> None:
    site.report("assigned", twins[0], shared)
    site.report("assigned", twins[0], shared, host="host-b")
    site.report("released", twins[0], shared)
    site.report("released", twins[0], shared, host="host-b")
    site.report("assigned", twins[1], shared)
    assert site.alarms("mac.conflict") == []


def _released(site: Site, address: str, mac: str) -> None:
    site.report("released", address, mac)


def _out_of_time(site: Site, address: str, mac: str) -> None:
    site.clock.advance(LEASE_S + 10)


def _stopped(site: Site, address: str, mac: str) -> None:
    vnics.stop(site.ctx, "vnic-1")


@pytest.mark.parametrize("end", [_released, _out_of_time, _stopped])
def test_a_conflict_ends_with_one_of_its_leases_and_may_begin_again(
    site: Site, twins: tuple[str, str], shared: str, end: Callable[[Site, str, str], None]
) -> None:
    for address in twins:
        site.report("assigned", address, shared)
    end(site, twins[0], shared)
    settling.settle(site.ctx)
    settling.settle(site.ctx)
    assert told(site.alarms("mac.conflict")) == ["raised", "cleared"]
    vnics.start(site.ctx, "vnic-1", wait="none")
    for address in twins:
        site.report("assigned", address, shared)
    assert told(site.alarms("mac.conflict")) == ["raised", "cleared", "raised"]


def test_a_vnic_that_moved_is_in_no_conflict_with_itself(site: Site) -> None:
    red = site.network("red", "198.51.100.0/24")
    before = site.start("vnic-1")
    site.report("assigned", before)
    vnics.stop(site.ctx, "vnic-1")
    after = site.start("vnic-1", subnet=red)
    site.report("assigned", after)
    assert site.alarms("mac.conflict") == []


# ---- States


def test_a_lease_past_its_time_counts_as_expired(site: Site) -> None:
    ip = site.start("vnic-1")
    site.report("assigned", ip)
    site.clock.advance(LEASE_S - 1)
    assert site.states() == [("host-a", ip, "assigned")]
    site.clock.advance(2)
    assert site.states() == [("host-a", ip, "expired")]


@pytest.mark.parametrize("kind", ["released", "expired", "declined"])
def test_the_last_event_says_the_state(site: Site, kind: str) -> None:
    ip = site.start("vnic-1")
    site.report("assigned", ip)
    site.report(kind, ip)
    assert site.states() == [("host-a", ip, kind)]


def test_the_end_of_an_older_lease_does_not_end_the_present_one(site: Site) -> None:
    ip = site.start("vnic-1")
    site.report("assigned", ip)
    site.report("expired", ip, OTHER)
    assert site.states() == [("host-a", ip, "assigned")]


def test_a_lease_begins_once_and_renewals_go_on_with_it(site: Site) -> None:
    ip = site.start("vnic-1")
    site.report("assigned", ip)
    began_ms = site.ctx.now_ms()
    site.clock.advance(600)
    site.report("renewed", ip)
    (lease,) = leases.list_leases(site.ctx, limit=10)
    assert lease.since == from_ms(began_ms)
    assert lease.expires_at == from_ms(site.ctx.now_ms() + LEASE_S * 1000)
    assert (lease.vnic, lease.is_reserved) == ("vnic-1", True)


def test_a_lease_that_went_with_its_reservation_ends_with_an_event(site: Site) -> None:
    """The hook deletes such a lease, and tells nothing of it."""
    ip = site.start("vnic-1")
    site.report("assigned", ip)
    vnics.stop(site.ctx, "vnic-1")
    settling.settle(site.ctx)
    assert site.states() == [("host-a", ip, "assigned")]
    site.confirm()
    settling.settle(site.ctx)
    settling.settle(site.ctx)
    assert site.states() == [("host-a", ip, "released")]
    (event,) = events.list_events(site.ctx, limit=10, types=("lease.released",))
    assert (event.data["derived"], event.data["reason"], event.data["vnic"]) == (True, "withdrawn", "vnic-1")


def test_an_address_that_was_declined_is_nobody_elses_until_its_probation_is_over(site: Site) -> None:
    ip = site.start("vnic-1")
    site.report("declined", ip)
    vnics.stop(site.ctx, "vnic-1")
    site.confirm()

    def start_another() -> None:
        reservations.sweep(site.ctx)
        site.clock.advance(site.ctx.settings.cool_down_s + 1)
        reservations.sweep(site.ctx)
        vnics.start(site.ctx, "vnic-2", wait="none", ip=IPAddress(ip))

    vnics.put(site.ctx, VnicSpec(id="vnic-2", vm="vm-2", name="eth0", subnet=site.blue.id))
    with pytest.raises(AddressTaken):
        start_another()
    site.clock.advance(LEASE_S)
    start_another()


def test_leases_are_found_by_subnet_mac_address_and_host(site: Site) -> None:
    red = site.network("red", "198.51.100.0/24")
    for ip, mac, host in (
        ("192.0.2.7", MAC, "host-a"),
        ("192.0.2.7", MAC, "host-b"),
        ("198.51.100.7", OTHER, "host-a"),
    ):
        site.report("assigned", ip, mac, host=host)

    def found(**which: Any) -> list[tuple[str, str]]:
        return [(str(each.ip), each.host) for each in leases.list_leases(site.ctx, limit=10, **which)]

    assert found(subnet=red.id) == [("198.51.100.7", "host-a")]
    assert found(mac=Mac.parse(MAC)) == [("192.0.2.7", "host-a"), ("192.0.2.7", "host-b")]
    assert found(ip=IPAddress("192.0.2.7")) == [("192.0.2.7", "host-a"), ("192.0.2.7", "host-b")]
    assert found(host="host-b") == [("192.0.2.7", "host-b")]
    assert found(host="host-b", subnet=red.id) == []


def test_leases_come_in_parts(site: Site) -> None:
    for number in range(5):
        for host in ("host-a", "host-b"):
            site.report("assigned", f"192.0.2.{number + 1}", host=host)
    whole = leases.list_leases(site.ctx, limit=100)
    part, parts = whole[:0], []
    while part := leases.list_leases(site.ctx, limit=3, after=leases.key_of(part[-1]) if part else None):
        parts += part
    assert parts == whole
    assert len(whole) == 10


def test_a_subnet_takes_its_leases_along(site: Site) -> None:
    red = site.network("red", "198.51.100.0/24")
    site.report("assigned", "198.51.100.7")
    with site.ctx.db.write() as connection:
        connection.execute(server_subnets.delete())
    subnets.delete_subnet(site.ctx, red.id)
    assert site.states() == []
