"""Hosts that die, are cut off, are declared dead, rest, and come back; and a database of yesterday."""

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from ipaddress import IPv4Address

import httpx
import pytest

from e2e.conftest import staged
from lab.capture import Capture
from lab.dhcp import Type
from lab.host import Host
from lab.lab import Lab
from lab.stage import NETWORK, Stage
from lab.vm import Vm
from lab.waiting import wait_until

PATIENCE_S = 60
CROWD = 200
HOLD_DOWN_S = 6


@pytest.fixture(scope="module")
def trio(module_lab: Lab) -> Iterator[Stage]:
    """Three hosts, two of which serve: shared by the tests here, which leave them well."""
    with staged(module_lab, hosts=3, servers=2, host_hold_down_s=HOLD_DOWN_S) as stage:
        yield stage


def die(host: Host) -> None:
    """As by a loss of power: its processes, and its links."""
    host.cut_management()
    host.cut(NETWORK)
    host.kill()
    host.stop_agent()


def return_(host: Host) -> None:
    """As after a boot."""
    host.mend_management()
    host.mend(NETWORK)
    host.start()
    host.start_agent()


class Renewing:
    """Guests that renew without a pause, each in a thread, until `end`: what was wrong is in `wrong`."""

    def __init__(self, segment: Vm, leases: dict[str, str]) -> None:
        self.wrong: list[str] = []
        self.renewed = 0
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._renew, args=(segment, *each)) for each in leases.items()]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _renew(self, segment: Vm, mac: str, address: str) -> None:
        with segment.raw_client(mac) as client:
            while not self._ending.is_set():
                answer = client.renew(address, silence_s=5)
                if answer is None or (answer.type, answer.yiaddr) != (Type.ACK, address):
                    self.wrong.append(f"{mac} asked for {address} and got {answer}")
                self.renewed += 1
                self._ending.wait(0.1)


def told(stage: Stage, kind: str, host: str) -> datetime | None:
    """When the last event of this type was of this host."""
    items = stage.get("/v1/events", type=kind, limit=1000)["items"]
    times = [datetime.fromisoformat(each["time"]) for each in items if each["data"]["host"] == host]
    return times[-1] if times else None


def owners(capture: Capture) -> dict[str, set[str]]:
    """The MACs that each address was acknowledged to on the wire."""
    found = defaultdict(set)
    for message in capture.messages():
        if not message.request and message.type is Type.ACK:
            found[message.yiaddr].add(message.mac)
    return dict(found)


def acquire(segment: Vm, mac: str) -> str:
    """A guest's DORA; the address that it got."""
    with segment.raw_client(mac) as client:
        offer = client.discover(silence_s=5)
        assert offer is not None
        answer = client.request(offer.yiaddr, server=offer.server, xid=offer.xid, silence_s=5)
    assert answer is not None
    assert answer.type is Type.ACK
    return answer.yiaddr


def start_all(stage: Stage, names: Sequence[str]) -> dict[str, str]:
    """Starts vNICs, several at a time; the address of each MAC."""
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda name: stage.start(name, wait="one"), names))
    return {each["mac"]: each["ip"] for each in answers}


def starts(stage: Stage, name: str) -> bool:
    """Whether a start with all servers succeeds."""
    try:
        return stage.start(name)["ip"] is not None
    except httpx.HTTPStatusError as error:
        if error.response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            raise
        return False


def address(number: int) -> str:
    """The address at a place in 198.51.100.0/22."""
    return str(IPv4Address("198.51.100.0") + number)


def since(stage: Stage) -> dict[str, str]:
    return {each["host"]: each["since"] for each in stage.servers() if each["state"] == "running"}


def serves(host: Host, subnet: int) -> bool:
    return subnet in host.status()["managed-subnets"]


def drain_count(stage: Stage, host: Host) -> int:
    """How many draining addresses wait for the host."""
    count: int = stage.get(f"/v1/hosts/{host.id}")["holds_up"]["count"]
    return count


def is_held_back(stage: Stage, host: Host) -> bool:
    return stage.get(f"/v1/hosts/{host.id}")["held_back_until"] is not None


def looks(stage: Stage) -> None:
    """Until the control plane has asked every host twice anew, so that what it saw was acted upon."""
    seen: dict[str, set[str]] = {host.id: set() for host in stage.hosts}

    def is_enough() -> bool:
        for name, instants in seen.items():
            instants.add(stage.get(f"/v1/hosts/{name}")["answered_at"])
        return all(len(instants) > 2 for instants in seen.values())

    wait_until(is_enough, PATIENCE_S, "every host is asked")


def wait_for_state(stage: Stage, host: Host, state: str) -> None:
    wait_until(lambda: stage.get(f"/v1/hosts/{host.id}")["state"] == state, PATIENCE_S, f"{host.id} is {state}")


def test_after_a_crash_of_everything_the_same_servers_serve(trio: Stage) -> None:
    stage = trio
    before = since(stage)
    stage.vnic("crash")
    promised = stage.start("crash")
    stage.control.kill()
    for host in stage.hosts:
        host.kill()
        host.stop_agent()
    for host in reversed(stage.hosts):
        host.start()
        host.start_agent()
    assert acquire(stage.guest("crash", promised["mac"]), promised["mac"]) == promised["ip"]
    stage.control.start()
    stage.vnic("after")
    wait_until(lambda: starts(stage, "after"), PATIENCE_S, "all servers confirm")
    for host in stage.hosts:
        wait_for_state(stage, host, "up")
    assert since(stage) == before


def test_a_dead_host_is_replaced_at_once_and_not_swapped_back(trio: Stage) -> None:
    stage = trio
    other, dead = stage.serving()
    (idle,) = [host for host in stage.hosts if host not in (other, dead)]
    promised = {}
    for name in ("a", "b", "c"):
        stage.vnic(name)
        promised[name] = stage.start(name)
    segment = stage.guest("c")
    for each in promised.values():
        acquire(segment, each["mac"])
    capture = stage.lab.capture(NETWORK)
    running = {each["mac"]: each["ip"] for name, each in promised.items() if name != "c"}
    guests = Renewing(segment, running)
    try:
        die(dead)
        wait_until(lambda: idle.id in stage.running(), PATIENCE_S, "the third host serves")
        noticed, replaced = told(stage, "server.unreachable", dead.id), told(stage, "server.started", idle.id)
        assert noticed is not None
        assert replaced is not None
        assert (replaced - noticed).total_seconds() <= 2
        stage.stop("c")
        assert drain_count(stage, dead) == 1
        wait_until(lambda: set(since(stage)) == {other.id, idle.id}, PATIENCE_S, "these two serve")
        before = since(stage)
        return_(dead)
        wait_for_state(stage, dead, "up")
        wait_until(lambda: len(stage.servers()) == 2, PATIENCE_S, "it is no server any more")
        assert dead.status()["managed-subnets"] == []
        assert since(stage) == before
        assert is_held_back(stage, dead)
        wait_until(lambda: not is_held_back(stage, dead), PATIENCE_S, "it could be chosen anew")
        looks(stage)
        assert {each["host"] for each in stage.servers()} == {other.id, idle.id}
        assert dead.status()["managed-subnets"] == []
        assert since(stage) == before
        with segment.raw_client(promised["c"]["mac"]) as client:
            refusal = client.renew(promised["c"]["ip"])
            assert refusal is None or refusal.type is Type.NAK
    finally:
        guests.end()
    assert guests.wrong == []
    assert guests.renewed > 0
    answers = [each for each in capture.messages() if not each.request]
    assert not [each for each in answers if each.type is Type.NAK and each.mac in running]
    assert all(len(macs) == 1 for macs in owners(capture).values())


def test_no_address_is_at_two_macs_while_a_host_is_cut_off_and_fencing_frees_what_it_holds_up(trio: Stage) -> None:
    """The subnet is so small that addresses would have to be reused."""
    stage = trio
    near, far = stage.serving()
    before_free = 20
    subnet = stage.post(
        "/v1/subnets",
        network=NETWORK,
        cidr="198.51.100.0/22",
        ranges=[{"from": "198.51.100.1", "to": address(2 * CROWD + before_free)}],
    )["id"]
    wait_until(lambda: serves(near, subnet) and serves(far, subnet), PATIENCE_S, "both serve it")
    crowds = [[f"{crowd}-{number}" for number in range(CROWD)] for crowd in "xyz"]
    stage.post(
        "/v1/vnics/bulk",
        vnics=[
            {"id": name, "vm": f"vm-{name}", "name": "nic1", "subnet": subnet} for crowd in crowds for name in crowd
        ],
    )
    segment = stage.lab.vm("segment", NETWORK, "02:ff:00:00:00:01")
    capture = stage.lab.capture(NETWORK)

    released = start_all(stage, crowds[0])
    for mac in released:
        acquire(segment, mac)
    far.cut_management()
    wait_for_state(stage, far, "down")
    with ThreadPoolExecutor(8) as callers:
        list(callers.map(stage.stop, crowds[0]))
    taken = start_all(stage, crowds[1])
    assert not set(taken.values()) & set(released.values())
    for mac in taken:
        acquire(segment, mac)
    for mac, ip in released.items():
        with segment.raw_client(mac) as client:
            client.send(client.message(Type.REQUEST, ciaddr=ip))
    usage = stage.get(f"/v1/subnets/{subnet}")["usage"]
    assert (usage["draining"], usage["cooling"]) == (CROWD, 0)
    shown = stage.get(f"/v1/hosts/{far.id}")["holds_up"]
    assert shown["count"] == CROWD
    assert {each["ip"] for each in shown["first"]} <= set(released.values())
    with pytest.raises(httpx.HTTPStatusError) as refusal:
        start_all(stage, crowds[2])
    assert refusal.value.response.json()["code"] == "subnet-exhausted"

    die(far)
    assert stage.post(f"/v1/hosts/{far.id}/fence")["state"] == "fenced"
    assert drain_count(stage, far) == 0
    wait_until(lambda: stage.get(f"/v1/subnets/{subnet}")["usage"]["free"] >= before_free, PATIENCE_S, "they are free")
    reused = start_all(stage, crowds[2])
    assert set(reused.values()) & set(released.values())
    on_wire = owners(capture)
    assert on_wire.keys() == {*released.values(), *taken.values()}
    assert [ip for ip, macs in on_wire.items() if len(macs) > 1] == []

    return_(far)
    wait_for_state(stage, far, "up")
    assert far.status()["managed-subnets"] == []
    assert near.id in stage.running()
    for mac, ip in list(reused.items())[:5]:
        assert acquire(segment, mac) == ip
