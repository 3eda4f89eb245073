"""The engine's full list of vNICs, and what it takes to be in step with it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, select, update

from leasehold.domain.addresses import Mac
from leasehold.domain.values import NotStarted, Reassigned, RefusedMac, Synced, Updated, VnicSighting, VnicSpec
from leasehold.errors import Conflict, FieldInvalid, Unavailable
from leasehold.service import macs, subnets
from leasehold.service.context import Context
from leasehold.service.vnics import changing, importing, rows, starting
from leasehold.store.database import AnyRow, part_of
from leasehold.store.sets import among
from leasehold.store.tables import vnics

_AT_ONCE = 1000
_FIELD = {"cluster_id": "cluster", "vm_pool_id": "vm_pool", "network_id": "network", "subnet_id": "subnet"}
_COLUMNS = ("vm", "name", "cluster_id", "vm_pool_id", "network_id", "subnet_id", "mac")

Value = TypeVar("Value")
Step = Callable[[Context, Connection], Synced]


def sync(
    ctx: Context,
    sightings: Sequence[VnicSighting],
    *,
    reassign_bad_macs: bool = False,
    allow_empty: bool = False,
    dry_run: bool = False,
) -> Synced:
    """Brings the vNICs in step with the engine's full list, and answers what was different.

    What is unknown is created, what changed is changed, and the address of what runs follows. What the list is without
    is marked, and let go only when a later list is without it too, `missing_grace_s` or more after the first. Where the
    list says so, what runs is started, and what does not is stopped. A MAC that cannot be taken is refused for its vNIC
    alone, or with `reassign_bad_macs` another one given.

    It is done in transactions of up to 1,000 vNICs. What is done when one of them fails stays done, and the next sync
    does the rest. Raises FieldInvalid for an id that comes twice, and for an empty list that is not allowed to be;
    ScopeNotFound, NetworkNotFound, SubnetNotFound, MacPoolExhausted, WouldDuplicate, SubnetExhausted, MacReserved.
    """
    changing.refuse_repetition(sightings)
    if not sightings and not allow_empty:
        raise FieldInvalid(
            "vnics: the list is empty, and every vNIC would be marked as missing. If the engine has none indeed, say "
            "allow_empty.",
            field="vnics",
            value=[],
        )
    with ctx.db.read() as connection:
        present = {row.id: row for row in connection.execute(select(vnics).order_by(vnics.c.id))}
        unserved = starting.unserved(connection)
    missing = sorted(present.keys() - {each.id for each in sightings})
    differing = [each for each in sightings if _differs(each, present.get(each.id), unserved)]
    differing.sort(key=lambda each: each.id)
    steps: list[Step] = [partial(_miss, vnic_ids=part) for part in _parts(missing)]
    steps += [partial(_bring, seen=part, reassign=reassign_bad_macs) for part in _parts(differing)]
    done = [Synced(unchanged=len(sightings) - len(differing))]
    if dry_run:
        with rows.writing(ctx, dry_run) as connection:
            done += [step(ctx, connection) for step in steps]
    else:
        for step in steps:
            with rows.writing(ctx, dry_run) as connection:
                part = step(ctx, connection)
            done.append(part)
    return _together(done)


def _differs(seen: VnicSighting, row: AnyRow | None, unserved: set[str]) -> bool:
    if row is None or row.missing_ms is not None:
        return True
    if seen.running is not None and seen.running != row.running:
        return True
    return bool(seen.running and row.id in unserved) or _is_other(changing.changed(row, seen.fields), row)


def _is_other(spec: VnicSpec, row: AnyRow) -> bool:
    """True for a vNIC that is to be another than its row says. A subnet alone says nothing of the network."""
    is_network_told = spec.network is not None or spec.subnet is None
    return (
        (spec.vm, spec.name, spec.cluster, spec.vm_pool, spec.subnet)
        != (row.vm, row.name, row.cluster_id, row.vm_pool_id, row.subnet_id)
        or (is_network_told and spec.network != row.network_id)
        or (spec.mac is not None and spec.mac.value != row.mac)
    )


def _miss(ctx: Context, connection: Connection, *, vnic_ids: Sequence[str]) -> Synced:
    """Marks vNICs that the list is without, or lets them go."""
    now_ms = ctx.now_ms()
    due_ms = now_ms - round(ctx.settings.missing_grace_s * 1000)
    locked = rows.lock(connection, vnic_ids)
    marked = tuple(row.id for row in locked.values() if row.missing_ms is None)
    due = [row for row in locked.values() if row.missing_ms is not None and row.missing_ms <= due_ms]
    connection.execute(update(vnics).where(among(connection, vnics.c.id, marked)).values(missing_ms=now_ms))
    gone = {row.id for row in due}
    # All at once, since in the order of the vNICs they would come in any order.
    subnets.lock(connection, (row.subnet_id for row in due))
    macs.lock(connection, [], (Mac(row.mac) for row in due), [])
    for row in due:
        changing.delete_in(ctx, connection, row)
    return Synced(
        marked=marked,
        deleted=tuple(sorted(gone)),
        missing=tuple(each for each in locked if each not in gone and each not in marked),
    )


def _bring(ctx: Context, connection: Connection, *, seen: Sequence[VnicSighting], reassign: bool) -> Synced:
    """Creates and changes vNICs as they were seen, and starts and stops them."""
    ids = [each.id for each in seen]
    before = rows.lock(connection, ids)
    specs, answer = _specs(connection, seen, before, reassign=reassign)
    anew = {each.vnic for each in answer.reassigned}
    starts = {each.id for each in seen if each.running}
    changing.put_in(ctx, connection, specs, before, anew=anew, while_running="follow", starting=starts)
    after = {row.id: row for row in connection.execute(select(vnics).where(among(connection, vnics.c.id, ids)))}
    answer = replace(
        answer,
        created=tuple(each for each in ids if each in after and each not in before),
        returned=tuple(row.id for row in before.values() if row.missing_ms is not None),
        updated=tuple(
            Updated(vnic=row.id, fields=_changed(row, after[row.id]))
            for row in before.values()
            if row.revision != after[row.id].revision
        ),
        reassigned=tuple(replace(each, after=Mac(after[each.vnic].mac)) for each in answer.reassigned),
    )
    return _together([answer, *_run(ctx, connection, seen, after)])


def _specs(
    connection: Connection, seen: Sequence[VnicSighting], before: Mapping[str, AnyRow], *, reassign: bool
) -> tuple[list[VnicSpec], Synced]:
    """The vNICs to be put, and what is to be said of their MACs."""
    wanted = []
    for each in seen:
        row = before.get(each.id)
        wanted.append(VnicSpec(id=each.id, **each.fields) if row is None else changing.changed(row, each.fields))
    naming = [
        spec
        for spec in wanted
        if spec.mac is not None and (spec.id not in before or before[spec.id].mac != spec.mac.value)
    ]
    bad = importing.bad_macs(connection, naming)
    holders = macs.holders(connection, [spec.mac for spec in naming if spec.mac is not None and spec.id in bad])
    specs = []
    reassigned = []
    refused = []
    for spec in wanted:
        reason = bad.get(spec.id)
        if reason is None or spec.mac is None or (reason == "out-of-range" and not reassign):
            specs.append(spec)
        elif reassign:
            specs.append(replace(spec, mac=None))
            reassigned.append(Reassigned(vnic=spec.id, before=spec.mac, after=spec.mac, reason=reason))
        else:
            others = tuple(each.vnic for each in holders.get(spec.mac, ()))
            refused.append(RefusedMac(vnic=spec.id, mac=spec.mac, reason=reason, holders=others))
            if spec.id in before:
                specs.append(replace(spec, mac=None))
    external = () if reassign else tuple(each for each, reason in bad.items() if reason == "out-of-range")
    return specs, Synced(reassigned=tuple(reassigned), refused=tuple(refused), external=external)


def _run(
    ctx: Context, connection: Connection, seen: Sequence[VnicSighting], after: Mapping[str, AnyRow]
) -> Iterable[Synced]:
    """Starts what the engine says runs and has no address, and stops what it says does not."""
    unserved = starting.unserved(connection, after)
    for each in seen:
        row = after.get(each.id)
        if row is None or each.running is None:
            continue
        if row.running and not each.running:
            starting.stop_in(ctx, connection, row.id)
            yield Synced(stopped=(row.id,))
        elif each.running and (not row.running or row.id in unserved) and not starting.is_settling(connection, row):
            try:
                with part_of(connection):
                    starting.start_in(ctx, connection, rows.require(connection, row.id))
                yield Synced(started=(row.id,))
            except (Conflict, Unavailable) as error:
                yield Synced(not_started=(NotStarted(vnic=row.id, code=type(error).code, detail=str(error)),))


def _changed(before: AnyRow, after: AnyRow) -> tuple[str, ...]:
    return tuple(_FIELD.get(name, name) for name in _COLUMNS if getattr(before, name) != getattr(after, name))


def _parts(values: Sequence[Value]) -> list[Sequence[Value]]:
    return [values[index : index + _AT_ONCE] for index in range(0, len(values), _AT_ONCE)]


def _together(parts: Iterable[Synced]) -> Synced:
    """All of them as one."""
    parts = list(parts)
    return Synced(
        unchanged=sum(each.unchanged for each in parts),
        **{
            field.name: tuple(value for each in parts for value in getattr(each, field.name))
            for field in fields(Synced)
            if field.name != "unchanged"
        },
    )
