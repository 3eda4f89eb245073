"""What one process does for all, and how processes hear of each other: on both databases."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from netaddr import IPAddress
from sqlalchemy import select, text

from lab.postgres import Postgres
from lab.waiting import wait_until
from leasehold.config import Settings
from leasehold.domain.addresses import Mac
from leasehold.errors import DatabaseUnavailable
from leasehold.service import networks
from leasehold.service.bell import Due, Fact, News
from leasehold.service.context import Context, open_context
from leasehold.service.duties import Duties, holders
from leasehold.store import duties as store_duties
from leasehold.store.database import DutyLost
from leasehold.store.tables import duties as duties_table

PATIENCE_S = 20
HOSTS = [f"host-{number}" for number in range(5)]


@pytest.fixture
def processes(postgres_server: Postgres) -> Iterator[list[Context]]:
    """Three that work on one PostgreSQL database, as far as contexts go."""
    settings = Settings(database_url=postgres_server.fresh_database(), duty_timeout_s=30)
    contexts = [open_context(settings) for _ in range(3)]
    yield contexts
    for each in contexts:
        each.bell.stop()
        each.db.dispose()


@pytest.fixture
def rivals(processes: list[Context]) -> Iterator[list[Duties]]:
    made = [Duties(ctx) for ctx in processes]
    yield made
    for each in made:
        each.close()


def share(duties: Duties, names: list[str]) -> set[str]:
    duties.share({"push": names})
    return set(duties.held("push"))


def test_a_duty_is_one_processes_own(rivals: list[Duties]) -> None:
    first, second, _ = rivals
    assert share(first, ["a"]) == {"a"}
    assert share(second, ["a"]) == set()


def test_a_duty_that_is_given_back_is_taken_over_in_the_next_term(
    processes: list[Context], rivals: list[Duties]
) -> None:
    first, second, _ = rivals
    share(first, ["a"])
    first.close()
    assert share(second, ["a"]) == {"a"}
    assert [(each.duty, each.term) for each in holders(processes[2])] == [("push a", 2)]


def test_whoever_lost_a_duty_writes_nothing(fresh_database: Callable[[], str]) -> None:
    ctx = open_context(Settings(database_url=fresh_database()))
    duties = Duties(ctx)
    share(duties, ["a"])
    stale = duties.held("push")["a"]
    networks.put(stale, "before", ipam_enabled=False, ipam_servers=None)
    duties.close()
    share(duties, ["a"])
    with pytest.raises(DutyLost):
        networks.put(stale, "after", ipam_enabled=False, ipam_servers=None)
    with pytest.raises(DutyLost):
        stale.db.require_duty()
    assert [each.id for each in networks.list_networks(ctx)] == ["before"]
    networks.put(duties.held("push")["a"], "after", ipam_enabled=False, ipam_servers=None)
    duties.close()
    ctx.db.dispose()


def test_nobody_takes_over_in_the_middle_of_a_transaction(processes: list[Context], rivals: list[Duties]) -> None:
    """The claim is gone, but what the old holder is about to commit is there before the new term begins."""
    first, second, _ = rivals
    share(first, ["a"])
    stale = first.held("push")["a"]
    with ThreadPoolExecutor(1) as threads:
        with stale.db.write() as connection:
            first.close()
            taking = threads.submit(share, second, ["a"])
            wait_until(lambda: waits_for_a_lock(processes[2]), PATIENCE_S, "the other one waits")
            connection.execute(duties_table.update().values(holder="the last word:1"))
        assert taking.result(PATIENCE_S) == {"a"}


def waits_for_a_lock(ctx: Context) -> bool:
    with ctx.db.read() as connection:
        query = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return bool(connection.execute(query).scalar_one())


def test_duties_are_shared_out_evenly(rivals: list[Duties]) -> None:
    first, second, third = rivals
    assert share(first, HOSTS) == set(HOSTS)
    second.open()
    kept = share(first, HOSTS)
    assert len(kept) == 3
    assert share(second, HOSTS) == set(HOSTS) - kept
    third.open()
    assert len(share(first, HOSTS)) == 2
    assert len(share(second, HOSTS)) == 2
    assert len(share(third, HOSTS)) == 1


def test_what_a_process_had_that_ended_is_shared_out_among_the_others(rivals: list[Duties]) -> None:
    first, second, _ = rivals
    second.open()
    share(first, HOSTS)
    share(second, HOSTS)
    first.close()
    assert share(second, HOSTS) == set(HOSTS)


def test_names_that_are_gone_are_given_back(rivals: list[Duties]) -> None:
    first, second, _ = rivals
    share(first, ["a", "b"])
    assert share(first, ["b"]) == {"b"}
    assert "a" in share(second, ["a", "b"])


def test_a_process_that_stands_still_loses_its_duties(processes: list[Context], rivals: list[Duties]) -> None:
    """PostgreSQL ends the session of one that says nothing for long enough; nobody else has to notice."""
    still = Duties(Context(processes[0].db, Settings(duty_timeout_s=0.2)))
    share(still, ["a"])
    lost = still.held("push")["a"]
    wait_until(lambda: share(rivals[1], ["a"]) == {"a"}, PATIENCE_S, "another process has it")
    with pytest.raises(DutyLost):
        lost.db.require_duty()
    with pytest.raises(DatabaseUnavailable):
        still.share({"push": ["a"]})
    assert still.held("push") == {}
    assert share(still, ["a"]) == set()
    still.close()


def test_sqlite_is_for_one_process(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_duties, "_LOCK_PATIENCE_S", 0)
    path = tmp_path_factory.mktemp("one") / "leasehold.sqlite"
    ctx = open_context(Settings(database_url=f"sqlite:///{path}"))
    first, second = Duties(ctx), Duties(ctx)
    first.open()
    with pytest.raises(DatabaseUnavailable, match="Another `leasehold serve`"):
        second.open()
    first.close()
    second.open()
    second.close()
    ctx.db.dispose()


def test_a_bell_is_heard_in_other_processes(processes: list[Context]) -> None:
    here, there, _ = processes
    there.bell.start()
    wait_until(lambda: listeners(here) == 1, PATIENCE_S, "it listens")
    seen = there.bell.count
    begun = time.monotonic()
    here.bell.ring()
    assert there.bell.wait(seen, PATIENCE_S) != seen
    assert time.monotonic() - begun < PATIENCE_S


def due(number: int) -> Due:
    host, ip = f"host-{number}", str(IPAddress(number))
    return Due(host=host, confirmed=number, subnet=7, epoch="e", revision=number + 1, mac=str(Mac(number)), ip=ip)


def test_what_is_due_is_handed_to_whoever_pushes(processes: list[Context]) -> None:
    """Here, and in another process; as much as there is of it."""
    here, there, _ = processes
    taken_here: list[Due] = []
    taken_there: list[Due] = []
    here.bell.hand_due_to(taken_here.extend)
    there.bell.hand_due_to(taken_there.extend)
    here.bell.start()
    there.bell.start()

    def comes_over() -> bool:
        here.bell.due(due(0))
        return due(0) in taken_there

    wait_until(comes_over, PATIENCE_S, "it listens")
    dues = [due(number) for number in range(1, 500)]
    here.bell.due(*dues)
    assert taken_here[-len(dues) :] == dues
    wait_until(lambda: due(499) in taken_there, PATIENCE_S, "all came over")
    assert taken_there[-len(dues) :] == dues


def test_what_is_due_rings_where_the_bell_was_not_started(
    processes: list[Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, *_ = processes
    rung: list[News] = []
    monkeypatch.setattr(here.bell, "ring", rung.append)
    here.bell.due(due(1))
    assert rung == [News.LOG]


def test_a_fact_comes_over_to_whoever_asked(processes: list[Context]) -> None:
    here, there, _ = processes
    here.bell.start()
    there.bell.start()
    since = there.bell.heard(News.FACTS)

    def comes_over() -> bool:
        here.bell.tell(Fact(host="host-a", subnet=7, epoch="e", revision=3))
        return there.bell.told("host-a", 7, "e", since) == 3

    wait_until(comes_over, PATIENCE_S, "it is heard")


def test_a_bell_whose_connection_broke_rings_by_itself_and_listens_again(processes: list[Context]) -> None:
    here, there, _ = processes
    there.bell.start()
    wait_until(lambda: listeners(here) == 1, PATIENCE_S, "it listens")
    with here.db.write() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE query LIKE 'LISTEN%' AND datname = current_database()"
            )
        )
    seen = there.bell.count
    assert there.bell.wait(seen, PATIENCE_S) != seen
    wait_until(lambda: listeners(here) == 1, PATIENCE_S, "it listens again")


def listeners(ctx: Context) -> int:
    with ctx.db.read() as connection:
        query = text(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"
        )
        count: int = connection.execute(query).scalar_one()
        return count


def test_a_broken_connection_is_told_as_a_database_that_is_away_once(processes: list[Context]) -> None:
    ctx, other, _ = processes
    with ctx.db.read() as connection:
        connection.execute(select(1))
    with other.db.write() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        )
    with pytest.raises(DatabaseUnavailable):
        networks.list_networks(ctx)
    assert networks.list_networks(ctx) == []
