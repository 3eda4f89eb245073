"""`/v1/vnics`."""

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Literal, cast

from pydantic import Field

from leasehold.domain.values import (
    AddressState,
    BadMac,
    Imported,
    Started,
    Synced,
    Vnic,
    VnicChange,
    VnicSighting,
    VnicSpec,
    Wait,
)
from leasehold.errors import (
    AddressOutOfRange,
    AddressTaken,
    InUse,
    MacNotUnicast,
    MacPoolExhausted,
    MacReserved,
    MacsBad,
    MacTaken,
    NetworkNotFound,
    NoIpamService,
    NoServer,
    NotConfirmed,
    RevisionMismatch,
    ScopeNotFound,
    SubnetExhausted,
    SubnetNotFound,
    SubnetRecovering,
    SubnetRetiring,
    VnicNotFound,
    WouldDuplicate,
)
from leasehold.service import vnics
from leasehold.service.context import Context
from leasehold.web.api import READERS, WRITERS, Reply, Routes
from leasehold.web.bodies import MAX_LIST_OCTETS, Json
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
    WriteQuery,
    id_key,
)

MAX_VNICS = 200_000

routes = Routes("vnics")
_vnics = Listing[Vnic, str]("vnics", lambda each: each.id, id_key)


class VnicFields(In):
    """A VM's network interface. Without `mac` it keeps the one it has, or gets one of its scope's MAC pool; a subnet
    brings its network."""

    vm: Name
    name: Name
    cluster: Id | None = None
    vm_pool: Id | None = None
    network: Id | None = None
    subnet: BodySubnetId | None = None
    mac: MacText | None = None

    def spec(self, vnic_id: str) -> VnicSpec:
        """As the service takes it."""
        return VnicSpec(
            id=vnic_id,
            vm=self.vm,
            name=self.name,
            cluster=self.cluster,
            vm_pool=self.vm_pool,
            network=self.network,
            subnet=self.subnet,
            mac=self.mac,
        )


class VnicPatch(In):
    """What to change of a VM's network interface; what is left out stays. `mac` null gives it another one. A network
    without a subnet takes it off a subnet of another network, and a subnet brings its network."""

    vm: Name = Field(default_factory=str)
    name: Name = Field(default_factory=str)
    cluster: Id | None = None
    vm_pool: Id | None = None
    network: Id | None = None
    subnet: BodySubnetId | None = None
    mac: MacText | None = None

    def change(self) -> VnicChange:
        """As the service takes it: the fields that were sent."""
        return cast(VnicChange, {name: getattr(self, name) for name in self.model_fields_set})


class VnicIn(VnicFields):
    """A VM's network interface. Without `mac` it keeps the one it has, or gets one of its scope's MAC pool; a subnet
    brings its network."""


class NamedVnicIn(VnicFields):
    """One of many, under the engine's own id."""

    id: Id


class BulkIn(In):
    """Many vNICs, created or replaced all together or not at all."""

    vnics: Annotated[tuple[NamedVnicIn, ...], Field(min_length=1, max_length=10_000)]


class ImportIn(In):
    """vNICs with the MACs that they come with. With `reassign_bad_macs` those whose MAC is missing, in use, outside
    every range or no card's own get new ones."""

    vnics: Annotated[tuple[NamedVnicIn, ...], Field(min_length=1, max_length=MAX_VNICS)]
    reassign_bad_macs: bool = False


class SightedVnicIn(VnicFields):
    """A vNIC as the engine has it. What is left out stays as it is here."""

    id: Id
    running: bool | None = None

    def sighting(self) -> VnicSighting:
        """As the service takes it: the fields that were sent."""
        told = {name: getattr(self, name) for name in self.model_fields_set - {"id", "running"}}
        return VnicSighting(id=self.id, fields=cast(VnicChange, told), running=self.running)


class SyncIn(In):
    """Every vNIC that the engine has. With `reassign_bad_macs` those whose MAC is in use, outside every range or no
    card's own get new ones."""

    vnics: Annotated[tuple[SightedVnicIn, ...], Field(max_length=MAX_VNICS)]
    reassign_bad_macs: bool = False


class SyncQuery(WriteQuery):
    """How a full list is meant."""

    allow_empty: bool = False
    """Take an empty list for what it says: the engine has no vNIC."""


class MoveIn(In):
    """Where the vNIC goes. It keeps its MAC, unless `new_mac` is asked for and the MAC pool there is another."""

    cluster: Id | None = None
    vm_pool: Id | None = None
    new_mac: bool = False


class TwinIn(In):
    """The vNIC whose MAC is shared on purpose."""

    twin: Id


class VnicOut(Out):
    """A VM's network interface. `mac_pool` is the pool whose rules its MAC is under, `in_range` whether the MAC is
    within that pool's ranges, `twins` the vNICs that share it on purpose. `ip` is the address held for it, or that it
    may have back. `revision` rises with each change of what a caller can set, and is its ETag. `missing_since` is when
    the engine's full list was first without it; null: it has it."""

    id: str
    vm: str
    name: str
    cluster: str | None
    vm_pool: str | None
    network: str | None
    subnet: int | None
    mac: MacText
    mac_pool: str
    in_range: bool
    twins: list[str]
    running: bool
    ip: IpText | None
    ip_state: AddressState | None
    revision: int
    missing_since: datetime | None


class VnicListOut(Out):
    """vNICs, by id."""

    items: list[VnicOut]


class ReassignedOut(Out):
    """A vNIC that got another MAC than the one it came with, and why."""

    vnic: str
    before: MacText | None
    after: MacText
    reason: BadMac


class ImportedOut(Out):
    """What an import brought: the vNICs by id, those with new MACs, and those whose MAC is outside every range."""

    vnics: list[VnicOut]
    reassigned: list[ReassignedOut]
    external: list[str]


class UpdatedOut(Out):
    """A vNIC that was changed, and which of its fields."""

    vnic: str
    fields: list[str]


class RefusedMacOut(Out):
    """A vNIC that did not get the MAC that the engine says it has; `holders` are the vNICs that have it."""

    vnic: str
    mac: MacText
    reason: BadMac
    holders: list[str]


class NotStartedOut(Out):
    """A vNIC that runs, and could not have an address: an error's code and sentence."""

    vnic: str
    code: str
    detail: str


class SyncedOut(Out):
    """How the vNICs differed from the engine's full list. `marked` are missing for the first time, `missing` were so
    before, `deleted` were so for long enough; `returned` were marked and are on the list again. `external` have a MAC
    outside every range. New ones that are `refused` are not created."""

    created: list[str]
    updated: list[UpdatedOut]
    reassigned: list[ReassignedOut]
    refused: list[RefusedMacOut]
    external: list[str]
    marked: list[str]
    missing: list[str]
    returned: list[str]
    deleted: list[str]
    started: list[str]
    stopped: list[str]
    not_started: list[NotStartedOut]
    unchanged: int


class VnicPage(PageOut[VnicOut]):
    """Part of the list of vNICs."""


class StartIn(In):
    """How many of the network's IPAM servers must have confirmed the reservation before the answer; `ip` asks for that
    very address."""

    wait: Wait = "one"
    ip: IpText | None = None


_START = StartIn()


class ChangeQuery(WriteQuery):
    """How a change is meant."""

    wait: Wait = "one"
    """How many of the network's IPAM servers must have confirmed before the answer, if the vNIC runs and its address
    follows."""


class ConfirmationOut(Out):
    """What one IPAM server says of the reservation."""

    host: str
    state: Literal["confirmed", "pending", "unreachable"]
    revision: int | None
    detail: str | None


class StartedOut(Out):
    """The promise: this MAC gets this IP from each server that has confirmed it. `ipam` is false for a vNIC that does
    not run, is on no subnet, or is on a network where IPAM is off: it has neither IP nor servers then. While `ipam` is
    true and `ip` null, its address waits until no server gives it to the old MAC any more."""

    vnic: VnicOut
    ipam: bool
    ip: IpText | None
    mac: MacText
    servers: list[ConfirmationOut]


_FITTING = (
    ScopeNotFound,
    NetworkNotFound,
    SubnetNotFound,
    SubnetRetiring,
    MacNotUnicast,
    MacTaken,
    MacPoolExhausted,
    WouldDuplicate,
)
_PROMISING = (SubnetExhausted, SubnetRetiring, MacReserved, SubnetRecovering, NotConfirmed, NoServer)


@routes.on("PUT", "/vnics/<vnic_id>", roles=WRITERS, answer=VnicOut, statuses=(200, 201), errors=[*_FITTING, InUse])
def put_vnic(ctx: Context, vnic_id: Id, query: WriteQuery, body: VnicIn) -> Reply[Vnic]:
    """Creates or replaces a vNIC. While it runs, its MAC, network and subnet do not change in this way: PATCH does."""
    vnic, created = vnics.put(ctx, body.spec(vnic_id), dry_run=query.dry_run)
    return replace(Reply.put(vnic, created and not query.dry_run, f"/v1/vnics/{vnic_id}"), revision=vnic.revision)


@routes.on(
    "PATCH",
    "/vnics/<vnic_id>",
    roles=WRITERS,
    answer=StartedOut,
    errors=[*_FITTING, VnicNotFound, RevisionMismatch, *_PROMISING],
)
def patch_vnic(ctx: Context, vnic_id: Id, query: ChangeQuery, body: VnicPatch, if_match: int | None) -> Reply[Started]:
    """Changes what is named of a vNIC. While it runs, its address follows.

    On another subnet it gets an address of there, and lets the old one go, in one step. With another MAC it keeps its
    address once every server has confirmed that the old MAC does not get it any more; where a server that does not
    answer could still serve it, it gets another one. A 503 takes nothing back.
    """
    changed = vnics.change(ctx, vnic_id, body.change(), revision=if_match, wait=query.wait, dry_run=query.dry_run)
    return Reply(changed, revision=changed.vnic.revision)


@routes.on("POST", "/vnics/bulk", roles=WRITERS, keyed=True, answer=VnicListOut, errors=[*_FITTING, InUse])
def put_vnics(ctx: Context, query: WriteQuery, body: BulkIn) -> VnicListOut:
    """Creates or replaces many vNICs, all or none of them. MACs are given ascending, in the order of the ids."""
    found = vnics.put_all(ctx, [each.spec(each.id) for each in body.vnics], dry_run=query.dry_run)
    return VnicListOut(items=[VnicOut.model_validate(each) for each in found])


@routes.on(
    "POST",
    "/vnics/import",
    roles=WRITERS,
    keyed=True,
    answer=ImportedOut,
    errors=[*_FITTING, MacsBad, InUse],
    body=Json(ImportIn, most=MAX_LIST_OCTETS),
)
def import_vnics(ctx: Context, query: WriteQuery, body: ImportIn) -> Imported:
    """Imports vNICs with the MACs that they come with, all or none of them; says who has new ones, and why."""
    return vnics.take_in(
        ctx,
        [each.spec(each.id) for each in body.vnics],
        reassign_bad_macs=body.reassign_bad_macs,
        dry_run=query.dry_run,
    )


@routes.on(
    "POST",
    "/vnics/sync",
    roles=WRITERS,
    answer=SyncedOut,
    errors=[*_FITTING, SubnetExhausted, MacReserved, SubnetRecovering],
    body=Json(SyncIn, most=MAX_LIST_OCTETS),
)
def sync_vnics(ctx: Context, query: SyncQuery, body: SyncIn) -> Synced:
    """Brings the vNICs in step with the engine's full list, and answers what was different.

    What the list is without is marked, and deleted when a later list is without it too, after a time of grace. It is
    done in steps; what is done when one of them fails stays done, and the next call does the rest.
    """
    return vnics.sync(
        ctx,
        [each.sighting() for each in body.vnics],
        reassign_bad_macs=body.reassign_bad_macs,
        allow_empty=query.allow_empty,
        dry_run=query.dry_run,
    )


@routes.on("GET", "/vnics", roles=READERS, answer=VnicPage)
def list_vnics(ctx: Context, query: PageQuery) -> Page[Vnic]:
    """Every vNIC, by id."""
    return _vnics.page(query, lambda limit, after: vnics.list_vnics(ctx, limit=limit, after=after))


@routes.on("GET", "/vnics/<vnic_id>", roles=READERS, answer=VnicOut, errors=[VnicNotFound])
def get_vnic(ctx: Context, vnic_id: Id) -> Reply[Vnic]:
    """One vNIC."""
    vnic = vnics.get(ctx, vnic_id)
    return Reply(vnic, revision=vnic.revision)


@routes.on("DELETE", "/vnics/<vnic_id>", roles=WRITERS, errors=[VnicNotFound])
def delete_vnic(ctx: Context, vnic_id: Id, query: WriteQuery) -> None:
    """Stops a vNIC, deletes it, and lets its MAC go, which cools: the same vNIC has it back until then."""
    vnics.delete_vnic(ctx, vnic_id, dry_run=query.dry_run)


@routes.on(
    "POST",
    "/vnics/<vnic_id>/move",
    roles=WRITERS,
    answer=VnicOut,
    errors=[VnicNotFound, ScopeNotFound, WouldDuplicate, MacPoolExhausted, InUse],
)
def move_vnic(ctx: Context, vnic_id: Id, query: WriteQuery, body: MoveIn) -> Vnic:
    """Moves a vNIC to another cluster or VM pool, and so under another MAC pool, in one step."""
    return vnics.move(
        ctx, vnic_id, cluster=body.cluster, vm_pool=body.vm_pool, new_mac=body.new_mac, dry_run=query.dry_run
    )


@routes.on("POST", "/vnics/<vnic_id>/twins", roles=WRITERS, answer=VnicOut, errors=[VnicNotFound, MacTaken, InUse])
def make_twins(ctx: Context, vnic_id: Id, query: WriteQuery, body: TwinIn) -> Vnic:
    """Gives the vNIC its twin's MAC, to share it on purpose."""
    return vnics.make_twins(ctx, vnic_id, body.twin, dry_run=query.dry_run)


@routes.on(
    "DELETE",
    "/vnics/<vnic_id>/twins/<twin_id>",
    roles=WRITERS,
    answer=VnicOut,
    errors=[VnicNotFound, InUse, MacPoolExhausted],
)
def part_twins(ctx: Context, vnic_id: Id, twin_id: Id, query: WriteQuery) -> Vnic:
    """Ends that two vNICs are twins: the first named gets a MAC of its own."""
    return vnics.part_twins(ctx, vnic_id, twin_id, dry_run=query.dry_run)


@routes.on(
    "POST",
    "/vnics/<vnic_id>/start",
    roles=WRITERS,
    answer=StartedOut,
    errors=[
        VnicNotFound,
        NoIpamService,
        AddressOutOfRange,
        AddressTaken,
        *_PROMISING,
    ],
)
def start_vnic(ctx: Context, vnic_id: Id, query: WriteQuery, body: StartIn = _START) -> Started:
    """Promises the vNIC an address of its subnet, and answers once servers have it on disk. Without a subnet, or where
    IPAM is off, it runs without IPAM service.

    A 503 takes nothing back: the address stays held, and is pushed until it is confirmed. A repeated call answers the
    same address. Twins on one subnet share one address.
    """
    return vnics.start(ctx, vnic_id, wait=body.wait, ip=body.ip, dry_run=query.dry_run)


@routes.on("POST", "/vnics/<vnic_id>/stop", roles=WRITERS, answer=VnicOut, errors=[VnicNotFound])
def stop_vnic(ctx: Context, vnic_id: Id, query: WriteQuery) -> Vnic:
    """Withdraws the vNIC's address, which drains, cools, and is free then; the MAC stays its own. An address that a
    running twin shares stays with the twin."""
    return vnics.stop(ctx, vnic_id, dry_run=query.dry_run)
