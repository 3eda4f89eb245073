"""`/v1/doctor`: what is wrong, and how to mend it."""

from typing import Any

from leasehold.service import checkup
from leasehold.service.context import Context
from leasehold.service.doctor import Finding
from leasehold.web.api import READERS, Routes
from leasehold.web.wire import Out, Query

routes = Routes("doctor")


class DoctorQuery(Query):
    """How far to look."""

    servers: bool = True
    """Ask the hosts too, and not only the database."""


class FindingOut(Out):
    """Something that is wrong: `code` says what in general, `subject` where, `mend` what to do."""

    code: str
    subject: str
    sentence: str
    mend: str
    facts: dict[str, Any]


class FindingsOut(Out):
    """All that is wrong."""

    items: list[FindingOut]


@routes.on("GET", "/doctor", roles=READERS, answer=FindingsOut)
def examine_everything(ctx: Context, query: DoctorQuery) -> dict[str, list[Finding]]:
    """Looks for what must never be: in the database, and on the servers.

    It reads everything, and looks twice at what could be on its way to be right, so that it takes seconds.
    """
    return {"items": checkup.check_up(ctx, servers=query.servers)}
