"""What an exchange costs Kea's packet threads, in instructions: other load on the machine does not change it.

Kea runs under callgrind, which runs one thread at a time: cache misses, locks and the kernel do not count.
"""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from bench import kea
from bench.figures import Figure
from lab import Host, Lab

_CLIENTS = 20_000
_RATE, _SECONDS = 10, 30
_WARM_UP = 150
_PATIENCE_S = 300
_NETWORK = "load"
_HOST_ADDRESS, _LOAD_ADDRESS = "10.255.0.1/8", "10.255.0.2/8"
_STRANGER_MAC = "0a:00:00:00:00:00"


def instructions() -> list[Figure]:
    """Per exchange against in-config reservations, and per packet of an unknown client against Kea's `DROP` class."""
    exchange = {kind: _count(kind, unknown=False) for kind in ("hook", "in-config")}
    stranger = {kind: _count(kind, unknown=True) for kind in ("hook", "DROP class")}
    how = f"of Kea's packet threads, of {_RATE * _SECONDS:,} at {_RATE} a second, under callgrind"
    return [
        Figure(
            name="instructions per exchange",
            how=f"{how}; {_CLIENTS:,} reservations. Theirs: in Kea's configuration, no hook of ours.",
            asked="≤ 1.05",
            is_reached=lambda ratio: ratio <= 1.05,
            ours=[exchange["hook"]],
            theirs=[exchange["in-config"]],
            unit="instructions",
        ),
        Figure(
            name="instructions per packet of an unknown client",
            how=f"{how}. Theirs: in-config reservations and Kea's own class `DROP` for `UNKNOWN`.",
            asked="≤ 1",
            is_reached=lambda ratio: ratio <= 1,
            ours=[stranger["hook"]],
            theirs=[stranger["DROP class"]],
            unit="instructions",
        ),
    ]


def _count(kind: str, *, unknown: bool) -> float:
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

    with Lab("bench-count") as lab:
        lab.network(_NETWORK)
        host = lab.host("bench", {_NETWORK: _HOST_ADDRESS})
        host.install(hook=with_hook, subnets=[subnet], change=drop_unknown)
        profile = host.directory / "callgrind.out"
        host.start(
            under=[
                "valgrind",
                "--tool=callgrind",
                "--instr-atstart=no",
                "--separate-threads=yes",
                f"--callgrind-out-file={profile}",
                f"--log-file={profile}.log",
            ],
            patience_s=_PATIENCE_S,
        )
        if with_hook:
            answer = host.command("leasehold-apply", subnet_id=1, epoch="bench", base=0, revision=1, set=reservations)
            if answer["result"] != 0:
                raise RuntimeError(f"leasehold-apply: {answer}")
        load = lab.perfdhcp(_NETWORK, _LOAD_ADDRESS)
        load.run(rate=_RATE, clients=_WARM_UP, seconds=3, first_mac=kea.mac(0))
        _control(host, "--instr=on")
        first_mac = _STRANGER_MAC if unknown else kea.mac(_WARM_UP)
        result = load.run(
            rate=_RATE, clients=_CLIENTS - _WARM_UP, seconds=_SECONDS, first_mac=first_mac, discover_only=unknown
        )
        _control(host, "--instr=off")
        _control(host, "--dump")
        if not unknown and (result.request_ack is None or result.request_ack.received < 0.97 * _RATE * _SECONDS):
            raise RuntimeError(f"too busy: not all of {_RATE} exchanges a second were completed, but {result}")
        done = result.discover_offer.sent if unknown else (result.request_ack or result.discover_offer).received
        per_one = _of_packet_threads(profile) / done
    print(f"  {kind:10} {'unknown' if unknown else 'exchange'}: {per_one:,.0f} instructions", flush=True)
    return per_one


def _control(host: Host, order: str) -> None:
    subprocess.run(
        ["callgrind_control", order, str(host.kea_pid)], check=True, capture_output=True, env=os.environ, timeout=60
    )


def _of_packet_threads(profile: Path) -> int:
    """The threads that were in Kea's DHCP libraries: its own. The hook's Python is in another."""
    parts = [part.read_text() for part in profile.parent.glob(f"{profile.name}.1-*")]
    totals = [re.search(r"^totals: (\d+)", part, re.MULTILINE) for part in parts if "isc::dhcp::" in part]
    return sum(int(total[1]) for total in totals if total)
