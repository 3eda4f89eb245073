"""Two workers on one PostgreSQL database, in the test's own process."""

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from sqlalchemy import text

from lab import Lab
from lab.postgres import Postgres
from leasehold.domain.values import Host
from leasehold.kea.commands import Commands
from leasehold.service.context import Context, open_context
from leasehold.service.duties import holders
from leasehold.store.database import DutyLost, FencedDatabase
from leasehold.worker import Worker
from worker.conftest import site_on
from worker.site import PATIENCE_S, Site


@pytest.fixture
def site(lab: Lab, postgres_server: Postgres) -> Iterator[Site]:
    """On PostgreSQL; without hosts yet, and its worker not begun."""
    yield from site_on(lab, postgres_server.fresh_database())


@pytest.fixture
def other(site: Site) -> Iterator[Worker]:
    """A second worker, not begun."""
    ctx = open_context(site.ctx.settings)
    worker = Worker(ctx)
    yield worker
    worker.stop()
    ctx.db.dispose()


def end_claims(ctx: Context) -> None:
    """Ends the sessions in which duties are claimed, as PostgreSQL does it with those of processes that stand still."""
    with ctx.db.write() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' "
                "AND pid <> pg_backend_pid()"
            )
        )


def test_a_manager_whose_term_is_over_pushes_no_configuration(
    site: Site, other: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is held up right before it would, until another one has managed."""
    arrived, go_on = threading.Event(), threading.Event()
    sets: list[str] = []
    lost: list[DutyLost] = []
    test_of, set_of, require_of = Commands.config_test, Commands.config_set, FencedDatabase.require_duty

    def config_test(self: Commands, host: Host, configuration: Mapping[str, Any]) -> None:
        test_of(self, host, configuration)
        if not arrived.is_set():
            arrived.set()
            assert go_on.wait(PATIENCE_S)

    def config_set(self: Commands, host: Host, configuration: Mapping[str, Any]) -> None:
        sets.append(host.id)
        set_of(self, host, configuration)

    def require_duty(self: FencedDatabase) -> None:
        try:
            require_of(self)
        except DutyLost as error:
            lost.append(error)
            raise

    monkeypatch.setattr(Commands, "config_test", config_test)
    monkeypatch.setattr(Commands, "config_set", config_set)
    monkeypatch.setattr(FencedDatabase, "require_duty", require_duty)
    site.add_host("host-a")
    site.start()
    site.subnet()
    assert arrived.wait(PATIENCE_S)
    other.start()
    site.until(lambda: takes_over(site), "the other one manages")
    site.wait_for(host_a="running")
    assert sets == ["host-a"]
    go_on.set()
    site.until(lambda: lost, "whoever was held up sees that its term is over")
    assert sets == ["host-a"]


def takes_over(site: Site) -> bool:
    """Ends the first one's session until it is the other's turn: both try to have it again."""
    term = next(each.term for each in holders(site.ctx) if each.duty == "manage all networks")
    if term == 1:
        end_claims(site.ctx)
    return term > 1


def test_each_host_is_pushed_to_by_one_of_them(site: Site, other: Worker) -> None:
    for name in ("host-a", "host-b"):
        site.add_host(name)
    site.subnet()
    site.start()
    other.start()
    site.until(
        lambda: {"push host-a", "push host-b"} <= {each.duty for each in holders(site.ctx)}, "both are pushed to"
    )
    site.wait_for(host_a="running")
    assert [each.state for each in site.started(1, wait="all").servers] == ["confirmed"]
    site.until(lambda: is_shared_out(site, other), "each has one")


def is_shared_out(site: Site, other: Worker) -> bool:
    assert site.worker is not None
    parts = [set(each._duties.held("push")) for each in (site.worker, other)]
    return sorted(map(len, parts)) == [1, 1] and parts[0] | parts[1] == {"host-a", "host-b"}
