"""Known clients while unknown ones flood: with the hook, with Kea's own `DROP` class, and with bare Kea."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import kea
from bench.figures import Figure
from lab import Lab
from lab.perfdhcp import Perfdhcp

_TURNS = 3
_SECONDS = 60
_KNOWN = 2_000
_FLOOD = 20_000
_CLIENTS = 10_000
_STRANGERS = 1_000_000
_STRANGER_MAC = "0a:00:00:00:00:00"
_NETWORK = "load"
_HOST_ADDRESS, _LOAD_ADDRESS, _FLOOD_ADDRESS = "10.255.0.1/8", "10.255.0.2/8", "10.255.0.3/8"
_MB = 2**20


def flood() -> list[Figure]:
    """What known clients keep of their rate, and what the flood costs in memory and events."""
    taken: dict[str, list[_Sample]] = {kind: [] for kind in ("hook", "DROP class", "bare")}
    for turn in range(_TURNS):
        for kind, samples in taken.items():
            samples.append(_measure(kind))
            print(f"  turn {turn + 1}: {kind:10} {samples[-1]}", flush=True)
    ours, theirs, bare = taken.values()
    kept_bare = sum(each.kept for each in bare) / len(bare)
    how = (
        f"{_KNOWN:,} exchanges a second by {_CLIENTS:,} known clients, beside {_FLOOD:,} DISCOVERs a second by "
        f"{_STRANGERS:,} unknown ones for {_SECONDS} s, all on the machine's cores"
    )
    return [
        Figure(
            name="known clients' rate under a flood",
            how=f"{how}, with the hook, in parts of its own rate without the flood. Theirs: the hook's, without it.",
            asked="≥ 0.98",
            is_reached=lambda ratio: ratio >= 0.98,
            ours=[each.flooded for each in ours],
            theirs=[each.calm for each in ours],
            unit="DORA/s",
        ),
        Figure(
            name="the same, to Kea's DROP class",
            how=f"{how}. Theirs: no hook, in-config reservations, and Kea's own class `DROP` for `UNKNOWN`. Bare Kea "
            f"keeps {kept_bare:.2f} of its rate.",
            asked="≥ 1",
            is_reached=lambda ratio: ratio >= 1,
            ours=[each.flooded for each in ours],
            theirs=[each.flooded for each in theirs],
            unit="DORA/s",
        ),
        Figure(
            name="memory under a flood",
            how="resident, of kea-dhcp4 with the hook after the flood. Theirs: the same before it. The flood of "
            f"{max(each.flood_packets for each in ours):,} packets arrived as at most "
            f"{max(each.flood_events for each in ours):,} events.",
            asked="≤ 1.2",
            is_reached=lambda ratio: ratio <= 1.2,
            ours=[each.memory_after for each in ours],
            theirs=[each.memory_before for each in ours],
            unit="MB",
        ),
    ]


@dataclass(frozen=True)
class _Sample:
    """DORA/s without and with the flood; MB; packets of the flood, and the events that told of them."""

    calm: float
    flooded: float
    memory_before: float
    memory_after: float
    flood_packets: int
    flood_events: int

    @property
    def kept(self) -> float:
        return self.flooded / self.calm

    def __str__(self) -> str:
        return (
            f"{self.flooded:,.0f} of {self.calm:,.0f} DORA/s ({self.kept:.3f}), {self.memory_before:,.0f} to "
            f"{self.memory_after:,.0f} MB, {self.flood_packets:,} packets as {self.flood_events:,} events"
        )


def _measure(kind: str) -> _Sample:
    with_hook = kind == "hook"
    reservations = list(kea.reservations(_CLIENTS))
    subnet = {
        "id": 1,
        "subnet": "10.0.0.0/8",
        "user-context": {"leasehold": {}} if with_hook else {},
        "reservations": [] if with_hook else reservations,
    }

    def drop_unknown(dhcp4: dict[str, Any]) -> None:
        if kind == "DROP class":
            dhcp4["client-classes"] = [{"name": "DROP", "test": "member('UNKNOWN')"}]

    with Lab("bench-flood") as lab:
        lab.network(_NETWORK)
        host = lab.host("bench", {_NETWORK: _HOST_ADDRESS})
        host.install(hook=with_hook, subnets=[subnet], change=drop_unknown)
        host.start()
        if with_hook:
            answer = host.command("leasehold-apply", subnet_id=1, epoch="bench", base=0, revision=1, set=reservations)
            if answer["result"] != 0:
                raise RuntimeError(f"leasehold-apply: {answer}")
        known = lab.perfdhcp(_NETWORK, _LOAD_ADDRESS)
        strangers = lab.perfdhcp(_NETWORK, _FLOOD_ADDRESS)
        calm = _offer(known)
        before = host.resident_memory() / _MB
        load = strangers.start(
            rate=_FLOOD, clients=_STRANGERS, seconds=_SECONDS + 5, first_mac=_STRANGER_MAC, discover_only=True
        )
        flooded = _offer(known)
        load.end()
        return _Sample(
            calm=calm,
            flooded=flooded,
            memory_before=before,
            memory_after=host.resident_memory() / _MB,
            flood_packets=host.status()["rejections"]["unknown"] if with_hook else 0,
            flood_events=_rejections_told(host.state_directory) if with_hook else 0,
        )


def _offer(load: Perfdhcp) -> float:
    return load.run(rate=_KNOWN, clients=_CLIENTS, seconds=_SECONDS, first_mac=kea.mac(0)).rate


def _rejections_told(state: Path) -> int:
    told = 0
    for segment in (state / "spool").glob("*.ndjson"):
        told += sum(json.loads(line)["type"] == "client.rejected" for line in segment.read_bytes().splitlines())
    return told
