"""What the service layer answers: the vocabulary as frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypedDict

from netaddr import IPAddress, IPNetwork

from leasehold.domain.addresses import AddressRange, Mac, MacRange
from leasehold.domain.options import DhcpOption, Route

AddressState = Literal["held", "draining", "cooling"]
ServerState = Literal["starting", "running", "unreachable", "stopping"]
HostState = Literal["up", "doubtful", "down", "leaving", "maintenance", "fenced"]
ConfirmationState = Literal["confirmed", "pending", "unreachable"]
Wait = Literal["one", "all", "none"]
ScopeKind = Literal["data_center", "cluster", "vm_pool"]
BadMac = Literal["empty", "in-use", "out-of-range", "not-unicast"]
Role = Literal["admin", "engine", "host", "read"]


@dataclass(frozen=True, kw_only=True)
class PoolUsage:
    """Numbers of MACs. `size` is `free`, `used` and `cooling` together: what is within the ranges. `out_of_range` are
    those in use under the pool's rules that are not."""

    size: int
    free: int
    used: int
    cooling: int
    out_of_range: int


@dataclass(frozen=True, kw_only=True)
class MacPool:
    """A named set of MAC ranges."""

    id: str
    name: str
    description: str
    allow_duplicates: bool
    default_pool: bool
    revision: int
    ranges: tuple[MacRange, ...]
    usage: PoolUsage


@dataclass(frozen=True, kw_only=True)
class MacInUse:
    """A MAC that a vNIC has; `in_range` says whether it is within the ranges of the pool whose rules it is under."""

    mac: Mac
    vnic: str
    vm: str
    in_range: bool


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a change of a pool does to vNICs: the first MACs that it leaves out of range, and how many there are."""

    out_of_range: tuple[MacInUse, ...]
    out_of_range_count: int


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Two ranges of different pools that share MACs."""

    mac_pool: str
    range: MacRange
    other_pool: str
    other_range: MacRange


@dataclass(frozen=True, kw_only=True)
class Network:
    """An L2 network. `ipam_servers` None means: as many as the settings say."""

    id: str
    ipam_enabled: bool
    ipam_servers: int | None


@dataclass(frozen=True, kw_only=True)
class SubnetUsage:
    """Numbers of addresses. `size` is what the ranges hand out in all; `out_of_range` are those held, draining or
    cooling that they no longer do, so that `size` and `out_of_range` are the sum of the others."""

    size: int
    free: int
    held: int
    draining: int
    cooling: int
    out_of_range: int


@dataclass(frozen=True, kw_only=True)
class SubnetSpec:
    """What a caller says of a subnet. Empty `ranges` means all of it. `mtu` is in octets. `mac_ranges` tie MACs to it:
    a vNIC that names no subnet gets the one whose range holds its MAC, and one that names it draws its MAC from there.
    """

    network: str
    cidr: IPNetwork
    gateway: IPAddress | None = None
    dns: tuple[IPAddress, ...] = ()
    ntp: tuple[IPAddress, ...] = ()
    domain: str | None = None
    mtu: int | None = None
    routes: tuple[Route, ...] = ()
    options: tuple[DhcpOption, ...] = ()
    lease_time_s: int = 3600
    ranges: tuple[AddressRange, ...] = ()
    exclusions: tuple[AddressRange, ...] = ()
    mac_ranges: tuple[MacRange, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Subnet(SubnetSpec):
    """A CIDR on a network. `id` is Kea's subnet id too; `revision` counts the changes to its reservations,
    `settings_revision` those to its settings. One with a `successor` hands nothing out any more, and goes when its last
    address is free."""

    id: int
    revision: int
    settings_revision: int
    successor: int | None
    usage: SubnetUsage


@dataclass(frozen=True, kw_only=True)
class AddressInUse:
    """An address that is promised, or was and is not free yet; `vnic` is None for a device's."""

    ip: IPAddress
    mac: Mac
    vnic: str | None
    state: AddressState


@dataclass(frozen=True, kw_only=True)
class SubnetEffect:
    """What a change of a subnet does to addresses in use: the first that it leaves out of range, and how many."""

    out_of_range: tuple[AddressInUse, ...]
    out_of_range_count: int


@dataclass(frozen=True, kw_only=True)
class RenumberedAddress:
    """A vNIC or device that has another address since its subnet was renumbered."""

    vnic: str | None
    mac: Mac
    before: IPAddress
    after: IPAddress


@dataclass(frozen=True, kw_only=True)
class Renumbered:
    """The subnet that has taken an old one's place, and the addresses that changed, by the old one."""

    subnet: Subnet
    moved: tuple[RenumberedAddress, ...]


@dataclass(frozen=True, kw_only=True)
class HostNetwork:
    """How a host is attached to a network."""

    interface: str
    address: IPAddress


@dataclass(frozen=True, kw_only=True)
class Host:
    """A hypervisor with a Kea server; `unreachable_reason` is None while its control channel answers."""

    id: str
    control_url: str
    username: str
    password: str
    networks: Mapping[str, HostNetwork]
    answered_at: datetime | None
    unreachable_reason: str | None


@dataclass(frozen=True, kw_only=True)
class AwaitedAddress:
    """A draining address, and the vNIC that it was promised to."""

    subnet: int
    ip: IPAddress
    vnic: str | None


@dataclass(frozen=True, kw_only=True)
class HeldUp:
    """How many draining addresses wait for a host that could still serve them, and the first few."""

    count: int = 0
    first: tuple[AwaitedAddress, ...] = ()


@dataclass(frozen=True, kw_only=True)
class HostServer:
    """A network that a host serves, or is to serve, or is to stop serving."""

    network: str
    state: ServerState


@dataclass(frozen=True, kw_only=True)
class HostView(Host):
    """A host as people see it. `leaving`: in maintenance, but others do not serve its networks yet. `detail` says why
    it is in that state. `held_back_until` is when it can be chosen anew, after it was down."""

    state: HostState
    detail: str | None
    servers: tuple[HostServer, ...]
    holds_up: HeldUp
    held_back_until: datetime | None


@dataclass(frozen=True, kw_only=True)
class ServerSubnet:
    """How far a server is with one subnet: what it confirmed, and what the subnet is at; and which of its settings the
    server's Kea took, None where it has not the subnet."""

    subnet: int
    confirmed_revision: int | None
    revision: int
    provided_revision: int | None
    settings_revision: int
    confirmed_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Server:
    """An IPAM server: a host chosen to serve a network."""

    host: str
    network: str
    state: ServerState
    since: datetime
    detail: str | None
    subnets: tuple[ServerSubnet, ...]


@dataclass(frozen=True, kw_only=True)
class VnicSpec:
    """What a caller says of a vNIC. Without `mac` it keeps the one it has, else gets one of its scope's MAC pool."""

    id: str
    vm: str
    name: str
    cluster: str | None = None
    vm_pool: str | None = None
    network: str | None = None
    subnet: int | None = None
    mac: Mac | None = None


class VnicChange(TypedDict, total=False):
    """What a caller changes of a vNIC: the fields that it names. `mac` None gives it another; a network without a
    subnet takes it off a subnet of another network, and a subnet brings its network."""

    vm: str
    name: str
    cluster: str | None
    vm_pool: str | None
    network: str | None
    subnet: int | None
    mac: Mac | None


@dataclass(frozen=True, kw_only=True)
class Vnic:
    """A VM's network interface. `mac_pool` is the pool whose rules its MAC is under, `in_range` whether the MAC is
    within that pool's ranges, `twins` the vNICs that share it on purpose. `ip` is the address held for it, or that it
    may have back. `revision` rises with each change of what a caller can set. `missing_since` is when the engine's full
    list was first without it; None: it has it."""

    id: str
    vm: str
    name: str
    cluster: str | None
    vm_pool: str | None
    network: str | None
    subnet: int | None
    mac: Mac
    mac_pool: str
    in_range: bool
    twins: tuple[str, ...]
    running: bool
    ip: IPAddress | None
    ip_state: AddressState | None
    revision: int
    missing_since: datetime | None


@dataclass(frozen=True, kw_only=True)
class Reassigned:
    """A vNIC that got another MAC than the one it came with, and why."""

    vnic: str
    before: Mac | None
    after: Mac
    reason: BadMac


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import brought: the vNICs by id, those with new MACs, and those whose MAC is outside every range."""

    vnics: tuple[Vnic, ...]
    reassigned: tuple[Reassigned, ...]
    external: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class VnicSighting:
    """A vNIC in the engine's full list: its `vm`, `name` and what else the engine says of it; the rest stays as it is.
    `running` None leaves that as it is too."""

    id: str
    fields: VnicChange
    running: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Updated:
    """A vNIC that was changed, and which of its fields."""

    vnic: str
    fields: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RefusedMac:
    """A vNIC that did not get the MAC that the engine says it has; `holders` are the vNICs that have it."""

    vnic: str
    mac: Mac
    reason: BadMac
    holders: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class NotStarted:
    """A vNIC that runs, and could not have an address: the error's code and sentence."""

    vnic: str
    code: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Synced:
    """How the vNICs differed from the engine's full list, by vNIC.

    `marked` are missing for the first time, `missing` were so before, `deleted` were so for long enough; `returned`
    were marked and are on the list again. `external` have a MAC outside every range. New ones that are `refused` are
    not created.
    """

    created: tuple[str, ...] = ()
    updated: tuple[Updated, ...] = ()
    reassigned: tuple[Reassigned, ...] = ()
    refused: tuple[RefusedMac, ...] = ()
    external: tuple[str, ...] = ()
    marked: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    returned: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    started: tuple[str, ...] = ()
    stopped: tuple[str, ...] = ()
    not_started: tuple[NotStarted, ...] = ()
    unchanged: int = 0


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """What one server says of a reservation."""

    host: str
    state: ConfirmationState
    revision: int | None
    detail: str | None


@dataclass(frozen=True, kw_only=True)
class Started:
    """The answer to `start`, and to a change while it runs. Without IPAM, on no subnet or on a network where it is off,
    `ipam` is False, and there is neither an address nor a server."""

    vnic: Vnic
    ipam: bool
    ip: IPAddress | None
    mac: Mac
    servers: tuple[Confirmation, ...]


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """Our promise: on this subnet, this MAC gets this IP."""

    ip: IPAddress
    mac: Mac
    vnic: str | None


@dataclass(frozen=True, kw_only=True)
class Token:
    """A bearer token; its secret is shown once, at creation."""

    id: str
    role: Role
    host: str | None
    description: str
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Event:
    """An immutable fact. `position` orders all events by arrival, `sequence` those of one subject."""

    position: int
    id: str
    type: str
    subject: str
    sequence: int
    time: datetime
    data: Mapping[str, object]


LeaseState = Literal["assigned", "released", "expired", "declined"]


@dataclass(frozen=True, kw_only=True)
class Lease:
    """What the server of a host told of an address last. `offset` is its place in the subnet, `vnic` whose reservation
    it has; `is_reserved` says whether it is reserved so now, `diverged` whether an alarm of it is on."""

    subnet: int
    network: str
    offset: int
    ip: IPAddress
    host: str
    mac: Mac
    vnic: str | None
    state: LeaseState
    since: datetime
    expires_at: datetime | None
    is_reserved: bool
    diverged: bool


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The most that a request carries: events, and octets where it is more than one event."""

    events: int
    octets: int = 2**20


@dataclass(frozen=True, kw_only=True)
class WebhookSpec:
    """What a subscriber asks for. An event fits if it fits each of the lists; an empty list fits all.

    `types` and `subjects` may have `*` in them; `networks` and `subnets` fit the events that name one of them.
    `batch` None: one event a request, and not as a batch. `concurrency` is how many requests may be under way at once;
    the events of one subject keep their order.
    """

    url: str
    description: str = ""
    types: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    subnets: tuple[int, ...] = ()
    batch: Batch | None = None
    concurrency: int = 1


@dataclass(frozen=True, kw_only=True)
class Webhook(WebhookSpec):
    """A subscription. `secrets` sign its deliveries, the newest first; `state_reason` says why it is disabled;
    `revision` rises with each change that whoever delivers must know of."""

    id: str
    secrets: tuple[str, ...]
    old_secret_until: datetime | None
    state: Literal["active", "paused", "disabled"]
    state_reason: str | None
    revision: int
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a webhook was told. `behind` counts the events that came after the last that it was told of, those that
    it does not want included; `behind_s` is the age of the first of them, in seconds; `waiting` and `dead` count
    deliveries that are to be repeated, and that were given up."""

    webhook: str
    state: Literal["active", "paused", "disabled"]
    behind: int
    behind_s: float
    waiting: int
    dead: int


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One event for one webhook. Of what was delivered at once nothing is kept but that it was: its instants are when
    the event was stored, and `duration_ms` is None."""

    webhook: str
    event: Event
    state: Literal["waiting", "delivered", "dead"]
    attempts: int
    due_at: datetime
    first_due_at: datetime
    last_at: datetime | None
    last_status: int | None
    last_error: str | None
    last_duration_ms: int | None


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One request to a webhook's endpoint, with `events` events from `first_position` to `last_position`."""

    id: int
    at: datetime
    duration_ms: int
    events: int
    first_position: int
    last_position: int
    status: int | None
    error: str | None


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What the endpoint said to a test event."""

    delivered: bool
    status: int | None
    error: str | None
    duration_ms: int


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """How many events are sent again. `more_after`: there are more behind this position."""

    events: int
    more_after: int | None


@dataclass(frozen=True, kw_only=True)
class Scope:
    """A data center, cluster or VM pool. `mac_pool` is the one assigned to it, `effective_mac_pool` the one that its
    vNICs get their MACs from: its own, else its parent's, else the default."""

    kind: ScopeKind
    id: str
    parent: str | None
    mac_pool: str | None
    effective_mac_pool: str
