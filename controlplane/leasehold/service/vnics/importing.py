"""vNICs taken over with the MACs that they come with."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial

from sqlalchemy import Connection, select

from leasehold.domain.addresses import Mac
from leasehold.domain.values import BadMac, Imported, Reassigned, VnicSpec
from leasehold.errors import MacsBad
from leasehold.service import mac_pools, macs, scopes
from leasehold.service.context import Context
from leasehold.service.vnics import changing, rows
from leasehold.store.database import AnyRow
from leasehold.store.sets import among
from leasehold.store.tables import twins, vnics


def take_in(
    ctx: Context, specs: Sequence[VnicSpec], *, reassign_bad_macs: bool = False, dry_run: bool = False
) -> Imported:
    """Imports vNICs with the MACs that they come with, all or none of them.

    A MAC is bad when there is none, when no card can own it, when it is in use where it must not be twice, and when it
    is outside every pool's ranges. With `reassign_bad_macs` such a vNIC gets a new one; without, one that has none gets
    one, one that is out of range is taken and reported, and the others raise MacsBad, which names them all.
    """
    with rows.writing(ctx, dry_run) as connection:
        return take_in_with(ctx, connection, specs, reassign_bad_macs=reassign_bad_macs)


def take_in_with(
    ctx: Context, connection: Connection, specs: Sequence[VnicSpec], *, reassign_bad_macs: bool
) -> Imported:
    """What `take_in` does, as part of a transaction of `writing`."""
    changing.refuse_repetition(specs)
    bad = bad_macs(connection, specs)
    if not reassign_bad_macs:
        _refuse_bad(connection, specs, bad)
    reassigned = {spec.id for spec in specs if bad.get(spec.id) and (reassign_bad_macs or spec.mac is None)}
    changing.put_in(
        ctx,
        connection,
        [replace(spec, mac=None) if spec.id in reassigned else spec for spec in specs],
        rows.lock(connection, [spec.id for spec in specs]),
        anew={spec.id for spec in specs if spec.id in reassigned and spec.mac is not None},
    )
    found = rows.read(connection, among(connection, vnics.c.id, [spec.id for spec in specs]))
    of_id = {each.id: each for each in found}
    return Imported(
        vnics=tuple(found),
        reassigned=tuple(
            Reassigned(vnic=spec.id, before=spec.mac, after=of_id[spec.id].mac, reason=bad[spec.id])
            for spec in specs
            if spec.id in reassigned
        ),
        external=tuple(spec.id for spec in specs if bad.get(spec.id) == "out-of-range" and spec.id not in reassigned),
    )


def bad_macs(connection: Connection, specs: Sequence[VnicSpec]) -> dict[str, BadMac]:
    """Why a vNIC's MAC is bad, by vNIC; the good ones are left out."""
    named = {spec.mac for spec in specs if spec.mac is not None}
    in_use = macs.holders(connection, named)
    in_range = macs.within_ranges(connection, named)
    known = among(connection, vnics.c.id, [spec.id for spec in specs if spec.mac is None])
    present = set(connection.execute(select(vnics.c.id).where(known)).scalars())
    pool_of = cache(partial(_pool_of, connection))
    bad: dict[str, BadMac] = {}
    seen: dict[Mac, bool] = {}
    paired = {frozenset((one, other)) for one, other in connection.execute(select(twins.c.vnic_id, twins.c.twin_id))}
    for spec in specs:
        if spec.mac is None:
            if spec.id not in present:
                bad[spec.id] = "empty"
            continue
        pool = pool_of(spec.cluster, spec.vm_pool)
        own = in_use.get(spec.mac, [])
        keeps = any(each.vnic == spec.id for each in own)
        others = [
            each for each in own if each.vnic != spec.id and not (keeps and frozenset((each.vnic, spec.id)) in paired)
        ]
        allowed = pool.allow_duplicates and all(each.allows_duplicates for each in others) and seen.get(spec.mac, True)
        if not spec.mac.is_unicast:
            bad[spec.id] = "not-unicast"
        elif not allowed and (others or (spec.mac in seen and not keeps)):
            bad[spec.id] = "in-use"
        elif spec.mac not in in_range:
            bad[spec.id] = "out-of-range"
        seen[spec.mac] = seen.get(spec.mac, True) and bool(pool.allow_duplicates)
    return bad


def _refuse_bad(connection: Connection, specs: Sequence[VnicSpec], bad: Mapping[str, BadMac]) -> None:
    refused = [spec for spec in specs if spec.mac is not None and bad.get(spec.id) in ("in-use", "not-unicast")]
    if not refused:
        return
    own = macs.holders(connection, [spec.mac for spec in refused if spec.mac is not None])
    coming: dict[Mac | None, list[VnicSpec]] = {}
    for spec in specs:
        coming.setdefault(spec.mac, []).append(spec)
    facts = []
    told = []
    for spec in refused:
        others = [each for each in own.get(spec.mac or Mac(0), ()) if each.vnic != spec.id]
        known = {each.vnic for each in others} | {spec.id}
        others += [_coming_holder(connection, each) for each in coming[spec.mac] if each.id not in known]
        who = ", ".join(f"vNIC {each.vnic} of VM {each.vm}" for each in others)
        told.append(
            f"{spec.id}: {spec.mac} " + (f"is in use by {who}" if bad[spec.id] == "in-use" else "is not unicast")
        )
        facts.append(
            {
                "vnic": spec.id,
                "mac": str(spec.mac),
                "reason": bad[spec.id],
                "holders": [each.facts() for each in others],
            }
        )
    raise MacsBad(
        f"These MACs cannot be taken: {'; '.join(told)}. Import with reassign_bad_macs to give these vNICs new ones. "
        "Nothing was imported.",
        bad=facts,
    )


def _coming_holder(connection: Connection, spec: VnicSpec) -> macs.Holder:
    """What a vNIC of the same import is to others that come with its MAC."""
    pool = _pool_of(connection, spec.cluster, spec.vm_pool)
    return macs.Holder(vnic=spec.id, vm=spec.vm, mac_pool=pool.id, allows_duplicates=pool.allow_duplicates)


def _pool_of(connection: Connection, cluster: str | None, vm_pool: str | None) -> AnyRow:
    return mac_pools.require(connection, scopes.pool_for(connection, cluster=cluster, vm_pool=vm_pool))
