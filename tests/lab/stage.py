"""A laboratory with a control plane and hosts that serve one network: where demo and end-to-end tests begin."""

from dataclasses import dataclass, field
from typing import Any

import httpx

from lab.control_plane import ControlPlane
from lab.host import Host
from lab.lab import Lab
from lab.receiver import WebhookReceiver
from lab.vm import Vm
from lab.waiting import wait_until

NETWORK = "blue"
SUBNET = {
    "network": NETWORK,
    "cidr": "192.0.2.0/24",
    "gateway": "192.0.2.254",
    "dns": ["192.0.2.53", "198.51.100.53"],
    "ntp": ["192.0.2.123"],
    "domain": "blue.example",
    "lease_time": 600,
    "ranges": [{"from": "192.0.2.10", "to": "192.0.2.199"}],
}
_SETTLE_S = 30


@dataclass
class Stage:
    """The parts, and the calls of an engine. They raise httpx.HTTPStatusError for an answer that is an error."""

    lab: Lab
    control: ControlPlane
    api: httpx.Client
    hosts: list[Host] = field(default_factory=list)
    subnet: int = 0

    def __post_init__(self) -> None:
        self.lab.network(NETWORK)

    def add_hosts(self, count: int) -> None:
        """Hosts with Kea, its Control Agent and the hook, known to the control plane, with tokens to report with."""
        for _ in range(count):
            name = f"host-{chr(ord('a') + len(self.hosts))}"
            host = self.lab.host(name, {NETWORK: f"192.0.2.{len(self.hosts) + 1}/24"})
            self.hosts.append(host)
            self.register(host)
            host.install(report_url=self.control.report_url, token=self.control.token("host", name))
            host.start()
            host.start_agent()

    def register(self, host: Host) -> None:
        """Makes the host known to the control plane."""
        attached = {
            network: {"interface": host.interfaces[network], "address": host.addresses[network]}
            for network in host.interfaces
        }
        self.put(
            f"/v1/hosts/{host.id}",
            control_url=host.control_url,
            username=host.username,
            password=host.password,
            networks=attached,
        )

    def serve(self, servers: int) -> None:
        """IPAM on the network with so many servers, and a subnet; returns when they run."""
        self.put(f"/v1/networks/{NETWORK}", ipam_enabled=True, ipam_servers=servers)
        self.subnet = self.post("/v1/subnets", **SUBNET)["id"]
        self.wait_for_servers(servers)

    def wait_for_servers(self, count: int) -> None:
        """Until so many IPAM servers run."""
        wait_until(lambda: len(self.running()) >= count, _SETTLE_S, f"{count} IPAM servers run")

    def running(self) -> list[str]:
        """Ids of the hosts whose IPAM server runs."""
        return [each["host"] for each in self.servers() if each["state"] == "running"]

    def servers(self) -> list[dict[str, Any]]:
        """The network's IPAM servers."""
        listed: list[dict[str, Any]] = self.get(f"/v1/networks/{NETWORK}/servers")["items"]
        return listed

    def serving(self) -> list[Host]:
        """The hosts that serve the network."""
        chosen = self.running()
        return [host for host in self.hosts if host.id in chosen]

    def vnic(self, name: str, **fields: Any) -> dict[str, Any]:
        """A new vNIC on the subnet."""
        return self.put(f"/v1/vnics/{name}", **{"vm": f"vm-{name}", "name": "nic1", "subnet": self.subnet} | fields)

    def start(self, name: str, wait: str = "all") -> dict[str, Any]:
        """Starts the vNIC; returns when `wait` of the servers have confirmed."""
        return self.post(f"/v1/vnics/{name}/start", wait=wait)

    def stop(self, name: str) -> dict[str, Any]:
        """Stops the vNIC."""
        return self.post(f"/v1/vnics/{name}/stop")

    def guest(self, name: str, mac: str | None = None) -> Vm:
        """The vNIC's virtual machine, switched on. With the control plane away, say its MAC."""
        return self.lab.vm(f"vm-{name}", NETWORK, mac or self.get(f"/v1/vnics/{name}")["mac"])

    def subscribe(self) -> WebhookReceiver:
        """A webhook receiver that is subscribed to everything, and believes only what is signed."""
        receiver = self.lab.receiver()
        receiver.expect(self.post("/v1/webhooks", url=receiver.url)["secret"])
        return receiver

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """The answer to a GET."""
        return _checked(self.api.get(path, params=query))

    def put(self, path: str, **body: Any) -> dict[str, Any]:
        """The answer to a PUT."""
        return _checked(self.api.put(path, json=body))

    def patch(self, path: str, **body: Any) -> dict[str, Any]:
        """The answer to a PATCH."""
        return _checked(self.api.patch(path, json=body))

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        """The answer to a POST."""
        return _checked(self.api.post(path, json=body))


def _checked(response: httpx.Response) -> dict[str, Any]:
    if response.is_error:
        raise httpx.HTTPStatusError(
            f"{response.request.method} {response.request.url.path} answered {response.status_code}: {response.text}",
            request=response.request,
            response=response,
        )
    answer: dict[str, Any] = response.json()
    return answer
