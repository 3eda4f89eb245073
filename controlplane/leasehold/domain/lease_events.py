"""What a hook reports, line by line: parsed once, with errors that name the line and its field."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from socket import AF_INET, inet_pton
from typing import Any, Literal, NamedTuple

from netaddr import IPAddress

from leasehold.domain.addresses import Mac, parse_ip
from leasehold.errors import FieldInvalid

LEASE_TYPES = ("lease.assigned", "lease.renewed", "lease.released", "lease.declined", "lease.expired")
REJECTED = "client.rejected"
GAP = "events.gap"

_MAX_INTEGER = 2**63 - 1
_MAX_SUBNET = 2**32 - 2  # of Kea's subnet ids
_MAX_LIFETIME_S = 2**32 - 1
_LAST_MS = 253_402_300_799_999  # the last millisecond of the year 9999
_LAST_SEEN_S = _LAST_MS // 1000 - _MAX_LIFETIME_S
_of_lease = itemgetter("type", "seq", "at", "subnet", "ip", "mac", "valid_lft", "cltt")
_PLAIN_MAC = re.compile("[0-9a-f]{2}(?::[0-9a-f]{2}){5}", re.ASCII)


class LeaseEvent(NamedTuple):
    """A lease was granted, renewed, given back, refused by the client, or ran out. `address` is the integer of `ip`;
    `seen_s` is when the client was last heard, in seconds since the Unix epoch."""

    seq: int
    type: str
    at_ms: int
    subnet: int
    ip: str
    address: int
    version: int
    mac: int
    lease_time_s: int | None
    seen_s: int | None

    @property
    def expires_ms(self) -> int | None:
        """When it ends by itself; None for never, or where the hook did not say."""
        if self.lease_time_s is None or self.lease_time_s == _MAX_LIFETIME_S:
            return None
        return (self.at_ms // 1000 if self.seen_s is None else self.seen_s) * 1000 + self.lease_time_s * 1000


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """`count` packets of a client were not answered, or with NAK. Without `mac`: the sum over clients that there was no
    room to count one by one."""

    seq: int
    at_ms: int
    subnet: int
    mac: Mac | None
    reason: str
    count: int
    first_ms: int
    last_ms: int


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The hook lost `lost` events; where it knows, those between two sequence numbers."""

    seq: int
    at_ms: int
    lost: int
    reason: str
    first_seq: int | None
    last_seq: int | None

    @property
    def range(self) -> tuple[int, int] | None:
        """The sequence numbers that the lost ones were among, where the hook knows."""
        if self.first_seq is None or self.last_seq is None or self.first_seq > self.last_seq:
            return None
        return self.first_seq, self.last_seq


Line = LeaseEvent | Rejection | Loss


@dataclass(frozen=True, slots=True)
class LeaseFound:
    """A lease as Kea has it on file. `mac` is None where Kea forgot it, as it does with declined ones."""

    subnet: int
    address: int
    mac: int | None
    state: Literal["assigned", "declined", "expired"]
    seen_s: int
    lease_time_s: int


def parse(lines: Iterable[Mapping[str, Any]]) -> list[Line]:
    """The lines of one report, which count from 1 in errors. Fields that are not known here are left out.

    Raises FieldInvalid for the first bad line, and when sequence numbers do not ascend.
    """
    parsed = [_lease(line) or _line(_Fields(number, line)) for number, line in enumerate(lines, start=1)]
    for number, (before, after) in enumerate(pairwise(parsed), start=2):
        if after.seq <= before.seq:
            raise FieldInvalid(
                f"line {number}: seq: {after.seq} does not come after {before.seq}. Send lines in their order.",
                line=number,
                field="seq",
                value=after.seq,
            )
    return parsed


def _lease(line: Mapping[str, Any]) -> LeaseEvent | None:
    """The event of a line that has everything as hooks write it: nearly all are so, and this is quick. None for others,
    which are looked at field by field."""
    try:
        kind, seq, at_ms, subnet, ip, mac, lease_time_s, seen_s = _of_lease(line)
    except KeyError:
        return None
    if not (
        kind in LEASE_TYPES
        and type(seq) is type(at_ms) is type(subnet) is type(lease_time_s) is type(seen_s) is int
        and type(ip) is type(mac) is str
        and 0 < seq <= _MAX_INTEGER
        and 0 <= at_ms <= _LAST_MS
        and 0 < subnet <= _MAX_SUBNET
        and 0 <= lease_time_s <= _MAX_LIFETIME_S
        and 0 <= seen_s <= _LAST_SEEN_S
        and _PLAIN_MAC.fullmatch(mac)
    ):
        return None
    try:
        address = int.from_bytes(inet_pton(AF_INET, ip))
    except OSError:
        return None
    value = int(mac.replace(":", ""), 16)
    return LeaseEvent(seq, kind, at_ms, subnet, ip, address, 4, value, lease_time_s, seen_s)


class _Fields:
    """One line, whose fields are taken out one by one."""

    def __init__(self, number: int, line: Mapping[str, Any]) -> None:
        self._number = number
        self._line = line

    def text(self, field: str) -> str:
        value = self._line.get(field)
        if not isinstance(value, str) or not 0 < len(value) <= 256:
            raise self.bad(field, "is not a text of up to 256 characters")
        return value

    def integer(self, field: str, least: int = 0, most: int = _MAX_INTEGER) -> int:
        value = self._line.get(field)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self.bad(field, f"is not an integer from {least} to {most}")
        return value

    def instant_ms(self, field: str) -> int:
        return self.integer(field, most=_LAST_MS)

    def optional(self, field: str, least: int, most: int) -> int | None:
        return None if self._line.get(field) is None else self.integer(field, least, most)

    def mac(self) -> Mac:
        try:
            return Mac.parse(self.text("mac"))
        except FieldInvalid as error:
            raise self.bad("mac", "is not a MAC address") from error

    def optional_mac(self) -> Mac | None:
        return None if self._line.get("mac") is None else self.mac()

    def ip(self) -> IPAddress:
        try:
            return parse_ip(self.text("ip"), "ip")
        except FieldInvalid as error:
            raise self.bad("ip", "is not an IP address") from error

    def bad(self, field: str, what: str) -> FieldInvalid:
        value = self._line.get(field)
        shown = "missing" if field not in self._line else repr(value)[:80]
        return FieldInvalid(
            f"line {self._number}: {field}: {shown} {what}.", line=self._number, field=field, value=value
        )


def _line(fields: _Fields) -> Line:
    kind = fields.text("type")
    seq, at_ms = fields.integer("seq", least=1), fields.instant_ms("at")
    if kind in LEASE_TYPES:
        ip = fields.ip()
        return LeaseEvent(
            seq=seq,
            type=kind,
            at_ms=at_ms,
            subnet=fields.integer("subnet", 1, _MAX_SUBNET),
            ip=str(ip),
            address=int(ip),
            version=ip.version,
            mac=fields.mac().value,
            lease_time_s=fields.optional("valid_lft", 0, _MAX_LIFETIME_S),
            seen_s=fields.optional("cltt", 0, _LAST_SEEN_S),
        )
    if kind == REJECTED:
        return Rejection(
            seq=seq,
            at_ms=at_ms,
            subnet=fields.integer("subnet", 1, _MAX_SUBNET),
            mac=fields.optional_mac(),
            reason=fields.text("reason"),
            count=fields.integer("count", least=1),
            first_ms=fields.instant_ms("first"),
            last_ms=fields.instant_ms("last"),
        )
    if kind == GAP:
        return Loss(
            seq=seq,
            at_ms=at_ms,
            lost=fields.integer("lost", least=1),
            reason=fields.text("reason"),
            first_seq=fields.optional("first_seq", 1, _MAX_INTEGER),
            last_seq=fields.optional("last_seq", 1, _MAX_INTEGER),
        )
    raise fields.bad("type", f"is not one of {', '.join((*LEASE_TYPES, REJECTED, GAP))}")
