"""A host with a real Kea and Control Agent, and a test process that is where the control plane would be."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Lab, linux
from lab.host import Host as LabHost
from leasehold.config import Settings
from leasehold.domain.values import Host
from leasehold.kea.commands import Commands
from leasehold.kea.transport import Transport

ADMINISTRATORS = [
    {
        "id": 900,
        "subnet": "10.9.0.0/24",
        "pools": [{"pool": "10.9.0.10 - 10.9.0.20"}],
        "user-context": {"rack": 7},
        "reservations": [{"hw-address": "02:00:00:00:00:09", "ip-address": "10.9.0.200", "hostname": "printer"}],
    }
]
SHARED = {
    "name": "offices",
    "user-context": {"floor": 3},
    "option-data": [{"name": "domain-name", "data": "offices.example"}],
    "subnet4": [{"id": 910, "subnet": "10.11.0.0/24"}, {"id": 911, "subnet": "10.12.0.0/24"}],
}


@pytest.fixture
def at_control(lab: Lab) -> Iterator[None]:
    """The test's thread, and those that it starts, in the network namespace of the control plane."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    linux.setns(lab.control.path, linux.CLONE_NEWNET)
    yield
    linux.setns(Path(f"/proc/self/fd/{home}"), linux.CLONE_NEWNET)
    os.close(home)


@pytest.fixture
def kea(lab: Lab) -> LabHost:
    """A host on networks blue and green, with an administrator's own subnet, and our hook."""
    for network in ("blue", "green"):
        lab.network(network)
    kea = lab.host("host-a", {"blue": "192.0.2.2/24", "green": "198.51.100.2/24"})

    def administer(dhcp4: dict[str, object]) -> None:
        dhcp4["subnet4"] = ADMINISTRATORS
        dhcp4["shared-networks"] = [SHARED]
        dhcp4["user-context"] = {"owner": "network team"}
        dhcp4["option-data"] = [{"name": "domain-search", "data": "example.com"}]

    kea.install(change=administer)
    kea.start()
    kea.start_agent()
    return kea


@pytest.fixture
def host(kea: LabHost) -> Host:
    """The same host as the control plane knows it."""
    return Host(
        id=kea.id,
        control_url=kea.control_url,
        username=kea.username,
        password=kea.password,
        networks={},
        answered_at=None,
        unreachable_reason=None,
    )


@pytest.fixture
def transport(at_control: None) -> Iterator[Transport]:
    transport = Transport(Settings(control_timeout_s=5, control_connect_timeout_s=1))
    yield transport
    transport.close()


@pytest.fixture
def commands(transport: Transport) -> Commands:
    return Commands(transport)
