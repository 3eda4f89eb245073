"""Packet threads side by side, each with what it keeps from packet to packet."""

from hook_in_kea.conftest import Served
from lab.waiting import wait_until

_CLIENTS = 100
_FIRST = 0x02000000F000


def test_many_clients_at_once_get_their_own_and_are_told_so(served: Served) -> None:
    wanted = {(_FIRST + number).to_bytes(6, "big").hex(":"): f"192.0.2.{130 + number}" for number in range(_CLIENTS)}
    served.change(7, wanted)
    load = served.lab.perfdhcp("blue", "192.0.2.3/24")
    result = load.run(rate=500, clients=_CLIENTS, seconds=4, first_mac=min(wanted))
    assert result.request_ack is not None
    assert result.request_ack.received > _CLIENTS
    answer = served.host.command("lease4-get-all", subnets=[7])
    leases = {lease["hw-address"]: lease["ip-address"] for lease in answer["arguments"]["leases"]}
    assert {mac: leases.get(mac) for mac in wanted} == wanted
    name = "pkt4-ack-sent"
    sent = served.host.command("statistic-get", name=name)["arguments"][name][0][0]

    def granted() -> list[tuple[str, str]]:
        types = ("lease.assigned", "lease.renewed")
        return [(event["mac"], event["ip"]) for event in served.events() if event["type"] in types]

    wait_until(lambda: len(granted()) >= sent, 20, "an event for each acknowledgement")
    assert len(granted()) == sent
    assert {pair for pair in granted() if pair[0] in wanted} == set(wanted.items())
    served.change(7, unset=tuple(wanted))
