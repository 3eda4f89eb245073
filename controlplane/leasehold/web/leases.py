"""`/v1/leases`: what servers granted, as their events say."""

from datetime import datetime

from leasehold.domain.values import Lease, LeaseState
from leasehold.service import leases
from leasehold.service.context import Context
from leasehold.web.api import READERS, Routes
from leasehold.web.wire import Id, IpText, Listing, MacText, Out, Page, PageOut, PageQuery, SubnetId

routes = Routes("leases")


def _key(lease: Lease) -> str:
    return " ".join(map(str, leases.key_of(lease)))


def _parse_key(text: str) -> str:
    """Raises ValueError for the key of no lease."""
    subnet, offset, host = text.split(" ")
    if not (subnet.isdecimal() and offset.removeprefix("-").isdecimal() and len(subnet) < 11 and len(offset) < 19):
        raise ValueError(text)
    return f"{subnet} {offset} {host}"


_leases = Listing[Lease, str]("leases", _key, _parse_key)


class LeaseOut(Out):
    """What the server of a host told of an address last. `is_reserved`: the MAC has this address reserved now."""

    ip: IpText
    mac: MacText
    subnet: int
    network: str
    host: str
    vnic: str | None
    state: LeaseState
    since: datetime
    expires_at: datetime | None
    is_reserved: bool
    diverged: bool


class LeasePage(PageOut[LeaseOut]):
    """Part of the list of leases."""


class LeasesQuery(PageQuery):
    """Which leases: those for which everything holds that is given."""

    subnet: SubnetId | None = None
    """Only those on this subnet."""
    mac: MacText | None = None
    """Only those of this MAC."""
    ip: IpText | None = None
    """Only those of this address, on whichever subnet."""
    host: Id | None = None
    """Only those that this host's server told of."""


@routes.on("GET", "/leases", roles=READERS, answer=LeasePage)
def list_leases(ctx: Context, query: LeasesQuery) -> Page[Lease]:
    """Leases as servers' events tell them, by subnet, address and host. One past its time counts as expired."""

    def fetch(limit: int, after: str | None) -> list[Lease]:
        subnet, offset, host = (after or "0 0 ").split(" ")
        return leases.list_leases(
            ctx,
            limit=limit,
            after=None if after is None else (int(subnet), int(offset), host),
            subnet=query.subnet,
            mac=query.mac,
            ip=query.ip,
            host=query.host,
        )

    return _leases.page(query, fetch)
