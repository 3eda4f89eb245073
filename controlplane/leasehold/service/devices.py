"""Reservations for devices that are no vNICs, and the log as a DHCP provider sees it."""

from netaddr import IPAddress
from sqlalchemy import Connection, select

from leasehold.domain.addresses import Mac
from leasehold.domain.subnets import offset_of
from leasehold.domain.values import Reservation
from leasehold.errors import InUse, MacReserved, ReservationNotFound
from leasehold.service import reservations, subnets
from leasehold.service.context import Context
from leasehold.store.database import AnyRow
from leasehold.store.tables import addresses


def add(
    ctx: Context, subnet_id: int, mac: Mac, ip: IPAddress | None = None, *, dry_run: bool = False
) -> tuple[Reservation, bool]:
    """Reserves an address for a device that is no vNIC: this one, or any; the second value is True if it is new.

    Raises SubnetNotFound, MacNotUnicast, SubnetRetiring, SubnetExhausted, AddressOutOfRange, AddressTaken, MacReserved.
    """
    mac.require_unicast()
    with ctx.db.write(dry_run=dry_run) as connection:
        subnet = subnets.require(connection, subnet_id, lock=True)
        present = _held_by_device(connection, subnet, mac)
        if present is not None and ip not in (None, subnets.address_of(subnet, present.offset)):
            held = subnets.address_of(subnet, present.offset)
            raise MacReserved(
                f"{mac} already has {held} on subnet {subnet_id}. Remove that reservation first, or ask for {held}.",
                mac=str(mac),
                subnet=subnet_id,
                ip=str(held),
                holder=None,
            )
        reservations.promise(ctx, connection, subnet_id, None, mac, ip)
        row = _held_by_device(connection, subnet, mac)
        if row is None:
            raise RuntimeError(f"{mac} was promised an address of subnet {subnet_id} and has none")
    ctx.bell.ring()
    return Reservation(ip=subnets.address_of(subnet, row.offset), mac=mac, vnic=None), present is None


def remove(ctx: Context, subnet_id: int, ip: IPAddress, *, dry_run: bool = False) -> None:
    """Lets the address of a device that is no vNIC drain. Raises SubnetNotFound, ReservationNotFound, and InUse for the
    address of a vNIC."""
    with ctx.db.write(dry_run=dry_run) as connection:
        subnet = subnets.require(connection, subnet_id, lock=True)
        row = connection.execute(
            select(addresses).where(
                addresses.c.subnet_id == subnet_id,
                addresses.c.offset == offset_of(subnets.spec_of(subnet), ip),
                addresses.c.state == "held",
            )
        ).one_or_none()
        if row is None:
            raise ReservationNotFound(
                f"There is no reservation of {ip} on subnet {subnet_id}. "
                f"GET /v1/subnets/{subnet_id}/reservations lists those that are.",
                ip=str(ip),
                subnet=subnet_id,
            )
        if row.vnic_id is not None:
            raise InUse(
                f"{ip} on subnet {subnet_id} is held for vNIC {row.vnic_id}. Stop that instead.",
                ip=str(ip),
                subnet=subnet_id,
                vnics=[row.vnic_id],
            )
        reservations.let_go(ctx, connection, subnet, row, guest_runs=True)
    ctx.bell.ring()


class ReservationLog:
    """The way of a DHCP provider's reservations to the servers: what is written here is pushed to each of them."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    def add(self, subnet: int, mac: Mac, ip: IPAddress | None) -> IPAddress:
        """See `add`."""
        return add(self._ctx, subnet, mac, ip)[0].ip

    def remove(self, subnet: int, ip: IPAddress) -> None:
        """See `remove`."""
        remove(self._ctx, subnet, ip)


def _held_by_device(connection: Connection, subnet: AnyRow, mac: Mac) -> AnyRow | None:
    return connection.execute(
        select(addresses).where(
            addresses.c.subnet_id == subnet.id,
            addresses.c.mac == mac.value,
            addresses.c.state == "held",
            addresses.c.vnic_id.is_(None),
        )
    ).one_or_none()
