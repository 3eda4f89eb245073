"""Events that are lost with a Kea are derived from its leases, on a real one."""

import shutil
from typing import Any

from lab.stage import Stage
from lab.waiting import wait_until


def leases(stage: Stage) -> dict[str, str]:
    """The states by address."""
    return {each["ip"]: each["state"] for each in stage.get("/v1/leases")["items"]}


def events(stage: Stage, kind: str, ip: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stage.get("/v1/events", type=kind, ip=ip)["items"]
    return found


def test_leases_whose_events_were_lost_are_told_all_the_same(single: Stage) -> None:
    """Kea is killed, and its spool goes, while the control plane is away: what it granted and what it was given back
    then is nowhere but in its leases."""
    stage, (host,) = single, single.hosts
    for name in ("kept", "gone", "new"):
        stage.vnic(name)
        stage.start(name)
    kept, gone, new = (stage.guest(name) for name in ("kept", "gone", "new"))
    addresses = {}
    for guest in (kept, gone):
        guest.start_client()
        addresses[guest] = str(guest.wait_for_lease().address)
    wait_until(lambda: sorted(leases(stage).values()) == ["assigned"] * 2, 20, "both leases are known")
    stage.control.kill()
    gone.release()
    new.start_client()
    addresses[new] = str(new.wait_for_lease().address)
    host.kill()
    shutil.rmtree(host.state_directory / "spool")
    host.start()
    stage.control.start()
    expected = {addresses[kept]: "assigned", addresses[gone]: "released", addresses[new]: "assigned"}
    wait_until(lambda: leases(stage) == expected, 40, "the leases are as they are in Kea")
    (granted,) = events(stage, "lease.assigned", addresses[new])
    (released,) = events(stage, "lease.released", addresses[gone])
    assert granted["data"]["derived"]
    assert released["data"]["derived"]
    assert granted["data"]["vnic"] == "new"
    assert not any(each["data"].get("derived") for each in events(stage, "lease.assigned", addresses[kept]))
