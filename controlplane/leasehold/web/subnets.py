"""`/v1/subnets` and their reservations."""

from functools import partial
from typing import Annotated

from netaddr import IPAddress
from pydantic import AliasChoices, Field

from leasehold.domain.addresses import AddressRange, MacRange, parse_ip
from leasehold.domain.subnets import MAX_LEASE_TIME_S
from leasehold.domain.values import Reservation, Subnet, SubnetSpec
from leasehold.errors import InUse, NetworkNotFound, RangeInvalid, SubnetInvalid, SubnetNotFound, SubnetOverlap
from leasehold.service import reservations, subnets
from leasehold.service.context import Context
from leasehold.web.api import READERS, WRITERS, Reply, Routes
from leasehold.web.wire import (
    CidrText,
    Domain,
    Id,
    In,
    IpText,
    Listing,
    MacRangeIn,
    MacRangeOut,
    MacText,
    Out,
    Page,
    PageOut,
    PageQuery,
    SubnetId,
    number_key,
)

routes = Routes("subnets")
_subnets = Listing[Subnet, int]("subnets", lambda each: each.id, number_key)
_reservations = Listing[Reservation, IPAddress]("reservations", lambda each: each.ip, partial(parse_ip, field="cursor"))


class AddressRangeIn(In):
    """An inclusive range."""

    first: Annotated[IpText, Field(alias="from")]
    last: Annotated[IpText, Field(alias="to")]


class AddressRangeOut(Out):
    """An inclusive range."""

    first: Annotated[IpText, Field(serialization_alias="from")]
    last: Annotated[IpText, Field(serialization_alias="to")]


class SubnetIn(In):
    """A CIDR on a network. Without `ranges`, vNICs can have all of it but what is excluded, the gateway and the hosts'
    own addresses. `lease_time` is in seconds. `mac_ranges` tie MACs to the subnet: a vNIC that names no subnet gets the
    one whose range holds its MAC, and one that names it draws its MAC from there."""

    network: Id
    cidr: CidrText
    gateway: IpText | None = None
    dns: Annotated[tuple[IpText, ...], Field(max_length=16)] = ()
    ntp: Annotated[tuple[IpText, ...], Field(max_length=16)] = ()
    domain: Domain | None = None
    lease_time: Annotated[int, Field(ge=60, le=MAX_LEASE_TIME_S)] = 3600
    ranges: Annotated[tuple[AddressRangeIn, ...], Field(max_length=256)] = ()
    exclusions: Annotated[tuple[AddressRangeIn, ...], Field(max_length=256)] = ()
    mac_ranges: Annotated[tuple[MacRangeIn, ...], Field(max_length=256)] = ()

    def spec(self) -> SubnetSpec:
        """Raises RangeInvalid for a range that ends before it begins."""
        return SubnetSpec(
            network=self.network,
            cidr=self.cidr,
            gateway=self.gateway,
            dns=self.dns,
            ntp=self.ntp,
            domain=self.domain,
            lease_time_s=self.lease_time,
            ranges=tuple(AddressRange(each.first, each.last) for each in self.ranges),
            exclusions=tuple(AddressRange(each.first, each.last) for each in self.exclusions),
            mac_ranges=tuple(MacRange(each.first, each.last) for each in self.mac_ranges),
        )


class SubnetUsageOut(Out):
    """Numbers of addresses; `size` is the sum of the others."""

    size: int
    free: int
    held: int
    draining: int
    cooling: int


class SubnetOut(Out):
    """A CIDR on a network. `id` is Kea's subnet id too; `revision` counts the changes to its reservations."""

    id: int
    network: str
    cidr: CidrText
    gateway: IpText | None
    dns: list[IpText]
    ntp: list[IpText]
    domain: str | None
    lease_time: Annotated[int, Field(validation_alias=AliasChoices("lease_time_s", "lease_time"))]
    ranges: list[AddressRangeOut]
    exclusions: list[AddressRangeOut]
    mac_ranges: list[MacRangeOut]
    revision: int
    usage: SubnetUsageOut


class SubnetPage(PageOut[SubnetOut]):
    """Part of the list of subnets."""


class SubnetsQuery(PageQuery):
    """Which subnets."""

    network: Id | None = None
    """Only those of this network."""


class ReservationOut(Out):
    """Our promise: on this subnet, this MAC gets this IP."""

    ip: IpText
    mac: MacText
    vnic: str | None


class ReservationPage(PageOut[ReservationOut]):
    """Part of the list of reservations."""


@routes.on(
    "POST",
    "/subnets",
    roles=WRITERS,
    answer=SubnetOut,
    statuses=(201,),
    errors=[SubnetInvalid, RangeInvalid, NetworkNotFound, SubnetOverlap],
)
def create_subnet(ctx: Context, body: SubnetIn) -> Reply[Subnet]:
    """Creates a subnet."""
    subnet = subnets.create(ctx, body.spec())
    return Reply(subnet, 201, f"/v1/subnets/{subnet.id}")


@routes.on("GET", "/subnets", roles=READERS, answer=SubnetPage)
def list_subnets(ctx: Context, query: SubnetsQuery) -> Page[Subnet]:
    """Every subnet, or those of one network, by id."""
    return _subnets.page_of(query, subnets.list_subnets(ctx, query.network))


@routes.on("GET", "/subnets/<subnet_id>", roles=READERS, answer=SubnetOut, errors=[SubnetNotFound])
def get_subnet(ctx: Context, subnet_id: SubnetId) -> Subnet:
    """One subnet."""
    return subnets.get(ctx, subnet_id)


@routes.on("DELETE", "/subnets/<subnet_id>", roles=WRITERS, errors=[SubnetNotFound, InUse])
def delete_subnet(ctx: Context, subnet_id: SubnetId) -> None:
    """Deletes a subnet that has no vNICs, and all of whose addresses are free."""
    subnets.delete_subnet(ctx, subnet_id)


@routes.on(
    "GET",
    "/subnets/<subnet_id>/reservations",
    roles=READERS,
    answer=ReservationPage,
    errors=[SubnetNotFound],
)
def list_reservations(ctx: Context, subnet_id: SubnetId, query: PageQuery) -> Page[Reservation]:
    """What is promised on the subnet, by address."""
    return _reservations.page(
        query, lambda limit, after: reservations.list_reservations(ctx, subnet_id, limit=limit, after=after)
    )
