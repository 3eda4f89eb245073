"""A real Kea with the hook and nothing else: no control plane, so that events stay in the spool, where tests read them.

Subnet 7 is on the network `blue`; 8 and 9 are one shared network on `green`; 10, on `red`, has leases of a second.
"""

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lab import Host, Lab
from lab.dhcp import Message, RawClient, Type
from lab.waiting import wait_until

MANAGED: dict[str, Any] = {"user-context": {"leasehold": {}}}
ADDRESSES = {"blue": "192.0.2.2/24", "green": "198.51.100.2/24", "red": "10.3.0.2/24"}
_SOON_S = 20


class Served:
    """The server, and what its clients and its spool say."""

    def __init__(self, lab: Lab, host: Host) -> None:
        self.host = host
        self.lab = lab
        self._guests = {network: lab.vm(f"guest-{network}", network, "02:00:00:00:00:00") for network in ADDRESSES}
        self._numbers = itertools.count(1)
        self._revisions: dict[int, int] = {}

    def mac(self) -> str:
        """A MAC that no other test has."""
        return (0x020000000000 + next(self._numbers)).to_bytes(6, "big").hex(":")

    def change(
        self, subnet: int, reservations: dict[str, str] | None = None, unset: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """`leasehold-apply` on top of what was applied before; `reservations` maps MACs to addresses."""
        base = self._revisions.get(subnet, 0)
        answer = self.host.command(
            "leasehold-apply",
            subnet_id=subnet,
            epoch="test",
            base=base,
            revision=base + 1,
            set=[{"hw-address": mac, "ip-address": ip} for mac, ip in (reservations or {}).items()],
            unset=list(unset),
        )
        assert answer["result"] == 0, answer
        self._revisions[subnet] = base + 1
        return answer

    @contextmanager
    def client(self, mac: str, network: str = "blue") -> Iterator[RawClient]:
        """A client that says what the test says."""
        with self._guests[network].raw_client(mac) as client:
            yield client

    def bound(self, client: RawClient) -> Message:
        """A whole exchange; its ACK."""
        offer = client.discover(_SOON_S)
        assert offer is not None
        answer = client.select(offer, _SOON_S)
        assert answer is not None
        assert answer.type is Type.ACK
        return answer

    def events(self, address: str | None = None) -> list[dict[str, Any]]:
        """All events so far, or those of an address."""
        paths = sorted(
            (self.host.state_directory / "spool").glob("*.ndjson"), key=lambda path: int(path.stem.split("-")[-1])
        )
        every = [
            json.loads(line)
            for path in paths
            for line in path.read_bytes().splitlines(keepends=True)
            if line.endswith(b"\n")
        ]
        return [event for event in every if address is None or event.get("ip") == address]

    def told(self, address: str) -> list[str]:
        """The types of the events of an address, without `lease.`."""
        return [event["type"].removeprefix("lease.") for event in self.events(address)]

    def wait_until_told(self, address: str, *types: str) -> None:
        """Returns when the events of an address are these, in this order."""
        wait_until(lambda: self.told(address) == list(types), _SOON_S, f"{types} of {address}")

    def settle(self) -> None:
        """Returns when everything that has happened until now is told: events are told in their order."""
        with self.client(mac := self.mac()) as client:
            self.change(7, {mac: "192.0.2.250"})
            self.bound(client)
            told = len(self.told("192.0.2.250"))
            self.bound(client)
            wait_until(lambda: len(self.told("192.0.2.250")) > told, _SOON_S, "the last event")
            self.change(7, unset=(mac,))


@pytest.fixture(scope="module")
def served(module_lab: Lab) -> Served:
    for network in ADDRESSES:
        module_lab.network(network)
    host = module_lab.host("host-a", ADDRESSES)

    def configure(dhcp4: dict[str, Any]) -> None:
        dhcp4["decline-probation-period"] = 1
        dhcp4["expired-leases-processing"] = {
            "reclaim-timer-wait-time": 1,
            "flush-reclaimed-timer-wait-time": 1,
            "hold-reclaimed-time": 1,
        }
        dhcp4["shared-networks"] = [
            {
                "name": "green",
                "interface": host.interfaces["green"],
                "subnet4": [
                    {"id": 8, "subnet": "198.51.100.0/24", **MANAGED},
                    {"id": 9, "subnet": "203.0.113.0/24", **MANAGED},
                ],
            }
        ]

    host.install(
        parameters={"rejection-window": 1},
        subnets=[
            {
                "id": 7,
                "subnet": "192.0.2.0/24",
                "valid-lifetime": 600,
                **MANAGED,
                "reservations": [{"hw-address": "02:00:00:00:ff:01", "ip-address": "192.0.2.99"}],
            },
            {"id": 10, "subnet": "10.3.0.0/24", "valid-lifetime": 1, "interface": host.interfaces["red"], **MANAGED},
        ],
        change=configure,
    )
    host.start()
    return Served(module_lab, host)
