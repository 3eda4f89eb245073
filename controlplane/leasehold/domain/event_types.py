"""The types of events. Monitoring subscribes by them, so a name never changes its meaning."""

from typing import Literal, get_args

EventType = Literal[
    "lease.assigned",
    "lease.renewed",
    "lease.released",
    "lease.expired",
    "lease.declined",
    "lease.diverged",
    "mac.conflict",
    "client.rejected",
    "events.gap",
    "server.started",
    "server.stopped",
    "server.unreachable",
    "server.recovered",
    "server.refused",
    "host.maintenance",
    "host.activated",
    "host.fenced",
    "host.returned",
    "database.rewound",
    "mac_pool.low",
    "mac_pool.exhausted",
    "subnet.low",
    "subnet.exhausted",
    "subnet.recovering",
    "reservation.added",
    "reservation.removed",
]
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)
