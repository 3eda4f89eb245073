"""MAC pools, scopes and vNICs against plain sets and dictionaries: every answer, and all that the database keeps."""

import copy
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import Connection, select

from leasehold.config import Settings
from leasehold.domain.addresses import Mac, MacRange
from leasehold.domain.values import BadMac, Effect, Imported, MacPool, ScopeKind, Vnic, VnicSpec
from leasehold.errors import (
    Conflict,
    DefaultPoolKept,
    DuplicatesInUse,
    FieldInvalid,
    Invalid,
    MacNotUnicast,
    MacPoolExhausted,
    MacPoolInUse,
    MacPoolInvalid,
    MacsBad,
    MacTaken,
    NameTaken,
    NotFound,
    RangeInvalid,
    RangesOverlap,
    RangesOverlapPools,
    RevisionMismatch,
    ScopeInUse,
    ScopeNotFound,
    VnicNotFound,
    WouldDuplicate,
)
from leasehold.service import mac_pools, mac_ranges, macs, scopes, vnics
from leasehold.service.context import DEFAULT_POOL, Context, open_context
from leasehold.service.mac_pools import PoolChange
from leasehold.store import extents, tables
from leasehold.store.database import Database
from service.conftest import Clock

BASE = 0x02_00_00_00_10_00
SIZE = 24
MULTICAST = 0x01_00_00_00_00_00
COOL_DOWN_S = 60
KINDS: tuple[ScopeKind, ...] = ("data_center", "cluster", "vm_pool")

Answer = TypeVar("Answer")
Extents = tuple[tuple[int, int], ...]
Key = tuple[ScopeKind, str]


@dataclass
class Pool:
    """A MAC pool; its ranges as they were given."""

    name: str
    allows: bool
    ranges: Extents
    revision: int = 1

    def numbers(self) -> set[int]:
        return numbers_of(self.ranges)


@dataclass
class Nic:
    """A vNIC, its MAC, and the pool whose rules that is under."""

    mac: int
    pool: str
    cluster: str | None
    vm_pool: str | None


@dataclass
class Cooling:
    """A MAC that nobody has, and who may have it back."""

    vnic: str
    free_at_ms: int


@dataclass
class Model:
    """What the service layer must know, and what each call does to it. A refusal is raised as the service's error.

    What is drawn is for the service to choose: `chosen` are its choices, by vNIC; where it refused, there are none.
    """

    pools: dict[str, Pool]
    default: str = DEFAULT_POOL
    scopes: dict[Key, tuple[str | None, str | None]] = field(default_factory=dict)
    nics: dict[str, Nic] = field(default_factory=dict)
    twins: set[frozenset[str]] = field(default_factory=set)
    cooling: dict[int, Cooling] = field(default_factory=dict)

    # ---- what can be seen

    def holders(self, mac: int) -> list[str]:
        return sorted(name for name, nic in self.nics.items() if nic.mac == mac)

    def free(self, pool: str) -> set[int]:
        return self.pools[pool].numbers() - {nic.mac for nic in self.nics.values()} - set(self.cooling)

    def pool_for(self, cluster: str | None, vm_pool: str | None) -> str:
        chain: list[Key] = []
        if cluster is not None:
            self.scope("cluster", cluster)
        if vm_pool is not None:
            parent, _ = self.scope("vm_pool", vm_pool)
            if None not in (cluster, parent) and cluster != parent:
                raise FieldInvalid("the VM pool is of another cluster")
            chain.append(("vm_pool", vm_pool))
            cluster = parent or cluster
        if cluster is not None and (not chain or self.scopes[chain[0]][1] is None):
            parent, _ = self.scope("cluster", cluster)
            chain.append(("cluster", cluster))
            if parent is not None:
                chain.append(("data_center", parent))
        return next((pool for _, pool in map(self.scopes.__getitem__, chain) if pool is not None), self.default)

    def scope(self, kind: ScopeKind, name: str) -> tuple[str | None, str | None]:
        if (kind, name) not in self.scopes:
            raise ScopeNotFound("no such scope")
        return self.scopes[kind, name]

    def duplicates(self, of: Iterable[str]) -> bool:
        """True if one of these vNICs shares its MAC, and not only with twins that are each other's too."""
        groups = [self.holders(self.nics[name].mac) for name in of]
        return any(a < b and frozenset((a, b)) not in self.twins for group in groups for a in group for b in group)

    def under(self, pool: str) -> list[str]:
        return [name for name, nic in self.nics.items() if nic.pool == pool]

    # ---- pools

    def refuse_overlaps(self, pool: str | None, ranges: Extents) -> None:
        for other, each in self.pools.items():
            if other != pool and each.numbers() & numbers_of(ranges):
                raise RangesOverlapPools("another pool has them")

    def refuse_name(self, pool: str | None, name: str) -> None:
        if any(each.name == name for other, each in self.pools.items() if other != pool):
            raise NameTaken("another has it")

    def create(self, name: str, allows: bool, ranges: Extents, answer: MacPool | None) -> None:
        check(ranges)
        self.refuse_overlaps(None, ranges)
        self.refuse_name(None, name)
        self.pools[the_id(answer)] = Pool(name, allows, tuple(sorted(ranges)))

    def patch(
        self, pool: str, name: str | None, allows: bool | None, ranges: Extents | None, revision: int | None
    ) -> set[tuple[int, str]]:
        """Returns the MACs that are out of range by it, with their vNICs."""
        own = self.pools[pool]
        if ranges is not None:
            check(ranges)
        if revision not in (None, own.revision):
            raise RevisionMismatch("changed since")
        if allows is False and self.duplicates(self.under(pool)):
            raise DuplicatesInUse("not yet")
        lost: set[int] = set()
        if ranges is not None:
            self.refuse_overlaps(pool, ranges)
            lost = own.numbers() - numbers_of(ranges)
            own.ranges = tuple(sorted(ranges))
        if name is not None:
            self.refuse_name(pool, name)
            own.name = name
        own.allows = own.allows if allows is None else allows
        own.revision += 1
        return {(nic.mac, at) for at, nic in self.nics.items() if nic.pool == pool and nic.mac in lost}

    def make_default(self, pool: str) -> None:
        if pool != self.default:
            self.pools[self.default].revision += 1
            self.pools[pool].revision += 1
            self.default = pool

    def split(self, pool: str, name: str, ranges: Extents, answer: MacPool | None) -> None:
        check(ranges)
        own, part = self.pools[pool], numbers_of(ranges)
        if not part < own.numbers():
            raise RangeInvalid("not a part")
        self.refuse_name(None, name)
        new = the_id(answer)
        self.pools[new] = Pool(name, own.allows, tuple(sorted(ranges)))
        own.ranges = without(own.ranges, part)
        own.revision += 1
        for nic in self.nics.values():
            if nic.pool == pool and nic.mac in part:
                nic.pool = new

    def merge(self, pool: str, source: str) -> None:
        if pool == source:
            raise MacPoolInvalid("itself")
        if source == self.default:
            raise DefaultPoolKept("the default")
        if not self.pools[pool].allows and self.duplicates(self.under(source)):
            raise WouldDuplicate("not allowed there")
        gone = self.pools.pop(source)
        own = self.pools[pool]
        own.ranges = tuple(sorted((*own.ranges, *gone.ranges)))
        own.revision += 1
        for nic in self.nics.values():
            if nic.pool == source:
                nic.pool = pool
        for key, (parent, assigned) in self.scopes.items():
            if assigned == source:
                self.scopes[key] = (parent, pool)

    def delete_pool(self, pool: str) -> None:
        if pool == self.default:
            raise DefaultPoolKept("the default")
        if self.under(pool) or any(assigned == pool for _, assigned in self.scopes.values()):
            raise MacPoolInUse("needed")
        del self.pools[pool]

    # ---- scopes

    def put_scope(self, kind: ScopeKind, name: str, parent: str | None, pool: str | None) -> None:
        above = scopes.PARENT[kind]
        if parent is not None and above is None:
            raise FieldInvalid("a data center has no parent")
        if parent is not None and above is not None:
            self.scope(above, parent)
        known = (kind, name) in self.scopes
        self.scopes[kind, name] = (parent, pool)
        if known:
            inside = [at for at, nic in self.nics.items() if (kind, name) in self.around(nic)]
            targets = {at: self.pool_for(self.nics[at].cluster, self.nics[at].vm_pool) for at in inside}
            self.come_under({at: target for at, target in targets.items() if target != self.nics[at].pool})

    def around(self, nic: Nic) -> set[Key]:
        """Every scope that the vNIC is in."""
        found: set[Key] = set()
        clusters = [nic.cluster] if nic.cluster is not None else []
        if nic.vm_pool is not None:
            found.add(("vm_pool", nic.vm_pool))
            parent = self.scopes["vm_pool", nic.vm_pool][0]
            clusters += [] if parent is None else [parent]
        for cluster in clusters:
            found.add(("cluster", cluster))
            parent = self.scopes["cluster", cluster][0]
            found |= set() if parent is None else {("data_center", parent)}
        return found

    def come_under(self, targets: dict[str, str]) -> None:
        if self.duplicates(name for name, pool in targets.items() if not self.pools[pool].allows):
            raise WouldDuplicate("not allowed there")
        for name, pool in targets.items():
            self.nics[name].pool = pool

    def delete_scope(self, kind: ScopeKind, name: str) -> None:
        self.scope(kind, name)
        below = [key for key, (parent, _) in self.scopes.items() if parent == name and scopes.PARENT[key[0]] == kind]
        if below or any(
            name == (nic.cluster if kind == "cluster" else nic.vm_pool)
            for nic in self.nics.values()
            if kind != "data_center"
        ):
            raise ScopeInUse("in use")
        del self.scopes[kind, name]

    # ---- vNICs

    def put_all(
        self, specs: Sequence[VnicSpec], now_ms: int, chosen: dict[str, int] | None, anew: Iterable[str] = ()
    ) -> None:
        ordered = sorted(specs, key=lambda spec: spec.id)
        pools = {spec.id: self.pool_for(spec.cluster, spec.vm_pool) for spec in ordered}
        before = copy.deepcopy(self.nics)
        taking: dict[int, list[str]] = {}
        got: dict[str, int] = {}
        drawing: dict[str, list[str]] = {}
        for spec in ordered:
            if spec.mac is not None and spec.mac.value & MULTICAST:
                raise MacNotUnicast("no card can own it")
        # Who may have a MAC back comes before those that name one.
        for spec in sorted(ordered, key=lambda spec: spec.mac or Mac(0)):
            row = before.get(spec.id)
            if spec.mac is not None:
                got[spec.id] = spec.mac.value
                if row is None or row.mac != spec.mac.value:
                    self.claim(spec.mac.value, pools[spec.id], [pools[each] for each in taking.get(spec.mac.value, [])])
                    taking.setdefault(spec.mac.value, []).append(spec.id)
            elif row is not None and spec.id not in anew:
                got[spec.id] = row.mac
            elif row is None and spec.id not in anew and (mine := self.regainable(spec.id)):
                mac = chosen[spec.id] if chosen is not None else min(mine)
                assert mac in mine
                del self.cooling[mac]
                got[spec.id] = mac
                taking[mac] = [spec.id]
            else:
                drawing.setdefault(pools[spec.id], []).append(spec.id)
        for pool, names in drawing.items():
            drawn = self.draw(pool, names, chosen, set(taking))
            assert drawn == sorted(drawn)
            got |= dict(zip(names, drawn, strict=True))
        for spec in ordered:
            row = before.get(spec.id)
            pool = pools[spec.id] if row is None else row.pool
            self.nics[spec.id] = Nic(got[spec.id], pool, spec.cluster, spec.vm_pool)
            if row is not None and row.mac != got[spec.id]:
                self.end_twins(row.mac, spec.id)
        for spec in ordered:
            row = before.get(spec.id)
            if row is not None and row.mac != got[spec.id]:
                self.release(row.mac, spec.id, now_ms)
        self.come_under({spec.id: pools[spec.id] for spec in ordered if self.nics[spec.id].pool != pools[spec.id]})

    def regainable(self, name: str) -> set[int]:
        """The MACs that the vNIC let go last, of those that cool."""
        mine = {mac: each.free_at_ms for mac, each in self.cooling.items() if each.vnic == name}
        return {mac for mac, at in mine.items() if at == max(mine.values())}

    def claim(self, mac: int, pool: str, beside: Iterable[str] = (), twin: str | None = None) -> None:
        if mac == 0 or mac & MULTICAST:
            raise MacNotUnicast("no card can own it")
        others = [self.nics[each].pool for each in self.holders(mac) if each != twin] + list(beside)
        if others and not all(self.pools[each].allows for each in (pool, *others)):
            raise MacTaken("in use")
        self.cooling.pop(mac, None)

    def draw(
        self, pool: str, names: Sequence[str], chosen: dict[str, int] | None, taken: Iterable[int] = ()
    ) -> list[int]:
        free = self.free(pool) - set(taken)
        if len(free) < len(names):
            raise MacPoolExhausted("too few")
        drawn = sorted(free)[: len(names)] if chosen is None else [chosen[name] for name in names]
        assert set(drawn) <= free
        assert len(set(drawn)) == len(names)
        return drawn

    def release(self, mac: int, name: str, now_ms: int) -> None:
        self.end_twins(mac, name)
        if not self.holders(mac):
            self.cooling[mac] = Cooling(name, now_ms + COOL_DOWN_S * 1000)

    def end_twins(self, mac: int, name: str) -> None:
        self.twins -= {frozenset((name, other)) for other in self.holders(mac)}

    def bad(self, specs: Sequence[VnicSpec]) -> dict[str, BadMac]:
        """Why a MAC that comes with an import is bad, by vNIC."""
        bad: dict[str, BadMac] = {}
        seen: dict[int, bool] = {}
        anywhere = set().union(*(pool.numbers() for pool in self.pools.values()))
        for spec in specs:
            if spec.mac is None:
                if spec.id not in self.nics:
                    bad[spec.id] = "empty"
                continue
            mac, allows = spec.mac.value, self.pools[self.pool_for(spec.cluster, spec.vm_pool)].allows
            own = self.holders(mac)
            others = [
                each
                for each in own
                if each != spec.id and not (spec.id in own and frozenset((each, spec.id)) in self.twins)
            ]
            fine = allows and seen.get(mac, True) and all(self.pools[self.nics[each].pool].allows for each in others)
            if mac & MULTICAST:
                bad[spec.id] = "not-unicast"
            elif not fine and (others or (mac in seen and spec.id not in own)):
                bad[spec.id] = "in-use"
            elif mac not in anywhere:
                bad[spec.id] = "out-of-range"
            seen[mac] = seen.get(mac, True) and allows
        return bad

    def take_in(self, specs: Sequence[VnicSpec], reassign: bool, now_ms: int, answer: Imported | None) -> None:
        bad = self.bad(specs)
        if not reassign and {"in-use", "not-unicast"} & set(bad.values()):
            raise MacsBad("in use")
        new = {spec.id for spec in specs if spec.id in bad and (reassign or spec.mac is None)}
        self.put_all(
            [replace(spec, mac=None) if spec.id in new else spec for spec in specs],
            now_ms,
            None if answer is None else macs_of(answer.vnics),
            {spec.id for spec in specs if spec.id in new and spec.mac is not None},
        )
        if answer is not None:
            assert {each.vnic: each.reason for each in answer.reassigned} == {name: bad[name] for name in new}
            assert all(each.after != each.before for each in answer.reassigned)
            assert set(answer.external) == {name for name, why in bad.items() if why == "out-of-range"} - new

    def require(self, name: str) -> Nic:
        if name not in self.nics:
            raise VnicNotFound("no such vNIC")
        return self.nics[name]

    def move(
        self, name: str, cluster: str | None, vm_pool: str | None, new: bool, now_ms: int, answer: Vnic | None
    ) -> None:
        nic = self.require(name)
        pool = self.pool_for(cluster, vm_pool)
        nic.cluster, nic.vm_pool = cluster, vm_pool
        if pool == nic.pool:
            return
        if not new:
            self.come_under({name: pool})
            return
        before = nic.mac
        (nic.mac,) = self.draw(pool, [name], None if answer is None else macs_of([answer]))
        nic.pool = pool
        self.release(before, name, now_ms)

    def delete(self, name: str, now_ms: int) -> None:
        nic = self.require(name)
        del self.nics[name]
        self.twins = {pair for pair in self.twins if name not in pair}
        self.release(nic.mac, name, now_ms)

    def make_twins(self, name: str, other: str, now_ms: int) -> None:
        if name == other:
            raise FieldInvalid("its own twin")
        nic, twin = self.require(name), self.require(other)
        self.twins.add(frozenset((name, other)))
        if nic.mac != twin.mac:
            self.claim(twin.mac, nic.pool, twin=other)
            before, nic.mac = nic.mac, twin.mac
            self.release(before, name, now_ms)

    def part_twins(self, name: str, other: str, now_ms: int, answer: Vnic | None) -> None:
        nic = self.require(name)
        if frozenset((name, other)) not in self.twins:
            raise VnicNotFound("no twin")
        self.twins.remove(frozenset((name, other)))
        before = nic.mac
        (nic.mac,) = self.draw(nic.pool, [name], None if answer is None else macs_of([answer]))
        self.release(before, name, now_ms)

    def sweep(self, now_ms: int) -> int:
        due = [mac for mac, each in self.cooling.items() if each.free_at_ms <= now_ms]
        for mac in due:
            del self.cooling[mac]
        return len(due)


def numbers_of(ranges: Extents) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


def without(ranges: Extents, part: set[int]) -> Extents:
    """What is left of each range, piece by piece."""
    left: list[tuple[int, int]] = []
    for first, last in ranges:
        inside = False
        for number in range(first, last + 1):
            if number in part:
                inside = False
            elif inside:
                left[-1] = (left[-1][0], number)
            else:
                left.append((number, number))
                inside = True
    return tuple(left)


def check(ranges: Extents) -> None:
    if any(first > last for first, last in ranges):
        raise RangeInvalid("backwards")
    if sum(last - first + 1 for first, last in ranges) != len(numbers_of(ranges)):
        raise RangesOverlap("twice")


def the_id(answer: MacPool | None) -> str:
    return "a new one" if answer is None else answer.id


def macs_of(found: Iterable[Vnic]) -> dict[str, int]:
    return {each.id: each.mac.value for each in found}


def as_ranges(ranges: Extents) -> tuple[MacRange, ...]:
    return tuple(MacRange(Mac(first), Mac(last)) for first, last in ranges)


names = st.sampled_from(["red", "green", "blue"])
vnic_ids = st.sampled_from(["a", "b", "c", "d", "e"])
numbers = st.integers(BASE, BASE + SIZE - 1)
explicit = st.one_of(
    st.none(),
    st.sampled_from([BASE + 6] * 5 + [BASE + 7] * 2 + [MULTICAST | BASE]),
    numbers,
    st.integers(BASE, BASE + 5),
).map(lambda value: None if value is None else Mac(value))
starts = st.tuples(numbers, st.integers(-1, 7))
range_lists = st.lists(starts.map(lambda each: (each[0], each[0] + each[1])), min_size=1, max_size=2).map(tuple)
rarely = st.sampled_from([False, False, False, True])


class MacPools(RuleBasedStateMachine):
    """Every call answers, and leaves in the database, what the model says; a refused call or a dry run leaves all."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(prefix="leasehold-machine-")
        path = Path(self.directory.name, "leasehold.sqlite")
        shutil.copy(self.template, path)
        self.clock = Clock()
        self.ctx = open_for(path, self.clock)
        self.model = Model(pools={DEFAULT_POOL: Pool("Default", False, ((BASE, BASE + 5),), revision=2)})

    def teardown(self) -> None:
        self.ctx.db.dispose()
        self.directory.cleanup()

    def call(
        self, act: Callable[[], Answer], expect: Callable[[Model, Answer | None], None], dry_run: bool = False
    ) -> None:
        after = copy.deepcopy(self.model)
        try:
            answer = act()
        except (Invalid, NotFound, Conflict) as refusal:
            with pytest.raises(type(refusal)):
                expect(after, None)
            return
        expect(after, answer)
        if not dry_run:
            self.model = after

    def a_pool(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.model.pools, key=lambda each: self.model.pools[each].name)))

    def a_vnic(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from([*sorted(self.model.nics), "unknown"]))

    def a_place(self, data: st.DataObject) -> tuple[str | None, str | None]:
        """A cluster and a VM pool."""
        known = {kind: sorted(name for at, name in self.model.scopes if at == kind) for kind in KINDS}
        return (
            data.draw(st.sampled_from([*known["cluster"], *known["cluster"], None, "unknown"])),
            data.draw(st.sampled_from([None, None, None, *known["vm_pool"]])),
        )

    def some_specs(self, data: st.DataObject, most: int = 4) -> list[VnicSpec]:
        specs = []
        for name in data.draw(st.lists(vnic_ids, min_size=1, max_size=most, unique=True)):
            cluster, vm_pool = self.a_place(data)
            mac = data.draw(explicit)
            specs.append(VnicSpec(id=name, vm="vm", name="nic", cluster=cluster, vm_pool=vm_pool, mac=mac))
        return specs

    @initialize(allows=rarely.map(lambda rare: not rare), own=st.none() | numbers.map(Mac))
    def begin_with_some(self, allows: bool, own: Mac | None) -> None:
        for name, first in (("red", BASE + 6), ("green", BASE + 10)):
            self.create(name, allows, ((first, first + 3),), False)
        for pool, cluster in zip(
            [each for each in self.model.pools if each != DEFAULT_POOL], ("c1", "c2"), strict=True
        ):
            self.put_scope_of("cluster", cluster, None, pool, False)
        self.put_scope_of("vm_pool", "v1", "c2", None, False)
        shared = Mac(BASE + 6)
        specs = [
            VnicSpec(id=name, vm="vm", name="nic", cluster=cluster, mac=mac)
            for name, cluster, mac in (
                ("a", "c1", shared),
                ("b", "c1", own),
                ("c", "c2", shared if allows else None),
                ("d", None, None),
            )
        ]
        self.put_all_of(specs, False)

    @rule(name=names, allows=st.booleans(), ranges=range_lists, dry_run=rarely)
    def create(self, name: str, allows: bool, ranges: Extents, dry_run: bool) -> None:
        self.call(
            lambda: mac_pools.create(
                self.ctx, name=name, allow_duplicates=allows, ranges=as_ranges(ranges), dry_run=dry_run
            ),
            lambda model, answer: model.create(name, allows, ranges, answer),
            dry_run,
        )

    @rule(
        data=st.data(),
        name=st.none() | names,
        allows=st.none() | st.booleans(),
        ranges=st.none() | range_lists,
        stale=rarely,
        dry_run=rarely,
    )
    def patch(
        self,
        data: st.DataObject,
        name: str | None,
        allows: bool | None,
        ranges: Extents | None,
        stale: bool,
        dry_run: bool,
    ) -> None:
        pool = self.a_pool(data)
        revision = data.draw(st.sampled_from([None, self.model.pools[pool].revision])) if not stale else 0
        wanted = PoolChange(name=name, allow_duplicates=allows, ranges=None if ranges is None else as_ranges(ranges))

        def expect(model: Model, answer: tuple[MacPool, Effect] | None) -> None:
            strays = model.patch(pool, name, allows, ranges, revision)
            if answer is not None:
                assert {(each.mac.value, each.vnic) for each in answer[1].out_of_range} == strays
                assert answer[1].out_of_range_count == len(strays)

        self.call(lambda: mac_pools.change(self.ctx, pool, wanted, revision=revision, dry_run=dry_run), expect, dry_run)

    @rule(data=st.data(), dry_run=rarely)
    def make_default(self, data: st.DataObject, dry_run: bool) -> None:
        pool = self.a_pool(data)
        self.call(
            lambda: mac_pools.make_default(self.ctx, pool, dry_run=dry_run),
            lambda model, _: model.make_default(pool),
            dry_run,
        )

    @rule(data=st.data(), name=names, dry_run=rarely)
    def split(self, data: st.DataObject, name: str, dry_run: bool) -> None:
        pool = self.a_pool(data)
        first, last = data.draw(st.sampled_from(self.model.pools[pool].ranges))
        begin = data.draw(st.integers(first, last))
        ranges = ((begin, data.draw(st.integers(begin, last + 1))),)
        self.call(
            lambda: mac_pools.split(self.ctx, pool, name=name, ranges=as_ranges(ranges), dry_run=dry_run),
            lambda model, answer: model.split(pool, name, ranges, answer),
            dry_run,
        )

    @rule(data=st.data(), dry_run=rarely)
    def merge(self, data: st.DataObject, dry_run: bool) -> None:
        pool, source = self.a_pool(data), self.a_pool(data)
        self.call(
            lambda: mac_pools.merge(self.ctx, pool, source, dry_run=dry_run),
            lambda model, _: model.merge(pool, source),
            dry_run,
        )

    @rule(data=st.data(), dry_run=rarely)
    def delete_pool(self, data: st.DataObject, dry_run: bool) -> None:
        pool = self.a_pool(data)
        self.call(
            lambda: mac_pools.delete_pool(self.ctx, pool, dry_run=dry_run),
            lambda model, _: model.delete_pool(pool),
            dry_run,
        )

    @rule(data=st.data(), kind=st.sampled_from(KINDS), dry_run=rarely)
    def put_scope(self, data: st.DataObject, kind: ScopeKind, dry_run: bool) -> None:
        name = data.draw(st.sampled_from({"data_center": ["d1"], "cluster": ["c1", "c2"], "vm_pool": ["v1"]}[kind]))
        parents = {"data_center": [None, None, "d1"], "cluster": [None, "d1"], "vm_pool": [None, "c1", "c2"]}[kind]
        pool = self.a_pool(data) if data.draw(st.booleans()) else None
        self.put_scope_of(kind, name, data.draw(st.sampled_from(parents)), pool, dry_run)

    def put_scope_of(self, kind: ScopeKind, name: str, parent: str | None, pool: str | None, dry_run: bool) -> None:
        self.call(
            lambda: scopes.put(self.ctx, kind, name, parent=parent, mac_pool=pool, dry_run=dry_run),
            lambda model, _: model.put_scope(kind, name, parent, pool),
            dry_run,
        )

    @rule(data=st.data())
    def delete_scope(self, data: st.DataObject) -> None:
        unknown: Key = ("cluster", "unknown")
        which = data.draw(st.sampled_from([*sorted(self.model.scopes), unknown]))
        self.call(
            lambda: scopes.delete_scope(self.ctx, *which),
            lambda model, _: model.delete_scope(*which),
        )

    @rule(data=st.data(), dry_run=rarely)
    def put(self, data: st.DataObject, dry_run: bool) -> None:
        self.put_one(self.some_specs(data, 1)[0], dry_run)

    @rule(data=st.data(), dry_run=rarely)
    def put_back(self, data: st.DataObject, dry_run: bool) -> None:
        """One that was deleted lately, or else a new one."""
        gone = sorted({each.vnic for each in self.model.cooling.values()} - set(self.model.nics))
        cluster, vm_pool = self.a_place(data)
        name = data.draw(st.sampled_from(gone or ["f"]))
        self.put_one(VnicSpec(id=name, vm="vm", name="nic", cluster=cluster, vm_pool=vm_pool), dry_run)

    def put_one(self, spec: VnicSpec, dry_run: bool) -> None:
        self.call(
            lambda: vnics.put(self.ctx, spec, dry_run=dry_run),
            lambda model, answer: model.put_all(
                [spec], self.ctx.now_ms(), None if answer is None else macs_of([answer[0]])
            ),
            dry_run,
        )

    @rule(data=st.data(), dry_run=rarely)
    def put_all(self, data: st.DataObject, dry_run: bool) -> None:
        self.put_all_of(self.some_specs(data), dry_run)

    def put_all_of(self, specs: list[VnicSpec], dry_run: bool) -> None:
        self.call(
            lambda: vnics.put_all(self.ctx, specs, dry_run=dry_run),
            lambda model, answer: model.put_all(specs, self.ctx.now_ms(), None if answer is None else macs_of(answer)),
            dry_run,
        )

    @rule(data=st.data(), reassign=st.booleans(), dry_run=rarely)
    def take_in(self, data: st.DataObject, reassign: bool, dry_run: bool) -> None:
        specs = self.some_specs(data)
        self.call(
            lambda: vnics.take_in(self.ctx, specs, reassign_bad_macs=reassign, dry_run=dry_run),
            lambda model, answer: model.take_in(specs, reassign, self.ctx.now_ms(), answer),
            dry_run,
        )

    @rule(data=st.data(), new=st.booleans(), dry_run=rarely)
    def move(self, data: st.DataObject, new: bool, dry_run: bool) -> None:
        name, (cluster, vm_pool) = self.a_vnic(data), self.a_place(data)
        self.call(
            lambda: vnics.move(self.ctx, name, cluster=cluster, vm_pool=vm_pool, new_mac=new, dry_run=dry_run),
            lambda model, answer: model.move(name, cluster, vm_pool, new, self.ctx.now_ms(), answer),
            dry_run,
        )

    @rule(data=st.data(), dry_run=rarely)
    def delete(self, data: st.DataObject, dry_run: bool) -> None:
        name = self.a_vnic(data)
        self.call(
            lambda: vnics.delete_vnic(self.ctx, name, dry_run=dry_run),
            lambda model, _: model.delete(name, self.ctx.now_ms()),
            dry_run,
        )

    @rule(data=st.data(), dry_run=rarely)
    def make_twins(self, data: st.DataObject, dry_run: bool) -> None:
        name, other = self.a_vnic(data), self.a_vnic(data)
        self.call(
            lambda: vnics.make_twins(self.ctx, name, other, dry_run=dry_run),
            lambda model, _: model.make_twins(name, other, self.ctx.now_ms()),
            dry_run,
        )

    @rule(data=st.data(), dry_run=rarely)
    def part_twins(self, data: st.DataObject, dry_run: bool) -> None:
        pairs = sorted(sorted(pair) for pair in self.model.twins)
        name, other = data.draw(st.permutations(data.draw(st.sampled_from([*pairs, ["a", "unknown"]]))))
        self.call(
            lambda: vnics.part_twins(self.ctx, name, other, dry_run=dry_run),
            lambda model, answer: model.part_twins(name, other, self.ctx.now_ms(), answer),
            dry_run,
        )

    @rule(seconds=st.sampled_from([0, 1, COOL_DOWN_S - 1, COOL_DOWN_S]))
    def sweep(self, seconds: int) -> None:
        self.clock.advance(seconds)
        assert macs.sweep(self.ctx) == self.model.sweep(self.ctx.now_ms())

    @invariant()
    def a_mac_is_at_two_vnics_only_where_that_is_allowed_or_they_are_twins(self) -> None:
        with self.ctx.db.read() as connection:
            rows = connection.execute(
                select(tables.vnics.c.id, tables.vnics.c.mac, tables.mac_pools.c.allow_duplicates).join(
                    tables.mac_pools, tables.mac_pools.c.id == tables.vnics.c.mac_pool_id
                )
            ).all()
            pairs = {frozenset((one, other)) for one, other in connection.execute(select(tables.twins))}
        for a in rows:
            for b in rows:
                if a.id < b.id and a.mac == b.mac:
                    assert (a.allow_duplicates and b.allow_duplicates) or frozenset((a.id, b.id)) in pairs

    @invariant()
    def every_mac_of_a_pool_is_free_or_used_or_cooling(self) -> None:
        with self.ctx.db.read() as connection:
            held = set(connection.execute(select(tables.vnics.c.mac)).scalars())
            cooling = set(connection.execute(select(tables.macs.c.mac).where(tables.macs.c.holders == 0)).scalars())
            space_of = dict(connection.execute(select(tables.mac_pools.c.id, tables.mac_pools.c.space_id)).all())
            extents = connection.execute(select(tables.free_extents).order_by(tables.free_extents.c.first)).all()
        for pool in mac_pools.list_pools(self.ctx):
            own = {n for each in pool.ranges for n in range(each.first.value, each.last.value + 1)}
            pieces = [each for each in extents if each.space_id == space_of[pool.id]]
            listed = [n for each in pieces for n in range(each.first, each.last + 1)]
            assert listed == sorted(own - held - cooling)
            usage = pool.usage
            assert (usage.free, usage.used, usage.cooling) == (len(listed), len(own & held), len(own & cooling))
            assert usage.size == len(own) == usage.free + usage.used + usage.cooling

    @invariant()
    def the_database_keeps_what_the_model_says(self) -> None:
        model = self.model
        with self.ctx.db.read() as connection:
            nics = {
                row.id: Nic(row.mac, row.mac_pool_id, row.cluster_id, row.vm_pool_id)
                for row in connection.execute(select(tables.vnics))
            }
            kept = connection.execute(select(tables.macs)).all()
            pairs = {frozenset((one, other)) for one, other in connection.execute(select(tables.twins))}
            known = {
                (row.kind, row.id): (row.parent_id, row.mac_pool_id)
                for row in connection.execute(select(tables.scopes))
            }
        assert nics == model.nics
        assert pairs == model.twins
        assert known == model.scopes
        assert {row.mac: row.holders for row in kept if row.holders} == {
            nic.mac: len(model.holders(nic.mac)) for nic in nics.values()
        }
        assert {row.mac: Cooling(row.vnic_id, row.free_at_ms) for row in kept if not row.holders} == model.cooling
        found = mac_pools.list_pools(self.ctx)
        assert {
            pool.id: Pool(
                pool.name,
                pool.allow_duplicates,
                tuple((each.first.value, each.last.value) for each in pool.ranges),
                pool.revision,
            )
            for pool in found
        } == model.pools
        assert [pool.id for pool in found if pool.default_pool] == [model.default]
        assert {pool.id: pool.usage.out_of_range for pool in found} == {
            name: sum(nic.pool == name and nic.mac not in pool.numbers() for nic in nics.values())
            for name, pool in model.pools.items()
        }


def open_for(path: Path, clock: Clock) -> Context:
    return open_context(Settings(database_url=f"sqlite:///{path}", cool_down_s=COOL_DOWN_S), clock)


@pytest.fixture
def machine(tmp_path: Path) -> type[MacPools]:
    """The machine, on copies of a database whose default pool has six MACs."""
    path = tmp_path / "template.sqlite"
    ctx = open_for(path, Clock())
    mac_pools.change(ctx, DEFAULT_POOL, PoolChange(ranges=as_ranges(((BASE, BASE + 5),))))
    ctx.db.dispose()
    return type("MacPools", (MacPools,), {"template": path})


def search(
    machine: type[MacPools], examples: int = 50, phases: Collection[Phase] = (Phase.generate, Phase.shrink)
) -> None:
    """Tries random calls. What fails is shrunk, but not explained: that takes many times as long."""
    wanted = settings(
        max_examples=examples,
        stateful_step_count=40,
        suppress_health_check=list(HealthCheck),
        deadline=None,
        database=None,
        phases=phases,
    )
    run_state_machine_as_test(machine, settings=wanted)


def test_mac_pools_do_what_sets_do(machine: type[MacPools]) -> None:
    search(machine)


def nothing(*_: object, **__: object) -> None:
    return None


def dry_runs_count(db: Database, *, dry_run: bool = False) -> AbstractContextManager[Connection]:
    return WRITE(db)


WRITE = Database.write
FAULTS: dict[str, tuple[object, str, Callable[..., object]]] = {
    "a dry run changes what it tells of": (Database, "write", dry_runs_count),
    "who has a MAC is not asked": (macs, "holders", lambda *_: {}),
    "duplicates are not looked for": (macs, "duplicates_under", lambda *_, **__: {}),
    "nobody gets a MAC back": (macs, "may_regain", lambda *_: set()),
    "a MAC that was swept is lost": (extents, "give_back", nothing),
    "a MAC that was named stays free": (extents, "take_all", lambda *_: 1),
    "ranges that go stay free": (extents, "remove_extent", nothing),
    "ranges that come are free, used or not": (mac_ranges, "gaps", lambda extent, _: [extent]),
    "ranges may be other pools' too": (mac_ranges, "refuse_overlaps", nothing),
    "a vNIC keeps its old pool": (scopes, "come_under", nothing),
    "every scope has the default pool": (scopes, "pool_for", lambda *_, **__: DEFAULT_POOL),
}


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS)
def test_the_search_finds(fault: str, machine: type[MacPools], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*FAULTS[fault])
    with pytest.raises(BaseException):  # noqa: B017, PT011 - whichever call or check it comes out at
        search(machine, 200, [Phase.generate])
