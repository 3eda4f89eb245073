"""`/v1/vnics`."""

from typing import Literal

from leasehold.domain.values import AddressState, Started, Vnic, Wait
from leasehold.errors import (
    AddressOutOfRange,
    AddressTaken,
    InUse,
    MacNotUnicast,
    MacPoolExhausted,
    MacReserved,
    MacTaken,
    NetworkNotFound,
    NoIpamService,
    NoServer,
    NotConfirmed,
    SubnetExhausted,
    SubnetNotFound,
    VnicNotFound,
)
from leasehold.service import vnics
from leasehold.service.context import Context
from leasehold.web.api import READERS, WRITERS, Reply, Routes
from leasehold.web.wire import (
    BodySubnetId,
    Id,
    In,
    IpText,
    Listing,
    MacText,
    Name,
    Out,
    Page,
    PageOut,
    PageQuery,
    id_key,
)

routes = Routes("vnics")
_vnics = Listing[Vnic, str]("vnics", lambda each: each.id, id_key)


class VnicIn(In):
    """A VM's network interface. Without `mac` it keeps the one it has, or gets one of the default MAC pool; a subnet
    brings its network."""

    vm: Name
    name: Name
    network: Id | None = None
    subnet: BodySubnetId | None = None
    mac: MacText | None = None


class VnicOut(Out):
    """A VM's network interface. `ip` is the address held for it, or that it may have back; `mac_pool` null: the MAC is
    of no pool's ranges."""

    id: str
    vm: str
    name: str
    network: str | None
    subnet: int | None
    mac: MacText
    mac_pool: str | None
    running: bool
    ip: IpText | None
    ip_state: AddressState | None


class VnicPage(PageOut[VnicOut]):
    """Part of the list of vNICs."""


class StartIn(In):
    """How many of the network's IPAM servers must have confirmed the reservation before the answer; `ip` asks for that
    very address."""

    wait: Wait = "one"
    ip: IpText | None = None


_START = StartIn()


class ConfirmationOut(Out):
    """What one IPAM server says of the reservation."""

    host: str
    state: Literal["confirmed", "pending", "unreachable"]
    revision: int | None
    detail: str | None


class StartedOut(Out):
    """The promise: this MAC gets this IP from each server that has confirmed it."""

    vnic: VnicOut
    ip: IpText
    mac: MacText
    servers: list[ConfirmationOut]


@routes.on(
    "PUT",
    "/vnics/<vnic_id>",
    roles=WRITERS,
    answer=VnicOut,
    statuses=(200, 201),
    errors=[NetworkNotFound, SubnetNotFound, MacNotUnicast, MacTaken, MacPoolExhausted, InUse],
)
def put_vnic(ctx: Context, vnic_id: Id, body: VnicIn) -> Reply[Vnic]:
    """Creates or replaces a vNIC. While it runs, its MAC, network and subnet cannot change."""
    vnic, created = vnics.put(
        ctx, vnic_id, vm=body.vm, name=body.name, network=body.network, subnet=body.subnet, mac=body.mac
    )
    return Reply.put(vnic, created, f"/v1/vnics/{vnic_id}")


@routes.on("GET", "/vnics", roles=READERS, answer=VnicPage)
def list_vnics(ctx: Context, query: PageQuery) -> Page[Vnic]:
    """Every vNIC, by id."""
    return _vnics.page(query, lambda limit, after: vnics.list_vnics(ctx, limit=limit, after=after))


@routes.on("GET", "/vnics/<vnic_id>", roles=READERS, answer=VnicOut, errors=[VnicNotFound])
def get_vnic(ctx: Context, vnic_id: Id) -> Vnic:
    """One vNIC."""
    return vnics.get(ctx, vnic_id)


@routes.on("DELETE", "/vnics/<vnic_id>", roles=WRITERS, errors=[VnicNotFound])
def delete_vnic(ctx: Context, vnic_id: Id) -> None:
    """Stops a vNIC, deletes it, and gives its MAC back."""
    vnics.delete_vnic(ctx, vnic_id)


@routes.on(
    "POST",
    "/vnics/<vnic_id>/start",
    roles=WRITERS,
    answer=StartedOut,
    errors=[
        VnicNotFound,
        NoIpamService,
        SubnetExhausted,
        AddressOutOfRange,
        AddressTaken,
        MacReserved,
        NotConfirmed,
        NoServer,
    ],
)
def start_vnic(ctx: Context, vnic_id: Id, body: StartIn = _START) -> Started:
    """Promises the vNIC an address of its subnet, and answers once servers have it on disk.

    A 503 takes nothing back: the address stays held, and is pushed until it is confirmed. A repeated call answers the
    same address.
    """
    return vnics.start(ctx, vnic_id, wait=body.wait, ip=body.ip)


@routes.on("POST", "/vnics/<vnic_id>/stop", roles=WRITERS, answer=VnicOut, errors=[VnicNotFound])
def stop_vnic(ctx: Context, vnic_id: Id) -> Vnic:
    """Withdraws the vNIC's address, which drains, cools, and is free then; the MAC stays its own."""
    return vnics.stop(ctx, vnic_id)
