"""`/v1/explain`: why a client has, or has no, address."""

from datetime import datetime

from leasehold.domain.explaining import Cause
from leasehold.domain.values import AddressState, ServerState
from leasehold.errors import AddressUnknown, FieldInvalid
from leasehold.service import explain
from leasehold.service.context import Context
from leasehold.web.api import READERS, Routes
from leasehold.web.vnics import VnicOut
from leasehold.web.wire import IpText, MacText, Out, Query

routes = Routes("explain")


class ExplainQuery(Query):
    """Whom to explain: one of the two."""

    mac: MacText | None = None
    """The client's MAC."""
    ip: IpText | None = None
    """An address that is promised to it, or was last."""


class VerdictOut(Out):
    """The cause, one sentence that says it, and what to do about it."""

    cause: Cause
    has_address: bool
    sentence: str
    advice: str


class HeardOut(Out):
    """The last message of the client that a server heard on a subnet, and what it answered: null for nothing."""

    subnet: int
    message: str
    at: datetime
    answer: str | None


class RejectedOut(Out):
    """Packets of the client that a server did not answer, or with NAK."""

    subnet: int
    reason: str
    count: int
    at: datetime


class LeaseSeenOut(Out):
    """A lease as one server has it."""

    subnet: int
    ip: IpText
    mac: MacText | None
    state: str
    expires_at: datetime | None


class WitnessOut(Out):
    """What one server of the network has, and what it answered just now; `failure` is why it did not."""

    host: str
    state: ServerState
    detail: str | None
    confirmed: bool
    lag: int | None
    failure: str | None
    heard: list[HeardOut]
    rejected: list[RejectedOut]
    leases: list[LeaseSeenOut]


class EvidenceOut(Out):
    """What the verdict rests on. `witnesses` are the servers of its network; `rejected` is what servers reported
    earlier, on whichever network."""

    mac: MacText
    vnic: VnicOut | None
    former: str | None
    network: str | None
    ipam_enabled: bool
    subnet: int | None
    cidr: str | None
    promised: IpText | None
    address_state: AddressState | None
    hosts_attached: int
    witnesses: list[WitnessOut]
    rejected: list[RejectedOut]


class ExplanationOut(Out):
    """A verdict, and the evidence that it rests on."""

    verdict: VerdictOut
    evidence: EvidenceOut


class ExplanationsOut(Out):
    """One for each vNIC that has the MAC, those that run first."""

    items: list[ExplanationOut]


@routes.on("GET", "/explain", roles=READERS, answer=ExplanationsOut, errors=[AddressUnknown, FieldInvalid])
def get(ctx: Context, query: ExplainQuery) -> ExplanationsOut:
    """Why the client with this MAC, or the one that this address is promised to, has an address or has none. Servers
    of its network are asked just now what they heard of it."""
    if query.mac is not None and query.ip is None:
        found = explain.of_mac(ctx, query.mac)
    elif query.ip is not None and query.mac is None:
        found = explain.of_address(ctx, query.ip)
    else:
        raise FieldInvalid("mac: name a MAC or an ip, one of the two.", field="mac", value=None)
    return ExplanationsOut.model_validate({"items": found}, from_attributes=True)
