"""A stand-in for the C++ half, which has tests of its own: the store as dictionaries, events and log as lists."""

import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

from leasehold_hook.border import Counters, Level, Withdrawal
from leasehold_hook.reservations import Packed, Row

LIFETIME_S = 3_600
_RECORD = struct.Struct("@QIIII")


class StandIn:
    """`border.Border` in memory. `held` maps subnets to reservations by MAC, `withdrawn` to instants by MAC."""

    def __init__(self) -> None:
        self.held: dict[int, dict[int, tuple[int, str]]] = {}
        self.withdrawn: dict[int, dict[int, int]] = {}
        self.options: tuple[str, int, int] | None = None
        self.logged: list[tuple[Level, str, str]] = []
        self.statistics: dict[str, int] = {}
        self.events: list[dict[str, object]] = []
        self.rejections: list[dict[str, object]] = []
        self.lost = 0
        self.lowered = 0
        self.before_apply: Callable[[], None] = lambda: None
        self.unsettled: set[int] = set()

    def configure(self, unknown_clients: str, event_queue: int, rejection_table: int) -> None:
        self.options = (unknown_clients, event_queue, rejection_table)

    def store_apply(
        self, subnet_id: int, reservations: Packed, withdrawals: list[Withdrawal], replaced_until_ms: int | None
    ) -> int:
        self.before_apply()
        held = self.held.setdefault(subnet_id, {})
        withdrawn = self.withdrawn.setdefault(subnet_id, {})
        if replaced_until_ms is not None:
            withdrawn |= dict.fromkeys(held, replaced_until_ms)
            held.clear()
        for mac, until_ms in withdrawals:
            held.pop(mac, None)
            withdrawn[mac] = until_ms
        for mac, address, hostname in unpack(reservations):
            held[mac] = (address, hostname)
            withdrawn.pop(mac, None)
        return len(held)

    def leases_settled(self, subnet_id: int) -> bool:
        return subnet_id not in self.unsettled

    def longest_lifetime_s(self, subnet_id: int) -> int:
        return LIFETIME_S

    def managed_subnets(self) -> list[int]:
        return [7]

    def drain_events(self, next_sequence: int) -> tuple[bytes, int]:
        return self._drain(self.events, next_sequence)

    def drain_rejections(self, next_sequence: int) -> tuple[bytes, int]:
        return self._drain(self.rejections, next_sequence)

    def client(self, mac: int) -> dict[str, Any] | None:
        return {"subnets": [{"subnet-id": 7}]} if any(mac in held for held in self.held.values()) else {"subnets": []}

    def interfaces(self) -> dict[str, str | None] | None:
        return {"eth1": None, "eth2": "no-link"}

    def counters(self) -> Counters:
        return Counters(queued=len(self.events), lost=self.lost, rejected_unknown=3)

    def set_statistic(self, name: str, value: int) -> None:
        self.statistics[name] = value

    def log(self, level: Level, identifier: str, text: str) -> None:
        self.logged.append((level, identifier, text))

    def lower_priority(self) -> None:
        self.lowered += 1

    def kea_version(self) -> str:
        return "2.2.0"

    def logged_as(self, identifier: str) -> list[str]:
        """The texts that were logged under a message id."""
        return [text for _, logged, text in self.logged if logged == identifier]

    @staticmethod
    def _drain(waiting: list[dict[str, object]], next_sequence: int) -> tuple[bytes, int]:
        taken = [waiting.pop(0) for _ in range(min(len(waiting), 100))]
        return lines(taken, next_sequence), len(taken)


def lines(events: Sequence[dict[str, object]], first: int) -> bytes:
    """Events as the lines that C++ writes, numbered from `first`."""
    return b"".join(
        json.dumps({"seq": sequence} | event, separators=(",", ":")).encode() + b"\n"
        for sequence, event in enumerate(events, first)
    )


def unpack(packed: Packed) -> list[Row]:
    """Records of lh_reservation, read as C++ does."""
    return [
        (mac, address, packed.names[offset : offset + length].decode())
        for mac, address, offset, length, _ in _RECORD.iter_unpack(packed.records.tobytes())
    ]


def assigned(number: int = 0) -> dict[str, object]:
    """A lease event that is never sacrificed first."""
    return {"type": "lease.assigned", "at": 1_700_000_000_123, "subnet": 7, "ip": "192.0.2.10", "valid_lft": number}


def renewed(number: int = 0) -> dict[str, object]:
    """A lease event that goes first when room is short."""
    return assigned(number) | {"type": "lease.renewed"}


def decoded(octets: bytes) -> list[dict[str, Any]]:
    """Lines of JSON."""
    return [json.loads(line) for line in octets.splitlines()]
