"""`/healthz` and `/readyz`: for whoever supervises the process."""

from typing import Literal

from leasehold.errors import DatabaseUnavailable, ProcessUnwell
from leasehold.service import health
from leasehold.service.context import Context
from leasehold.web.api import Routes
from leasehold.web.wire import Out

routes = Routes("health", prefix="")


class Health(Out):
    """Said only when all is well."""

    status: Literal["ok"] = "ok"


@routes.on("GET", "/healthz", roles=None, answer=Health, errors=[ProcessUnwell])
def healthz() -> Health:
    """The process answers, and its loops turn. Where it does not say so, start it anew."""
    health.check_process()
    return Health()


@routes.on("GET", "/readyz", roles=None, answer=Health, errors=[DatabaseUnavailable, ProcessUnwell])
def readyz(ctx: Context) -> Health:
    """The database answers too, and is at this release's schema. Where it does not say so, send it no requests."""
    health.check_process()
    health.check(ctx)
    return Health()
