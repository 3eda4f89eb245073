"""`/healthz` and `/readyz`: for whoever supervises the process."""

from typing import Literal

from leasehold.errors import DatabaseUnavailable
from leasehold.service import health
from leasehold.service.context import Context
from leasehold.web.api import Routes
from leasehold.web.wire import Out

routes = Routes("health", prefix="")


class Health(Out):
    """Said only when all is well."""

    status: Literal["ok"] = "ok"


@routes.on("GET", "/healthz", roles=None, answer=Health)
def healthz() -> Health:
    """The process answers."""
    return Health()


@routes.on("GET", "/readyz", roles=None, answer=Health, errors=[DatabaseUnavailable])
def readyz(ctx: Context) -> Health:
    """The database answers too, and is set up."""
    health.check(ctx)
    return Health()
