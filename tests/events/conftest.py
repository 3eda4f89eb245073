"""The service layer's context and clock, for the tests of events and webhooks; a control plane that delivers, and a
receiver."""

from events.post import post, receiver
from service.conftest import clock, ctx, fresh_database

__all__ = ["clock", "ctx", "fresh_database", "post", "receiver"]
