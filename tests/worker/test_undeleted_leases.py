"""An address waits for the lease of its old owner, also where Kea cannot delete it."""

from typing import Any

from lab import Lab, linux
from lab.dhcp import Type
from leasehold.service import subnets, vnics
from worker.site import Site

PAGE = 4096


def test_an_address_drains_until_its_lease_could_be_deleted(site: Site, lab: Lab) -> None:
    """The lease file is alone on a small disk, which a guest fills with renewals."""
    host = lab.host("host-a", {"blue": "192.0.2.2/24"})
    disk = host.directory / "leases"
    disk.mkdir()

    def configure(dhcp4: dict[str, Any]) -> None:
        dhcp4["lease-database"]["name"] = "leases/kea-leases4.csv"

    linux.mount("leases", str(disk), "tmpfs", options=f"size={PAGE}")
    try:
        host.install(change=configure)
        host.start()
        host.start_agent()
        site.register(host)
        site.subnet()
        site.start()
        site.wait_for(host_a="running")
        start = site.started(1)
        with lab.vm("guest", "blue", str(start.mac)).raw_client(str(start.mac)) as client:
            offer = client.discover(silence_s=5)
            assert offer is not None
            answer = client.select(offer, silence_s=5)
            assert answer is not None
            assert answer.type is Type.ACK
            while answer is not None and answer.type is Type.ACK:
                answer = client.renew(str(start.ip))
        vnics.stop(site.ctx, "vnic-1")
        site.until(lambda: "LEASEHOLD_LEASE_NOT_DELETED" in host.log.read_text(), "the lease cannot be deleted")
        asked = host.log.read_text().count("leasehold-status")
        site.until(lambda: host.log.read_text().count("leasehold-status") > asked + 3, "the host was asked again")
        assert host.command("lease4-get", ip_address=str(start.ip))["result"] == 0
        assert subnets.list_subnets(site.ctx)[0].usage.draining == 1
        linux.mount("leases", str(disk), "tmpfs", linux.MS_REMOUNT, f"size={100 * PAGE}")
        site.until(lambda: not subnets.list_subnets(site.ctx)[0].usage.draining, "the address drains no more")
        assert host.command("lease4-get", ip_address=str(start.ip))["result"] == 3
    finally:
        site.stop()
        host.kill()
        linux.unmount(str(disk))
