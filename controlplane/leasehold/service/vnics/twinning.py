"""Twins: vNICs that share a MAC on purpose."""

from sqlalchemy import delete, insert, select

from leasehold.domain.addresses import Mac
from leasehold.domain.values import Vnic
from leasehold.errors import FieldInvalid, VnicNotFound
from leasehold.service import macs
from leasehold.service.context import Context
from leasehold.service.vnics import rows
from leasehold.store.tables import twins


def make_twins(ctx: Context, vnic_id: str, twin_id: str, *, dry_run: bool = False) -> Vnic:
    """Gives the vNIC its twin's MAC, to share it on purpose: a standby, or the other node of a cluster. Its own cools.

    Raises VnicNotFound, FieldInvalid for a vNIC that would be its own twin, InUse while it runs, MacTaken when others
    have the MAC too.
    """
    if vnic_id == twin_id:
        raise FieldInvalid("twin: a vNIC is not its own twin. Name another.", field="twin", value=twin_id)
    with rows.writing(ctx, dry_run) as connection:
        pair = sorted((vnic_id, twin_id))
        present = rows.lock(connection, pair)
        if unknown := [each for each in (vnic_id, twin_id) if each not in present]:
            raise rows.missing(unknown[0])
        row, twin = present[vnic_id], present[twin_id]
        macs.lock(connection, [], [Mac(row.mac), Mac(twin.mac)], [])
        known = connection.execute(
            select(twins).where(twins.c.vnic_id == pair[0], twins.c.twin_id == pair[1])
        ).one_or_none()
        if known is None:
            connection.execute(insert(twins).values(vnic_id=pair[0], twin_id=pair[1]))
        if row.mac != twin.mac:
            rows.refuse_change_while_running(row, ["mac"])
            macs.claim(ctx, connection, Mac(twin.mac), vnic_id, row.mac_pool_id, twin=twin_id)
            rows.change(connection, vnic_id, mac=twin.mac)
            macs.release(ctx, connection, Mac(row.mac), row.id)
        return rows.known(connection, vnic_id)


def part_twins(ctx: Context, vnic_id: str, twin_id: str, *, dry_run: bool = False) -> Vnic:
    """Ends that two vNICs are twins: the first gets a MAC of its own. Raises VnicNotFound, also when they are no twins,
    InUse while it runs, MacPoolExhausted."""
    with rows.writing(ctx, dry_run) as connection:
        row = rows.require(connection, vnic_id)
        pair = sorted((vnic_id, twin_id))
        if not connection.execute(delete(twins).where(twins.c.vnic_id == pair[0], twins.c.twin_id == pair[1])).rowcount:
            raise VnicNotFound(
                f"vNIC {twin_id!r} is no twin of {vnic_id!r}. GET /v1/vnics/{vnic_id} lists its twins.", vnic=twin_id
            )
        rows.refuse_change_while_running(row, ["mac"])
        macs.lock(connection, [], [Mac(row.mac)], [row.mac_pool_id])
        (mac,) = macs.draw(ctx, connection, row.mac_pool_id, [vnic_id], macs.tied_to(connection, row.subnet_id))
        rows.change(connection, vnic_id, mac=mac.value)
        macs.release(ctx, connection, Mac(row.mac), row.id)
        return rows.known(connection, vnic_id)
