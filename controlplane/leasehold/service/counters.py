"""What this process counts of its own work, for `/metrics`.

`server` is the host whose Kea it is about, as in kea-exporter.
"""

from prometheus_client import Counter, Gauge, Histogram

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

push_commands = Counter(
    "leasehold_push_commands_total",
    "Batches and resyncs sent to servers; outcome is accepted, rejected or failed.",
    ("server", "kind", "outcome"),
)
push_reservations = Counter("leasehold_push_reservations_total", "Reservations set or unset on servers.", ("server",))
push_seconds = Histogram(
    "leasehold_push_duration_seconds", "Time that a batch or resync took.", ("kind",), buckets=_BUCKETS
)

events_received = Counter("leasehold_events_received_total", "Events that hooks reported.", ("server", "type"))
events_lost = Counter("leasehold_events_lost_total", "Events that were lost on their way, and announced.", ("server",))
spool_events = Gauge(
    "leasehold_hook_spool_events", "Events that waited in a hook's spool when it last reported.", ("server",)
)

webhook_attempts = Counter(
    "leasehold_webhook_attempts_total",
    "Requests to a webhook; outcome is delivered, refused or unanswered.",
    ("webhook", "outcome"),
)
webhook_events = Counter("leasehold_webhook_events_total", "Events delivered to a webhook.", ("webhook",))
webhook_seconds = Histogram(
    "leasehold_webhook_attempt_duration_seconds", "Time that an attempt took.", buckets=_BUCKETS
)
