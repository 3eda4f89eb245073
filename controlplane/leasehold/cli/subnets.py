"""`leasehold subnet` and `leasehold reservation`."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

import click
from netaddr import IPAddress

from leasehold.cli.arguments import ID, IP, MAC, RANGE, checked
from leasehold.cli.opening import open_database
from leasehold.cli.paging import all_of
from leasehold.cli.printing import (
    Columns,
    as_json_option,
    columns_of,
    dry_run_option,
    note_dry_run,
    print_as,
    print_fields,
    print_table,
)
from leasehold.domain.addresses import AddressRange, Mac, MacRange
from leasehold.domain.options import DEFINITIONS, DhcpOption, definition_of
from leasehold.domain.values import AddressInUse, RenumberedAddress, Reservation, Subnet
from leasehold.errors import FieldInvalid
from leasehold.service import devices, renumbering, reservations, subnet_changes, subnets
from leasehold.web.subnets import (
    ChangedSubnetOut,
    RenumberedOut,
    RenumberIn,
    ReservationOut,
    SubnetIn,
    SubnetOut,
    SubnetPatch,
)

Command = TypeVar("Command", bound=Callable[..., Any])


def _ranges(ranges: Iterable[AddressRange] | Iterable[MacRange]) -> tuple[str, ...]:
    return tuple(f"{each.first}-{each.last}" for each in ranges)


def _option(option: DhcpOption) -> str:
    items = option.value if isinstance(option.value, tuple) else (option.value,)
    return f"{option.name or option.code}={','.join(map(str, items))}"


_FIELDS: Columns[Subnet] = {
    "id": lambda each: each.id,
    "network": lambda each: each.network,
    "cidr": lambda each: each.cidr,
    "gateway": lambda each: each.gateway,
    "dns": lambda each: each.dns,
    "ntp": lambda each: each.ntp,
    "domain": lambda each: each.domain,
    "mtu": lambda each: each.mtu,
    "routes": lambda each: tuple(f"{route.destination}={route.gateway}" for route in each.routes),
    "options": lambda each: tuple(map(_option, each.options)),
    "lease time": lambda each: each.lease_time_s,
    "ranges": lambda each: _ranges(each.ranges),
    "exclusions": lambda each: _ranges(each.exclusions),
    "mac ranges": lambda each: _ranges(each.mac_ranges),
    "size": lambda each: each.usage.size,
    "free": lambda each: each.usage.free,
    "held": lambda each: each.usage.held,
    "draining": lambda each: each.usage.draining,
    "cooling": lambda each: each.usage.cooling,
    "out of range": lambda each: each.usage.out_of_range,
    "successor": lambda each: each.successor,
    "revision": lambda each: each.revision,
    "settings revision": lambda each: each.settings_revision,
}
_COLUMNS = columns_of(_FIELDS, "id", "network", "cidr", "free", "held", "draining", "cooling", "successor")
_IN_USE: Columns[AddressInUse] = {
    "ip": lambda each: each.ip,
    "mac": lambda each: each.mac,
    "vnic": lambda each: each.vnic,
    "state": lambda each: each.state,
}
_MOVED: Columns[RenumberedAddress] = {
    "vnic": lambda each: each.vnic,
    "mac": lambda each: each.mac,
    "before": lambda each: each.before,
    "after": lambda each: each.after,
}
_RESERVATIONS: Columns[Reservation] = {
    "ip": lambda each: each.ip,
    "mac": lambda each: each.mac,
    "vnic": lambda each: each.vnic,
}

_subnet = click.argument("subnet_id", metavar="ID", type=click.IntRange(min=1))
_revision = click.option("--revision", type=int, help="Only if its settings are still at this revision.")


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_places = _options(
    click.option("--gateway", help="The router, which is never handed out."),
    click.option("--route", "routes", multiple=True, metavar="CIDR=GATEWAY", help="A static route; may be repeated."),
    click.option("--range", "ranges", multiple=True, metavar="FROM-TO", help="What vNICs can have; may be repeated."),
    click.option("--exclude", "exclusions", multiple=True, metavar="FROM-TO", help="What not; may be repeated."),
)
_settings = _options(
    _places,
    click.option("--dns", multiple=True, help="A name server; may be repeated."),
    click.option("--ntp", multiple=True, help="A time server; may be repeated."),
    click.option("--domain", help="The domain of its guests."),
    click.option("--mtu", type=int, help="Octets in a packet at most."),
    click.option("--lease-time", type=int, help="Seconds."),
    click.option(
        "--option",
        "options",
        multiple=True,
        metavar="NAME=VALUE",
        help="A further DHCP option by Kea's name or its code; lists with commas; may be repeated.",
    ),
    click.option(
        "--mac-range",
        "mac_ranges",
        type=RANGE,
        multiple=True,
        metavar="FROM-TO",
        help="MACs tied to it; may be repeated.",
    ),
)


@click.group()
def subnet() -> None:
    """Subnets: CIDRs on networks, their options and addresses."""


@subnet.command("list")
@click.option("--network", type=ID, help="Only those of this network.")
@as_json_option
def list_subnets(network: str | None, as_json: bool) -> None:
    """List subnets."""
    found = subnets.list_subnets(open_database(), network)
    if as_json:
        print_as(list[SubnetOut], found)
    else:
        print_table(_COLUMNS, found)


@subnet.command()
@_subnet
@as_json_option
def show(subnet_id: int, as_json: bool) -> None:
    """Show one subnet."""
    _print(subnets.get(open_database(), subnet_id), as_json)


@subnet.command()
@click.option("--network", type=ID, required=True, help="The network that it is on.")
@click.option("--cidr", required=True, help="Address and prefix length.")
@_settings
@dry_run_option
@as_json_option
def create(network: str, cidr: str, dry_run: bool, as_json: bool, **settings: Any) -> None:
    """Create a subnet."""
    body = checked(SubnetIn, {"network": network, "cidr": cidr} | _said(settings))
    _print(subnets.create(open_database(), body.spec(), dry_run=dry_run), as_json, dry_run)


_CLEARED: dict[str, object] = {
    **dict.fromkeys(("gateway", "domain", "mtu")),
    **dict.fromkeys(("dns", "ntp", "routes", "options", "ranges", "exclusions", "mac_ranges"), ()),
}


@subnet.command()
@_subnet
@click.option("--cidr", help="Larger or smaller, around all addresses in use.")
@_settings
@click.option(
    "--clear",
    "cleared",
    multiple=True,
    type=click.Choice([name.replace("_", "-") for name in _CLEARED]),
    help="Take a setting away; may be repeated.",
)
@_revision
@dry_run_option
@as_json_option
def change(
    subnet_id: int,
    cidr: str | None,
    cleared: tuple[str, ...],
    revision: int | None,
    dry_run: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Change a subnet while vNICs run. What is left out stays; what may be repeated replaces the whole list.

    Addresses in use that are outside of the new ranges stay with their holders, and are listed.
    """
    none = {name: _CLEARED[name] for name in (each.replace("-", "_") for each in cleared)}
    wanted = _said(settings)
    if twice := sorted(none.keys() & wanted.keys()):
        raise click.UsageError(f"--clear takes {', '.join(twice)} away, which another option sets.")
    body = checked(SubnetPatch, none | wanted | ({} if cidr is None else {"cidr": cidr}))
    found, effect = subnet_changes.change(
        open_database(), subnet_id, body.changes(), revision=revision, dry_run=dry_run
    )
    if as_json:
        print_as(
            ChangedSubnetOut,
            {
                "subnet": found,
                "out_of_range": list(effect.out_of_range),
                "out_of_range_count": effect.out_of_range_count,
            },
        )
        return
    _print(found, as_json, dry_run)
    if effect.out_of_range_count:
        title = f"Out of its ranges by this change, and still in use: {effect.out_of_range_count}"
        print_table(_IN_USE, effect.out_of_range, title)


@subnet.command()
@_subnet
@click.option("--cidr", required=True, help="Another one than before.")
@_places
@_revision
@dry_run_option
@as_json_option
def renumber(subnet_id: int, cidr: str, revision: int | None, dry_run: bool, as_json: bool, **places: Any) -> None:
    """Move a subnet's vNICs and devices to a new one.

    It has the same settings. What is left out is at the same place in the new CIDR. The old subnet goes when its last
    address is free.
    """
    body = checked(RenumberIn, {"cidr": cidr} | _said(places))
    done = renumbering.renumber(
        open_database(), subnet_id, body.cidr, body.changes(), revision=revision, dry_run=dry_run
    )
    if as_json:
        print_as(RenumberedOut, done)
        return
    _print(done.subnet, as_json, dry_run)
    print_table(_MOVED, done.moved, "New addresses")


@subnet.command()
@_subnet
@dry_run_option
def delete(subnet_id: int, dry_run: bool) -> None:
    """Delete a subnet that has no vNICs, and only free addresses."""
    subnets.delete_subnet(open_database(), subnet_id, dry_run=dry_run)
    note_dry_run(dry_run)


@click.group()
def reservation() -> None:
    """Reservations: which MAC gets which address of a subnet."""


@reservation.command("list")
@_subnet
@as_json_option
def list_reservations(subnet_id: int, as_json: bool) -> None:
    """List the reservations of subnet ID, vNICs' and devices'."""
    found = all_of(partial(reservations.list_reservations, open_database(), subnet_id), lambda each: each.ip)
    if as_json:
        print_as(list[ReservationOut], found)
    else:
        print_table(_RESERVATIONS, found)


@reservation.command()
@_subnet
@click.argument("mac", type=MAC)
@click.option("--ip", type=IP, help="This very address; without, any that is free.")
@dry_run_option
@as_json_option
def add(subnet_id: int, mac: Mac, ip: IPAddress | None, dry_run: bool, as_json: bool) -> None:
    """Reserve an address of subnet ID for a device that is no vNIC."""
    found, _ = devices.add(open_database(), subnet_id, mac, ip, dry_run=dry_run)
    if as_json:
        print_as(ReservationOut, found)
    else:
        print_fields(_RESERVATIONS, found)
        note_dry_run(dry_run)


@reservation.command()
@_subnet
@click.argument("ip", type=IP)
@dry_run_option
def remove(subnet_id: int, ip: IPAddress, dry_run: bool) -> None:
    """Take a device's reservation of subnet ID back. The address drains, cools, and is free then."""
    devices.remove(open_database(), subnet_id, ip, dry_run=dry_run)
    note_dry_run(dry_run)


def _said(settings: dict[str, Any]) -> dict[str, object]:
    """The options that were given, as the API takes them."""
    read: dict[str, Callable[[Any], object]] = {
        "routes": lambda values: tuple(_parts("--route", each, "=", "destination", "gateway") for each in values),
        "options": lambda values: tuple(map(_option_of, values)),
        "ranges": lambda values: tuple(_parts("--range", each, "-", "from", "to") for each in values),
        "exclusions": lambda values: tuple(_parts("--exclude", each, "-", "from", "to") for each in values),
        "mac_ranges": lambda values: tuple({"from": each.first, "to": each.last} for each in values),
    }
    return {
        name: read[name](value) if name in read else value
        for name, value in settings.items()
        if value is not None and value != ()
    }


def _parts(option: str, text: str, by: str, first: str, second: str) -> dict[str, object]:
    before, found, after = text.partition(by)
    if not found:
        raise FieldInvalid(f"{option}: {text!r} has no {by!r} in it.", field=option, value=text)
    return {first: before, second: after}


def _option_of(text: str) -> dict[str, object]:
    """A DHCP option of NAME=VALUE, its value as the option is defined."""
    key, found, value = text.partition("=")
    if not found:
        raise FieldInvalid(f"--option: {text!r} has no '=' in it.", field="--option", value=text)
    named: dict[str, object] = {"code": int(key)} if key.isascii() and key.isdigit() else {"name": key}
    definition = definition_of(key) or DEFINITIONS.get(int(key) if "code" in named else 0)
    if definition is None:
        return {**named, "value": value}
    items: Sequence[object] = [_typed(each, definition.type) for each in value.split(",")]
    return {**named, "value": tuple(items) if definition.array else _typed(value, definition.type)}


def _typed(text: str, kind: str) -> object:
    if kind == "boolean":
        return {"true": True, "false": False}.get(text, text)
    if "int" in kind and text.removeprefix("-").isdigit():
        return int(text)
    return text


def _print(found: Subnet, as_json: bool, dry_run: bool = False) -> None:
    if as_json:
        print_as(SubnetOut, found)
    else:
        print_fields(_FIELDS, found)
        note_dry_run(dry_run)
