"""`/v1/subnets` and their reservations."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Annotated, Any

from netaddr import IPAddress
from pydantic import AliasChoices, Field

from leasehold.domain.addresses import AddressRange, parse_ip
from leasehold.domain.options import DhcpOption, OptionType, Route, parse_option
from leasehold.domain.subnets import LEAST_MTU, MAX_LEASE_TIME_S, MOST_MTU
from leasehold.domain.values import AddressState, Renumbered, Reservation, Subnet, SubnetSpec
from leasehold.errors import (
    AddressOutOfRange,
    AddressTaken,
    InUse,
    MacNotUnicast,
    MacReserved,
    NetworkNotFound,
    RangeInvalid,
    RangeNotUnicast,
    RangesOverlap,
    RangesOverlapSubnets,
    ReservationNotFound,
    RevisionMismatch,
    SubnetExhausted,
    SubnetInvalid,
    SubnetNotFound,
    SubnetOverlap,
    SubnetRecovering,
    SubnetRetiring,
)
from leasehold.service import devices, renumbering, reservations, subnet_changes, subnets
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
    Text,
    WriteQuery,
    number_key,
)

routes = Routes("subnets")
_subnets = Listing[Subnet, int]("subnets", lambda each: each.id, number_key)
_reservations = Listing[Reservation, IPAddress]("reservations", lambda each: each.ip, partial(parse_ip, field="cursor"))


class AddressRangeIn(In):
    """An inclusive range."""

    first: Annotated[IpText, Field(alias="from")]
    last: Annotated[IpText, Field(alias="to")]

    def value(self) -> AddressRange:
        """Raises RangeInvalid for one that ends before it begins."""
        return AddressRange(self.first, self.last)


class AddressRangeOut(Out):
    """An inclusive range."""

    first: Annotated[IpText, Field(serialization_alias="from")]
    last: Annotated[IpText, Field(serialization_alias="to")]


class RouteIn(In):
    """Where packets to `destination` go: to `gateway` on the subnet, or nowhere but the link with 0.0.0.0."""

    destination: CidrText
    gateway: IpText


class RouteOut(Out):
    """Where packets to `destination` go."""

    destination: CidrText
    gateway: IpText


_Item = Annotated[bool | int | str, Field(union_mode="left_to_right")]


class OptionIn(In):
    """A DHCP option, by its code or the name that Kea has for it. One without a name here takes octets as hexadecimal
    digits, or a value of the `type` that is said, or a list of them."""

    code: Annotated[int, Field(ge=1, le=254)] | None = None
    name: Text | None = None
    type: OptionType | None = None
    value: _Item | Annotated[tuple[_Item, ...], Field(max_length=255)]

    def parsed(self, field: str) -> DhcpOption:
        """Raises FieldInvalid that names what does not fit."""
        return parse_option(field, self.value, code=self.code, name=self.name, type=self.type)


class OptionOut(Out):
    """A DHCP option. `name` is null for a code that has none here."""

    code: int
    name: str | None
    type: OptionType
    value: _Item | list[_Item]


class SubnetFields(In):
    """What a caller can say of a subnet and change later."""

    gateway: IpText | None = None
    dns: Annotated[tuple[IpText, ...], Field(max_length=16)] = ()
    ntp: Annotated[tuple[IpText, ...], Field(max_length=16)] = ()
    domain: Domain | None = None
    mtu: Annotated[int, Field(ge=LEAST_MTU, le=MOST_MTU)] | None = None
    routes: Annotated[tuple[RouteIn, ...], Field(max_length=64)] = ()
    options: Annotated[tuple[OptionIn, ...], Field(max_length=64)] = ()
    lease_time: Annotated[int, Field(ge=60, le=MAX_LEASE_TIME_S)] = 3600
    ranges: Annotated[tuple[AddressRangeIn, ...], Field(max_length=256)] = ()
    exclusions: Annotated[tuple[AddressRangeIn, ...], Field(max_length=256)] = ()
    mac_ranges: Annotated[tuple[MacRangeIn, ...], Field(max_length=256)] = ()


_READ: Mapping[str, Callable[[Any], object]] = {
    "routes": lambda routes: tuple(Route(destination=each.destination, gateway=each.gateway) for each in routes),
    "options": lambda options: tuple(each.parsed(f"options.{index}") for index, each in enumerate(options)),
    "ranges": lambda ranges: tuple(each.value() for each in ranges),
    "exclusions": lambda ranges: tuple(each.value() for each in ranges),
    "mac_ranges": lambda ranges: tuple(each.value() for each in ranges),
}


def _spec_fields(body: In, names: Iterable[str]) -> dict[str, Any]:
    """These fields of a body as those of a SubnetSpec. Raises RangeInvalid for a range that ends before it begins,
    FieldInvalid for an option that does not fit."""
    values = {name: getattr(body, name) for name in names}
    return {
        "lease_time_s" if name == "lease_time" else name: _READ[name](value) if name in _READ else value
        for name, value in values.items()
    }


class SubnetIn(SubnetFields):
    """A CIDR on a network. Without `ranges`, vNICs can have all of it but what is excluded, the gateway and the hosts'
    own addresses. `lease_time` is in seconds, `mtu` in octets. `mac_ranges` tie MACs to the subnet: a vNIC that names
    no subnet gets the one whose range holds its MAC, and one that names it draws its MAC from there."""

    network: Id
    cidr: CidrText

    def spec(self) -> SubnetSpec:
        """Raises RangeInvalid, FieldInvalid."""
        return SubnetSpec(**_spec_fields(self, type(self).model_fields))


class SubnetPatch(SubnetFields):
    """What is to change; fields left out stay, null takes one away. Lists are replaced whole. Addresses in use that are
    outside of new ranges stay with their holders."""

    cidr: CidrText | None = None

    def changes(self) -> dict[str, Any]:
        """As fields of a SubnetSpec. Raises RangeInvalid, FieldInvalid."""
        return _spec_fields(self, self.model_fields_set - ({"cidr"} if self.cidr is None else set()))


class RenumberIn(In):
    """The new CIDR. What is left out is at the same place there as in the old one."""

    cidr: CidrText
    gateway: IpText | None = None
    routes: Annotated[tuple[RouteIn, ...], Field(max_length=64)] = ()
    ranges: Annotated[tuple[AddressRangeIn, ...], Field(max_length=256)] = ()
    exclusions: Annotated[tuple[AddressRangeIn, ...], Field(max_length=256)] = ()

    def changes(self) -> dict[str, Any]:
        """As fields of a SubnetSpec, but for the CIDR. Raises RangeInvalid."""
        return _spec_fields(self, self.model_fields_set - {"cidr"})


class SubnetUsageOut(Out):
    """Numbers of addresses. `size` is what the ranges hand out in all; `out_of_range` are those held, draining or
    cooling that they no longer do, so that `size` and `out_of_range` are the sum of the others."""

    size: int
    free: int
    held: int
    draining: int
    cooling: int
    out_of_range: int


class SubnetOut(Out):
    """A CIDR on a network. `id` is Kea's subnet id too; `revision` counts the changes to its reservations, and
    `settings_revision`, which is its ETag, those to its settings. One with a `successor` was renumbered: it hands
    nothing out any more, and goes when its last address is free."""

    id: int
    network: str
    cidr: CidrText
    gateway: IpText | None
    dns: list[IpText]
    ntp: list[IpText]
    domain: str | None
    mtu: int | None
    routes: list[RouteOut]
    options: list[OptionOut]
    lease_time: Annotated[int, Field(validation_alias=AliasChoices("lease_time_s", "lease_time"))]
    ranges: list[AddressRangeOut]
    exclusions: list[AddressRangeOut]
    mac_ranges: list[MacRangeOut]
    revision: int
    settings_revision: int
    successor: int | None
    usage: SubnetUsageOut


class AddressInUseOut(Out):
    """An address that is promised, or was and is not free yet. `vnic` is null for a device's."""

    ip: IpText
    mac: MacText
    vnic: str | None
    state: AddressState


class ChangedSubnetOut(Out):
    """A changed subnet. `out_of_range` are the first addresses in use that this change left out of its ranges, and
    `out_of_range_count` how many there are: they stay with their holders."""

    subnet: SubnetOut
    out_of_range: list[AddressInUseOut]
    out_of_range_count: int


class RenumberedAddressOut(Out):
    """A vNIC, or with null a device, that has another address now."""

    vnic: str | None
    mac: MacText
    before: IpText
    after: IpText


class RenumberedOut(Out):
    """The new subnet, and the addresses that changed."""

    subnet: SubnetOut
    moved: list[RenumberedAddressOut]


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


class ReservationIn(In):
    """A device that is no vNIC, and the address that it gets: this one, or any."""

    mac: MacText
    ip: IpText | None = None


class ReservationPage(PageOut[ReservationOut]):
    """Part of the list of reservations."""


@routes.on(
    "POST",
    "/subnets",
    roles=WRITERS,
    keyed=True,
    answer=SubnetOut,
    statuses=(201, 200),
    errors=[
        SubnetInvalid,
        RangeInvalid,
        RangeNotUnicast,
        RangesOverlap,
        NetworkNotFound,
        SubnetOverlap,
        RangesOverlapSubnets,
    ],
)
def create_subnet(ctx: Context, query: WriteQuery, body: SubnetIn) -> Reply[Subnet]:
    """Creates a subnet. A dry run answers 200 with the subnet as it would be; its id is not kept for it."""
    subnet = subnets.create(ctx, body.spec(), dry_run=query.dry_run)
    if query.dry_run:
        return Reply(subnet)
    return Reply(subnet, 201, f"/v1/subnets/{subnet.id}", subnet.settings_revision)


@routes.on("GET", "/subnets", roles=READERS, answer=SubnetPage)
def list_subnets(ctx: Context, query: SubnetsQuery) -> Page[Subnet]:
    """Every subnet, or those of one network, by id."""
    return _subnets.page(query, lambda limit, after: subnets.list_subnets(ctx, query.network, limit=limit, after=after))


@routes.on("GET", "/subnets/<subnet_id>", roles=READERS, answer=SubnetOut, errors=[SubnetNotFound])
def get_subnet(ctx: Context, subnet_id: SubnetId) -> Reply[Subnet]:
    """One subnet."""
    subnet = subnets.get(ctx, subnet_id)
    return Reply(subnet, revision=subnet.settings_revision)


@routes.on(
    "PATCH",
    "/subnets/<subnet_id>",
    roles=WRITERS,
    answer=ChangedSubnetOut,
    errors=[
        SubnetNotFound,
        SubnetInvalid,
        RangeInvalid,
        RangeNotUnicast,
        RangesOverlap,
        SubnetOverlap,
        RangesOverlapSubnets,
        InUse,
        RevisionMismatch,
    ],
)
def patch_subnet(
    ctx: Context, subnet_id: SubnetId, query: WriteQuery, body: SubnetPatch, if_match: int | None
) -> Reply[ChangedSubnetOut]:
    """Changes a subnet while vNICs run. Servers take it over at once; no reservation is lost."""
    subnet, effect = subnet_changes.change(ctx, subnet_id, body.changes(), revision=if_match, dry_run=query.dry_run)
    changed = ChangedSubnetOut(
        subnet=SubnetOut.model_validate(subnet),
        out_of_range=[AddressInUseOut.model_validate(each) for each in effect.out_of_range],
        out_of_range_count=effect.out_of_range_count,
    )
    return Reply(changed, revision=subnet.settings_revision)


@routes.on(
    "POST",
    "/subnets/<subnet_id>/renumber",
    roles=WRITERS,
    keyed=True,
    answer=RenumberedOut,
    statuses=(201, 200),
    errors=[
        SubnetNotFound,
        SubnetInvalid,
        RangeInvalid,
        SubnetOverlap,
        SubnetRetiring,
        SubnetExhausted,
        SubnetRecovering,
        RevisionMismatch,
    ],
)
def renumber_subnet(
    ctx: Context, subnet_id: SubnetId, query: WriteQuery, body: RenumberIn, if_match: int | None
) -> Reply[Renumbered]:
    """Moves the subnet's vNICs and devices to a new subnet with the same settings. The old one goes when its last
    address is free. A dry run answers 200 with every address that would change."""
    renumbered = renumbering.renumber(
        ctx, subnet_id, body.cidr, body.changes(), revision=if_match, dry_run=query.dry_run
    )
    if query.dry_run:
        return Reply(renumbered)
    return Reply(renumbered, 201, f"/v1/subnets/{renumbered.subnet.id}", renumbered.subnet.settings_revision)


@routes.on("DELETE", "/subnets/<subnet_id>", roles=WRITERS, errors=[SubnetNotFound, InUse])
def delete_subnet(ctx: Context, subnet_id: SubnetId, query: WriteQuery) -> None:
    """Deletes a subnet that has no vNICs, and all of whose addresses are free."""
    subnets.delete_subnet(ctx, subnet_id, dry_run=query.dry_run)


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


@routes.on(
    "POST",
    "/subnets/<subnet_id>/reservations",
    roles=WRITERS,
    keyed=True,
    answer=ReservationOut,
    statuses=(201, 200),
    errors=[
        SubnetNotFound,
        MacNotUnicast,
        SubnetRetiring,
        SubnetExhausted,
        AddressOutOfRange,
        AddressTaken,
        MacReserved,
        SubnetRecovering,
    ],
)
def add_reservation(ctx: Context, subnet_id: SubnetId, query: WriteQuery, body: ReservationIn) -> Reply[Reservation]:
    """Reserves an address for a device that is no vNIC. A repeated call answers 200 with what it has."""
    reservation, created = devices.add(ctx, subnet_id, body.mac, body.ip, dry_run=query.dry_run)
    return Reply.put(
        reservation, created and not query.dry_run, f"/v1/subnets/{subnet_id}/reservations/{reservation.ip}"
    )


@routes.on(
    "DELETE",
    "/subnets/<subnet_id>/reservations/<ip>",
    roles=WRITERS,
    errors=[SubnetNotFound, ReservationNotFound, InUse],
)
def remove_reservation(ctx: Context, subnet_id: SubnetId, ip: IpText, query: WriteQuery) -> None:
    """Takes a device's reservation back: the address drains, cools, and is free then. vNICs are stopped instead."""
    devices.remove(ctx, subnet_id, ip, dry_run=query.dry_run)
