"""A whole set of reservations sent anew while guests ask."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle

import pytest
from netaddr import IPAddress, IPNetwork
from sqlalchemy import delete, insert, update

from lab import wait_until
from lab.host import Host as LabHost
from lab.perfdhcp import LoadResult
from leasehold.domain.addresses import Mac
from leasehold.domain.replication import digest_of
from leasehold.domain.values import Subnet, SubnetSpec
from leasehold.service import lineage, replication, subnets
from leasehold.store.tables import addresses
from leasehold.store.tables import subnets as subnets_table
from worker.site import Site

RESERVATIONS = 100_000
FIRST_MAC, OTHER_MAC, BYSTANDER_MAC = 0x020000000000, 0x020100000000, 0x020200000000
CIDR, BYSTANDERS_CIDR = "192.0.0.0/14", "192.4.0.0/16"
FIRST_OFFSET = 0x1_0000
SECONDS = 30
PATIENCE_S = 240
LOAD_ADDRESS = "192.0.2.240/24"


@dataclass(frozen=True)
class Run:
    """So many MACs from the first one on, on as many addresses from a place in the subnet on."""

    first_mac: int
    count: int
    offset: int = FIRST_OFFSET

    def pairs(self) -> Iterator[tuple[int, int]]:
        """MACs and offsets."""
        return ((self.first_mac + number, self.offset + number) for number in range(self.count))


@dataclass(frozen=True)
class Promises:
    """All that is held on a subnet."""

    rows: list[dict[str, object]]
    digest: str

    @classmethod
    def of(cls, subnet: Subnet, *runs: Run) -> "Promises":
        first = int(subnet.cidr.first)
        pairs = [pair for run in runs for pair in run.pairs()]
        rows: list[dict[str, object]] = [
            {
                "subnet_id": subnet.id,
                "offset": offset,
                "state": "held",
                "mac": mac,
                "vnic_id": f"vnic-{mac}",
                "revision": number,
            }
            for number, (mac, offset) in enumerate(pairs, start=1)
        ]
        return cls(rows, digest_of((Mac(mac), IPAddress(first + offset), None) for mac, offset in pairs))


def subnet(site: Site, cidr: str) -> Subnet:
    return subnets.create(site.ctx, SubnetSpec(network="blue", cidr=IPNetwork(cidr)))


def hold(site: Site, subnet: Subnet, promises: Promises, *, new_history: bool = False) -> None:
    """As if just these vNICs had been started, one after the other."""
    own = subnets_table.c.id == subnet.id
    with site.ctx.db.write() as connection:
        if new_history:
            lineage.draw_epoch(connection, site.ctx.now_ms(), "A test restored it.")
        connection.execute(delete(addresses).where(addresses.c.subnet_id == subnet.id))
        connection.execute(insert(addresses), promises.rows)
        connection.execute(update(subnets_table).where(own).values(revision=len(promises.rows), digest=promises.digest))
    site.ctx.bell.ring()


def serve(site: Site, held: Iterable[tuple[Subnet, Promises]]) -> LabHost:
    """A host that has all of it, and runs."""
    site.change_settings(push_batch=5000, control_timeout_s=60, host_down_after_s=60)
    host = site.add_host("host-a")
    for each, promises in held:
        hold(site, each, promises)
    site.start()
    wait_until(lambda: site.states() == {"host-a": "running"}, PATIENCE_S, "the host serves")
    return host


def wait_for_all(site: Site) -> None:
    wait_until(lambda: not replication.lagging(site.ctx), PATIENCE_S, "the host has everything again")


def check(site: Site, host: LabHost, result: LoadResult, resyncs: int, digests: Iterable[str]) -> None:
    """Nothing was lost, and the host has what is promised."""
    print(f"{resyncs} resyncs, {result}")
    assert resyncs
    assert result.request_ack is not None
    assert (result.discover_offer.drops, result.request_ack.drops) == (0, 0)
    assert result.request_ack.received > 0
    assert [each["digest"] for each in host.status()["subnets"]] == list(digests)
    wait_until(lambda: site.states() == {"host-a": "running"}, PATIENCE_S, "the host serves still")


@pytest.mark.long
@pytest.mark.timeout(600)
def test_no_exchange_is_lost_while_all_reservations_are_compared_anew(site: Site) -> None:
    """1,000 DORA/s over 100,000 clients, and the whole set compared and mended again and again below them: each time
    somebody took a reservation away on the host, and the database begins a new history."""
    blue = subnet(site, CIDR)
    promises = Promises.of(blue, Run(FIRST_MAC, RESERVATIONS))
    host = serve(site, [(blue, promises)])
    load = site.lab.perfdhcp("blue", LOAD_ADDRESS).start(
        rate=1000, clients=RESERVATIONS - 1, seconds=SECONDS, first_mac=str(Mac(FIRST_MAC))
    )
    last = str(IPAddress(int(blue.cidr.first) + FIRST_OFFSET + RESERVATIONS - 1))
    resyncs = 0
    while load.runs:
        assert host.command("reservation-del", subnet_id=blue.id, ip_address=last)["result"] == 0
        lineage.begin_new_history(site.ctx)
        wait_for_all(site)
        resyncs += 1
    check(site, host, load.result(), resyncs, [promises.digest])


@pytest.mark.long
@pytest.mark.timeout(600)
def test_no_exchange_is_lost_while_a_fifth_of_the_reservations_goes_to_others(site: Site) -> None:
    """1,000 DORA/s over the 80,000 clients that stay. Below them, in a new history each time, 20,000 go and others have
    their addresses, and back again."""
    stay = RESERVATIONS * 4 // 5
    blue = subnet(site, CIDR)
    some, others = (
        Promises.of(blue, Run(FIRST_MAC, stay), Run(mac, RESERVATIONS - stay, FIRST_OFFSET + stay))
        for mac in (FIRST_MAC + stay, OTHER_MAC)
    )
    host = serve(site, [(blue, some)])
    load = site.lab.perfdhcp("blue", LOAD_ADDRESS).start(
        rate=1000, clients=stay, seconds=2 * SECONDS, first_mac=str(Mac(FIRST_MAC))
    )
    resyncs = 0
    for promises in cycle([others, some]):
        hold(site, blue, promises, new_history=True)
        wait_for_all(site)
        resyncs += 1
        if not load.runs:
            break
    check(site, host, load.result(), resyncs, [promises.digest])


@pytest.mark.long
@pytest.mark.timeout(600)
def test_no_exchange_of_bystanders_is_lost_while_a_set_of_another_history_takes_the_place_of_all(site: Site) -> None:
    """1,000 DORA/s over 10,000 clients of a second subnet. On the first one all 100,000 addresses go to other MACs, and
    back again: each of those is without an answer between the two, as it must be, and nobody else is."""
    blue, beside = subnet(site, CIDR), subnet(site, BYSTANDERS_CIDR)
    ours, theirs = (Promises.of(blue, Run(mac, RESERVATIONS)) for mac in (FIRST_MAC, OTHER_MAC))
    bystanders = Promises.of(beside, Run(BYSTANDER_MAC, RESERVATIONS // 10, 0x1000))
    host = serve(site, [(blue, ours), (beside, bystanders)])
    load = site.lab.perfdhcp("blue", LOAD_ADDRESS).start(
        rate=1000, clients=RESERVATIONS // 10, seconds=3 * SECONDS, first_mac=str(Mac(BYSTANDER_MAC))
    )
    resyncs = 0
    for promises in cycle([theirs, ours]):
        hold(site, blue, promises, new_history=True)
        wait_for_all(site)
        resyncs += 1
        if not load.runs:
            break
    check(site, host, load.result(), resyncs, [promises.digest, bystanders.digest])
