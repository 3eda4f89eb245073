"""What is derived from the leases that a server has on file, after events were lost."""

from collections.abc import Iterable
from typing import Any
from unittest.mock import create_autospec

import pytest
from netaddr import IPAddress
from sqlalchemy import update

from events.test_ingest import BOOT, NEXT_BOOT, loss
from events.test_leases import LEASE_S, MAC, OTHER, Site
from leasehold.domain.addresses import Mac
from leasehold.domain.lease_events import LEASE_TYPES, LeaseFound
from leasehold.domain.replication import HookStatus
from leasehold.errors import KeaRefused
from leasehold.kea.commands import Commands
from leasehold.service import events, hosts, ingest, read_backs
from leasehold.service.context import Context
from leasehold.store.tables import hosts as hosts_table
from leasehold.worker.read_back import ReadBack
from service.conftest import Clock


class Server(Site):
    """One whose leases on file are given."""

    def on_file(self, ip: str, mac: str | None = MAC, state: Any = "assigned", ago_s: int = 0) -> LeaseFound:
        seen_s = self.ctx.now_ms() // 1000 - ago_s
        return LeaseFound(
            self._subnet_of(ip),
            int(IPAddress(ip)),
            None if mac is None else Mac.parse(mac).value,
            state,
            seen_s,
            LEASE_S,
        )

    def read_back(self, found: Iterable[LeaseFound], meanwhile: Any = lambda: None) -> list[tuple[str, str]]:
        """Types and addresses of the events that were derived from these."""
        with self.ctx.db.write() as connection:
            read_backs.want(connection, "host-a", "a test", self.ctx.now_ms())
        before = read_backs.snapshot(self.ctx, "host-a")
        assert before is not None
        meanwhile()
        read_backs.conclude(self.ctx, before, found)
        return self.derived()

    def derived(self) -> list[tuple[str, str]]:
        told = events.list_events(self.ctx, limit=1000, types=LEASE_TYPES)
        return [(each.type, str(each.data["ip"])) for each in told if each.data.get("derived")]


@pytest.fixture
def server(ctx: Context, clock: Clock) -> Server:
    return Server(ctx, clock)


def test_a_lease_of_which_no_event_came_is_assigned(server: Server) -> None:
    ip = server.start("vnic-1")
    assert server.read_back([server.on_file(ip)]) == [("lease.assigned", ip)]
    (event,) = events.list_events(server.ctx, limit=10, types=("lease.assigned",))
    assert (event.data["vnic"], event.data["host"], event.data["reason"]) == ("vnic-1", "host-a", "read back")
    assert server.states() == [("host-a", ip, "assigned")]


def test_to_read_back_again_adds_nothing(server: Server) -> None:
    found = [
        server.on_file("192.0.2.7"),
        server.on_file("192.0.2.8", OTHER),
        server.on_file("192.0.2.9", None, "declined"),
    ]
    once = server.read_back(found)
    assert server.read_back(found) == once
    assert len(once) == 2


def test_what_was_told_is_not_told_again(server: Server) -> None:
    ip = server.start("vnic-1")
    server.report("assigned", ip)
    assert server.read_back([server.on_file(ip)]) == []


def test_a_later_renewal_is_derived(server: Server) -> None:
    ip = server.start("vnic-1")
    server.report("assigned", ip, ago_s=600)
    assert server.read_back([server.on_file(ip)]) == [("lease.renewed", ip)]


def test_a_lease_that_is_another_clients_by_now_is_assigned(server: Server) -> None:
    server.report("assigned", "192.0.2.7", ago_s=60)
    assert server.read_back([server.on_file("192.0.2.7", OTHER)]) == [("lease.assigned", "192.0.2.7")]


def test_a_lease_that_is_gone_was_released(server: Server) -> None:
    ip = server.start("vnic-1")
    server.report("assigned", ip)
    assert server.read_back([]) == [("lease.released", ip)]
    assert server.states() == [("host-a", ip, "released")]


def test_a_lease_that_is_gone_and_past_its_time_expired(server: Server) -> None:
    ip = server.start("vnic-1")
    server.report("assigned", ip)
    server.clock.advance(LEASE_S + 1)
    assert server.read_back([]) == [("lease.expired", ip)]


def test_a_lease_of_another_host_is_left_alone(server: Server) -> None:
    ip = server.start("vnic-1")
    server.report("assigned", ip, host="host-b")
    assert server.read_back([]) == []


def test_a_declined_lease_is_the_last_clients(server: Server) -> None:
    ip = server.start("vnic-1")
    server.report("assigned", ip, ago_s=60)
    assert server.read_back([server.on_file(ip, None, "declined")]) == [("lease.declined", ip)]
    (event,) = events.list_events(server.ctx, limit=10, types=("lease.declined",))
    assert event.data["mac"] == MAC


def test_what_changed_while_leases_were_read_is_as_the_event_says(server: Server) -> None:
    """The lease was read, and given back afterwards; its page would have it assigned."""
    ip = server.start("vnic-1")
    server.report("assigned", ip, ago_s=60)
    server.report("assigned", "192.0.2.77", OTHER, ago_s=60)

    def meanwhile() -> None:
        server.report("released", ip)
        server.report("assigned", "192.0.2.78", OTHER)

    found = [server.on_file(ip), server.on_file("192.0.2.77", OTHER, ago_s=60)]
    assert server.read_back(found, meanwhile) == []


def test_a_subnet_that_is_not_ours_is_left_alone(server: Server) -> None:
    found = LeaseFound(7, 1, 1, "assigned", server.ctx.now_ms() // 1000, LEASE_S)
    assert server.read_back([found]) == []


# ---- When it is wanted


@pytest.mark.parametrize(
    ("lines", "is_wanted"),
    [([loss(2)], True), ([loss(2, lost=1, first_seq=2, last_seq=2)], True), ([], False)],
)
def test_leases_are_wanted_after_a_gap(server: Server, lines: list[dict[str, Any]], is_wanted: bool) -> None:
    server.report("assigned", "192.0.2.7")
    _fulfil(server)
    ingest.ingest(server.ctx, "host-a", BOOT, 1, lines)
    assert read_backs.wanted(server.ctx) == (["host-a"] if is_wanted else [])


def test_leases_are_wanted_after_missing_numbers_and_another_boot(server: Server) -> None:
    server.report("assigned", "192.0.2.7")
    _fulfil(server)
    server._seq["host-a"] += 1
    server.report("renewed", "192.0.2.7")
    assert read_backs.wanted(server.ctx) == ["host-a"]
    _fulfil(server)
    ingest.ingest(server.ctx, "host-a", NEXT_BOOT, 2, [loss(1)])
    assert read_backs.wanted(server.ctx) == ["host-a"]


def test_a_wish_that_was_renewed_while_it_was_fulfilled_stays(server: Server) -> None:
    server.report("assigned", "192.0.2.7")
    before = read_backs.snapshot(server.ctx, "host-a")
    assert before is not None
    server.clock.advance(1)
    ingest.ingest(server.ctx, "host-a", NEXT_BOOT, 2, [loss(1)])
    read_backs.conclude(server.ctx, before, [])
    assert read_backs.wanted(server.ctx) == ["host-a"]


def _fulfil(server: Server) -> None:
    before = read_backs.snapshot(server.ctx, "host-a")
    assert before is not None
    read_backs.conclude(server.ctx, before, [server.on_file("192.0.2.7")])
    assert read_backs.wanted(server.ctx) == []


def test_the_host_says_why_its_leases_cannot_be_read_back(server: Server) -> None:
    server.report("assigned", "192.0.2.7")
    with server.ctx.db.write() as connection:
        connection.execute(update(hosts_table).values(health="up"))
    loop = ReadBack(server.ctx, create_autospec(Commands, instance=True), lambda: {"host-a": server.ctx})
    commands: Any = loop._commands
    commands.status.return_value = HookStatus(host="host-a", boot=BOOT, subnets=(), managed=frozenset())
    commands.leases.side_effect = KeaRefused("no", host="host-a", command="lease4-get-page", result=2, text="no")
    loop._turn()
    assert "libdhcp_lease_cmds.so" in str(hosts.show(server.ctx, "host-a").detail)
    commands.leases.side_effect = None
    commands.leases.return_value = iter([[server.on_file("192.0.2.7")]])
    loop._not_before.clear()
    loop._turn()
    assert hosts.show(server.ctx, "host-a").detail is None
