"""Why a client has its address, or has none: a pure judgement of what is known, in one sentence, and what to do."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from netaddr import IPAddress

from leasehold.domain.addresses import Mac
from leasehold.domain.values import AddressState, ServerState, Vnic

Cause = Literal[
    "leased",
    "mac-unknown",
    "no-subnet",
    "ipam-off",
    "stopped",
    "not-promised",
    "no-servers",
    "hosts-down",
    "not-confirmed",
    "declined",
    "stale-lease",
    "other-subnet",
    "refused",
    "unanswered",
    "not-taken",
    "silent",
]
"""What a verdict comes down to; programs look at this."""


@dataclass(frozen=True, kw_only=True)
class LeaseSeen:
    """A lease as one server has it."""

    subnet: int
    ip: IPAddress
    mac: Mac | None
    state: str
    expires_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Heard:
    """The last message of the client that a server heard on a subnet, and what it answered: None for nothing."""

    subnet: int
    message: str
    at: datetime
    answer: str | None


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """The last packets of the client that a server did not answer, or with NAK."""

    subnet: int
    reason: str
    count: int
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Witness:
    """What one server of the network has, and what it answered when it was asked just now: `failure` is why it did not.
    `lag` are the revisions that it has not confirmed, None where it has confirmed none."""

    host: str
    state: ServerState
    detail: str | None
    confirmed: bool
    lag: int | None
    failure: str | None = None
    heard: tuple[Heard, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    leases: tuple[LeaseSeen, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that is known of one MAC: `vnic` that has it, or `former` that had it last; `promised` on `subnet` to it.

    `rejected` is what servers reported earlier, on whichever network; `link_faults` tells of the attached hosts that do
    not hear the network's guests, and why.
    """

    mac: Mac
    vnic: Vnic | None = None
    former: str | None = None
    network: str | None = None
    ipam_enabled: bool = False
    subnet: int | None = None
    cidr: str | None = None
    promised: IPAddress | None = None
    address_state: AddressState | None = None
    hosts_attached: int = 0
    link_faults: tuple[str, ...] = ()
    witnesses: tuple[Witness, ...] = ()
    rejected: tuple[Rejected, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The cause, one sentence that says it, and what to do about it. `has_address` is True when a server has a lease of
    the promised address for this MAC."""

    cause: Cause
    has_address: bool
    sentence: str
    advice: str


def judge(known: Evidence) -> Verdict:
    """The first thing that stands between the client and its address, in the order in which it goes its way."""
    return _of_the_vnic(known) or _of_the_servers(known) or _of_the_client(known)


def _of_the_vnic(known: Evidence) -> Verdict | None:
    """What is missing before any server comes into it."""
    vnic, network = known.vnic, known.network
    if vnic is None and known.promised is None:
        asked = _latest(known.rejected)
        was = "" if known.former is None else f" any more: vNIC {known.former} let it go"
        heard = (
            "" if asked is None else f"; a client with it was turned away on subnet {asked.subnet} at {_at(asked.at)}"
        )
        return _no(
            "mac-unknown",
            f"No vNIC has MAC {known.mac}{was}{heard}.",
            "Create the vNIC with this MAC, or give the guest's card the MAC that its vNIC has.",
        )
    who = _who(known)
    if vnic is not None and (vnic.subnet is None or known.subnet is None):
        return _no(
            "no-subnet",
            f"{who} is on no subnet, so that it gets no address.",
            "Put it on a subnet of its network, or tie its MAC to one.",
        )
    if not known.ipam_enabled:
        return _no("ipam-off", f"{who} is on network {network}, where IPAM is off.", "Turn ipam_enabled on there.")
    if vnic is not None and not vnic.running:
        kept = "" if known.promised is None else f"; {known.promised} is {known.address_state}, and still kept for it"
        return _no(
            "stopped",
            f"{who} is stopped, so that no address is promised to it{kept}.",
            f"Start it: POST /v1/vnics/{vnic.id}/start.",
        )
    if known.promised is None or known.address_state != "held":
        return _no(
            "not-promised",
            f"{who} runs, but no address of subnet {known.subnet} ({known.cidr}) is promised to it.",
            "Start it again; if it then has none, `leasehold doctor` says more.",
        )
    return None


def _of_the_servers(known: Evidence) -> Verdict | None:
    """What is missing before a server can answer."""
    who, network = _who(known), known.network
    servers = [each for each in known.witnesses if each.state != "stopping"]
    if not servers:
        attached = f"{known.hosts_attached} hosts are attached to it" if known.hosts_attached else "no host is attached"
        if known.link_faults:
            attached += f", of which some do not hear its guests: {'; '.join(known.link_faults)}"
        return _no(
            "no-servers",
            f"{who} has {known.promised}, but no host serves network {network}: {attached}.",
            "Attach a host that is up and has Kea with the hook to the network, or see why those that are do not serve "
            "it: GET /v1/hosts.",
        )
    reachable = [each for each in servers if each.state != "unreachable" and each.failure is None]
    if not reachable:
        return _no(
            "hosts-down",
            f"{who} has {known.promised}, but no server of network {network} can be reached: {_named(servers)}.",
            "Bring one of these hosts, its Kea, its control channel and its link there back, or attach another host.",
        )
    if not any(each.confirmed for each in reachable):
        return _no(
            "not-confirmed",
            f"{who} has {known.promised}, but no server has confirmed it yet: {_named(reachable)}.",
            "It is pushed by itself, within seconds as a rule. Where it stays so, the detail of the server says why.",
        )
    return None


def _of_the_client(known: Evidence) -> Verdict:
    """All is ready: what the servers heard of the client, and did."""
    who, ip = _who(known), known.promised
    servers = [each for each in known.witnesses if each.failure is None]
    leases = [(each.host, lease) for each in servers for lease in each.leases if lease.ip == ip]
    for host, lease in leases:
        if lease.state == "declined":
            return _no(
                "declined",
                f"{who} was given {ip} by {host} and declined it: another machine on the network uses that address.",
                f"Find who answers ARP for {ip} there and take the address from it; then delete the lease with "
                "lease4-del, or wait until Kea's probation is over.",
            )
    for host, lease in leases:
        if lease.mac is not None and lease.mac != known.mac and lease.state == "assigned":
            return _no(
                "stale-lease",
                f"{ip} is reserved for {who}, but {host} still has a lease of it for {lease.mac}.",
                f"Delete that lease there (lease4-del of {ip}); `leasehold doctor` finds all of its kind.",
            )
    own = [(host, lease) for host, lease in leases if lease.mac == known.mac and lease.state == "assigned"]
    if own:
        host, lease = max(own, key=lambda each: _instant(each[1].expires_at))
        until = "" if lease.expires_at is None else f" until {_at(lease.expires_at)}"
        return Verdict(
            cause="leased",
            has_address=True,
            sentence=f"All is well: {who} has {ip}, leased by {host}{until}.",
            advice="Nothing is to be done here. If the guest does not use the address, look at its DHCP client.",
        )
    rejected = _latest([each for server in servers for each in server.rejected] + list(known.rejected))
    heard = max((each for server in servers for each in server.heard), key=lambda each: each.at, default=None)
    if rejected is not None and (heard is None or rejected.at >= heard.at):
        return _turned_away(known, rejected)
    if heard is not None and heard.answer is None:
        return _no(
            "unanswered",
            f"{who} was heard with {heard.message} at {_at(heard.at)} and should have been answered, but was not.",
            f"Look at the log of Kea on {_listed(each.host for each in servers if heard in each.heard)}.",
        )
    if heard is not None:
        return _no(
            "not-taken",
            f"{who} was heard with {heard.message} at {_at(heard.at)} and answered with {heard.answer}, but holds no "
            f"lease of {ip}.",
            "Look whether the offer reaches the guest: its firewall, another DHCP server that answers first, or a "
            "switch that filters DHCP servers.",
        )
    return _no(
        "silent",
        f"All is ready for {who} to get {ip} from {_listed(each.host for each in servers if each.confirmed)}, but no "
        "DISCOVER of it was seen.",
        "Look at the guest: its DHCP client, whether its card has this MAC and is up, and whether its VLAN is that of "
        f"network {known.network}.",
    )


def _turned_away(known: Evidence, rejected: Rejected) -> Verdict:
    who = _who(known)
    if rejected.reason == "other-subnet" or rejected.subnet != known.subnet:
        return _no(
            "other-subnet",
            f"{who} asked on subnet {rejected.subnet} at {_at(rejected.at)}, but {known.promised} is reserved for it "
            f"on subnet {known.subnet} ({known.cidr}).",
            f"Plug its card into network {known.network}, or give the vNIC the network and subnet where it is.",
        )
    return _no(
        "refused",
        f"{who} was turned away on subnet {rejected.subnet} ({rejected.reason}, {rejected.count} packets, last at "
        f"{_at(rejected.at)}), and was not heard since {known.promised} was promised to it.",
        "Let the guest ask again: most clients do within a minute.",
    )


def _no(cause: Cause, sentence: str, advice: str) -> Verdict:
    return Verdict(cause=cause, has_address=False, sentence=sentence, advice=advice)


def _who(known: Evidence) -> str:
    return f"MAC {known.mac}" if known.vnic is None else f"vNIC {known.vnic.id} of VM {known.vnic.vm} ({known.mac})"


def _named(servers: Iterable[Witness]) -> str:
    return "; ".join(f"{each.host} ({each.failure or each.detail or each.state})" for each in servers)


def _listed(names: Iterable[str]) -> str:
    return " and ".join(names)


def _latest(rejected: Sequence[Rejected]) -> Rejected | None:
    return max(rejected, key=lambda each: each.at, default=None)


def _instant(at: datetime | None) -> float:
    return 0 if at is None else at.timestamp()


def _at(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%S} UTC"
