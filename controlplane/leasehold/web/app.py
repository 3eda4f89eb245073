"""The WSGI application: every route, and their description."""

from functools import cache

from flask import Flask, Response
from pydantic_core import to_json

from leasehold.service.context import Context
from leasehold.web import (
    doctor,
    events,
    explain,
    health,
    hosts,
    leases,
    mac_pools,
    networks,
    scopes,
    subnets,
    tokens,
    vnics,
    webhooks,
)
from leasehold.web.api import mount
from leasehold.web.metrics import add_metrics
from leasehold.web.observe import ObservedFlask
from leasehold.web.openapi import document

_RESOURCES = (
    explain,
    doctor,
    networks,
    subnets,
    hosts,
    vnics,
    mac_pools,
    scopes,
    leases,
    events,
    webhooks,
    tokens,
    health,
)
OPERATIONS = tuple(operation for resource in _RESOURCES for operation in resource.routes.operations)


def create_app(ctx: Context) -> Flask:
    """A WSGI application on an open context. It starts no thread and no loop."""
    app = ObservedFlask("leasehold")
    mount(app, ctx, OPERATIONS)
    app.add_url_rule("/openapi.json", "openapi", _description)
    add_metrics(app, ctx)
    app.add_url_rule("/", "root", _root)
    return app


def create_watch_app(ctx: Context) -> Flask:
    """Only what supervision and monitoring ask for: health and metrics, of a process that is no API."""
    app = ObservedFlask("leasehold")
    mount(app, ctx, health.routes.operations)
    add_metrics(app, ctx)
    return app


def _root() -> Response:
    return Response(b'{"openapi":"/openapi.json"}', mimetype="application/json")


def _description() -> Response:
    return Response(_description_json(), mimetype="application/json")


@cache
def _description_json() -> bytes:
    return to_json(document(OPERATIONS))
