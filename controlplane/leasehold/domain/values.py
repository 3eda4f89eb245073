"""What the service layer answers: the vocabulary as frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from netaddr import IPAddress, IPNetwork

from leasehold.domain.addresses import AddressRange, Mac, MacRange

AddressState = Literal["held", "draining", "cooling"]
ServerState = Literal["starting", "running", "unreachable", "stopping"]
Wait = Literal["one", "all", "none"]
Role = Literal["admin", "engine", "host", "read"]


@dataclass(frozen=True, kw_only=True)
class PoolUsage:
    """Numbers of MACs. `size` = `free` + those in use within the ranges; `out_of_range` is counted apart."""

    size: int
    free: int
    used: int
    out_of_range: int


@dataclass(frozen=True, kw_only=True)
class MacPool:
    """A named set of MAC ranges."""

    id: str
    name: str
    description: str
    allow_duplicates: bool
    default_pool: bool
    ranges: tuple[MacRange, ...]
    usage: PoolUsage


@dataclass(frozen=True, kw_only=True)
class Network:
    """An L2 network. `ipam_servers` None means: as many as the settings say."""

    id: str
    ipam_enabled: bool
    ipam_servers: int | None


@dataclass(frozen=True, kw_only=True)
class SubnetUsage:
    """Numbers of addresses; `size` is their sum."""

    size: int
    free: int
    held: int
    draining: int
    cooling: int


@dataclass(frozen=True, kw_only=True)
class SubnetSpec:
    """What a caller says of a subnet. Empty `ranges` means all of it."""

    network: str
    cidr: IPNetwork
    gateway: IPAddress | None = None
    dns: tuple[IPAddress, ...] = ()
    ntp: tuple[IPAddress, ...] = ()
    domain: str | None = None
    lease_time_s: int = 3600
    ranges: tuple[AddressRange, ...] = ()
    exclusions: tuple[AddressRange, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Subnet(SubnetSpec):
    """A CIDR on a network. `id` is Kea's subnet id too; `revision` counts the changes to its reservations."""

    id: int
    revision: int
    usage: SubnetUsage


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
class ServerSubnet:
    """How far a server is with one subnet: what it confirmed, and what the subnet is at."""

    subnet: int
    confirmed_revision: int | None
    revision: int
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
class Vnic:
    """A VM's network interface. `ip` is the address held for it, or that it may have back."""

    id: str
    vm: str
    name: str
    network: str | None
    subnet: int | None
    mac: Mac
    mac_pool: str | None
    running: bool
    ip: IPAddress | None
    ip_state: AddressState | None


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """What one server says of a reservation."""

    host: str
    state: Literal["confirmed", "pending", "unreachable"]
    revision: int | None
    detail: str | None


@dataclass(frozen=True, kw_only=True)
class Started:
    """The answer to `start`."""

    vnic: Vnic
    ip: IPAddress
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


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """A subscription. Empty `types` means every type."""

    id: str
    url: str
    types: tuple[str, ...]
    secret: str
    state: Literal["active", "paused", "disabled"]
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One event for one webhook."""

    webhook: str
    event: Event
    state: Literal["waiting", "delivered", "dead"]
    attempts: int
    due_at: datetime
    first_due_at: datetime
    last_status: int | None
    last_error: str | None
