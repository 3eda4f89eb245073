"""A virtual machine: a network namespace with `eth0`, and busybox's DHCP client."""

import json
import math
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lab.dhcp import RawClient
from lab.namespace import Namespace
from lab.process import end
from lab.waiting import wait_until

INTERFACE = "eth0"
_ASKED_FOR = ("subnet", "router", "dns", "domain", "ntpsrv")
_SCRIPT = Path(__file__).with_name("udhcpc_script.py")


@dataclass(frozen=True, kw_only=True)
class Lease:
    """What a DHCP client was given. Addresses are dotted text; `router` and `domain` are None where none was sent."""

    address: str
    prefix_length: int
    router: str | None
    dns: tuple[str, ...]
    ntp: tuple[str, ...]
    domain: str | None
    server: str
    lease_time_s: int

    @classmethod
    def from_event(cls, event: Mapping[str, str]) -> Self:
        """The lease in a `bound` or `renew` event of udhcpc's."""
        return cls(
            address=event["ip"],
            prefix_length=int(event["mask"]),
            router=next(iter(event.get("router", "").split()), None),
            dns=tuple(event.get("dns", "").split()),
            ntp=tuple(event.get("ntpsrv", "").split()),
            domain=event.get("domain"),
            server=event["serverid"],
            lease_time_s=int(event["lease"]),
        )


class Vm:
    """Made by `Lab.vm`. Its `eth0` is on one network and has the MAC `mac`."""

    def __init__(self, name: str, namespace: Namespace, mac: str, directory: Path) -> None:
        self.name = name
        self.namespace = namespace
        self.mac = mac
        self.directory = directory
        self._events = directory / "events.jsonl"
        self._told_before = 0
        self._client: subprocess.Popen[bytes] | None = None

    def dhcp(self, timeout_s: float = 10) -> Lease | None:
        """Start as a guest does that has just booted: the lease that it gets, or None after `timeout_s` seconds.

        One DISCOVER a second, so that whole seconds are waited. The address is configured on `eth0` afterwards, and no
        client is left running.
        """
        tries = math.ceil(timeout_s)
        process = self._start("-q", "-n", "-t", str(tries), "-T", "1")
        try:
            process.wait(tries + 10)
        finally:
            if process.poll() is None:
                end(process, signal.SIGKILL)
        bound = [event for event in self.events() if event["event"] == "bound"]
        return Lease.from_event(bound[-1]) if bound else None

    def start_client(self) -> None:
        """Start a client that goes on: it asks until it is answered, and renews as leases want it."""
        if self._client is not None:
            raise RuntimeError(f"{self.name} has a running DHCP client; stop_client() first")
        self._client = self._start("-t", "3", "-T", "1", "-A", "1")

    def stop_client(self) -> None:
        """End the client without releasing; harmless without one."""
        if self._client is not None:
            end(self._client)
            self._client = None

    def renew(self) -> int:
        """Have the running client renew its lease now. The number of events before, for `wait_for`'s `after`."""
        so_far = len(self.events())
        self._signal(signal.SIGUSR1)
        return so_far

    def release(self) -> None:
        """Have the running client release its lease; it then rests until `renew`."""
        self._signal(signal.SIGUSR2)

    def events(self) -> list[dict[str, str]]:
        """What the client last started has told: `event` is deconfig, bound, renew, nak or leasefail (udhcpc(8))."""
        if not self._events.exists():
            return []
        return [json.loads(line) for line in self._events.read_text().splitlines()[self._told_before :]]

    def wait_for(self, event: str, timeout_s: float = 10, after: int = 0) -> dict[str, str]:
        """The first `event` past the first `after` events; raises TimeoutError."""

        def seen() -> dict[str, str] | None:
            return next((told for told in self.events()[after:] if told["event"] == event), None)

        found = wait_until(seen, timeout_s, f"{event} at the DHCP client of {self.name}")
        assert found is not None
        return found

    def wait_for_lease(self, timeout_s: float = 10, after: int = 0) -> Lease:
        """The lease that the running client is bound to first, past the first `after` events; raises TimeoutError."""
        return Lease.from_event(self.wait_for("bound", timeout_s, after))

    def addresses(self) -> list[str]:
        """The IPv4 addresses on `eth0`."""
        links = json.loads(self.namespace.ip("-json", "-4", "address", "show", "dev", INTERFACE))
        return [address["local"] for link in links for address in link.get("addr_info", [])]

    def raw_client(self, mac: str | None = None) -> RawClient:
        """For single DHCP messages from here, with this guest's MAC, or as another client."""
        return RawClient(self.namespace, INTERFACE, mac or self.mac)

    def stop(self) -> None:
        """End what runs here."""
        self.stop_client()

    def _start(self, *options: str) -> subprocess.Popen[bytes]:
        self._told_before += len(self.events())
        asked_for = [argument for option in _ASKED_FOR for argument in ("-O", option)]
        command: list[str | Path] = ["udhcpc", "-f", "-i", INTERFACE, "-s", _SCRIPT, *asked_for, *options]
        environment = os.environ | {"EVENTS": str(self._events)}
        return self.namespace.start(command, self.directory / "udhcpc.log", environment)

    def _signal(self, number: int) -> None:
        if self._client is None:
            raise RuntimeError(f"{self.name} has no running DHCP client; start_client() first")
        self._client.send_signal(number)
