"""`/v1/mac-pools`."""

from typing import Annotated

from pydantic import Field

from leasehold.domain.values import MacPool
from leasehold.errors import MacPoolNotFound
from leasehold.service import mac_pools
from leasehold.service.context import Context
from leasehold.web.api import READERS, Routes
from leasehold.web.wire import Id, Listing, MacText, Out, Page, PageOut, PageQuery, id_key

routes = Routes("mac-pools")
_pools = Listing[MacPool, str]("mac-pools", lambda each: each.id, id_key)


class MacRangeOut(Out):
    """An inclusive range."""

    first: Annotated[MacText, Field(serialization_alias="from")]
    last: Annotated[MacText, Field(serialization_alias="to")]


class PoolUsageOut(Out):
    """Numbers of MACs. `size` is `free` and `used` together; `out_of_range` is counted apart."""

    size: int
    free: int
    used: int
    out_of_range: int


class MacPoolOut(Out):
    """A named set of MAC ranges."""

    id: str
    name: str
    description: str
    allow_duplicates: bool
    default_pool: bool
    ranges: list[MacRangeOut]
    usage: PoolUsageOut


class MacPoolPage(PageOut[MacPoolOut]):
    """Part of the list of MAC pools."""


@routes.on("GET", "/mac-pools", roles=READERS, answer=MacPoolPage)
def list_mac_pools(ctx: Context, query: PageQuery) -> Page[MacPool]:
    """Every MAC pool, by id."""
    return _pools.page_of(query, mac_pools.list_pools(ctx))


@routes.on("GET", "/mac-pools/<pool_id>", roles=READERS, answer=MacPoolOut, errors=[MacPoolNotFound])
def get_mac_pool(ctx: Context, pool_id: Id) -> MacPool:
    """One MAC pool."""
    return mac_pools.get(ctx, pool_id)
