"""One process of many that change vNICs at random, and the journal of what it was told.

A line of the journal is on its way to disk, and safe from the process's own death, before the next call: `begun` names
the vNICs that a call may change, and the line behind it is the answer. A journal that ends with `begun` is that of a
process that was killed inside a call.
"""

import json
import os
import random
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leasehold.config import Settings
from leasehold.domain.addresses import Mac, MacRange
from leasehold.domain.values import Vnic, VnicSpec
from leasehold.errors import (
    DatabaseBusy,
    LeaseholdError,
    MacPoolExhausted,
    MacsBad,
    MacTaken,
    VnicNotFound,
    WouldDuplicate,
)
from leasehold.service import mac_pools, macs, vnics
from leasehold.service.context import Context
from leasehold.store.database import Database

EXPECTED = (DatabaseBusy, MacPoolExhausted, MacsBad, MacTaken, VnicNotFound, WouldDuplicate)
"""What a caller may be told when many ask for the same."""

SINGLE_BASE, SHARED_BASE, RESIZED_BASE, STRAY_BASE = 0x020000000000, 0x020100000000, 0x020200000000, 0x06FF00000000
SINGLE_SIZE, SHARED_SIZE, RESIZED_SIZE = 150, 60, 40
CLUSTERS = ("single", "shared", "resized")
"""Each has a MAC pool of its own; of the second one duplicates are allowed, the third one's ranges change."""
VM_POOL = "desktops"

_CONTESTED = [
    Mac(base + number)
    for base in (SINGLE_BASE, SHARED_BASE, RESIZED_BASE + RESIZED_SIZE - 6, STRAY_BASE)
    for number in range(12)
]
_OWN = 12
_IN_BULK = 8
_COMMON = [f"common-{number}" for number in range(6)]


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What one process is to do: `slot` owns its vNICs, and passes them on to the next process of the slot."""

    database_url: str
    resized_pool: str
    slot: int
    seed: int
    journal: Path
    seconds: float
    """Until when: an instant of time.monotonic(), which all processes share."""


def fire_settings(database_url: str) -> Settings:
    """MACs cool so shortly that they come back within the run."""
    return Settings(database_url=database_url, cool_down_s=0.3)


def work(orders: Orders) -> None:
    """Calls at random until the time is over. What no caller should be told goes to the journal as `unexpected`."""
    _Worker(orders).run()


class _Worker:
    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._random = random.Random(orders.seed)
        self._ctx = Context(Database(orders.database_url), fire_settings(orders.database_url))
        self._journal = os.open(orders.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._own = [f"own-{orders.slot}-{number}" for number in range(_OWN)]
        self._bulk = [f"bulk-{orders.slot}-{number}" for number in range(_IN_BULK)]

    def run(self) -> None:
        calls: Sequence[Callable[[], None]] = (
            self._allocate,
            self._allocate,
            self._name_a_mac,
            self._free,
            self._move,
            self._move,
            self._import,
            self._create_in_bulk,
            self._fight,
            self._resize,
            self._sweep,
        )
        while time.monotonic() < self._orders.seconds:
            self._random.choice(calls)()

    def _allocate(self) -> None:
        spec = self._spec(self._random.choice(self._own))
        self._call("allocate", [spec.id], lambda: [vnics.put(self._ctx, spec)[0]])

    def _name_a_mac(self) -> None:
        spec = self._spec(self._random.choice(self._own), self._random.choice(_CONTESTED))
        self._call("name", [spec.id], lambda: [vnics.put(self._ctx, spec)[0]])

    def _free(self) -> None:
        vnic = self._random.choice(self._own)
        self._call("free", [vnic], lambda: vnics.delete_vnic(self._ctx, vnic))

    def _move(self) -> None:
        vnic, cluster = self._random.choice(self._own), self._random.choice(CLUSTERS)
        new = self._random.random() < 0.5
        self._call("move", [vnic], lambda: [vnics.move(self._ctx, vnic, cluster=cluster, new_mac=new)])

    def _import(self) -> None:
        specs = [
            self._spec(vnic, self._random.choice([None, *_CONTESTED]))
            for vnic in self._random.sample(self._own, self._random.randint(1, 5))
        ]
        reassign = self._random.random() < 0.7
        self._call(
            "import",
            [spec.id for spec in specs],
            lambda: vnics.take_in(self._ctx, specs, reassign_bad_macs=reassign).vnics,
        )

    def _create_in_bulk(self) -> None:
        if self._random.random() < 0.4:
            vnic = self._random.choice(self._bulk)
            self._call("free", [vnic], lambda: vnics.delete_vnic(self._ctx, vnic))
            return
        specs = [VnicSpec(id=vnic, vm=f"vm-of-{vnic}", name="nic1", vm_pool=VM_POOL) for vnic in self._bulk]
        self._random.shuffle(specs)
        self._call("bulk", self._bulk, lambda: vnics.put_all(self._ctx, specs))

    def _fight(self) -> None:
        """Changes vNICs that the other processes change too: nothing can be said of them afterwards but what holds for
        all."""
        some = self._random.sample(_COMMON, self._random.randint(1, 4))
        kind = self._random.choice(("put", "delete", "move"))
        if kind == "put":
            specs = [self._spec(vnic, self._random.choice([None, None, *_CONTESTED])) for vnic in some]
            self._call("fight", [], lambda: vnics.put_all(self._ctx, specs))
        elif kind == "delete":
            self._call("fight", [], lambda: vnics.delete_vnic(self._ctx, some[0]))
        else:
            cluster = self._random.choice(CLUSTERS)
            self._call("fight", [], lambda: vnics.move(self._ctx, some[0], cluster=cluster, new_mac=True))

    def _resize(self) -> None:
        size = self._random.randint(RESIZED_SIZE // 2, RESIZED_SIZE)
        ranges = (MacRange(Mac(RESIZED_BASE), Mac(RESIZED_BASE + size - 1)),)
        change = mac_pools.PoolChange(ranges=ranges)
        self._call("resize", [], lambda: mac_pools.change(self._ctx, self._orders.resized_pool, change))

    def _sweep(self) -> None:
        self._call("sweep", [], lambda: macs.sweep(self._ctx))

    def _spec(self, vnic: str, mac: Mac | None = None) -> VnicSpec:
        cluster = self._random.choice((None, *CLUSTERS))
        return VnicSpec(id=vnic, vm=f"vm-of-{vnic}", name="nic1", cluster=cluster, mac=mac)

    def _call(self, kind: str, own: Sequence[str], call: Callable[[], object]) -> None:
        """Writes that it begins, calls, and writes the answer. A call that answers no vNICs has deleted its own."""
        self._write({"begun": own})
        try:
            answer = call()
        except EXPECTED as refusal:
            self._write({"refused": refusal.code, "kind": kind})
        except LeaseholdError as refusal:
            self._write({"unexpected": f"{kind}: {refusal.code}: {refusal}"})
        except BaseException:
            # It is for the test to tell, whatever it was.
            self._write({"unexpected": f"{kind}: {traceback.format_exc()}"})
            raise
        else:
            has = {each.id: [str(each.mac), each.mac_pool] for each in _vnics_of(answer)} if own else {}
            self._write({"done": kind, "has": has, "gone": [vnic for vnic in own if vnic not in has]})

    def _write(self, line: dict[str, Any]) -> None:
        os.write(self._journal, json.dumps({"at": time.monotonic(), **line}).encode() + b"\n")


def _vnics_of(answer: object) -> Iterable[Vnic]:
    return [each for each in answer if isinstance(each, Vnic)] if isinstance(answer, list | tuple) else []
