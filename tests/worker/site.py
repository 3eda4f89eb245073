"""Networks with real hosts on them, and a worker in the test's own process."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType

from netaddr import IPAddress, IPNetwork

from lab import Lab, wait_until
from lab.host import Host as LabHost
from leasehold.domain.values import HostNetwork, Server, Started, Subnet, SubnetSpec, VnicSpec, Wait
from leasehold.service import hosts, networks, subnets, vnics
from leasehold.service.context import Context
from leasehold.worker import Worker

PATIENCE_S = 20


@dataclass
class Site:
    """The first network is called blue. The worker can be stopped, and begun anew."""

    lab: Lab
    ctx: Context
    hosts: dict[str, LabHost] = field(default_factory=dict)
    worker: Worker | None = None

    def add_network(self, name: str, cidr: str) -> Subnet:
        """Another network, which has IPAM on, and its subnet."""
        self.lab.network(name)
        networks.put(self.ctx, name, ipam_enabled=True, ipam_servers=None)
        return subnets.create(self.ctx, SubnetSpec(network=name, cidr=IPNetwork(cidr)))

    def add_host(
        self,
        name: str,
        *,
        hook: bool = True,
        subnets: Sequence[Mapping[str, object]] = (),
        also_on: Mapping[str, str] = MappingProxyType({}),
    ) -> LabHost:
        """A host that runs and is known; with `subnets`, those are in its configuration from the beginning. It has
        these addresses on further networks."""
        host = self.lab.host(name, {"blue": f"192.0.2.{len(self.hosts) + 2}/24", **also_on})
        host.install(hook=hook, subnets=subnets)
        host.start()
        host.start_agent()
        self.hosts[name] = host
        self.register(host)
        return host

    def register(
        self,
        host: LabHost,
        *,
        id: str | None = None,
        address: str | None = None,
        interface: str | None = None,
        attached: dict[str, HostNetwork] | None = None,
    ) -> None:
        """Tells the control plane of a host, or something else than what is so."""
        hosts.put(
            self.ctx,
            id or host.id,
            control_url=host.control_url,
            username=host.username,
            password=host.password,
            networks={
                name: HostNetwork(interface=host.interfaces[name], address=IPAddress(host.addresses[name]))
                for name in host.interfaces
            }
            | {
                "blue": HostNetwork(
                    interface=interface or host.interfaces["blue"],
                    address=IPAddress(address or host.addresses["blue"]),
                )
            }
            | (attached or {}),
        )

    def subnet(self) -> Subnet:
        """The network's first subnet."""
        return subnets.create(
            self.ctx, SubnetSpec(network="blue", cidr=IPNetwork("192.0.2.0/24"), gateway=IPAddress("192.0.2.1"))
        )

    def change_settings(self, **changes: float) -> None:
        """For the next worker."""
        self.ctx = replace(self.ctx, settings=replace(self.ctx.settings, **changes))  # type: ignore[arg-type]

    def start(self) -> None:
        self.worker = Worker(self.ctx)
        self.worker.start()

    def stop(self) -> None:
        if self.worker is not None:
            self.worker.stop()
            self.worker = None

    def started(self, number: int, wait: Wait = "one", subnet: Subnet | None = None) -> Started:
        """A new vNIC on this subnet, or the network's first one, started."""
        first = subnet or subnets.list_subnets(self.ctx, "blue")[0]
        name = f"vnic-{number}"
        vnics.put(self.ctx, VnicSpec(id=name, vm=f"vm-{number}", name="eth0", subnet=first.id))
        return vnics.start(self.ctx, name, wait=wait)

    def servers(self, network: str = "blue") -> dict[str, Server]:
        return {each.host: each for each in networks.list_servers(self.ctx, network)}

    def states(self) -> dict[str, str]:
        return {name: each.state for name, each in self.servers().items()}

    def details(self, network: str = "blue") -> dict[str, str | None]:
        return {name: each.detail for name, each in self.servers(network).items()}

    def answered_since(self, name: str, instant: datetime) -> bool:
        answered_at = hosts.get(self.ctx, name).answered_at
        return answered_at is not None and answered_at >= instant

    def wait_for(self, **states: str) -> None:
        """Until the network's servers are just these, underscores in their names for hyphens."""
        wanted = {name.replace("_", "-"): state for name, state in states.items()}
        self.until(lambda: self.states() == wanted, f"servers {wanted}")

    def until(self, fact: Callable[[], object], what: str) -> None:
        wait_until(fact, PATIENCE_S, what)
