"""`explain` on real servers: one sentence for each thing that stands between a guest and its address."""

from collections.abc import Iterator
from typing import Any

import pytest

from e2e.conftest import staged
from lab.lab import Lab
from lab.stage import NETWORK, Stage
from lab.waiting import wait_until

OTHER = "red"


def verdict(stage: Stage, mac: str) -> dict[str, Any]:
    """What is said of the first that has the MAC."""
    found: dict[str, Any] = stage.get("/v1/explain", mac=mac)["items"][0]
    return found


def causes(stage: Stage, mac: str, cause: str) -> str:
    """The sentence, once that is the cause: what servers hear is known at once, what they report a little later."""
    wait_until(lambda: verdict(stage, mac)["verdict"]["cause"] == cause, 30, f"the cause is {cause}")
    return str(verdict(stage, mac)["verdict"]["sentence"])


@pytest.fixture(scope="module")
def stage(module_lab: Lab) -> Iterator[Stage]:
    """One host that serves."""
    with staged(module_lab, hosts=1, servers=1) as stage:
        yield stage


def test_all_is_well(stage: Stage) -> None:
    stage.vnic("well")
    promised = stage.start("well")
    assert "no DISCOVER" in causes(stage, promised["mac"], "silent")
    guest = stage.guest("well")
    assert guest.dhcp() is not None
    assert promised["ip"] in causes(stage, promised["mac"], "leased")
    assert stage.get("/v1/explain", ip=promised["ip"])["items"][0]["verdict"]["has_address"]


def test_who_is_unknown_here_is_told_to_have_asked(stage: Stage) -> None:
    mac = "02:00:00:00:77:01"
    assert "No vNIC has MAC" in causes(stage, mac, "mac-unknown")
    with stage.lab.vm("stranger", NETWORK, mac).raw_client() as client:
        assert client.discover() is None
    wait_until(lambda: "turned away" in causes(stage, mac, "mac-unknown"), 30, "its DISCOVER is reported")


def test_a_vnic_that_is_stopped_or_has_no_subnet(stage: Stage) -> None:
    mac = stage.vnic("idle")["mac"]
    assert "stopped" in causes(stage, mac, "stopped")
    mac = stage.put("/v1/vnics/bare", vm="vm", name="nic1")["mac"]
    causes(stage, mac, "no-subnet")


def test_a_network_that_nobody_serves_and_a_card_that_is_plugged_into_another(stage: Stage) -> None:
    stage.put(f"/v1/networks/{OTHER}", ipam_enabled=True)
    subnet = stage.post("/v1/subnets", network=OTHER, cidr="198.51.100.0/24")["id"]
    mac = stage.vnic("alone", subnet=subnet)["mac"]
    stage.api.post("/v1/vnics/alone/start", json={"wait": "none"})
    assert OTHER in causes(stage, mac, "no-servers")
    stage.lab.network(OTHER)
    host = stage.lab.host("host-red", {OTHER: "198.51.100.2/24"})
    stage.register(host)
    host.install(report_url=stage.control.report_url, token=stage.control.token("host", host.id))
    host.start()
    host.start_agent()
    causes(stage, mac, "silent")
    with stage.lab.vm("misplaced", NETWORK, mac).raw_client() as client:
        assert client.discover() is None
    assert str(stage.subnet) in causes(stage, mac, "other-subnet")


def test_an_offer_that_is_not_taken(stage: Stage) -> None:
    stage.vnic("shy")
    mac = stage.start("shy")["mac"]
    with stage.lab.vm("vm-shy", NETWORK, mac).raw_client() as client:
        assert client.discover() is not None
    assert "answered with OFFER" in causes(stage, mac, "not-taken")


def test_an_address_that_is_somebody_elses_by_force(stage: Stage) -> None:
    stage.vnic("loser")
    promised = stage.start("loser")
    with stage.lab.vm("vm-loser", NETWORK, promised["mac"]).raw_client() as client:
        offer = client.discover()
        assert offer is not None
        assert client.select(offer) is not None
        client.decline(promised["ip"], offer.server or "")
    assert "another machine" in causes(stage, promised["mac"], "declined")


def test_a_lease_that_is_anothers(stage: Stage) -> None:
    stage.vnic("owner")
    promised = stage.start("owner")
    (host,) = stage.hosts
    lease = {"ip-address": promised["ip"], "hw-address": "02:00:00:00:77:02", "subnet-id": stage.subnet}
    host.command("lease4-add", **lease)
    assert "02:00:00:00:77:02" in causes(stage, promised["mac"], "stale-lease")


def test_a_host_that_is_down_and_one_that_comes_back(stage: Stage) -> None:
    stage.vnic("waiting")
    mac = stage.start("waiting")["mac"]
    (host,) = stage.hosts
    host.kill()
    assert host.id in causes(stage, mac, "hosts-down")
    host.start()
    wait_until(lambda: stage.running() == [host.id], 30, "the server runs again")
    causes(stage, mac, "silent")
