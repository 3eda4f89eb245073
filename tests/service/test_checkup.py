"""What servers have is held against what they should have, and what passes by itself is not told."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from netaddr import IPAddress
from sqlalchemy import update

from leasehold.domain.addresses import Mac
from leasehold.domain.lease_events import LeaseFound
from leasehold.domain.placement import Served
from leasehold.domain.replication import HookStatus, SubnetState, digest_of
from leasehold.domain.values import Host, HostNetwork, Subnet
from leasehold.errors import HostUnreachable
from leasehold.kea.rendering import render
from leasehold.service import checkup, hosts, networks, replication, reservations, subnet_changes, vnics
from leasehold.service.context import Context
from leasehold.store.tables import servers
from service.statements import sent_to
from service.test_life_of_an_address import a_server, a_subnet, a_vnic, push, start

MAC = Mac.parse("02:00:00:00:00:01")
ATTACHMENT = HostNetwork(interface="eth-blue", address=IPAddress("192.0.2.254"))


@dataclass
class Kea:
    """A server that says what it is told to."""

    state: SubnetState
    leases_found: list[LeaseFound] = field(default_factory=list)
    managed: frozenset[int] = frozenset()
    configuration: dict[str, Any] = field(default_factory=dict)
    silent: bool = False

    def status(self, host: Host) -> HookStatus:
        if self.silent:
            raise HostUnreachable("It does not answer.", host=host.id, url="", reason="")
        return HookStatus(host=host.id, boot="b", subnets=(self.state,), managed=self.managed)

    def config_get(self, host: Host) -> dict[str, Any]:
        return self.configuration

    def leases(self, host: Host) -> Iterable[list[LeaseFound]]:
        return [self.leases_found]

    def has_lease(self, ctx: Context, ip: str, mac: Mac = MAC, ends_in_s: int = 600) -> None:
        seen_s = ctx.now_ms() // 1000 - 60
        found = LeaseFound(
            subnet=self.state.subnet,
            address=int(IPAddress(ip)),
            mac=mac.value,
            state="assigned",
            seen_s=seen_s,
            lease_time_s=60 + ends_in_s,
        )
        self.leases_found.append(found)


@pytest.fixture
def subnet(ctx: Context) -> Subnet:
    """With 192.0.2.1 for MAC, confirmed."""
    found = a_subnet(ctx)
    a_server(ctx, "one", found)
    hosts.change(ctx, "one", values={}, networks={"blue": ATTACHMENT})
    a_vnic(ctx, "a", found, str(MAC))
    start(ctx, "a")
    push(ctx, "one", found)
    return found


@pytest.fixture
def kea(ctx: Context, subnet: Subnet) -> Kea:
    """In step, and configured, with a's lease."""
    with ctx.db.read() as connection:
        epoch = replication.epoch_of(connection)
    digest = digest_of([(MAC, IPAddress("192.0.2.1"), None)])
    kea = Kea(SubnetState(subnet=subnet.id, epoch=epoch, revision=1, count=1, digest=digest))
    kea.configuration = render({}, [Served(network="blue", attachment=ATTACHMENT, subnets=((subnet.id, subnet),))])
    kea.has_lease(ctx, "192.0.2.1")
    return kea


def codes(ctx: Context, kea: Kea, meanwhile: Callable[[], object] = lambda: None) -> list[str]:
    return [each.code for each in checkup.check_up(ctx, commands=kea, pause=lambda _: meanwhile())]


def test_a_server_in_step_is_well(ctx: Context, kea: Kea) -> None:
    assert codes(ctx, kea) == []


def test_other_reservations_than_ours_are_found(ctx: Context, kea: Kea) -> None:
    kea.state = replace(kea.state, digest="0" * 16)
    assert codes(ctx, kea) == ["server-differs"]


def test_a_server_behind_is_compared_at_its_own_revision(ctx: Context, kea: Kea, subnet: Subnet) -> None:
    a_vnic(ctx, "b", subnet)
    start(ctx, "b")
    assert codes(ctx, kea) == ["server-behind"]
    kea.state = replace(kea.state, digest="0" * 16)
    assert codes(ctx, kea) == ["server-differs", "server-behind"]


def test_another_epoch_and_no_reservations_are_found(ctx: Context, kea: Kea) -> None:
    kea.state = replace(kea.state, epoch="another")
    assert codes(ctx, kea) == ["server-apart"]


def test_a_silent_host_is_told_at_once(ctx: Context, kea: Kea) -> None:
    kea.silent = True
    assert codes(ctx, kea) == ["not-compared"]


def test_who_serves_unasked_is_found(ctx: Context, kea: Kea) -> None:
    kea.managed = frozenset({kea.state.subnet, 77})
    assert codes(ctx, kea) == ["serves-unasked"]


@pytest.mark.parametrize(
    ("ip", "mac", "ends_in_s", "expected"),
    [
        ("192.0.2.2", MAC, 600, ["lease-of-nobody"]),
        ("192.0.2.1", Mac.parse("02:00:00:00:00:02"), 600, ["lease-of-nobody"]),
        ("192.0.2.2", MAC, -1, []),
    ],
)
def test_a_lease_of_nobody_is_found(
    ctx: Context, kea: Kea, ip: str, mac: Mac, ends_in_s: int, expected: list[str]
) -> None:
    kea.has_lease(ctx, ip, mac, ends_in_s)
    assert codes(ctx, kea) == expected


def test_the_lease_of_a_draining_address_is_as_it_should_be_and_of_a_cooling_one_not(
    ctx: Context, kea: Kea, subnet: Subnet
) -> None:
    vnics.stop(ctx, "a")
    assert codes(ctx, kea) == ["server-behind"]
    push(ctx, "one", subnet)
    reservations.sweep(ctx)
    assert "lease-of-nobody" in codes(ctx, kea)


def test_what_is_mended_meanwhile_is_not_told(ctx: Context, kea: Kea) -> None:
    right = kea.state
    kea.state = replace(right, digest="0" * 16)

    def mend() -> None:
        kea.state = right

    assert codes(ctx, kea, mend) == []
    kea.has_lease(ctx, "192.0.2.9")
    assert codes(ctx, kea, kea.leases_found.pop) == []


def test_what_kea_runs_is_held_against_what_is_wanted(ctx: Context, kea: Kea, subnet: Subnet) -> None:
    subnet_changes.change(ctx, subnet.id, {"gateway": IPAddress("192.0.2.200"), "lease_time_s": 700})
    (found,) = checkup.check_up(ctx, commands=kea, pause=lambda _: None)
    assert (found.code, found.subject) == ("configuration-differs", "hosts/one")
    assert f"option-data of subnet {subnet.id}" in found.sentence
    differs = {
        each["what"]: (each["runs"], each["wanted"]) for each in cast(list[dict[str, object]], found.facts["differs"])
    }
    assert differs[f"valid-lifetime of subnet {subnet.id}"] == (3600, 700)


def test_a_subnet_of_ours_that_kea_does_not_run_or_runs_in_vain_is_found(ctx: Context, kea: Kea) -> None:
    right, kea.configuration = kea.configuration, {}
    assert codes(ctx, kea) == ["configuration-differs"]
    kea.configuration = right
    networks.put(ctx, "blue", ipam_enabled=False, ipam_servers=1)
    assert codes(ctx, kea) == []
    with ctx.db.write() as connection:
        connection.execute(update(servers).values(state="stopping"))
    assert codes(ctx, kea) == ["configuration-differs"]


def test_a_configuration_that_is_mended_meanwhile_is_not_told(ctx: Context, kea: Kea) -> None:
    right, kea.configuration = kea.configuration, {}

    def mend() -> None:
        kea.configuration = right

    assert codes(ctx, kea, mend) == []


def test_a_page_of_leases_takes_as_many_queries_as_one_lease(ctx: Context, kea: Kea) -> None:
    def queries() -> int:
        with sent_to(ctx.db.engine) as sent:
            checkup.compare(ctx, kea)
        return len(sent)

    of_one = queries()
    for number in range(2, 200):
        kea.has_lease(ctx, f"192.0.2.{number}")
    assert queries() == of_one
    assert codes(ctx, kea) == ["lease-of-nobody"] * 198
