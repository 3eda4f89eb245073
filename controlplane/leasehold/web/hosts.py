"""`/v1/hosts`, and the lease events that their hooks report."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from flask import request
from pydantic import Field, StringConstraints

from leasehold.domain.values import HostNetwork, HostState, HostView, ServerState, Token
from leasehold.errors import AddressTaken, HostAnswers, HostFenced, HostNotFound, InUse
from leasehold.service import counters, fencing, hosts, ingest
from leasehold.service.context import Context
from leasehold.web.api import READERS, REPORTERS, WRITERS, Reply, Routes
from leasehold.web.bodies import Lines
from leasehold.web.wire import (
    HttpUrl,
    Id,
    In,
    Interface,
    IpText,
    Listing,
    Out,
    Page,
    PageOut,
    PageQuery,
    Query,
    QueryInt,
    Text,
    UserName,
    WriteQuery,
    id_key,
)

_SPOOLED = "Leasehold-Spooled"
routes = Routes("hosts")
_hosts = Listing[HostView, str]("hosts", lambda each: each.id, id_key)


class HostNetworkIn(In):
    """How the host is attached to a network: by which interface, and with which address of its own."""

    interface: Interface
    address: IpText


class HostIn(In):
    """A hypervisor with a Kea server. `control_url` is its Kea Control Agent's; user and password are those of its
    basic authentication, empty where it asks for none."""

    control_url: HttpUrl
    username: UserName
    password: Annotated[Text, Field(json_schema_extra={"format": "password", "writeOnly": True})]
    networks: Annotated[dict[Id, HostNetworkIn], Field(max_length=4096, default_factory=dict)]


class HostChangeIn(In):
    """What is to change of a host; `networks` replaces all of them."""

    control_url: HttpUrl | None = None
    username: UserName | None = None
    password: Annotated[Text, Field(json_schema_extra={"format": "password", "writeOnly": True})] | None = None
    networks: Annotated[dict[Id, HostNetworkIn], Field(max_length=4096)] | None = None


class HostNetworkOut(Out):
    """How the host is attached to a network."""

    interface: str
    address: IpText


class HostServerOut(Out):
    """A network that the host serves, is to serve, or is to stop serving."""

    network: str
    state: ServerState


class AwaitedAddressOut(Out):
    """A draining address, and the vNIC that it was promised to."""

    subnet: int
    ip: IpText
    vnic: str | None


class HeldUpOut(Out):
    """How many draining addresses wait for the host, which could still serve them, and the first few."""

    count: int
    first: list[AwaitedAddressOut]


class HostOut(Out):
    """A hypervisor with a Kea server. `unreachable_reason` is null while its control channel answers. The password is
    never shown.

    `state` is up, doubtful (asked in vain, but not for long), down, leaving (in maintenance, but not stopped
    everywhere), maintenance, or fenced (declared dead); `detail` says why. `held_back_until` is when a host that was
    down can be chosen anew.
    """

    id: str
    state: HostState
    detail: str | None
    control_url: str
    username: str
    networks: dict[str, HostNetworkOut]
    servers: list[HostServerOut]
    holds_up: HeldUpOut
    held_back_until: datetime | None
    answered_at: datetime | None
    unreachable_reason: str | None


class HostPage(PageOut[HostOut]):
    """Part of the list of hosts."""


class BootQuery(Query):
    """Which life of the host's Kea the lines are of: `boot` is its UUID, `boot_order` rises with each."""

    boot: Annotated[str, StringConstraints(pattern="^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    boot_order: Annotated[QueryInt, Field(ge=0, le=2**53)]


class Acknowledged(Out):
    """Everything of this boot up to this sequence number is stored."""

    acknowledged: int


@routes.on("PUT", "/hosts/<host_id>", roles=WRITERS, answer=HostOut, statuses=(200, 201), errors=[AddressTaken, InUse])
def put_host(ctx: Context, host_id: Id, query: WriteQuery, body: HostIn) -> Reply[HostView]:
    """Creates or replaces a host."""
    host, created = hosts.put(
        ctx,
        host_id,
        control_url=body.control_url,
        username=body.username,
        password=body.password,
        networks=_attachments(body.networks),
        dry_run=query.dry_run,
    )
    return Reply.put(host, created and not query.dry_run, f"/v1/hosts/{host_id}")


@routes.on("GET", "/hosts", roles=READERS, answer=HostPage)
def list_hosts(ctx: Context, query: PageQuery) -> Page[HostView]:
    """Every host, by id."""
    return _hosts.page(query, lambda limit, after: hosts.list_views(ctx, limit=limit, after=after))


@routes.on("GET", "/hosts/<host_id>", roles=READERS, answer=HostOut, errors=[HostNotFound])
def get_host(ctx: Context, host_id: Id) -> HostView:
    """One host, with what it serves, and which draining addresses wait for it."""
    return hosts.show(ctx, host_id)


@routes.on("PATCH", "/hosts/<host_id>", roles=WRITERS, answer=HostOut, errors=[HostNotFound, AddressTaken, InUse])
def change_host(ctx: Context, host_id: Id, query: WriteQuery, body: HostChangeIn) -> HostView:
    """Changes what is named of a host, and nothing else."""
    values = {"control_url": body.control_url, "username": body.username, "password": body.password}
    return hosts.change(
        ctx,
        host_id,
        values={name: value for name, value in values.items() if value is not None},
        networks=None if body.networks is None else _attachments(body.networks),
        dry_run=query.dry_run,
    )


@routes.on("DELETE", "/hosts/<host_id>", roles=WRITERS, errors=[HostNotFound, InUse])
def delete_host(ctx: Context, host_id: Id, query: WriteQuery) -> None:
    """Deletes a host that serves no network."""
    hosts.delete_host(ctx, host_id, dry_run=query.dry_run)


@routes.on("POST", "/hosts/<host_id>/maintenance", roles=WRITERS, answer=HostOut, errors=[HostNotFound])
def begin_maintenance(ctx: Context, caller: Token, host_id: Id, query: WriteQuery) -> HostView:
    """Lets others serve the host's networks, and then stops it there. Its state is `leaving` until it is `maintenance`.

    Where nobody can take over at all, it goes on."""
    return fencing.begin_maintenance(ctx, host_id, by=caller.id, dry_run=query.dry_run)


@routes.on("POST", "/hosts/<host_id>/activate", roles=WRITERS, answer=HostOut, errors=[HostNotFound, HostFenced])
def activate_host(ctx: Context, caller: Token, host_id: Id, query: WriteQuery) -> HostView:
    """Ends a host's maintenance."""
    return fencing.activate(ctx, host_id, by=caller.id, dry_run=query.dry_run)


@routes.on("POST", "/hosts/<host_id>/fence", roles=WRITERS, answer=HostOut, errors=[HostNotFound, HostAnswers])
def fence_host(ctx: Context, caller: Token, host_id: Id, query: WriteQuery) -> HostView:
    """An administrator's word that a host that does not answer is dead, and serves nobody. No address waits for it any
    more: said of a host that lives, this can put one address at two VMs."""
    return fencing.fence(ctx, host_id, by=caller.id, dry_run=query.dry_run)


@routes.on(
    "POST",
    "/hosts/<host_id>/events",
    roles=REPORTERS,
    answer=Acknowledged,
    errors=[HostNotFound],
    body=Lines("One lease event a line, as the hook's reference says, in the order of their sequence numbers."),
)
def report_events(ctx: Context, host_id: Id, query: BootQuery, body: list[dict[str, Any]]) -> dict[str, int]:
    """Stores what a host's hook reports; all of the lines, or none. Lines that were stored before are harmless."""
    acknowledged = ingest.ingest(ctx, host_id, query.boot, query.boot_order, body)
    # For monitoring only: a report is none the worse without it.
    if (spooled := request.headers.get(_SPOOLED, "")).isascii() and spooled.isdecimal():
        counters.spool_events.labels(host_id).set(max(0, int(spooled) - len(body)))
    return {"acknowledged": acknowledged}


def _attachments(networks: Mapping[str, HostNetworkIn]) -> dict[str, HostNetwork]:
    return {name: HostNetwork(interface=each.interface, address=each.address) for name, each in networks.items()}
