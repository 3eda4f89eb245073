"""Subnets that are changed and renumbered while many create, change, start, stop and reserve on them at once."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from netaddr import IPAddress, IPNetwork
from sqlalchemy import Row, select

from lab.postgres import Postgres
from leasehold.domain.addresses import AddressRange, Mac
from leasehold.domain.values import HostNetwork, SubnetSpec, VnicSighting, VnicSpec
from leasehold.errors import Conflict, DatabaseBusy, NotFound, SubnetInvalid
from leasehold.service import (
    devices,
    doctor,
    hosts,
    networks,
    renumbering,
    reservations,
    subnet_changes,
    subnets,
    vnics,
)
from leasehold.service.context import Context
from leasehold.store.tables import addresses, reservation_log
from leasehold.store.tables import subnets as subnets_table
from leasehold.store.tables import vnics as vnics_table
from service.conftest import Clock

THREADS = 8
EACH = 40
VNICS = 24


def test_whatever_happens_at_once_nothing_is_twice_and_nothing_is_lost(
    ctx: Context, clock: Clock, postgres_server: Postgres
) -> None:
    networks.put(ctx, "blue", ipam_enabled=True, ipam_servers=2)
    subnets.create(ctx, SubnetSpec(network="blue", cidr=IPNetwork("10.0.0.0/27")))
    subnets.create(ctx, SubnetSpec(network="blue", cidr=IPNetwork("10.1.0.0/26")))
    for number in range(VNICS):
        vnics.put(ctx, VnicSpec(id=f"v{number}", vm="vm", name="eth0", subnet=present(ctx)[number % 2].id))
    done: Counter[str] = Counter()
    faults: list[BaseException] = []
    deadlocks = len(postgres_server.deadlocks())

    def work(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(EACH):
            name, call = dice.choice(list(calls(ctx, clock, dice).items()))
            try:
                call()
                done[name] += 1
            except (Conflict, NotFound, SubnetInvalid):
                done[f"{name} refused"] += 1
            except DatabaseBusy:
                done["busy"] += 1
            except BaseException as fault:  # noqa: BLE001 - told by the test's thread
                faults.append(fault)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults, faults
    assert not postgres_server.deadlocks()[deadlocks:]
    # The same new vNICs are created by several at once.
    assert done["busy"] < THREADS * EACH / 10, done
    assert done["start"] > THREADS, done
    assert done["renumber"], done
    found = [each for each in doctor.examine(ctx) if not each.passing]
    assert not found, found
    with ctx.db.read() as connection:
        of_subnet = {row.id: row for row in connection.execute(select(subnets_table))}
        rows = connection.execute(select(addresses)).all()
        logged = connection.execute(select(reservation_log).order_by(reservation_log.c.revision)).all()
        settled = set(connection.execute(select(vnics_table.c.subnet_id)).scalars()) - {None}
    ips = [subnets.address_of(of_subnet[row.subnet_id], row.offset) for row in rows]
    assert len(set(ips)) == len(ips)
    for subnet_id, subnet in of_subnet.items():
        entries = [each for each in logged if each.subnet_id == subnet_id]
        assert [each.revision for each in entries] == list(range(1, subnet.revision + 1))
        assert replayed(entries) == {
            row.mac: row.offset for row in rows if row.subnet_id == subnet_id and row.state == "held"
        }
    for subnet_id in settled | {row.subnet_id for row in rows if row.state == "held"}:
        assert of_subnet[subnet_id].successor_id is None


def replayed(log: Sequence[Row[Any]]) -> dict[int, int]:
    """What servers that follow the log have at its end: offsets by MAC, and at no time one of them twice."""
    held: dict[int, int] = {}
    for each in log:
        if each.offset is None:
            del held[each.mac]
        else:
            assert each.offset not in held.values()
            held[each.mac] = each.offset
    return held


def present(ctx: Context) -> list[Any]:
    return [each for each in subnets.list_subnets(ctx, "blue") if each.successor is None]


def calls(ctx: Context, clock: Clock, dice: random.Random) -> dict[str, Callable[[], object]]:
    subnet = dice.choice(present(ctx))
    vnic = f"v{dice.randrange(VNICS)}"
    new = f"new{dice.randrange(VNICS)}"
    first, last = int(subnet.cidr.first) + 1, int(subnet.cidr.last) - 1
    ends = sorted(dice.randint(first, last) for _ in range(2))
    span = AddressRange(*map(IPAddress, ends))
    elsewhere = IPNetwork(f"10.{dice.randrange(2, 250)}.0.0/{dice.choice((26, 27))}")
    own = HostNetwork(interface="eth0", address=IPAddress(dice.randint(first, last)))

    half = dice.choice(list(subnet.cidr.subnet(subnet.cidr.prefixlen + 1)))

    def rest() -> None:
        clock.advance(30)
        reservations.sweep(ctx)
        renumbering.remove_retired(ctx)

    def change(**wanted: object) -> object:
        return subnet_changes.change(ctx, subnet.id, wanted)

    def put_host() -> None:
        hosts.put(ctx, "host", control_url="http://h", username="u", password="p", networks={"blue": own})

    def device() -> None:
        devices.add(ctx, subnet.id, Mac(dice.randrange(2, 40, 2)))

    def remove() -> None:
        held = reservations.list_reservations(ctx, subnet.id, limit=100)
        own = [each for each in held if each.vnic is None]
        if own:
            devices.remove(ctx, subnet.id, dice.choice(own).ip)

    def put(*names: str) -> None:
        vnics.put_all(ctx, [VnicSpec(id=each, vm="vm", name="eth0", subnet=subnet.id) for each in names])

    def patch(**wanted: Any) -> None:
        vnics.change(ctx, vnic, wanted, wait="none")  # type: ignore[arg-type]

    def sync() -> None:
        """Some run, some do not, some are elsewhere than before, and some are missing for long enough."""
        names = [f"{kind}{number}" for kind in ("v", "new") for number in range(VNICS)]
        clock.advance(ctx.settings.missing_grace_s)
        vnics.sync(
            ctx,
            [
                VnicSighting(
                    id=each,
                    fields={"vm": "vm", "name": "eth0", "subnet": dice.choice(present(ctx)).id},
                    running=dice.random() < 0.5,
                )
                for each in dice.sample(names, len(names) * 3 // 4)
            ],
        )

    return {
        "start": lambda: vnics.start(ctx, vnic, wait="none"),
        "stop": lambda: vnics.stop(ctx, vnic),
        "put": lambda: put(vnic),
        "put new": lambda: put(new),
        "put many": lambda: put(*(f"new{each}" for each in dice.sample(range(VNICS), 3))),
        "delete": lambda: vnics.delete_vnic(ctx, new),
        "other mac": lambda: patch(mac=None),
        "other subnet": lambda: patch(subnet=subnet.id),
        "sync": sync,
        "device": device,
        "remove": remove,
        "ranges": lambda: change(ranges=(span,)),
        "all": lambda: change(ranges=(), exclusions=()),
        "exclude": lambda: change(exclusions=(span,)),
        "grow": lambda: change(cidr=subnet.cidr.supernet(subnet.cidr.prefixlen - 1)[0]),
        "shrink": lambda: change(cidr=half, ranges=(), exclusions=()),
        "renumber": lambda: renumbering.renumber(ctx, subnet.id, elsewhere, {"ranges": (), "exclusions": ()}),
        "host": put_host,
        "rest": rest,
        "rest more": rest,
    }
