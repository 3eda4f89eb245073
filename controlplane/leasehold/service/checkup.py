"""What the servers have, against what the database says that they have; and both together, looked at until it lasts."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

from netaddr import IPAddress
from sqlalchemy import Connection, select

from leasehold.domain.addresses import Mac
from leasehold.domain.lease_events import LeaseFound
from leasehold.domain.placement import Served
from leasehold.domain.replication import HookStatus, SubnetState
from leasehold.domain.values import Host
from leasehold.errors import HostUnreachable, KeaRefused
from leasehold.kea.commands import Commands
from leasehold.kea.rendering import Difference, differences, render
from leasehold.kea.transport import Transport
from leasehold.service import hosts, management, replication
from leasehold.service.context import Context
from leasehold.service.doctor import Finding, examine
from leasehold.service.sightings import Sighting, Watch
from leasehold.service.subnets import spec_of
from leasehold.store.sets import among
from leasehold.store.tables import addresses, reservation_log, server_subnets, subnets
from leasehold.store.tables import hosts as hosts_table

_ASKED_AT_ONCE = 8
_NAMED = 5
_WORKER = "A worker brings it in step by itself: see that one runs, `leasehold serve` or `leasehold worker`."


class Servers(Protocol):
    """What is asked of hosts. Each raises HostUnreachable, KeaRefused."""

    def status(self, host: Host) -> HookStatus:
        """What the hook says of itself."""

    def config_get(self, host: Host) -> Mapping[str, Any]:
        """The configuration that runs."""

    def leases(self, host: Host) -> Iterable[list[LeaseFound]]:
        """All leases, in pages."""


def check_up(
    ctx: Context,
    *,
    servers: bool = True,
    commands: Servers | None = None,
    pause: Callable[[float], object] = time.sleep,
) -> list[Finding]:
    """Everything that is wrong in the database and, unless told not to ask them, on the servers.

    What could be on its way to be right is looked at twice, with two sweeps in between, and told if it is found again.
    """
    asked = commands or (_commands(ctx) if servers else None)

    def look() -> list[Finding]:
        return [*examine(ctx), *([] if asked is None else compare(ctx, asked))]

    first = look()
    if not any(each.passing for each in first):
        return first
    pause(2 * ctx.settings.sweep_interval_s)
    before = {each.key for each in first}
    return [each for each in look() if not each.passing or each.key in before]


def compare(ctx: Context, commands: Servers) -> list[Finding]:
    """Asks every host that is not declared dead for its reservations' digests, its configuration and its leases;
    changes nothing."""
    with ctx.db.read() as connection:
        alive = set(connection.execute(select(hosts_table.c.id).where(hosts_table.c.fenced_ms.is_(None))).scalars())
    known = [each for each in hosts.list_hosts(ctx) if each.id in alive]
    watch = Watch()
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        found = list(pool.map(partial(_compare_reservations, ctx, commands, watch), known))
        assignments = management.assignments(ctx, watch)
        answering = [each for each in known if each.id in watch.hosts]
        found += pool.map(partial(_compare_rest, ctx, commands, assignments), answering)
    return [finding for each in found for finding in each]


def _commands(ctx: Context) -> Commands:
    return Commands(Transport(ctx.settings))


def _compare_reservations(ctx: Context, commands: Servers, watch: Watch, host: Host) -> list[Finding]:
    """Notes in `watch` what the host has, if it answers."""
    try:
        status = commands.status(host)
    except (HostUnreachable, KeaRefused) as error:
        return [_not_compared(host, error)]
    watch.hosts[host.id] = Sighting(asked_ms=ctx.now_ms(), managed=status.managed)
    # Only now: what a server has cannot be newer than what the database says by then.
    with ctx.db.read() as connection:
        return list(_behind(connection, host, status))


def _compare_rest(
    ctx: Context, commands: Servers, assignments: Mapping[str, management.Assignment], host: Host
) -> list[Finding]:
    found: list[Finding] = []
    try:
        if host.id in assignments:
            found += _configured(host, commands.config_get(host), assignments[host.id].served)
        for page in commands.leases(host):
            with ctx.db.read() as connection:
                found += _unreserved(connection, host, page, ctx.now_ms())
    except (HostUnreachable, KeaRefused) as error:
        found.append(_not_compared(host, error))
    return found


def _not_compared(host: Host, error: Exception) -> Finding:
    return Finding(
        code="not-compared",
        subject=f"hosts/{host.id}",
        sentence=f"It could not be compared: {error}",
        mend=f"See what is wrong with the host. If it is dead for good: POST /v1/hosts/{host.id}/fence.",
    )


def _configured(host: Host, running: Mapping[str, Any], served: Sequence[Served]) -> Iterator[Finding]:
    """What is ours of the configuration that runs is what the manager would make of it."""
    found = differences(running, render(running, served))
    if found:
        yield Finding(
            code="configuration-differs",
            subject=f"hosts/{host.id}",
            sentence=f"Its Kea does not run what it should: {_first(found)}.",
            mend="Somebody changed it there, or Kea refuses what is wanted, which `leasehold server list` says. Else "
            "restart the worker that manages (`leasehold duties`), or Kea: it is configured anew then.",
            passing=True,
            facts={"differs": [vars(each) for each in found]},
        )


def _first(found: Sequence[Difference]) -> str:
    names = ", ".join(each.what for each in found[:_NAMED])
    return names if len(found) <= _NAMED else f"{names} and {len(found) - _NAMED} more"


def _behind(connection: Connection, host: Host, status: HookStatus) -> Iterator[Finding]:
    epoch = replication.epoch_of(connection)
    reported = {each.subnet: each for each in status.subnets}
    rows = connection.execute(
        select(server_subnets.c.subnet_id, subnets.c.revision, subnets.c.digest)
        .join(subnets, subnets.c.id == server_subnets.c.subnet_id)
        .where(server_subnets.c.host_id == host.id)
        .order_by(server_subnets.c.subnet_id)
    ).all()
    served = set()
    for row in rows:
        served.add(row.subnet_id)
        state = reported.get(row.subnet_id)
        subject = f"hosts/{host.id}/subnets/{row.subnet_id}"
        if state is None or state.epoch != epoch:
            yield Finding(
                code="server-apart",
                subject=subject,
                sentence="Its reservations are not of this database's history, or it has none.",
                mend=_WORKER,
                passing=True,
                facts={"epoch": None if state is None else state.epoch, "is": epoch},
            )
            continue
        expected = row.digest if state.revision == row.revision else _digest_at(connection, state)
        if expected is not None and expected != state.digest:
            yield Finding(
                code="server-differs",
                subject=subject,
                sentence=f"At revision {state.revision} its reservations are others than ours: somebody changed them "
                "there.",
                mend=f"Only Leasehold may change them. {_WORKER}",
                passing=True,
                facts={"revision": state.revision, "digest": state.digest, "is": expected},
            )
        if state.revision < row.revision:
            yield Finding(
                code="server-behind",
                subject=subject,
                sentence="It has not confirmed every change of the reservations.",
                mend=_WORKER,
                passing=True,
                facts={"revision": state.revision, "is": row.revision},
            )
    for subnet_id in sorted(status.managed - served):
        yield Finding(
            code="serves-unasked",
            subject=f"hosts/{host.id}/subnets/{subnet_id}",
            sentence="It serves this subnet, and was not chosen to.",
            mend=_WORKER,
            passing=True,
        )


def _digest_at(connection: Connection, state: SubnetState) -> str | None:
    """The digest of the subnet's reservations at the server's revision; None where the log does not reach so far."""
    digest: str | None = connection.execute(
        select(reservation_log.c.digest).where(
            reservation_log.c.subnet_id == state.subnet, reservation_log.c.revision == state.revision
        )
    ).scalar_one_or_none()
    return digest


def _unreserved(connection: Connection, host: Host, page: list[LeaseFound], now_ms: int) -> Iterator[Finding]:
    """I1 and I4 on a server: who has a lease that is alive was promised the address, and may have it still."""
    ours = {
        row.id: spec_of(row)
        for row in connection.execute(
            select(subnets).where(among(connection, subnets.c.id, {each.subnet for each in page}))
        )
    }
    living = {
        (each.subnet, each.address - int(ours[each.subnet].cidr.first)): each
        for each in page
        if each.subnet in ours and each.state == "assigned" and (each.seen_s + each.lease_time_s) * 1000 > now_ms
    }
    # More than these places where several subnets have leases at the same offsets; an index of pairs serves it all.
    promises = {
        (row.subnet_id, row.offset): row
        for row in connection.execute(
            select(addresses).where(
                among(connection, addresses.c.subnet_id, {subnet_id for subnet_id, _ in living}),
                among(connection, addresses.c.offset, {offset for _, offset in living}),
            )
        )
    }
    for key, each in living.items():
        row = promises.get(key)
        if row is not None and row.state != "cooling" and row.mac == each.mac:
            continue
        ip = IPAddress(each.address, 4)
        mac = None if each.mac is None else str(Mac(each.mac))
        promised = "to nobody" if row is None or row.state != "held" else f"to {Mac(row.mac)}"
        yield Finding(
            code="lease-of-nobody",
            subject=f"hosts/{host.id}/subnets/{each.subnet}/addresses/{ip}",
            sentence=f"Its Kea has a lease of {ip} for {mac}, and the address is promised {promised}.",
            mend=f'Delete it there: {{"command": "lease4-del", "arguments": {{"ip-address": "{ip}"}}}}.',
            passing=True,
            facts={"ip": str(ip), "mac": mac, "promised": None if row is None else str(Mac(row.mac))},
        )
