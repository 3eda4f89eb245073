"""Hosts: hypervisors with a Kea server, and the networks that they are attached to."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from netaddr import IPAddress
from sqlalchemy import Connection, delete, insert, select, update

from leasehold.domain.placement import hold_down_s
from leasehold.domain.values import HeldUp, Host, HostNetwork, HostServer, HostState, HostView
from leasehold.errors import AddressTaken, HostNotFound, InUse
from leasehold.service import replication, subnets
from leasehold.service.context import Context, from_ms
from leasehold.store.database import AnyRow, Violation
from leasehold.store.tables import host_networks, hosts, read_backs, servers

FAILURE_COUNTS_MS = 1000
"""A host that was asked in vain less than so many milliseconds ago need not be waited for."""


def put(
    ctx: Context,
    host_id: str,
    *,
    control_url: str,
    username: str,
    password: str,
    networks: Mapping[str, HostNetwork],
    dry_run: bool = False,
) -> tuple[HostView, bool]:
    """Creates or replaces a host; the second value is True if it is new.

    Raises AddressTaken for an address that a vNIC or another host of the network has, InUse when a network is taken
    away that the host serves. A network may be named before it is created.
    """
    values = {"control_url": control_url, "username": username, "password": password}
    with changing(ctx, dry_run) as connection:
        created = not connection.execute(update(hosts).where(hosts.c.id == host_id).values(**values)).rowcount
        if created:
            connection.execute(insert(hosts).values(id=host_id, falls=0, maintenance=False, **values))
        _attach(connection, host_id, networks)
        host = view(ctx, connection, host_id)
    return host, created


def change(
    ctx: Context,
    host_id: str,
    *,
    values: Mapping[str, str],
    networks: Mapping[str, HostNetwork] | None = None,
    dry_run: bool = False,
) -> HostView:
    """Changes some of `control_url`, `username` and `password`, and, where it is given, the whole of `networks`. Raises
    HostNotFound, and what `put` raises."""
    with changing(ctx, dry_run) as connection:
        require(connection, host_id)
        if values:
            connection.execute(update(hosts).where(hosts.c.id == host_id).values(**values))
        if networks is not None:
            _attach(connection, host_id, networks)
        return view(ctx, connection, host_id)


def get(ctx: Context, host_id: str) -> Host:
    """Raises HostNotFound."""
    with ctx.db.read() as connection:
        found = _hosts(connection, hosts.c.id == host_id)
    if not found:
        raise missing(host_id)
    return found[0]


def answering(ctx: Context, host_ids: Collection[str]) -> set[str]:
    """Those of the hosts that are on record as answering."""
    if not host_ids:
        return set()
    with ctx.db.read() as connection:
        return set(
            connection.execute(
                select(hosts.c.id).where(hosts.c.id.in_(host_ids), hosts.c.unreachable_reason.is_(None))
            ).scalars()
        )


def list_hosts(ctx: Context) -> list[Host]:
    """All, by id."""
    with ctx.db.read() as connection:
        return _hosts(connection, True)


def show(ctx: Context, host_id: str) -> HostView:
    """How a host is, with what it serves and holds up. Raises HostNotFound."""
    with ctx.db.read() as connection:
        return view(ctx, connection, host_id)


def list_views(ctx: Context, *, limit: int, after: str | None = None) -> list[HostView]:
    """Up to `limit` hosts behind the id `after`, by id."""
    with ctx.db.read() as connection:
        ids = select(hosts.c.id).order_by(hosts.c.id).limit(limit)
        ids = ids if after is None else ids.where(hosts.c.id > after)
        return _views(ctx, connection, list(connection.execute(ids).scalars()))


def delete_host(ctx: Context, host_id: str, *, dry_run: bool = False) -> None:
    """Raises HostNotFound, InUse while the host might still serve a network."""
    with changing(ctx, dry_run) as connection:
        row = require(connection, host_id)
        if left := _serves(connection, host_id):
            dead = row.unreachable_reason is not None
            raise InUse(
                f"Host {host_id} may still serve {', '.join(left)}. "
                + (
                    f"It does not answer ({row.unreachable_reason}): if it is dead, see that it stays off, and ask for "
                    f"POST /v1/hosts/{host_id}/fence first."
                    if dead
                    else f"Ask for POST /v1/hosts/{host_id}/maintenance, and delete it once its state is maintenance."
                ),
                host=host_id,
                networks=left,
            )
        _attach(connection, host_id, {})
        connection.execute(delete(hosts).where(hosts.c.id == host_id))


@contextmanager
def changing(ctx: Context, dry_run: bool) -> Iterator[Connection]:
    """A transaction that changes hosts, and the bell after it. Raises AddressTaken for one host with another's own
    address."""
    try:
        with ctx.db.write(dry_run=dry_run) as connection:
            replication.change_servers(connection)
            yield connection
    except Violation as violation:
        if violation.constraint != "uq_host_networks_network_id_address":
            raise
        raise AddressTaken(
            "One of the host's addresses is another host's own on that network. Give each host its own address."
        ) from violation
    if not dry_run:
        ctx.bell.ring()


def require(connection: Connection, host_id: str) -> AnyRow:
    """The host's row; raises HostNotFound."""
    row = connection.execute(select(hosts).where(hosts.c.id == host_id)).one_or_none()
    if row is None:
        raise missing(host_id)
    return row


def view(ctx: Context, connection: Connection, host_id: str) -> HostView:
    """A host as people see it. Raises HostNotFound."""
    require(connection, host_id)
    return _views(ctx, connection, [host_id])[0]


def held_back_until_ms(ctx: Context, fallen: AnyRow) -> int:
    """When a host can be chosen anew that was down, or was so on one network, by its row there; the past for one that
    is not held back."""
    if not fallen.falls or fallen.returned_ms is None:
        return 0
    settings = ctx.settings
    held_s = hold_down_s(fallen.falls, settings.host_hold_down_s, settings.host_hold_down_most_s)
    return int(fallen.returned_ms + held_s * 1000)


def missing(host_id: str) -> HostNotFound:
    """The error for an unknown host."""
    return HostNotFound(f"There is no host {host_id!r}. GET /v1/hosts lists those that are.", host=host_id)


def _attach(connection: Connection, host_id: str, wanted: Mapping[str, HostNetwork]) -> None:
    present = {
        row.network_id: HostNetwork(interface=row.interface, address=IPAddress(row.address))
        for row in connection.execute(select(host_networks).where(host_networks.c.host_id == host_id))
    }
    gone = sorted(present.keys() - wanted.keys())
    if left := [each for each in _serves(connection, host_id) if each in gone]:
        raise InUse(
            f"Host {host_id} serves {', '.join(left)}. Ask for POST /v1/hosts/{host_id}/maintenance before you take "
            "the network from the host.",
            host=host_id,
            networks=left,
        )
    subnets.lock_around(
        connection, [(network_id, each.address) for of in (present, wanted) for network_id, each in of.items()]
    )
    for network_id, attachment in present.items():
        if wanted.get(network_id) != attachment:
            connection.execute(
                delete(host_networks).where(
                    host_networks.c.host_id == host_id, host_networks.c.network_id == network_id
                )
            )
            subnets.return_to_vnics(connection, network_id, attachment.address)
    for network_id, attachment in wanted.items():
        if present.get(network_id) != attachment:
            connection.execute(
                insert(host_networks).values(
                    host_id=host_id,
                    network_id=network_id,
                    interface=attachment.interface,
                    address=str(attachment.address),
                    falls=0,
                )
            )
            subnets.keep_from_vnics(connection, network_id, attachment.address)


def _serves(connection: Connection, host_id: str) -> list[str]:
    """The networks that the host may serve."""
    return list(
        connection.execute(
            select(servers.c.network_id).where(servers.c.host_id == host_id).order_by(servers.c.network_id)
        ).scalars()
    )


def _hosts(connection: Connection, condition: Any) -> list[Host]:
    attachments: dict[str, dict[str, HostNetwork]] = {}
    for row in connection.execute(select(host_networks).join(hosts).where(condition)):
        attachment = HostNetwork(interface=row.interface, address=IPAddress(row.address))
        attachments.setdefault(row.host_id, {})[row.network_id] = attachment
    rows = connection.execute(select(hosts).where(condition).order_by(hosts.c.id))
    return [_host(row, attachments.get(row.id, {})) for row in rows]


def _host(row: AnyRow, attachments: Mapping[str, HostNetwork]) -> Host:
    return Host(
        id=row.id,
        control_url=row.control_url,
        username=row.username,
        password=row.password,
        networks=attachments,
        answered_at=None if row.answered_ms is None else from_ms(row.answered_ms),
        unreachable_reason=row.unreachable_reason,
    )


def _views(ctx: Context, connection: Connection, host_ids: list[str]) -> list[HostView]:
    serving: dict[str, list[HostServer]] = {}
    for row in connection.execute(
        select(servers).where(servers.c.host_id.in_(host_ids)).order_by(servers.c.network_id)
    ):
        serving.setdefault(row.host_id, []).append(HostServer(network=row.network_id, state=row.state))
    held_up = replication.held_up(connection, host_ids=host_ids)
    rows = {row.id: row for row in connection.execute(select(hosts).where(hosts.c.id.in_(host_ids)))}
    unread = {
        row.host_id: f"Its leases could not be read back yet ({row.reason}): {row.detail}"
        for row in connection.execute(
            select(read_backs).where(read_backs.c.host_id.in_(host_ids), read_backs.c.detail.is_not(None))
        )
    }
    deaf: dict[str, list[str]] = {}
    for row in connection.execute(
        select(host_networks)
        .where(host_networks.c.host_id.in_(host_ids), host_networks.c.link_fault.is_not(None))
        .order_by(host_networks.c.network_id)
    ):
        deaf.setdefault(row.host_id, []).append(f"network {row.network_id} ({row.link_fault})")
    views = []
    for host in _hosts(connection, hosts.c.id.in_(host_ids)):
        row, own = rows[host.id], serving.get(host.id, [])
        state, detail = _state(row, own)
        if detail is None and host.id in deaf:
            detail = f"It does not hear the guests of {', '.join(deaf[host.id])}."
        detail = detail or unread.get(host.id)
        until_ms = held_back_until_ms(ctx, row)
        views.append(
            HostView(
                **{name: getattr(host, name) for name in Host.__dataclass_fields__},
                state=state,
                detail=detail,
                servers=tuple(own),
                holds_up=held_up.get(host.id, HeldUp()),
                held_back_until=from_ms(until_ms) if until_ms > ctx.now_ms() else None,
            )
        )
    return views


def _state(row: AnyRow, serving: list[HostServer]) -> tuple[HostState, str | None]:
    """In a word, and why."""
    names = ", ".join(each.network for each in serving)
    if row.fenced_ms is not None:
        return "fenced", (
            f"It was declared dead at {from_ms(row.fenced_ms).isoformat(timespec='seconds')}, and counts again by "
            "itself once it has answered and serves nothing that it is not to."
        )
    if row.maintenance and serving:
        why = "does not answer" if row.unreachable_reason is not None else "has not stopped yet"
        return "leaving", f"Others are to serve {names} before it stops, or it {why}."
    if row.maintenance:
        return "maintenance", "It serves nothing until it is activated."
    if row.health is None:
        return "doubtful", "It was not asked yet."
    return row.health, row.unreachable_reason
