"""Locks are taken in one order, so that changes queue and never wait for each other in a circle (DECISIONS.md)."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from netaddr import IPAddress, IPNetwork
from sqlalchemy import Connection, select, text

from lab.postgres import Postgres
from lab.waiting import wait_until
from leasehold.domain.addresses import Mac, MacRange
from leasehold.domain.values import HostNetwork, Subnet, SubnetSpec, Vnic, VnicSighting, VnicSpec
from leasehold.errors import DatabaseBusy, InUse, LeaseholdError, SubnetRetiring
from leasehold.service import (
    events,
    hosts,
    lineage,
    mac_pools,
    macs,
    networks,
    renumbering,
    scopes,
    subnet_changes,
    subnets,
    vnics,
)
from leasehold.service.context import DEFAULT_POOL, Context
from leasehold.store.tables import vnics as vnics_table
from service.conftest import Clock
from service.test_life_of_an_address import a_subnet, a_vnic, start

# SQLite has one writer at a time.
pytestmark = pytest.mark.parametrize("fresh_database", ["postgresql"], indirect=True)

PATIENCE_S = 20


class Beside:
    """A call in a thread of its own, beside a transaction that is under way. `done` is what it answered or raised."""

    def __init__(self, ctx: Context, call: Callable[[], object]) -> None:
        self._ctx, self._call = ctx, call
        self.done: Any = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.done = self._call()
        except LeaseholdError as error:
            self.done = error

    def end(self) -> Any:
        """What it answered or raised, once it has."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        return self.done

    def rest(self) -> "Beside":
        """Returns when it has ended, or waits for a lock."""
        waits = text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )

        def is_at_rest() -> bool:
            with self._ctx.db.read() as connection:
                return not self._thread.is_alive() or bool(connection.execute(waits).scalar_one())

        wait_until(is_at_rest, PATIENCE_S, "the call ends or waits")
        return self


def part(ctx: Context, connection: Connection) -> Context:
    """For calls that are parts of this transaction."""
    return replace(ctx, db=ctx.db.joined(connection))


def lock_vnic(connection: Connection, vnic_id: str) -> None:
    connection.execute(select(vnics_table.c.id).where(vnics_table.c.id == vnic_id).with_for_update())


def test_one_who_has_a_subnet_does_not_wait_for_a_new_vnic_on_it(ctx: Context, postgres_server: Postgres) -> None:
    """As PATCH with another MAC of a vNIC that runs: first the subnet, then the pool's space."""
    subnet = a_subnet(ctx)
    deadlocks = len(postgres_server.deadlocks())
    with ctx.db.write() as connection:
        subnets.require(connection, subnet.id, lock=True)
        creating = Beside(ctx, lambda: vnics.put(ctx, VnicSpec(id="a", vm="vm", name="eth0", subnet=subnet.id))).rest()
        macs.draw(ctx, connection, DEFAULT_POOL, ["another"])
    assert creating.end()[1]
    assert postgres_server.deadlocks()[deadlocks:] == []


def test_a_vnic_comes_to_the_subnet_of_its_mac_in_the_same_order(ctx: Context, postgres_server: Postgres) -> None:
    """A vNIC that runs, and that only its new MAC brings to a subnet."""
    here, there = a_subnet(ctx), a_subnet(ctx, "198.51.100.0/24")
    subnet_changes.change(ctx, there.id, {"mac_ranges": (MacRange(Mac(2), Mac(9)),)})
    a_vnic(ctx, "a", here)
    start(ctx, "a")
    deadlocks = len(postgres_server.deadlocks())
    with ctx.db.write() as connection:
        subnets.require(connection, there.id, lock=True)
        wanted = {"subnet": None, "network": None, "mac": Mac(4)}
        changing = Beside(ctx, lambda: vnics.change(ctx, "a", wanted, wait="none")).rest()  # type: ignore[arg-type]
        macs.lock(connection, [Mac(4)], [], [DEFAULT_POOL])
    assert changing.end().vnic.subnet == there.id
    assert postgres_server.deadlocks()[deadlocks:] == []


@pytest.mark.parametrize("what", ["subnets", "macs", "twins"])
def test_a_sync_lets_missing_ones_go_in_the_same_order(
    ctx: Context, clock: Clock, postgres_server: Postgres, what: str
) -> None:
    first, second = a_subnet(ctx), a_subnet(ctx, "198.51.100.0/24")
    for name, subnet in (("a", second), ("b", first), ("c", first)):
        a_vnic(ctx, name, subnet)
        start(ctx, name)
    if what == "twins":
        vnics.stop(ctx, "c")
        vnics.make_twins(ctx, "c", "a")
    own = Mac(vnics.get(ctx, "a").mac.value)
    kept = VnicSighting(id="a", fields={}, running=None)
    seen = [kept] if what == "twins" else []
    vnics.sync(ctx, seen, allow_empty=True)
    clock.advance(ctx.settings.missing_grace_s)
    deadlocks = len(postgres_server.deadlocks())
    with ctx.db.write() as connection:
        if what == "twins":
            lock_vnic(connection, "a")
        else:
            subnets.require(connection, first.id, lock=True)
        syncing = Beside(ctx, lambda: vnics.sync(ctx, seen, allow_empty=True)).rest()
        if what == "subnets":
            subnets.require(connection, second.id, lock=True)
        elif what == "macs":
            macs.lock(connection, [own], [], [])
        else:
            lock_vnic(connection, "b")
    assert syncing.end().deleted == (("b", "c") if what == "twins" else ("a", "b", "c"))
    assert postgres_server.deadlocks()[deadlocks:] == []


def test_a_sync_starts_in_the_same_order(ctx: Context, postgres_server: Postgres) -> None:
    first, second = a_subnet(ctx), a_subnet(ctx, "198.51.100.0/24")
    a_vnic(ctx, "a", second)
    a_vnic(ctx, "b", first)
    seen = [VnicSighting(id=name, fields={}, running=True) for name in ("a", "b")]
    deadlocks = len(postgres_server.deadlocks())
    with ctx.db.write() as connection:
        subnets.require(connection, first.id, lock=True)
        syncing = Beside(ctx, lambda: vnics.sync(ctx, seen)).rest()
        subnets.require(connection, second.id, lock=True)
    assert syncing.end().started == ("a", "b")
    assert postgres_server.deadlocks()[deadlocks:] == []


def put(ctx: Context, **fields: Any) -> Vnic:
    return vnics.put(ctx, VnicSpec(id="a", vm="vm", name="eth0", **fields))[0]


def renumber(ctx: Context, subnet: Subnet) -> int:
    return renumbering.renumber(ctx, subnet.id, IPNetwork("198.51.100.0/24"), {}).subnet.id


def test_a_vnic_that_is_new_on_a_subnet_moves_with_it(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    with ctx.db.write() as connection:
        put(part(ctx, connection), subnet=subnet.id)
        renumbering = Beside(ctx, lambda: renumber(ctx, subnet)).rest()
    successor = renumbering.end()
    assert vnics.get(ctx, "a").subnet == successor


def test_a_vnic_does_not_come_to_a_subnet_that_was_renumbered_meanwhile(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    with ctx.db.write() as connection:
        successor = renumber(part(ctx, connection), subnet)
        creating = Beside(ctx, lambda: put(ctx, subnet=subnet.id)).rest()
    refusal = creating.end()
    assert isinstance(refusal, SubnetRetiring), refusal
    assert refusal.facts["successor"] == successor


def test_a_vnic_comes_by_its_mac_to_the_subnet_that_was_renumbered_meanwhile(ctx: Context) -> None:
    subnet = a_subnet(ctx)
    subnet_changes.change(ctx, subnet.id, {"mac_ranges": (MacRange(Mac(2), Mac(9)),)})
    with ctx.db.write() as connection:
        successor = renumber(part(ctx, connection), subnet)
        creating = Beside(ctx, lambda: put(ctx, mac=Mac(4))).rest()
    assert creating.end().subnet == successor


@pytest.mark.parametrize("what", ["network", "subnet"])
def test_what_a_new_vnic_names_is_in_use(ctx: Context, what: str) -> None:
    subnet = a_subnet(ctx)
    networks.put(ctx, "green", ipam_enabled=False, ipam_servers=None)
    delete = {
        "network": lambda: networks.delete_network(ctx, "green"),
        "subnet": lambda: subnets.delete_subnet(ctx, subnet.id),
    }
    with ctx.db.write() as connection:
        put(part(ctx, connection), **({"network": "green"} if what == "network" else {"subnet": subnet.id}))
        deleting = Beside(ctx, delete[what]).rest()
    assert isinstance(deleting.end(), InUse), deleting.done
    assert deleting.done.facts["vnics"] == ["a"]


def test_hosts_come_between_no_two_subnets(ctx: Context, postgres_server: Postgres) -> None:
    """A host's own addresses are taken from the subnets of several networks."""
    first = a_subnet(ctx)
    networks.put(ctx, "green", ipam_enabled=True, ipam_servers=1)
    second = subnets.create(ctx, SubnetSpec(network="green", cidr=IPNetwork("198.51.100.0/24")))
    own = {
        network: HostNetwork(interface="eth0", address=IPAddress(address))
        for network, address in (("green", "198.51.100.9"), ("blue", "192.0.2.9"))
    }
    deadlocks = len(postgres_server.deadlocks())
    with ctx.db.write() as connection:
        subnets.lock(connection, [first.id])
        attaching = Beside(
            ctx, lambda: hosts.put(ctx, "h", control_url="http://h", username="u", password="p", networks=own)
        ).rest()
        subnets.lock(connection, [second.id])
    assert attaching.end()[1]
    assert postgres_server.deadlocks()[deadlocks:] == []


def test_a_new_history_comes_between_no_subnet_and_its_events(ctx: Context, postgres_server: Postgres) -> None:
    subnet = a_subnet(ctx)
    deadlocks = len(postgres_server.deadlocks())
    with ctx.db.write() as connection:
        subnets.lock(connection, [subnet.id])
        beginning = Beside(ctx, lambda: lineage.begin_new_history(ctx)).rest()
        events.queue_up(connection)
    assert beginning.end() is None
    assert postgres_server.deadlocks()[deadlocks:] == []


def test_the_end_of_a_recovery_comes_between_no_two_subnets(ctx: Context, postgres_server: Postgres) -> None:
    first, second = a_subnet(ctx), a_subnet(ctx, "198.51.100.0/24")
    # Its row is behind the other one's from now on.
    subnet_changes.change(ctx, first.id, {"mtu": 1400})

    def end() -> None:
        with ctx.db.write() as connection:
            lineage.end_recovery(connection, [first.id, second.id])

    deadlocks = len(postgres_server.deadlocks())
    with ctx.db.write() as connection:
        subnets.lock(connection, [first.id])
        ending = Beside(ctx, end).rest()
        subnets.lock(connection, [second.id])
    assert ending.end() is None
    assert postgres_server.deadlocks()[deadlocks:] == []


@pytest.mark.parametrize("change", ["scope", "merge", "split"])
def test_a_change_of_rules_comes_between_no_two_vnics(ctx: Context, postgres_server: Postgres, change: str) -> None:
    ranges = MacRange(Mac(0x100), Mac(0x1FF)), MacRange(Mac(0x200), Mac(0x2FF))
    pool, other = (mac_pools.create(ctx, name=name, ranges=ranges[at : at + 1]).id for at, name in enumerate("ab"))
    scopes.put(ctx, "cluster", "c", mac_pool=pool)
    for name in ("b", "a"):  # so that their rows are in this order
        vnics.put(ctx, VnicSpec(id=name, vm="vm", name="eth0", cluster="c"))
    calls: dict[str, Callable[[], object]] = {
        "scope": lambda: scopes.put(ctx, "cluster", "c", mac_pool=other),
        "merge": lambda: mac_pools.merge(ctx, other, pool),
        "split": lambda: mac_pools.split(ctx, pool, name="c", ranges=[MacRange(Mac(0x100), Mac(0x17F))]),
    }
    deadlocks = len(postgres_server.deadlocks())
    with ctx.db.write() as connection:
        # As a start, which does not ask for the rules: of twins, or of what is renumbered, one vNIC after the other.
        lock_vnic(connection, "a")
        changing = Beside(ctx, calls[change]).rest()
        lock_vnic(connection, "b")
    assert not isinstance(changing.end(), DatabaseBusy)
    assert postgres_server.deadlocks()[deadlocks:] == []
