"""What the hook asks of Kea, as plain Python; `native` is its implementation inside Kea.

Units and rules are those of `native/leasehold.h`: instants in milliseconds since the Unix epoch, MACs and IPv4
addresses as integers.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

from leasehold_hook.reservations import Packed


class Level(IntEnum):
    """Severities of Kea's log, `enum lh_log_level`."""

    DEBUG = 0
    INFO = 1
    WARN = 2
    ERROR = 3


UNKNOWN_CLIENTS = ("reject", "drop", "nak", "allow")
"""What can be done with unknown clients, in the order of `enum lh_unknown_clients`."""


@dataclass(frozen=True)
class Counters:
    """`lh_counters`: `queued` now, everything else since the process started."""

    queued: int = 0
    enqueued: int = 0
    lost: int = 0
    rejected_unknown: int = 0
    rejected_withdrawn: int = 0
    rejected_doubt: int = 0


Withdrawal = tuple[int, int]
"""A MAC, and the instant in milliseconds until which its REQUESTs go on to Kea, which answers NAK."""


class Border(Protocol):
    """Everything that Python calls in C++."""

    def configure(self, unknown_clients: str, event_queue: int, rejection_table: int) -> None:
        """Set how unknown clients are treated, and the sizes of event queue (records) and rejection table (pairs)."""

    def store_apply(
        self, subnet_id: int, reservations: Packed, withdrawals: list[Withdrawal], replaced_until_ms: int | None
    ) -> int:
        """Change a subnet's set in one step; returns the number of reservations that it has then.

        With `replaced_until_ms`, whatever is in neither list is withdrawn until then.
        """

    def leases_settled(self, subnet_id: int) -> bool:
        """Whether all leases are deleted that `store_apply` was to delete on the subnet; tries again where not."""

    def longest_lifetime_s(self, subnet_id: int) -> int:
        """The longest lifetime of a lease that the running configuration can grant on the subnet."""

    def managed_subnets(self) -> list[int]:
        """Ids of the configured subnets that carry Leasehold's mark."""

    def drain_events(self, next_sequence: int) -> tuple[bytes, int]:
        """Some waiting lease events as lines of JSON, and their number; the first gets `next_sequence`."""

    def drain_rejections(self, next_sequence: int) -> tuple[bytes, int]:
        """Some of the rejections counted since they were last drained, likewise."""

    def client(self, mac: int) -> dict[str, Any] | None:
        """What Kea's side knows of a client, see `leasehold-client-get`; None if the leases cannot be read."""

    def interfaces(self) -> dict[str, str | None] | None:
        """What keeps guests from being heard on each interface, see `leasehold-status`; None if that cannot be told."""

    def counters(self) -> Counters:
        """The present counters."""

    def set_statistic(self, name: str, value: int) -> None:
        """Set Kea's statistic `leasehold.<name>`."""

    def log(self, level: Level, identifier: str, text: str) -> None:
        """Log through Kea's logger `leasehold-hooks` under the message id LEASEHOLD_<identifier>."""

    def lower_priority(self) -> None:
        """Give the calling thread the lowest scheduling priority."""

    def kea_version(self) -> str:
        """Kea's version, like "2.2.0"."""
