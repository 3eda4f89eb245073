"""A laboratory: networks, hosts, virtual machines and a control plane, made as a test asks for them."""

import fcntl
import ipaddress
import itertools
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self, TextIO

from lab import sandbox
from lab.capture import Capture
from lab.control_plane import MANAGEMENT_ADDRESS, ControlPlane
from lab.host import TREE, Host, KeaPrograms, interface_name
from lab.namespace import Namespace
from lab.perfdhcp import Perfdhcp
from lab.postgres import Postgres
from lab.receiver import WebhookReceiver
from lab.vm import INTERFACE, Vm

LABS = TREE / "build" / "lab"
"""Where laboratories keep their files."""

_MANAGEMENT = ipaddress.IPv4Interface(f"{MANAGEMENT_ADDRESS}/24")
_MGMT = "mgmt"
_FIRST_HOST = 10


class Lab:
    """A context manager. On leaving, everything in it is ended, and its folder is removed (unless `keep_files`).

    Inside are the namespaces `<name>-control`, where the control plane runs, and `<name>-switch`, with a bridge for
    each network; a namespace for each host and each virtual machine is made on demand. A management network,
    10.99.0.0/24 with the control plane at 10.99.0.1, joins control plane and hosts.
    """

    def __init__(self, name: str) -> None:
        if not sandbox.inside():
            raise RuntimeError("a laboratory needs its sandbox: run this through ./dev (./dev test PATH for one test)")
        self.name = name
        self.keep_files = False
        self.hosts: dict[str, Host] = {}
        self.vms: dict[str, Vm] = {}
        self.control_planes: list[ControlPlane] = []
        self._numbers = itertools.count(1)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack as stack:
            self.directory, self._lock = _claim_directory(self.name)
            stack.callback(self._release_directory)
            self.sockets = sandbox.SOCKETS / self.directory.name
            self.sockets.mkdir()
            stack.callback(shutil.rmtree, self.sockets)
            self._programs = KeaPrograms(self.directory / "bin")
            self.control = self._namespace("control")
            self._switch = self._namespace("switch")
            self.control.bridge(_MGMT)
            self.control.ip("address", "add", str(_MANAGEMENT), "dev", _MGMT)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def network(self, name: str) -> None:
        """A layer 2 network for virtual machines: a bridge on the switch."""
        self._switch.bridge(name)

    def host(self, id: str, networks: Mapping[str, str]) -> Host:
        """A host with a static address (with prefix length) on each of `networks`; Kea is not started yet."""
        number = _FIRST_HOST + len(self.hosts)
        namespace = self._namespace(id)
        mgmt = ipaddress.IPv4Interface((int(_MANAGEMENT.network[number]), _MANAGEMENT.network.prefixlen))
        ports = {_MGMT: self._plug(self.control, _MGMT, namespace, _MGMT)}
        namespace.ip("address", "add", str(mgmt), "dev", _MGMT)
        for network, address in networks.items():
            interface = interface_name(network)
            ports[network] = self._plug(self._switch, network, namespace, interface)
            namespace.ip("address", "add", address, "dev", interface)

        def switch_port(network: str, up: bool) -> None:
            switch = self.control if network == _MGMT else self._switch
            switch.ip("link", "set", ports[network], "up" if up else "down")

        host = Host(
            id,
            namespace,
            self._programs,
            directory=self._folder(self.directory / id),
            sockets=self._folder(self.sockets / id),
            mgmt_address=str(mgmt.ip),
            networks=networks,
            switch_port=switch_port,
        )
        self._stack.callback(host.stop_agent)
        self._stack.callback(host.kill)
        self.hosts[id] = host
        return host

    def vm(self, name: str, network: str, mac: str) -> Vm:
        """A virtual machine that is on, with a network card of that MAC, and no DHCP client running yet."""
        namespace = self._namespace(name)
        self._plug(self._switch, network, namespace, INTERFACE, mac)
        vm = Vm(name, namespace, mac, self._folder(self.directory / name))
        self._stack.callback(vm.stop)
        self.vms[name] = vm
        return vm

    def control_plane(self, **settings: object) -> ControlPlane:
        """A control plane of one process with an SQLite database of its own, not started yet; `settings` as in
        leasehold.config.Settings."""
        return self._control_plane(settings, ["serve"])

    def cluster(
        self, server: Postgres, *, settings: Mapping[str, object], apis: int = 2, workers: int = 2
    ) -> ControlPlane:
        """A control plane of several processes on a PostgreSQL database of its own, not started yet."""
        url = server.fresh_database()
        return self._control_plane({"database_url": url, **settings}, ["api"] * apis + ["worker"] * workers)

    def _control_plane(self, settings: Mapping[str, object], commands: Sequence[str]) -> ControlPlane:
        control = ControlPlane(self.control, self._folder(self.directory / "control"), settings, commands)
        self._stack.callback(control.close)
        self.control_planes.append(control)
        return control

    def receiver(self) -> WebhookReceiver:
        """A receiver of webhooks that listens beside the control plane."""
        return self._stack.enter_context(WebhookReceiver(self.control, MANAGEMENT_ADDRESS))

    def capture(self, network: str) -> Capture:
        """Record the DHCP messages on a network from now on."""
        capture = Capture(self._switch, network, self.directory / f"{network}-{next(self._numbers)}.pcap")
        self._stack.callback(capture.stop)
        return capture

    def perfdhcp(self, network: str, address: str) -> Perfdhcp:
        """A load generator on a network, with `address` (and prefix length) there, which it needs to get answers."""
        name = f"load-{next(self._numbers)}"
        namespace = self._namespace(name)
        self._plug(self._switch, network, namespace, INTERFACE)
        namespace.ip("address", "add", address, "dev", INTERFACE)
        return Perfdhcp(namespace, INTERFACE, self._folder(self.directory / name))

    def logs(self) -> list[Path]:
        """All log files here that have something in them."""
        control = [log for control in self.control_planes for log in control.logs()]
        hosts = [log for host in self.hosts.values() for log in host.logs()]
        return [log for log in control + hosts if log.exists() and log.stat().st_size > 0]

    def _namespace(self, name: str) -> Namespace:
        namespace = Namespace(f"{self.directory.name}-{name}")
        self._stack.callback(namespace.delete)
        return namespace

    def _plug(self, switch: Namespace, bridge: str, guest: Namespace, interface: str, mac: str | None = None) -> str:
        port = f"port{next(self._numbers)}"
        switch.plug(port, bridge, guest, interface, mac)
        return port

    def _folder(self, path: Path) -> Path:
        path.mkdir()
        return path

    def _release_directory(self) -> None:
        if not self.keep_files:
            shutil.rmtree(self.directory)
        self._lock.close()


def _claim_directory(name: str) -> tuple[Path, TextIO]:
    """A new folder of our own below LABS, and its lock. What runs left that have ended without clearing up goes."""
    LABS.mkdir(parents=True, exist_ok=True)
    with (LABS / ".lock").open("w") as everybody:
        # Between mkdir and flock a folder looks like a leftover: one laboratory at a time is born.
        fcntl.flock(everybody, fcntl.LOCK_EX)
        for leftover in LABS.glob("*/.lock"):
            _sweep(leftover)
        directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=LABS))
        lock = (directory / ".lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
    return directory, lock


def _sweep(lock_file: Path) -> None:
    with lock_file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(lock_file.parent)
