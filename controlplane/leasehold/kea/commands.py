"""The commands that Leasehold gives to Kea, and to its hook there, as functions of values."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from netaddr import AddrFormatError, IPAddress

from leasehold.domain.addresses import Mac
from leasehold.domain.explaining import Heard, LeaseSeen, Rejected
from leasehold.domain.lease_events import LeaseFound
from leasehold.domain.replication import Batch, Entry, HookStatus, Resync, SubnetState
from leasehold.domain.values import Host
from leasehold.errors import KeaRefused, LeaseholdError
from leasehold.kea.transport import Result, Transport

_LEASES_A_PAGE = 1_000
_MAC_TEXT = len("02:00:00:00:00:01")
# Source: Kea 2.2 ARM, lease4-add: 0 default, 1 declined, 2 expired and reclaimed. 3.0 adds 3, released.
_LEASE_STATES: Mapping[int, Literal["assigned", "declined", "expired"]] = {
    0: "assigned",
    1: "declined",
    2: "expired",
    3: "expired",
}


@dataclass(frozen=True)
class Applied:
    """What came of a batch or resync: whether it was taken, and what is in force now."""

    accepted: bool
    state: SubnetState


@dataclass(frozen=True, kw_only=True)
class ClientSeen:
    """What a server knows of one client, on all subnets of ours."""

    heard: tuple[Heard, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    leases: tuple[LeaseSeen, ...] = ()


class Commands:
    """Each raises HostUnreachable when the host does not answer, and KeaRefused when Kea does not want to."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def status(self, host: Host) -> HookStatus:
        """What the hook says of itself, and of each subnet it has reservations for."""
        command = "leasehold-status"
        answer = self._transport.command(host, command).arguments
        try:
            return HookStatus(
                host=str(answer["host-id"]),
                boot=str(answer["boot-id"]),
                subnets=tuple(map(_state, answer["subnets"])),
                managed=frozenset(map(int, answer["managed-subnets"])),
                interfaces=_interfaces(answer.get("interfaces")),
                last_sequence=int(answer["events"]["last-sequence"]),
                reporting=bool(answer["events"]["reporting"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _misunderstood(host, command, answer) from error

    def client(self, host: Host, mac: Mac) -> ClientSeen:
        """What the hook knows of a client: what it heard of it, answered, rejected, and its leases."""
        command = "leasehold-client-get"
        answer = self._transport.command(host, command, {"hw-address": str(mac)})
        try:
            known = [] if answer.result is Result.EMPTY else list(answer.arguments["subnets"])
            return ClientSeen(
                heard=tuple(
                    Heard(
                        subnet=int(each["subnet-id"]),
                        message=last["type"],
                        at=_instant(last["at"]),
                        answer=last["answer"],
                    )
                    for each in known
                    if (last := each["last-message"]) is not None
                ),
                rejected=tuple(
                    Rejected(
                        subnet=int(each["subnet-id"]),
                        reason=rejection["reason"],
                        count=int(rejection["count"]),
                        at=_instant(rejection["last"]),
                    )
                    for each in known
                    for rejection in each["rejections"]
                ),
                leases=tuple(
                    LeaseSeen(
                        subnet=int(each["subnet-id"]),
                        ip=IPAddress(lease["ip-address"]),
                        mac=None if lease["hw-address"] is None else Mac.parse(lease["hw-address"]),
                        state=lease["state"],
                        expires_at=_instant(lease["expires"]),
                    )
                    for each in known
                    for lease in each["leases"]
                ),
            )
        except (KeyError, TypeError, ValueError, AddrFormatError, LeaseholdError) as error:
            raise _misunderstood(host, command, answer.arguments) from error

    def leases(self, host: Host) -> Iterator[list[LeaseFound]]:
        """All IPv4 leases that Kea has on file, in pages, by address. A lease that comes or goes meanwhile is there or
        not. Needs Kea's library lease_cmds: KeaRefused where it is not loaded."""
        command = "lease4-get-page"
        after = "start"
        while True:
            answer = self._transport.command(host, command, {"from": after, "limit": _LEASES_A_PAGE})
            try:
                found = [] if answer.result is Result.EMPTY else list(answer.arguments["leases"])
                page = [_lease(each) for each in found]
                after = str(found[-1]["ip-address"]) if found else after
            except (AddrFormatError, KeyError, TypeError, ValueError, LeaseholdError) as error:
                raise _misunderstood(host, command, answer.arguments) from error
            yield page
            # Source: Kea 2.2 ARM, lease4-get-page: the last page is the one that is not full.
            if len(found) < _LEASES_A_PAGE:
                return

    def apply(self, host: Host, batch: Batch) -> Applied:
        """Hands over a part of the log. Not accepted, where the host is not at the batch's base and epoch."""
        return self._apply(
            host,
            {
                "subnet-id": batch.subnet,
                "epoch": batch.epoch,
                "base": batch.base,
                "revision": batch.revision,
                "set": _reservations(batch.set),
                "unset": list(map(str, batch.unset)),
            }
            | ({"from-epoch": batch.from_epoch} if batch.from_epoch else {}),
        )

    def reservations(self, host: Host, subnet_id: int, limit: int, after: object = None) -> tuple[list[Entry], object]:
        """Up to `limit` reservations of the subnet that the host has, and where the next ones begin; None after the
        last."""
        command = "reservation-get-page"
        asked = {"subnet-id": subnet_id, "limit": limit}
        answer = self._transport.command(host, command, asked | (after if isinstance(after, dict) else {}))
        if answer.result is Result.EMPTY:
            return [], None
        try:
            found: list[Entry] = [
                (Mac.parse(each["hw-address"]), IPAddress(each["ip-address"]), each["hostname"] or None)
                for each in answer.arguments["hosts"]
            ]
            return found, answer.arguments.get("next") if len(found) == limit else None
        except (KeyError, TypeError, ValueError, AddrFormatError, LeaseholdError) as error:
            raise _misunderstood(host, command, answer.arguments) from error

    def resync(self, host: Host, resync: Resync, page_size: int) -> Applied:
        """Replaces a subnet's reservations, in pages of `page_size`; in force at once with the last. Not accepted,
        where another resync came in between or Kea was restarted: then begin again."""
        entries = resync.reservations
        pages = [entries[start : start + page_size] for start in range(0, len(entries), page_size)] or [()]
        for number, page in enumerate(pages, start=1):
            applied = self._apply(
                host,
                {
                    "subnet-id": resync.subnet,
                    "epoch": resync.epoch,
                    "revision": resync.revision,
                    "replace": True,
                    "page": number,
                    "last": number == len(pages),
                    "set": _reservations(page),
                },
            )
            if not applied.accepted:
                break
        return applied

    def config_get(self, host: Host) -> dict[str, Any]:
        """The configuration of the DHCP server that runs: what is under `Dhcp4`."""
        command = "config-get"
        answer = self._transport.command(host, command).arguments
        configuration = answer.get("Dhcp4")
        if not isinstance(configuration, dict):
            raise _misunderstood(host, command, answer)
        return configuration

    def config_test(self, host: Host, configuration: Mapping[str, Any]) -> None:
        """Lets Kea check a configuration, which changes nothing."""
        self._transport.command(host, "config-test", {"Dhcp4": configuration})

    def config_set(self, host: Host, configuration: Mapping[str, Any]) -> None:
        """Lets Kea run a configuration from now until it is restarted."""
        self._transport.command(host, "config-set", {"Dhcp4": configuration})

    def config_write(self, host: Host) -> None:
        """Lets Kea write what it runs into the file that it starts from."""
        self._transport.command(host, "config-write")

    def _apply(self, host: Host, arguments: Mapping[str, Any]) -> Applied:
        command = "leasehold-apply"
        answer = self._transport.command(host, command, arguments)
        try:
            return Applied(answer.result is Result.SUCCESS, _state(answer.arguments))
        except (KeyError, TypeError, ValueError) as error:
            raise _misunderstood(host, command, answer.arguments) from error


def _lease(answer: Mapping[str, Any]) -> LeaseFound:
    mac = str(answer.get("hw-address") or "")
    return LeaseFound(
        subnet=int(answer["subnet-id"]),
        address=int(IPAddress(answer["ip-address"])),
        mac=Mac.parse(mac).value if len(mac) == _MAC_TEXT else None,
        state=_LEASE_STATES[int(answer["state"])],
        seen_s=int(answer["cltt"]),
        lease_time_s=int(answer["valid-lft"]),
    )


def _instant(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


def _state(answer: Mapping[str, Any]) -> SubnetState:
    return SubnetState(
        subnet=int(answer["subnet-id"]),
        epoch=str(answer["epoch"]),
        revision=int(answer["revision"]),
        count=int(answer["count"]),
        digest=str(answer["digest"]),
    )


def _interfaces(told: Mapping[str, Any] | None) -> dict[str, str | None] | None:
    """None where the hook cannot tell, or is of a release that does not."""
    if told is None:
        return None
    return {name: None if word is None else str(word) for name, word in dict(told).items()}


def _reservations(entries: Iterable[Entry]) -> list[dict[str, str]]:
    return [
        {"hw-address": str(mac), "ip-address": str(address)} | ({"hostname": hostname} if hostname else {})
        for mac, address, hostname in entries
    ]


def _misunderstood(host: Host, command: str, answer: Mapping[str, Any]) -> KeaRefused:
    text = f"its answer {str(dict(answer))[:200]} is not what this release expects. Is the hook there of this release?"
    return KeaRefused(
        f"Kea on host {host.id} answered {command}, but {text}", host=host.id, command=command, result=0, text=text
    )
