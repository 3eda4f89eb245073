"""Why a client has, or has no, address: what the database knows, and what the servers say when they are asked now."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache

from netaddr import IPAddress
from sqlalchemy import Connection, func, select, text

from leasehold.config import Settings
from leasehold.domain.addresses import Mac
from leasehold.domain.explaining import Evidence, Rejected, Verdict, Witness, judge
from leasehold.domain.subnets import address_at, offset_of, serves
from leasehold.domain.values import Host, Vnic
from leasehold.errors import AddressUnknown, HostUnreachable, KeaRefused
from leasehold.kea.commands import ClientSeen, Commands
from leasehold.kea.transport import Transport
from leasehold.service import hosts, subnets
from leasehold.service.context import Context, from_ms
from leasehold.service.vnics import rows as vnic_rows
from leasehold.store.database import AnyRow
from leasehold.store.tables import addresses, events, host_networks, macs, networks, server_subnets, servers
from leasehold.store.tables import hosts as hosts_table
from leasehold.store.tables import subnets as subnets_table
from leasehold.store.tables import vnics as vnics_table

_ASKED_AT_ONCE = 8
_PATIENCE_S = 2

Ask = Callable[[Host, Mac], ClientSeen]
"""Asks the hook on a host what it knows of a client. Raises HostUnreachable, KeaRefused."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A verdict, and the evidence that it rests on."""

    verdict: Verdict
    evidence: Evidence


def of_mac(ctx: Context, mac: Mac, ask: Ask | None = None) -> list[Explanation]:
    """One for each vNIC that has the MAC, those that run first; or one for whoever else it is."""
    ask = ask or _commands(ctx.settings).client
    with ctx.db.read() as connection:
        found = [_of_vnic(ctx, connection, each) for each in vnic_rows.read(connection, vnics_table.c.mac == mac.value)]
        known = found or [_of_nobody(ctx, connection, mac)]
    explained = [Explanation(verdict=judge(each), evidence=each) for each in _with_witnesses(ctx, known, ask)]
    return sorted(explained, key=lambda each: each.evidence.vnic is None or not each.evidence.vnic.running)


def of_address(ctx: Context, ip: IPAddress, ask: Ask | None = None) -> list[Explanation]:
    """The same for whom the address is promised to, or was last, on each subnet that has it. Raises AddressUnknown."""
    found: dict[Mac, None] = {}
    with ctx.db.read() as connection:
        for row in connection.execute(select(subnets_table)).all():
            spec = subnets.spec_of(row)
            if ip in spec.cidr:
                at = (addresses.c.subnet_id == row.id) & (addresses.c.offset == offset_of(spec, ip))
                found |= {Mac(mac): None for mac in connection.execute(select(addresses.c.mac).where(at)).scalars()}
    if not found:
        raise AddressUnknown(
            f"{ip} is promised to nobody, and was not lately, so that there is no client to explain. Name its MAC.",
            ip=str(ip),
        )
    return [each for mac in found for each in of_mac(ctx, mac, ask)]


def _of_vnic(ctx: Context, connection: Connection, vnic: Vnic) -> Evidence:
    known = Evidence(mac=vnic.mac, vnic=vnic, network=vnic.network, subnet=vnic.subnet)
    if vnic.subnet is None:
        return known
    return _on_subnet(ctx, connection, known, vnic.subnet, vnic.id)


def _of_nobody(ctx: Context, connection: Connection, mac: Mac) -> Evidence:
    """A reservation that is no vNIC's, or a MAC that nobody has."""
    held = connection.execute(
        select(addresses.c.subnet_id).where(addresses.c.mac == mac.value, addresses.c.state == "held").limit(1)
    ).scalar_one_or_none()
    if held is not None:
        return _on_subnet(ctx, connection, Evidence(mac=mac), held, None)
    former = connection.execute(select(macs.c.vnic_id).where(macs.c.mac == mac.value)).scalar_one_or_none()
    return Evidence(mac=mac, former=former, rejected=_rejections(connection, mac))


def _on_subnet(ctx: Context, connection: Connection, known: Evidence, subnet_id: int, vnic_id: str | None) -> Evidence:
    subnet = subnets.require(connection, subnet_id)
    network = connection.execute(select(networks).where(networks.c.id == subnet.network_id)).one()
    attached = connection.execute(
        select(host_networks.c.host_id, host_networks.c.link_fault)
        .where(host_networks.c.network_id == subnet.network_id)
        .order_by(host_networks.c.host_id)
    ).all()
    # Its own first, and what is held before what it may have back.
    of_mac = connection.execute(
        select(addresses)
        .where(addresses.c.subnet_id == subnet_id, addresses.c.mac == known.mac.value)
        .order_by(addresses.c.vnic_id != vnic_id, addresses.c.state != "held", addresses.c.revision.desc())
        .limit(1)
    ).one_or_none()
    return replace(
        known,
        network=subnet.network_id,
        ipam_enabled=network.ipam_enabled,
        subnet=subnet_id,
        cidr=subnet.cidr,
        promised=None if of_mac is None else address_at(subnets.spec_of(subnet), of_mac.offset),
        address_state=None if of_mac is None else of_mac.state,
        hosts_attached=len(attached),
        link_faults=tuple(f"{row.host_id} ({row.link_fault})" for row in attached if row.link_fault is not None),
        witnesses=tuple(_witnesses(connection, subnet, of_mac)),
        rejected=_rejections(connection, known.mac),
    )


def _witnesses(connection: Connection, subnet: AnyRow, address: AnyRow | None) -> list[Witness]:
    """The servers of the subnet's network as the database knows them."""
    rows = connection.execute(
        select(
            servers.c.host_id,
            servers.c.state,
            servers.c.detail,
            hosts_table.c.unreachable_reason,
            server_subnets.c.confirmed_revision,
            server_subnets.c.provided_cidr,
        )
        .join(hosts_table, hosts_table.c.id == servers.c.host_id)
        .join(
            server_subnets,
            (server_subnets.c.host_id == servers.c.host_id) & (server_subnets.c.subnet_id == subnet.id),
            isouter=True,
        )
        .where(servers.c.network_id == subnet.network_id)
        .order_by(servers.c.host_id)
    )
    ip = None if address is None else subnets.address_of(subnet, address.offset)
    return [
        Witness(
            host=row.host_id,
            state=row.state,
            detail=row.unreachable_reason or row.detail,
            confirmed=(
                address is not None
                and row.confirmed_revision is not None
                and row.confirmed_revision >= address.revision
                and ip is not None
                and serves(row.provided_cidr, ip)
            ),
            lag=None if row.confirmed_revision is None else subnet.revision - row.confirmed_revision,
        )
        for row in rows
    ]


def _rejections(connection: Connection, mac: Mac) -> tuple[Rejected, ...]:
    """The last that servers reported of the client, on each subnet."""
    last = (
        select(func.max(events.c.position))
        .where(events.c.mac == mac.value, text("events.type = 'client.rejected'"))  # as its index has it
        .group_by(events.c.subject)
    )
    found = connection.execute(select(events).where(events.c.position.in_(last)).order_by(events.c.position)).all()
    return tuple(
        Rejected(subnet=row.data["subnet"], reason=row.data["reason"], count=row.data["count"], at=from_ms(row.time_ms))
        for row in found
    )


def _with_witnesses(ctx: Context, known: Sequence[Evidence], ask: Ask) -> list[Evidence]:
    """Asks every server that may know the client, all at once."""
    hosts_by_id = {host_id: hosts.get(ctx, host_id) for each in known for host_id in _askable(each)}
    if not hosts_by_id:
        return list(known)
    with ThreadPoolExecutor(min(_ASKED_AT_ONCE, len(hosts_by_id))) as pool:
        return [
            replace(
                each,
                witnesses=tuple(
                    pool.map(
                        lambda witness, mac=each.mac: _asked(witness, hosts_by_id.get(witness.host), mac, ask),
                        each.witnesses,
                    )
                ),
            )
            for each in known
        ]


def _askable(known: Evidence) -> Iterable[str]:
    return (each.host for each in known.witnesses if each.state != "unreachable")


def _asked(witness: Witness, host: Host | None, mac: Mac, ask: Ask) -> Witness:
    if host is None:
        return witness
    try:
        seen = ask(host, mac)
    except HostUnreachable as error:
        return replace(witness, failure=str(error.facts["reason"]))
    except KeaRefused as error:
        return replace(witness, failure=str(error))
    return replace(witness, heard=seen.heard, rejected=seen.rejected, leases=seen.leases)


@cache
def _commands(settings: Settings) -> Commands:
    """Connections of its own, which give up early: a server that does not answer at once is evidence too."""
    patience_s = min(_PATIENCE_S, settings.control_timeout_s)
    return Commands(Transport(replace(settings, control_timeout_s=patience_s, control_connect_timeout_s=patience_s)))
