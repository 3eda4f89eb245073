"""A withdrawal counts once its lease is gone: a lease file on a full disk, where Kea cannot write that it is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hook_in_kea.conftest import MANAGED
from lab import Host, Lab, linux
from lab.dhcp import Type

MAC, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"
ADDRESS = "192.0.2.10"
PAGE = 4096
ENTRY = {"hw-address": MAC, "ip-address": ADDRESS}
_SOON_S = 20
_MOST_ROWS = 100


class Server:
    """A Kea with subnet 7, whose lease file is alone on a small disk."""

    def __init__(self, host: Host, disk: Path) -> None:
        self.host = host
        self._disk = disk

    def fill(self, lab: Lab) -> None:
        """Has a guest renew until there is no room for another row."""
        with lab.vm("guest", "blue", MAC).raw_client(MAC) as client:
            offer = client.discover(_SOON_S)
            assert offer is not None
            answer = client.select(offer, _SOON_S)
            rows = 0
            while answer is not None and answer.type is Type.ACK and rows < _MOST_ROWS:
                rows += 1
                answer = client.renew(ADDRESS)
        assert 0 < rows < _MOST_ROWS

    def make_room(self) -> None:
        linux.mount("leases", str(self._disk), "tmpfs", linux.MS_REMOUNT, f"size={100 * PAGE}")

    def apply(self, **arguments: object) -> dict[str, Any]:
        return self.host.command("leasehold-apply", subnet_id=7, epoch="test", **arguments)

    @property
    def revision(self) -> int:
        (subnet,) = self.host.status()["subnets"]
        assert subnet["epoch"] == ("test" if subnet["revision"] else "")
        revision: int = subnet["revision"]
        return revision

    @property
    def has_lease(self) -> bool:
        return bool(self.host.command("lease4-get", ip_address=ADDRESS)["result"] == 0)


@pytest.fixture
def server(lab: Lab) -> Iterator[Server]:
    def configure(dhcp4: dict[str, Any]) -> None:
        dhcp4["lease-database"]["name"] = "leases/kea-leases4.csv"

    lab.network("blue")
    host = lab.host("host-a", {"blue": "192.0.2.2/24"})
    disk = host.directory / "leases"
    disk.mkdir()
    linux.mount("leases", str(disk), "tmpfs", options=f"size={PAGE}")
    try:
        host.install(subnets=[{"id": 7, "subnet": "192.0.2.0/24", **MANAGED}], change=configure)
        host.start()
        server = Server(host, disk)
        assert server.apply(base=0, revision=1, set=[ENTRY])["result"] == 0
        server.fill(lab)
        yield server
    finally:
        host.kill()
        linux.unmount(str(disk))


def test_a_withdrawal_whose_lease_cannot_be_deleted_is_an_error(server: Server) -> None:
    answer = server.apply(base=1, revision=2, unset=[MAC])
    assert (answer["result"], "could not be deleted" in answer["text"]) == (1, True)
    assert server.has_lease
    assert "LEASEHOLD_LEASE_NOT_DELETED" in server.host.log.read_text()


def test_a_revision_is_told_only_once_its_leases_are_gone(server: Server) -> None:
    server.apply(base=1, revision=2, unset=[MAC])
    assert server.revision == 0
    server.make_room()
    assert server.revision == 2
    assert not server.has_lease


def test_the_same_batch_again_is_a_conflict_that_does_not_confirm_it(server: Server) -> None:
    server.apply(base=1, revision=2, unset=[MAC])
    answer = server.apply(base=1, revision=2, unset=[MAC])
    assert (answer["result"], answer["arguments"]["revision"]) == (4, 0)


def test_a_resync_is_an_error_until_the_leases_are_gone(server: Server) -> None:
    """Also one to what is in force already, which takes nothing from anybody."""
    server.apply(base=1, revision=2, unset=[MAC])
    resync = {"replace": True, "revision": 2, "page": 1, "last": True, "set": []}
    assert server.apply(**resync)["result"] == 1
    server.make_room()
    answer = server.apply(**resync)
    assert (answer["result"], answer["arguments"]["revision"]) == (0, 2)
    assert not server.has_lease


def test_a_lease_in_the_way_of_an_addresss_next_owner_is_an_error_too(server: Server) -> None:
    moved = [{"hw-address": MAC, "ip-address": "192.0.2.11"}, {"hw-address": OTHER, "ip-address": ADDRESS}]
    assert server.apply(base=1, revision=2, set=moved)["result"] == 1
    server.make_room()
    assert server.revision == 2
    assert not server.has_lease


def test_what_could_not_be_deleted_is_deleted_after_a_restart(server: Server) -> None:
    server.apply(base=1, revision=2, unset=[MAC])
    server.host.kill()
    server.make_room()
    server.host.start()
    assert not server.has_lease
    assert server.revision == 2


def test_a_kea_that_starts_on_a_full_disk_serves_and_confirms_nothing_before_its_leases_are_gone(
    server: Server,
) -> None:
    server.apply(base=1, revision=2, unset=[MAC])
    server.host.kill()
    server.host.start()
    assert (server.revision, server.has_lease) == (0, True)


def test_a_withdrawal_without_a_lease_database_counts_once_there_is_one_again(server: Server) -> None:
    """Kea has none after a configuration that failed."""
    server.make_room()
    right = server.host.command("config-get")["arguments"]["Dhcp4"]
    wrong = right | {"lease-database": {"type": "memfile", "name": "/nowhere/leases.csv"}}
    assert server.host.command("config-set", Dhcp4=wrong)["result"] == 1
    assert server.apply(base=1, revision=2, unset=[MAC])["result"] == 1
    assert server.revision == 0
    assert server.host.command("config-set", Dhcp4=right)["result"] == 0
    assert server.revision == 2
    assert not server.has_lease
