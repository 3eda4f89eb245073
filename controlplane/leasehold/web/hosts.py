"""`/v1/hosts`, and the lease events that their hooks report."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from leasehold.domain.values import Host, HostNetwork
from leasehold.errors import AddressTaken, HostNotFound, InUse
from leasehold.service import events, hosts
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
    id_key,
)

routes = Routes("hosts")
_hosts = Listing[Host, str]("hosts", lambda each: each.id, id_key)


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


class HostNetworkOut(Out):
    """How the host is attached to a network."""

    interface: str
    address: IpText


class HostOut(Out):
    """A hypervisor with a Kea server. `unreachable_reason` is null while its control channel answers. The password is
    never shown."""

    id: str
    control_url: str
    username: str
    networks: dict[str, HostNetworkOut]
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
def put_host(ctx: Context, host_id: Id, body: HostIn) -> Reply[Host]:
    """Creates or replaces a host."""
    host, created = hosts.put(
        ctx,
        host_id,
        control_url=body.control_url,
        username=body.username,
        password=body.password,
        networks={
            name: HostNetwork(interface=each.interface, address=each.address) for name, each in body.networks.items()
        },
    )
    return Reply.put(host, created, f"/v1/hosts/{host_id}")


@routes.on("GET", "/hosts", roles=READERS, answer=HostPage)
def list_hosts(ctx: Context, query: PageQuery) -> Page[Host]:
    """Every host, by id."""
    return _hosts.page_of(query, hosts.list_hosts(ctx))


@routes.on("GET", "/hosts/<host_id>", roles=READERS, answer=HostOut, errors=[HostNotFound])
def get_host(ctx: Context, host_id: Id) -> Host:
    """One host."""
    return hosts.get(ctx, host_id)


@routes.on("DELETE", "/hosts/<host_id>", roles=WRITERS, errors=[HostNotFound, InUse])
def delete_host(ctx: Context, host_id: Id) -> None:
    """Deletes a host that serves no network."""
    hosts.delete_host(ctx, host_id)


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
    return {"acknowledged": events.ingest(ctx, host_id, query.boot, query.boot_order, body)}
