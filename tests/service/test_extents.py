"""The allocator against a plain set of numbers."""

import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import create_engine, select

from leasehold.service.context import Context
from leasehold.store import extents
from leasehold.store.tables import free_extents, metadata, spaces
from service.statements import sent_to

LAST = 40


class Allocator(RuleBasedStateMachine):
    """Every answer of the allocator, and what it keeps, is what a set of free numbers says."""

    def __init__(self) -> None:
        super().__init__()
        engine = create_engine("sqlite://")
        metadata.create_all(engine, tables=[spaces, free_extents])
        self.connection = engine.connect()
        self.space = extents.create_space(self.connection, [(1, 9), (12, LAST)])
        self.free = {*range(1, 10), *range(12, LAST + 1)}
        self.all = set(self.free)

    def teardown(self) -> None:
        self.connection.close()

    @rule(count=st.integers(1, LAST))
    def take_any(self, count: int) -> None:
        taken = extents.take_any(self.connection, self.space, count)
        assert len(set(taken)) == len(taken) == (count if count <= len(self.free) else 0)
        assert set(taken) <= self.free
        self.free -= set(taken)

    @rule(number=st.integers(0, LAST + 2))
    def take(self, number: int) -> None:
        assert extents.take(self.connection, self.space, number) == (number in self.free)
        self.free.discard(number)

    @precondition(lambda self: self.free != self.all)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        held = sorted(self.all - self.free)
        numbers = data.draw(st.sets(st.sampled_from(held), min_size=1))
        extents.give_back(self.connection, self.space, numbers)
        self.free |= numbers

    @precondition(lambda self: bool(self.free))
    @rule(data=st.data())
    def give_back_twice(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.free)))
        with pytest.raises(ValueError, match="is given back"), self.connection.begin_nested():
            extents.give_back(self.connection, self.space, [number])

    @invariant()
    def extents_are_the_free_numbers(self) -> None:
        rows = self.connection.execute(select(free_extents).order_by(free_extents.c.first)).all()
        assert {n for row in rows for n in range(row.first, row.last + 1)} == self.free
        assert all(before.last + 1 < after.first for before, after in itertools.pairwise(rows))
        assert self.connection.execute(select(spaces.c.free)).scalar_one() == len(self.free)


def test_the_allocator_does_what_a_set_does() -> None:
    run_state_machine_as_test(
        Allocator,
        settings=settings(
            max_examples=60, stateful_step_count=40, suppress_health_check=list(HealthCheck), deadline=None
        ),
    )


def test_a_number_given_back_comes_after_all_others(ctx: Context) -> None:
    with ctx.db.write() as connection:
        space = extents.create_space(connection, [(1, 5)])
        first = extents.take_any(connection, space)
        extents.give_back(connection, space, first)
        assert [extents.take_any(connection, space)[0] for _ in range(5)] == [2, 3, 4, 5, 1]


def test_taking_one_costs_no_more_in_a_scattered_space_than_in_a_huge_empty_one(ctx: Context) -> None:
    with ctx.db.write() as connection:
        empty = extents.create_space(connection, [(0, 2**40 - 1)])
        scattered = extents.create_space(connection, [(n, n) for n in range(0, 20_000, 2)])
        for space in (empty, scattered):
            with sent_to(connection) as sent:
                extents.take_any(connection, space)
            assert len(sent) == 4


def test_the_search_for_a_free_number_goes_through_the_index(tmp_path: Path) -> None:
    # SQLite's planner goes by the rules alone; PostgreSQL's reads a small table from end to end.
    engine = create_engine(f"sqlite:///{tmp_path}/leasehold.sqlite")
    metadata.create_all(engine, tables=[spaces, free_extents])
    with engine.begin() as connection:
        space = extents.create_space(connection, [(n, n) for n in range(0, 100, 2)])
        with sent_to(connection) as sent:
            extents.take(connection, space, 50)
        search = next(statement for statement in sent if "ORDER BY" in statement)
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {search}", (space, 50, 0)).all()
    assert [row.detail for row in plan] == [
        "SEARCH free_extents USING INDEX sqlite_autoindex_free_extents_1 (space_id=? AND last>?)"
    ]
