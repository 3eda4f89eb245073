"""`/v1/networks`."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from leasehold.domain.values import Network, Server, ServerState
from leasehold.errors import InUse, NetworkNotFound
from leasehold.service import networks
from leasehold.service.context import Context
from leasehold.web.api import READERS, WRITERS, Reply, Routes
from leasehold.web.wire import Id, In, Listing, Out, Page, PageOut, PageQuery, WriteQuery, id_key

routes = Routes("networks")
_networks = Listing[Network, str]("networks", lambda each: each.id, id_key)
_servers = Listing[Server, str]("servers", lambda each: each.host, id_key)


class NetworkIn(In):
    """An L2 network. `ipam_servers` left out or null: as many as the settings say."""

    ipam_enabled: bool = False
    ipam_servers: Annotated[int, Field(ge=1, le=networks.MAX_IPAM_SERVERS)] | None = None


class NetworkPatch(In):
    """What is to change; fields left out stay. `ipam_servers` null: as many as the settings say."""

    ipam_enabled: bool = False
    ipam_servers: Annotated[int, Field(ge=1, le=networks.MAX_IPAM_SERVERS)] | None = None


class NetworkOut(Out):
    """An L2 network."""

    id: str
    ipam_enabled: bool
    ipam_servers: int | None


class NetworkPage(PageOut[NetworkOut]):
    """Part of the list of networks."""


class ServerSubnetOut(Out):
    """How far a server is with one subnet: what it confirmed, and what the subnet is at; and which of its settings the
    server's Kea took, null where it has not the subnet."""

    subnet: int
    confirmed_revision: int | None
    revision: int
    provided_revision: int | None
    settings_revision: int
    confirmed_at: datetime | None


class ServerOut(Out):
    """An IPAM server: a host chosen to serve the network."""

    host: str
    network: str
    state: ServerState
    since: datetime
    detail: str | None
    subnets: list[ServerSubnetOut]


class ServerPage(PageOut[ServerOut]):
    """Part of the list of servers."""


@routes.on("PUT", "/networks/<network_id>", roles=WRITERS, answer=NetworkOut, statuses=(200, 201))
def put_network(ctx: Context, network_id: Id, query: WriteQuery, body: NetworkIn) -> Reply[Network]:
    """Creates or replaces a network."""
    network, created = networks.put(
        ctx,
        network_id,
        ipam_enabled=body.ipam_enabled,
        ipam_servers=body.ipam_servers,
        dry_run=query.dry_run,
    )
    return Reply.put(network, created and not query.dry_run, f"/v1/networks/{network_id}")


@routes.on("PATCH", "/networks/<network_id>", roles=WRITERS, answer=NetworkOut, errors=[NetworkNotFound])
def patch_network(ctx: Context, network_id: Id, query: WriteQuery, body: NetworkPatch) -> Network:
    """Changes a network. With IPAM off its servers stop; addresses that are held stay so."""
    wanted = {name: getattr(body, name) for name in body.model_fields_set}
    return networks.change(ctx, network_id, wanted, dry_run=query.dry_run)


@routes.on("GET", "/networks/<network_id>", roles=READERS, answer=NetworkOut, errors=[NetworkNotFound])
def get_network(ctx: Context, network_id: Id) -> Network:
    """One network."""
    return networks.get(ctx, network_id)


@routes.on("GET", "/networks", roles=READERS, answer=NetworkPage)
def list_networks(ctx: Context, query: PageQuery) -> Page[Network]:
    """Every network, by id."""
    return _networks.page(query, lambda limit, after: networks.list_networks(ctx, limit=limit, after=after))


@routes.on("DELETE", "/networks/<network_id>", roles=WRITERS, errors=[NetworkNotFound, InUse])
def delete_network(ctx: Context, network_id: Id, query: WriteQuery) -> None:
    """Deletes a network that has no subnets, vNICs and servers."""
    networks.delete_network(ctx, network_id, dry_run=query.dry_run)


@routes.on("GET", "/networks/<network_id>/servers", roles=READERS, answer=ServerPage, errors=[NetworkNotFound])
def list_servers(ctx: Context, network_id: Id, query: PageQuery) -> Page[Server]:
    """The network's IPAM servers by host, and how far each is with its reservations."""
    return _servers.page_of(query, networks.list_servers(ctx, network_id))
