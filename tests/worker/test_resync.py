"""A whole set of reservations sent anew while guests ask."""

import pytest
from netaddr import IPAddress, IPNetwork
from sqlalchemy import insert, update

from lab import wait_until
from leasehold.domain.addresses import Mac
from leasehold.domain.replication import digest_of
from leasehold.domain.values import Subnet, SubnetSpec
from leasehold.service import lineage, replication, subnets
from leasehold.store.tables import addresses
from leasehold.store.tables import subnets as subnets_table
from worker.site import Site

RESERVATIONS = 100_000
FIRST_MAC = 0x020000000000
CIDR = "192.0.0.0/14"
FIRST_OFFSET = 0x1_0000
SECONDS = 30
PATIENCE_S = 240
LOAD_ADDRESS = "192.0.2.240/24"


def reserve(site: Site, subnet: Subnet) -> None:
    """As if so many vNICs had been started, one after the other."""
    first = IPNetwork(CIDR).first + FIRST_OFFSET
    digest = digest_of((Mac(FIRST_MAC + number), IPAddress(first + number), None) for number in range(RESERVATIONS))
    with site.ctx.db.write() as connection:
        connection.execute(
            insert(addresses),
            [
                {
                    "subnet_id": subnet.id,
                    "offset": FIRST_OFFSET + number,
                    "state": "held",
                    "mac": FIRST_MAC + number,
                    "vnic_id": f"vnic-{number}",
                    "revision": number + 1,
                }
                for number in range(RESERVATIONS)
            ],
        )
        connection.execute(
            update(subnets_table).where(subnets_table.c.id == subnet.id).values(revision=RESERVATIONS, digest=digest)
        )


@pytest.mark.long
@pytest.mark.timeout(600)
def test_no_exchange_is_lost_while_all_reservations_are_sent_anew(site: Site) -> None:
    """1,000 DORA/s over 100,000 clients, and the whole set compared and mended again and again below them: each time
    somebody took a reservation away on the host, and the database begins a new history."""
    site.change_settings(push_batch=5000, control_timeout_s=60, host_down_after_s=60)
    host = site.add_host("host-a")
    subnet = subnets.create(site.ctx, SubnetSpec(network="blue", cidr=IPNetwork(CIDR)))
    reserve(site, subnet)
    site.start()
    wait_until(lambda: site.states() == {"host-a": "running"}, PATIENCE_S, "the host serves")
    load = site.lab.perfdhcp("blue", LOAD_ADDRESS).start(
        rate=1000, clients=RESERVATIONS - 1, seconds=SECONDS, first_mac=str(Mac(FIRST_MAC))
    )
    last = str(IPAddress(IPNetwork(CIDR).first + FIRST_OFFSET + RESERVATIONS - 1))
    resyncs = 0
    while load.runs:
        assert host.command("reservation-del", subnet_id=subnet.id, ip_address=last)["result"] == 0
        lineage.begin_new_history(site.ctx)
        wait_until(lambda: not replication.lagging(site.ctx), PATIENCE_S, "the host has everything again")
        resyncs += 1
    result = load.result()
    print(f"{resyncs} resyncs, {result}")
    assert resyncs
    assert result.request_ack is not None
    assert (result.discover_offer.drops, result.request_ack.drops) == (0, 0)
    assert result.request_ack.received > 0
    assert [each["count"] for each in host.status()["subnets"]] == [RESERVATIONS]
    wait_until(lambda: site.states() == {"host-a": "running"}, PATIENCE_S, "the host serves still")
