"""Whatever is killed, and whenever: each lease that was seen on the wire is told to who subscribed."""

import random
from functools import partial

from lab.dhcp import RawClient, Type
from lab.stage import NETWORK, Stage
from lab.waiting import wait_until

_GUESTS = 16
_REPORTED_S = 120


def has_address(client: RawClient) -> bool:
    offer = client.discover()
    answer = None if offer is None else client.select(offer)
    return answer is not None and answer.type == Type.ACK


def test_every_lease_on_the_wire_reaches_a_subscriber_that_was_down(single: Stage) -> None:
    """It refuses everything while Kea and the control plane are killed at random, Kea right after an ACK."""
    stage, (host,) = single, single.hosts
    receiver = stage.subscribe()
    macs = []
    for number in range(_GUESTS):
        stage.vnic(f"g{number}")
        macs.append(stage.start(f"g{number}")["mac"])
    capture = stage.lab.capture(NETWORK)
    vm = stage.lab.vm("guests", NETWORK, macs[0])
    receiver.answer_with(*[503] * 10_000)
    dice = random.Random(7)
    for mac in macs:
        with vm.raw_client(mac) as client:
            wait_until(partial(has_address, client), 30, f"{mac} has its address")
            fate = dice.choice(["kea", "control plane", "both", "none"])
            if fate in ("kea", "both"):
                host.kill()
            if fate in ("control plane", "both"):
                stage.control.kill()
                stage.control.start()
            if fate in ("kea", "both"):
                host.start()
    receiver.answer_with()

    def granted() -> set[tuple[str, str]]:
        return {(each.mac, each.yiaddr) for each in capture.messages() if not each.request and each.type == Type.ACK}

    def told() -> set[tuple[str, str]]:
        leases = [each["data"] for each in receiver.events if each["type"] in ("lease.assigned", "lease.renewed")]
        return {(each["mac"], each["ip"]) for each in leases}

    assert {mac for mac, _ in granted()} == set(macs)
    wait_until(lambda: granted() <= told(), _REPORTED_S, "every lease on the wire is told")
