"""The service layer's context and clock, for the tests of events and webhooks."""

from service.conftest import clock, ctx, fresh_database

__all__ = ["clock", "ctx", "fresh_database"]
