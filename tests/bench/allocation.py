"""The allocator against itself: fuller, larger, and in bulk, on SQLite and on PostgreSQL."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

from sqlalchemy import delete, insert, update

from bench.figures import Figure
from lab.postgres import postgres
from leasehold.config import Settings
from leasehold.domain.addresses import Mac, MacRange
from leasehold.domain.extents import Extent
from leasehold.domain.values import VnicSpec
from leasehold.service import mac_pools, scopes, vnics
from leasehold.service.context import Context, open_context
from leasehold.store import extents
from leasehold.store.tables import mac_pools as pools_table
from leasehold.store.tables import mac_ranges, spaces

_TURNS = 5
_TAKEN_A_TURN = 40
_BULK = 1_000
_FIRST_MAC = 0x020000000000
_STRIDE = 1 << 40
_FILLED = 4_000_000
_MOST_EXTENTS = 100_000
_FILLS = (0, 50, 90, 99, 99.9, 99.99)
_SIZE_BITS = (8, 16, 24, 32, 40)


def allocation() -> list[Figure]:
    """One MAC at each fill and size, the last free one, and 1,000 in one call."""
    figures: list[Figure] = []
    for name, opened in (("SQLite", _sqlite), ("PostgreSQL", _postgresql)):
        with opened() as ctx:
            pools = _Pools(ctx)
            fills = {f"{fill} % full": pools.add(_FILLED, _scattered(_FILLED, fill)) for fill in _FILLS}
            sizes = {f"2^{bits}": pools.add(2**bits, [(0, 2**bits - 1)]) for bits in _SIZE_BITS}
            figures += [
                _flat(ctx, name, "fill", fills, f"a pool of {_FILLED:,} MACs whose free ones lie evenly scattered"),
                _flat(ctx, name, "size", sizes, "an empty pool"),
                _last(ctx, name),
                _bulk(ctx, name, pools),
            ]
    return figures


class _Pools:
    """Clusters with a MAC pool each, in the state that is asked for, written directly."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._next_base = 0

    def add(self, size: int, free: list[Extent]) -> str:
        """A cluster whose MAC pool has `size` MACs, of which these, counted from its first, are free."""
        base = _FIRST_MAC + self._next_base
        # The next block whose first octet is not of multicast MACs.
        self._next_base += 4 * _STRIDE
        name = f"pool-{base:012x}"
        pool = mac_pools.create(self._ctx, name=name, ranges=[MacRange(Mac(base), Mac(base))]).id
        with self._ctx.db.write() as connection:
            space_id = extents.create_space(connection, [(base + first, base + last) for first, last in free])
            extents.resize(connection, space_id, size - sum(last - first + 1 for first, last in free))
            connection.execute(update(pools_table).where(pools_table.c.id == pool).values(space_id=space_id))
            connection.execute(delete(mac_ranges).where(mac_ranges.c.mac_pool_id == pool))
            connection.execute(insert(mac_ranges).values(mac_pool_id=pool, first=base, last=base + size - 1))
        scopes.put(self._ctx, "cluster", name, mac_pool=pool)
        return name


def _flat(ctx: Context, database: str, what: str, clusters: dict[str, str], told: str) -> Figure:
    """The state that is slowest by its median against the one that is fastest; all of them in turns."""
    costs: dict[str, list[float]] = {state: [] for state in clusters}
    for turn in range(_TURNS):
        for state, cluster in clusters.items():
            costs[state].append(_cost_ms(ctx, cluster, f"{what}-{turn}"))
    for state, samples in costs.items():
        print(f"  {database}: {state}: {median(samples):.2f} ms", flush=True)
    fastest, slowest = (pick(costs, key=lambda state: median(costs[state])) for pick in (min, max))
    return Figure(
        name=f"one MAC, slowest {what} ({database})",
        how=f"the service's call that creates a vNIC in {told}, {_TAKEN_A_TURN} a turn; {', '.join(clusters)}. Ours: "
        f"{slowest}. Theirs: the fastest, {fastest}.",
        asked="≤ 1.5",
        is_reached=lambda ratio: ratio <= 1.5,
        ours=costs[slowest],
        theirs=costs[fastest],
        unit="ms",
    )


def _last(ctx: Context, database: str) -> Figure:
    """The only number that is free, at the end of a space, against the first of an empty one."""
    lasts, firsts = [], []
    for _ in range(_TURNS):
        lasts.append(_taking_ms(ctx, _FILLED - 1))
        firsts.append(_taking_ms(ctx, 0))
    print(f"  {database}: last {median(lasts):.2f} ms, first {median(firsts):.2f} ms", flush=True)
    return Figure(
        name=f"the last free MAC ({database})",
        how=f"the only one of {_FILLED:,}, found and taken by the allocator in a transaction, the search beginning "
        "behind it. Theirs: the first of as many that are all free. The service's event that the pool is exhausted is "
        "not in it.",
        asked="≤ 1.5",
        is_reached=lambda ratio: ratio <= 1.5,
        ours=lasts,
        theirs=firsts,
        unit="ms",
    )


def _taking_ms(ctx: Context, first_free: int) -> float:
    """Milliseconds that it takes to take a number of a space that is free from `first_free` on, by a turn's median."""

    def take(space_id: int) -> None:
        with ctx.db.write() as connection:
            (_,) = extents.take_any(connection, space_id)

    samples = []
    for _ in range(_TAKEN_A_TURN):
        with ctx.db.write() as connection:
            space_id = extents.create_space(connection, [(first_free, _FILLED - 1)])
            # Behind it: the search comes round to the beginning.
            connection.execute(update(spaces).where(spaces.c.id == space_id).values(cursor=_FILLED))
        samples.append(_seconds(partial(take, space_id)))
    return median(samples) * 1000


def _bulk(ctx: Context, database: str, pools: _Pools) -> Figure:
    cluster = pools.add(2**24, [(0, 2**24 - 1)])
    together, singly = [], []
    for turn in range(_TURNS):
        specs = [_spec(f"bulk-{turn}-{number}", cluster) for number in range(_BULK)]
        together.append(_seconds(partial(vnics.put_all, ctx, specs)) * 1000)
        singly.append(_cost_ms(ctx, cluster, f"singly-{turn}") * _BULK)
    print(f"  {database}: {_BULK:,} vNICs in {median(together) / 1000:.2f} s", flush=True)
    return Figure(
        name=f"{_BULK:,} vNICs in one call ({database})",
        how=f"created in one transaction. Theirs: one by one, by {_TAKEN_A_TURN} of them.",
        asked="≤ 1 s",
        is_reached=lambda _: median(together) <= 1000,
        ours=together,
        theirs=singly,
        unit="ms",
    )


def _scattered(size: int, full_percent: float) -> list[Extent]:
    """What is free of `size` MACs at that fill: single ones evenly apart, or runs where those would be too many."""
    free = round(size * (100 - full_percent) / 100)
    if free == size:
        return [(0, size - 1)]
    count = min(free, _MOST_EXTENTS)
    return [(first, first + free // count - 1) for first in (index * size // count for index in range(count))]


def _cost_ms(ctx: Context, cluster: str, label: str) -> float:
    """Milliseconds that a new vNIC takes, by the median of a turn's."""
    specs = [_spec(f"{cluster}-{label}-{number}", cluster) for number in range(_TAKEN_A_TURN)]
    return median(_seconds(partial(vnics.put, ctx, spec)) for spec in specs) * 1000


def _spec(vnic: str, cluster: str) -> VnicSpec:
    return VnicSpec(id=vnic, vm=f"vm-of-{vnic}", name="nic1", cluster=cluster)


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


@contextmanager
def _sqlite() -> Iterator[Context]:
    with tempfile.TemporaryDirectory() as folder, _opened(f"sqlite:///{Path(folder)}/leasehold.sqlite") as ctx:
        yield ctx


@contextmanager
def _postgresql() -> Iterator[Context]:
    with postgres(durable=True) as server, _opened(server.fresh_database()) as ctx:
        yield ctx


@contextmanager
def _opened(url: str) -> Iterator[Context]:
    ctx = open_context(Settings(database_url=url))
    try:
        yield ctx
    finally:
        ctx.db.dispose()
