"""`/metrics`: what this process counts, and what the database says at the instant of the question.

Labels are called as in kea-exporter and Stork where the thing is the same: `subnet` is a CIDR, `subnet_id` Kea's own
id, `server` the host whose Kea it is about.
"""

import logging
from collections.abc import Iterable, Iterator

from flask import Flask, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import DBAPIError

from leasehold.service import figures
from leasehold.service.context import Context
from leasehold.service.figures import Figures

_log = logging.getLogger(__name__)


def add_metrics(app: Flask, ctx: Context) -> None:
    """Puts `/metrics` on the app."""
    registry = CollectorRegistry()
    registry.register(DatabaseFigures(ctx))

    def metrics() -> Response:
        return Response(generate_latest(REGISTRY) + generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    app.add_url_rule("/metrics", "metrics", metrics)


class DatabaseFigures(Collector):
    """The figures that every process of one control plane tells alike."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering it must not ask the database."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The metrics; with the database away only that it is."""
        up = GaugeMetricFamily("leasehold_database_up", "1 if the database answered, else 0.")
        try:
            found = figures.read(self._ctx)
        except DBAPIError as error:
            _log.warning("The metrics lack what the database knows: %s", error.orig)
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from _stocks(found)
        yield from _servers(found)
        yield from _told(found)


def _stocks(found: Figures) -> Iterator[Metric]:
    pools = GaugeMetricFamily(
        "leasehold_mac_pool_macs", "MACs within a pool's ranges, by state.", labels=("mac_pool", "name", "state")
    )
    for each in found.mac_pools:
        for state, count in each.by_state.items():
            pools.add_metric([each.id, each.name, state], count)
    subnets = GaugeMetricFamily(
        "leasehold_subnet_addresses",
        "Addresses that a subnet hands out, by state.",
        labels=("subnet", "subnet_id", "network", "state"),
    )
    for each in found.subnets:
        for state, count in each.by_state.items():
            subnets.add_metric([each.name, each.id, each.network or "", state], count)
    vnics = GaugeMetricFamily("leasehold_vnics", "vNICs, by whether they run.", labels=("running",))
    for running, count in found.vnics.items():
        vnics.add_metric([str(running).lower()], count)
    yield from (pools, subnets, vnics)


def _servers(found: Figures) -> Iterator[Metric]:
    servers = GaugeMetricFamily(
        "leasehold_servers", "IPAM servers of a network, by state.", labels=("network", "state")
    )
    for (network, state), count in found.servers.items():
        servers.add_metric([network, state], count)
    wanted = GaugeMetricFamily(
        "leasehold_servers_wanted", "IPAM servers that a network is to have.", labels=("network",)
    )
    for network, count in found.wanted.items():
        wanted.add_metric([network], count)
    labels = ("server", "subnet", "subnet_id", "network")
    lag = GaugeMetricFamily(
        "leasehold_server_lag_revisions", "Revisions of a subnet that a server has not confirmed.", labels=labels
    )
    confirmed = GaugeMetricFamily(
        "leasehold_server_in_sync", "1 if a server has confirmed a subnet's present revision, else 0.", labels=labels
    )
    settings = GaugeMetricFamily(
        "leasehold_server_settings_in_sync",
        "1 if a server's Kea has a subnet's present settings, else 0.",
        labels=labels,
    )
    for each in found.lags:
        values = [each.host, each.cidr, str(each.subnet), each.network]
        settings.add_metric(values, each.has_settings)
        if each.revisions is not None:
            lag.add_metric(values, each.revisions)
        confirmed.add_metric(values, each.revisions == 0)
    up = GaugeMetricFamily("leasehold_host_up", "1 while a host's control channel answers, else 0.", labels=("server",))
    answered = GaugeMetricFamily(
        "leasehold_host_answered_timestamp_seconds", "When a host last answered.", labels=("server",)
    )
    for host in found.hosts:
        up.add_metric([host.host], host.answers)
        if host.answered_s is not None:
            answered.add_metric([host.host], host.answered_s)
    yield from (servers, wanted, lag, confirmed, settings, up, answered)


def _told(found: Figures) -> Iterator[Metric]:
    events = CounterMetricFamily("leasehold_events_stored", "Events that there ever were.")
    events.add_metric([], found.events)
    active = GaugeMetricFamily(
        "leasehold_webhook_active",
        "1 while a webhook is told of events, else 0.",
        labels=("webhook",),
    )
    behind = GaugeMetricFamily(
        "leasehold_webhook_backlog_events", "Events that a webhook has still to be looked through.", labels=("webhook",)
    )
    deliveries = GaugeMetricFamily(
        "leasehold_webhook_deliveries", "Deliveries that failed so far, by state.", labels=("webhook", "state")
    )
    for each in found.webhooks:
        active.add_metric([each.webhook], each.state == "active")
        behind.add_metric([each.webhook], each.behind)
        for state, count in each.by_state.items():
            deliveries.add_metric([each.webhook, state], count)
    yield from (events, active, behind, deliveries)
