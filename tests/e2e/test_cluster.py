"""Several instances over PostgreSQL: two APIs and two workers, of which any may be killed or stand still."""

from collections.abc import Iterator

import pytest

from e2e.conftest import staged_cluster
from lab.control_plane import Program
from lab.lab import Lab
from lab.postgres import Postgres
from lab.stage import Stage
from lab.waiting import wait_until

PATIENCE_S = 30


@pytest.fixture(scope="module")
def cluster(module_lab: Lab, postgres_server: Postgres) -> Iterator[Stage]:
    """Two hosts that both serve; what a test breaks, it mends."""
    with staged_cluster(module_lab, postgres_server, hosts=2, servers=2, duty_timeout_s=2) as stage:
        yield stage


def manager(stage: Stage) -> Program:
    found = stage.control.manager()
    assert found is not None
    return found


def since(stage: Stage) -> dict[str, str]:
    return {each["host"]: each["since"] for each in stage.servers()}


def test_what_one_api_promised_is_confirmed_by_both_servers_and_known_to_the_other_api(cluster: Stage) -> None:
    cluster.vnic("a")
    answer = cluster.start("a", wait="all")
    assert [each["state"] for each in answer["servers"]] == ["confirmed", "confirmed"]
    with cluster.control.api(index=1) as other:
        assert other.get("/v1/vnics/a").json()["ip"] == answer["ip"]
    lease = cluster.guest("a").dhcp()
    assert lease is not None
    assert lease.address == answer["ip"]


def test_another_worker_takes_over_from_a_manager_that_was_killed_and_swaps_no_server(cluster: Stage) -> None:
    before, killed = since(cluster), manager(cluster)
    killed.kill()
    wait_until(lambda: cluster.control.manager() not in (None, killed), PATIENCE_S, "the other worker manages")
    cluster.vnic("b")
    assert [each["state"] for each in cluster.start("b", wait="all")["servers"]] == ["confirmed", "confirmed"]
    assert since(cluster) == before
    killed.start()


def test_another_worker_takes_over_from_a_manager_that_stands_still(cluster: Stage) -> None:
    before, stalled = since(cluster), manager(cluster)
    stalled.stall()
    wait_until(lambda: cluster.control.manager() not in (None, stalled), PATIENCE_S, "the other worker manages")
    cluster.vnic("c")
    wait_until(lambda: set(since(cluster)) == set(before), PATIENCE_S, "the servers stay")
    stalled.go_on()
    assert [each["state"] for each in cluster.start("c", wait="all")["servers"]] == ["confirmed", "confirmed"]
    assert since(cluster) == before
    assert manager(cluster) is not stalled
