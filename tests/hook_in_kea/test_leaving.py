"""Subnets that leave Kea's configuration take their reservations along: what brings them back late serves nothing."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hook_in_kea.conftest import MANAGED
from lab import Host, Lab
from lab.dhcp import RawClient, Type
from lab.waiting import wait_until

MAC = "02:00:00:00:00:01"
ADDRESS = "192.0.2.10"
BLUE = {"id": 7, "subnet": "192.0.2.0/24", **MANAGED}
GREEN = {"id": 8, "subnet": "198.51.100.0/24", **MANAGED}
NOTHING = ("", 0, 0)
_SOON_S = 20

# A library after ours that refuses every configuration.
REFUSING = """
#include <hooks/hooks.h>
#include <string>
extern "C" {
int version() { return KEA_HOOKS_VERSION; }
int multi_threading_compatible() { return 1; }
int dhcp4_srv_configured(isc::hooks::CalloutHandle& handle) {
    handle.setArgument("error", std::string("refused for the test"));
    handle.setStatus(isc::hooks::CalloutHandle::NEXT_STEP_DROP);
    return 0;
}
}
"""


class Server:
    """A Kea whose configuration is set again and again; it starts with subnet 7, on blue, served to one guest."""

    def __init__(self, lab: Lab, host: Host) -> None:
        self.host = host
        self._guest = lab.vm("guest", "blue", "02:00:00:00:00:00")

    def configuration(self, *subnets: dict[str, Any]) -> dict[str, Any]:
        """The file's, with these subnets."""
        dhcp4: dict[str, Any] = json.loads(self.host.configuration.read_text())["Dhcp4"]
        return dhcp4 | {"subnet4": list(subnets)}

    def configure(self, *subnets: dict[str, Any]) -> None:
        """`config-set` with these subnets."""
        answer = self.host.command("config-set", Dhcp4=self.configuration(*subnets))
        assert answer["result"] == 0, answer

    def put(self, subnet: int, mac: str, address: str) -> None:
        """The subnet's first reservation, as revision 1."""
        reservation = {"hw-address": mac, "ip-address": address}
        answer = self.host.command(
            "leasehold-apply", subnet_id=subnet, epoch="test", base=0, revision=1, set=[reservation]
        )
        assert answer["result"] == 0, answer

    def state(self, subnet: int) -> tuple[str, int, int]:
        """Epoch, revision and count that are in force."""
        for each in self.host.status()["subnets"]:
            if each["subnet-id"] == subnet:
                return each["epoch"], each["revision"], each["count"]
        return NOTHING

    @contextmanager
    def client(self) -> Iterator[RawClient]:
        with self._guest.raw_client(MAC) as client:
            yield client

    def serves(self) -> bool:
        """Whether the guest gets its address."""
        with self.client() as client:
            offer = client.discover(_SOON_S)
            assert offer is not None
            answer = client.select(offer, _SOON_S)
            return answer is not None and (answer.type, answer.yiaddr) == (Type.ACK, ADDRESS)

    def is_silent(self) -> bool:
        """Whether the guest hears nothing, also where it had the address."""
        with self.client() as client:
            return client.discover() is None and client.renew(ADDRESS) is None and client.request(ADDRESS) is None


@pytest.fixture
def server(lab: Lab) -> Server:
    for network in ("blue", "green"):
        lab.network(network)
    host = lab.host("host-a", {"blue": "192.0.2.2/24", "green": "198.51.100.2/24"})
    host.install(subnets=[BLUE])
    host.start()
    server = Server(lab, host)
    server.put(7, MAC, ADDRESS)
    assert server.serves()
    return server


@pytest.fixture
def refusing(tmp_path: Path) -> Path:
    """A library that has Kea refuse its configuration, after ours has seen it."""
    source, library = tmp_path / "refusing.cc", tmp_path / "refusing.so"
    source.write_text(REFUSING)
    compiler = ["g++", "-std=c++17", "-shared", "-fPIC", "-isystem", "/usr/include/kea"]
    subprocess.run([*compiler, str(source), "-o", str(library)], check=True)
    return library


def test_an_old_configuration_that_comes_late_serves_nothing(server: Server) -> None:
    """With the guest's lease still on file."""
    server.configure(GREEN)
    server.configure(BLUE)
    assert server.host.status()["managed-subnets"] == [7]
    assert server.host.command("lease4-get", ip_address=ADDRESS)["result"] == 0
    assert server.is_silent()


def test_a_subnet_that_left_is_as_if_it_had_never_been_heard_of(server: Server) -> None:
    server.configure(GREEN)
    assert server.host.status()["subnets"] == []
    assert server.host.command("reservation-get", subnet_id=7, ip_address=ADDRESS)["result"] == 3


def test_what_left_is_gone_from_the_disk_before_the_command_is_answered(server: Server) -> None:
    command = {"command": "config-set", "arguments": {"Dhcp4": server.configuration(GREEN)}}
    assert b'"result": 0' in server.host.kill_once_answered(json.dumps(command).encode())
    server.host.start()  # from its file, which still has the subnet
    assert server.host.status()["managed-subnets"] == [7]
    assert server.is_silent()


def test_a_subnet_without_its_mark_has_left(server: Server) -> None:
    server.configure(BLUE | {"user-context": {}})
    server.configure(BLUE)
    assert server.is_silent()


def test_what_stays_keeps_its_reservations(server: Server) -> None:
    server.configure(BLUE, GREEN)
    server.configure(BLUE | {"valid-lifetime": 600})
    assert server.serves()


def test_reservations_for_a_coming_subnet_outlive_configurations_for_others(server: Server) -> None:
    server.put(8, "02:00:00:00:00:08", "198.51.100.10")
    server.configure(BLUE | {"valid-lifetime": 600})
    server.configure()
    assert server.state(8) == ("test", 1, 1)


def test_reservations_that_came_after_the_subnet_left_are_kept(server: Server) -> None:
    server.configure(GREEN)
    server.put(7, MAC, ADDRESS)
    server.configure()
    server.configure(BLUE)
    assert server.serves()


def test_reservations_on_disk_are_kept_at_a_start_without_their_subnet(server: Server) -> None:
    """It may be about to be added."""
    server.host.kill()
    file = json.loads(server.host.configuration.read_text())
    server.host.configuration.write_text(json.dumps({"Dhcp4": file["Dhcp4"] | {"subnet4": []}}))
    server.host.start()
    server.configure(GREEN)
    assert server.state(7) == ("test", 1, 1)
    server.configure(BLUE)
    assert server.serves()


def test_leases_are_the_administrators_until_the_subnet_is_marked(server: Server) -> None:
    """Reservations that wait for the subnet take no lease away at a start, but when it comes."""
    server.host.kill()
    unmarked = {"Dhcp4": server.configuration(BLUE | {"user-context": {}})}
    server.host.configuration.write_text(json.dumps(unmarked))
    server.host.start()
    lease = {"ip_address": "192.0.2.11", "hw_address": MAC, "subnet_id": 7}
    assert server.host.command("lease4-add", **lease)["result"] == 0
    server.host.restart()
    assert server.state(7) == ("test", 1, 1)
    assert server.host.command("lease4-get", ip_address="192.0.2.11")["result"] == 0
    server.configure(BLUE)
    assert server.host.command("lease4-get", ip_address="192.0.2.11")["result"] == 3
    assert server.host.command("lease4-get", ip_address=ADDRESS)["result"] == 0


def reload_by_command(host: Host) -> None:
    assert host.command("config-reload")["result"] == 0


def reload_by_signal(host: Host) -> None:
    os.kill(host.kea_pid, signal.SIGHUP)
    wait_until(lambda: host.status()["managed-subnets"] == [], _SOON_S, "the new configuration")


@pytest.mark.parametrize("reload", [reload_by_command, reload_by_signal])
def test_a_reload_without_the_subnet_makes_it_leave(server: Server, reload: Callable[[Host], None]) -> None:
    with_it = server.configuration(BLUE)
    server.host.configuration.write_text(json.dumps({"Dhcp4": server.configuration()}))
    reload(server.host)
    assert server.host.command("config-set", Dhcp4=with_it)["result"] == 0
    assert server.is_silent()


def test_a_subnet_that_left_while_the_library_was_away_has_left(server: Server) -> None:
    without = server.configuration()
    without["hooks-libraries"] = []
    assert server.host.command("config-set", Dhcp4=without)["result"] == 0
    server.configure(BLUE)
    assert server.is_silent()


def test_a_configuration_that_a_later_library_refuses_takes_nothing_along(server: Server, refusing: Path) -> None:
    """Kea has told our library of it by then, and goes on with the old one, though deaf until it is configured anew."""
    refused = server.configuration(GREEN)
    refused["hooks-libraries"].append({"library": str(refusing)})
    answer = server.host.command("config-set", Dhcp4=refused)
    assert (answer["result"], "refused for the test" in answer["text"]) == (1, True)
    assert server.host.status()["managed-subnets"] == [7]
    server.configure(BLUE)
    assert server.serves()


def test_a_configuration_that_fails_before_our_library_hears_of_it_takes_nothing_along(server: Server) -> None:
    """Kea has loaded the library anew by then, and has no lease database until the next configuration."""
    failing = server.configuration(GREEN)
    failing["lease-database"] = {"type": "memfile", "name": "/nowhere/leases.csv"}
    answer = server.host.command("config-set", Dhcp4=failing)
    assert (answer["result"], "/nowhere/leases.csv" in answer["text"]) == (1, True)
    server.configure(BLUE)
    assert server.serves()


def test_a_configuration_that_kea_cannot_parse_takes_nothing_along(server: Server) -> None:
    answer = server.host.command("config-set", Dhcp4=server.configuration(GREEN | {"subnet": "nonsense"}))
    assert answer["result"] == 1
    server.configure(BLUE)
    assert server.serves()


def test_what_leaves_is_told_in_the_log(server: Server) -> None:
    server.configure()
    assert "LEASEHOLD_FORGOTTEN subnets 7 left the configuration" in server.host.log.read_text()
