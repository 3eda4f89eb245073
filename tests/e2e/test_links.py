"""A host that answers the control plane, and that no guest can hear."""

from collections.abc import Iterator

import httpx
import pytest

from e2e.conftest import staged
from lab.host import Host
from lab.lab import Lab
from lab.stage import NETWORK, Stage
from lab.waiting import wait_until

PATIENCE_S = 60


@pytest.fixture
def stage(lab: Lab) -> Iterator[Stage]:
    """Two hosts, of which one serves."""
    with staged(lab, hosts=2, servers=1) as stage:
        yield stage


def looks(stage: Stage, host: Host) -> None:
    """Until the control plane has asked the host twice anew, so that what it saw was acted upon."""
    seen = {stage.get(f"/v1/hosts/{host.id}")["answered_at"]}

    def is_enough() -> bool:
        seen.add(stage.get(f"/v1/hosts/{host.id}")["answered_at"])
        return len(seen) > 2

    wait_until(is_enough, PATIENCE_S, f"{host.id} is asked")


def why(host: Host) -> str:
    return f"interface {host.interfaces[NETWORK]} has no link"


def told(stage: Stage) -> list[tuple[str, str, str | None]]:
    """What became of servers: the types of events, the hosts, and why."""
    items = stage.get("/v1/events", subject_prefix=f"networks/{NETWORK}/servers/", limit=1000)["items"]
    return [(each["type"], each["data"]["host"], each["data"]["detail"]) for each in items]


def test_a_server_that_loses_its_link_is_replaced_and_not_swapped_back(stage: Stage) -> None:
    (deaf,) = stage.serving()
    (other,) = [host for host in stage.hosts if host is not deaf]
    stage.vnic("before")
    promised = stage.start("before")
    guest = stage.guest("before")
    deaf.cut(NETWORK)
    wait_until(lambda: stage.running() == [other.id], PATIENCE_S, "the other host serves")
    lease = guest.dhcp()
    assert lease is not None
    assert (lease.address, lease.server) == (promised["ip"], other.addresses[NETWORK])
    stage.vnic("after")
    assert [each["host"] for each in stage.start("after", wait="one")["servers"] if each["state"] == "confirmed"] == [
        other.id
    ]
    wait_until(lambda: len(stage.servers()) == 1, PATIENCE_S, "it serves no more")
    assert deaf.status()["managed-subnets"] == []
    shown = stage.get(f"/v1/hosts/{deaf.id}")
    assert (shown["state"], shown["unreachable_reason"]) == ("up", None)
    assert shown["detail"] == f"It does not hear the guests of network {NETWORK} ({why(deaf)})."
    since = [(each["host"], each["state"], each["since"]) for each in stage.servers()]

    deaf.mend(NETWORK)
    wait_until(lambda: stage.get(f"/v1/hosts/{deaf.id}")["detail"] is None, PATIENCE_S, "the link is back")
    looks(stage, deaf)
    assert [(each["host"], each["state"], each["since"]) for each in stage.servers()] == since
    assert told(stage) == [
        ("server.started", deaf.id, None),
        ("server.unreachable", deaf.id, why(deaf)),
        ("server.started", other.id, None),
        ("server.stopped", deaf.id, None),
    ]


def test_the_only_server_says_why_it_is_not_heard_and_serves_again_with_its_link(stage: Stage) -> None:
    (deaf,) = stage.serving()
    (other,) = [host for host in stage.hosts if host is not deaf]
    stage.post(f"/v1/hosts/{other.id}/maintenance")
    stage.vnic("nic")
    mac = stage.get("/v1/vnics/nic")["mac"]
    deaf.cut(NETWORK)
    wait_until(lambda: stage.running() == [], PATIENCE_S, "nobody serves")
    (server,) = stage.servers()
    assert (server["host"], server["state"], server["detail"]) == (deaf.id, "unreachable", why(deaf))
    assert [each["detail"] for each in stage.control.cli("server", "list")] == [why(deaf)]
    with pytest.raises(httpx.HTTPStatusError) as refusal:
        stage.start("nic", wait="one")
    problem = refusal.value.response.json()
    assert (problem["code"], why(deaf) in problem["detail"]) == ("not-confirmed", True)
    verdict = stage.get("/v1/explain", mac=mac)["items"][0]["verdict"]
    assert (verdict["cause"], why(deaf) in verdict["sentence"]) == ("hosts-down", True)
    assert deaf.status()["managed-subnets"] == [stage.subnet]

    deaf.mend(NETWORK)
    stage.wait_for_servers(1)
    promised = stage.start("nic", wait="one")
    lease = stage.guest("nic").dhcp()
    assert lease is not None
    assert (lease.address, lease.server) == (promised["ip"], deaf.addresses[NETWORK])
    assert told(stage)[-1] == ("server.recovered", deaf.id, None)
