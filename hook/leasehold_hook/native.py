"""The border as it is inside Kea: calls of `native/leasehold.h` through cffi, which gives up the GIL for each."""

import json
from typing import Any

from _leasehold import ffi, lib
from leasehold_hook.border import UNKNOWN_CLIENTS, Counters, Level, Withdrawal
from leasehold_hook.reservations import Packed

_DRAIN_OCTETS = 256 * 1024
_MODES = dict(zip(UNKNOWN_CLIENTS, (lib.LH_REJECT, lib.LH_DROP, lib.LH_NAK, lib.LH_ALLOW), strict=True))


class Native:
    """`border.Border`, in C++."""

    def __init__(self) -> None:
        self._buffer = ffi.new("char[]", _DRAIN_OCTETS)
        self._lines = ffi.new("uint64_t *")

    def configure(self, unknown_clients: str, event_queue: int, rejection_table: int) -> None:
        lib.lh_configure(ffi.new("lh_options *", (_MODES[unknown_clients], event_queue, rejection_table)))

    def store_apply(
        self, subnet_id: int, reservations: Packed, withdrawals: list[Withdrawal], replaced_until_ms: int | None
    ) -> int:
        return lib.lh_store_apply(
            subnet_id,
            ffi.from_buffer("lh_reservation[]", reservations.records),
            reservations.count,
            ffi.from_buffer("char[]", reservations.names),
            len(reservations.names),
            ffi.new("lh_withdrawal[]", withdrawals),
            len(withdrawals),
            replaced_until_ms is not None,
            replaced_until_ms or 0,
        )

    def leases_settled(self, subnet_id: int) -> bool:
        return bool(lib.lh_leases_settled(subnet_id))

    def longest_lifetime_s(self, subnet_id: int) -> int:
        return lib.lh_longest_lifetime_s(subnet_id)

    def managed_subnets(self) -> list[int]:
        capacity = 64
        while True:
            ids = ffi.new("uint32_t[]", capacity)
            found = lib.lh_managed_subnets(ids, capacity)
            if found <= capacity:
                return list(ids[0:found])
            capacity = found

    def drain_events(self, next_sequence: int) -> tuple[bytes, int]:
        octets = lib.lh_events_drain(self._buffer, _DRAIN_OCTETS, next_sequence, self._lines)
        return bytes(ffi.buffer(self._buffer, octets)), self._lines[0]

    def drain_rejections(self, next_sequence: int) -> tuple[bytes, int]:
        octets = lib.lh_rejections_drain(self._buffer, _DRAIN_OCTETS, next_sequence, self._lines)
        return bytes(ffi.buffer(self._buffer, octets)), self._lines[0]

    def client(self, mac: int) -> dict[str, Any] | None:
        described = lib.lh_client_get(mac)
        return None if described == ffi.NULL else json.loads(ffi.string(described))

    def interfaces(self) -> dict[str, str | None] | None:
        described = lib.lh_interfaces()
        return None if described == ffi.NULL else json.loads(ffi.string(described))

    def counters(self) -> Counters:
        counters = ffi.new("lh_counters *")
        lib.lh_counters_read(counters)
        return Counters(
            queued=counters.queued,
            enqueued=counters.enqueued,
            lost=counters.lost,
            rejected_unknown=counters.rejected_unknown,
            rejected_withdrawn=counters.rejected_withdrawn,
            rejected_doubt=counters.rejected_doubt,
        )

    def set_statistic(self, name: str, value: int) -> None:
        lib.lh_statistic_set(name.encode(), value)

    def log(self, level: Level, identifier: str, text: str) -> None:
        lib.lh_log(level, identifier.encode(), text.encode(errors="replace"))

    def lower_priority(self) -> None:
        lib.lh_lower_priority()

    def kea_version(self) -> str:
        return ffi.string(lib.lh_kea_version()).decode()
