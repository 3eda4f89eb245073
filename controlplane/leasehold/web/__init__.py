"""The HTTP API: `create_app` makes the WSGI application of a control plane."""

from leasehold.web.app import create_app, create_watch_app

__all__ = ["create_app", "create_watch_app"]
