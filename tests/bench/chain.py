"""The whole way of lease events: perfdhcp, Kea with the hook, `leasehold serve` and a subscriber, on one machine."""

import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.figures import Figure
from bench.subscriber import Subscriber
from lab import Host, Lab
from lab.control_plane import MANAGEMENT_ADDRESS, ControlPlane
from lab.waiting import wait_until

_NETWORK = "load"
_HOST_ADDRESS, _LOAD_ADDRESS = "10.255.0.1/8", "10.255.0.2/8"
_FIRST_MAC = 0x020000000000
_CLIENTS = 4_000
_SINK_PORT = 9900
_TURNS = 2
_SECONDS = 60
_OFFERED, _CALM = 4_000, 2_000
_BURST = 500_000
_SETTLE_S = 300
_STARTERS = 4


def cost() -> list[Figure]:
    """DORA per second with every lease event on its way to a subscriber, and with reporting off."""
    on, off = [], []
    told = _Told()
    for turn in range(_TURNS):
        with _chain(reporting=True) as chain:
            on.append(chain.offer(_OFFERED))
            told += chain.all_told()
        print(f"  turn {turn + 1}: on  {on[-1]:,.0f} DORA/s, {told}", flush=True)
        with _chain(reporting=False) as chain:
            off.append(chain.offer(_OFFERED))
        print(f"  turn {turn + 1}: off {off[-1]:,.0f} DORA/s", flush=True)
    with _chain(reporting=True) as chain:
        chain.offer(_CALM)
        calm = chain.all_told()
    print(f"  at {_CALM:,}/s: {calm}", flush=True)
    both = told + calm
    return [
        Figure(
            name="DORA/s with every event reported",
            how=f"{_OFFERED:,} exchanges a second offered for {_SECONDS} s by {_CLIENTS:,} clients; the control plane "
            "over SQLite and a subscriber that takes batches share the cores with Kea and perfdhcp. Theirs: the same, "
            f"hook and all, with reporting off. {both.acknowledged:,} leases acknowledged in all: {both}.",
            asked="≥ 0.98, none lost",
            is_reached=lambda ratio: ratio >= 0.98 and both.is_whole,
            ours=on,
            theirs=off,
            unit="DORA/s",
        ),
        Figure(
            name="seconds behind",
            how=f"at {_CALM:,} exchanges a second for {_SECONDS} s, from what the server did to when the subscriber "
            "has it: the latest of all events. Theirs: what is asked for.",
            asked="≤ 1",
            is_reached=lambda ratio: ratio <= 1 and calm.is_whole,
            ours=[calm.latest_s],
            theirs=[2.0],
            unit="s",
        ),
    ]


def burst() -> list[Figure]:
    """How fast a backlog reaches the subscriber."""
    rates = []
    for turn in range(_TURNS):
        with _chain(reporting=True, backlog=_BURST) as chain:
            rates.append(chain.drain(_BURST))
        print(f"  turn {turn + 1}: {rates[-1]:,.0f} events/s", flush=True)
    return [
        Figure(
            name="backlog drained a second",
            how=f"{_BURST:,} events in the hook's spool when Kea starts: until the subscriber, which takes batches, "
            "has the last of them, counted from the hook's first report. Theirs: what is asked for.",
            asked="≥ 1",
            is_reached=lambda ratio: ratio >= 1,
            ours=rates,
            theirs=[10_000.0],
            unit="events/s",
        )
    ]


@dataclass
class _Told:
    """What came of what happened."""

    acknowledged: int = 0
    arrived: int = 0
    lost: int = 0
    repeated: int = 0
    out_of_order: int = 0
    latest_s: float = 0

    @property
    def is_whole(self) -> bool:
        """Whether every event has arrived, in order."""
        return self.arrived == self.acknowledged and not self.lost and not self.out_of_order

    def __add__(self, other: "_Told") -> "_Told":
        return _Told(
            self.acknowledged + other.acknowledged,
            self.arrived + other.arrived,
            self.lost + other.lost,
            self.repeated + other.repeated,
            self.out_of_order + other.out_of_order,
            max(self.latest_s, other.latest_s),
        )

    def __str__(self) -> str:
        return (
            f"{self.acknowledged - self.arrived:,} of {self.acknowledged:,} events missing, {self.lost:,} told lost, "
            f"{self.out_of_order:,} out of order, {self.repeated:,} twice, at most {self.latest_s:.1f} s behind"
        )


class _Chain:
    """One laboratory with everything running. The subscriber is subscribed to what a hook reports."""

    def __init__(self, lab: Lab, host: Host, sink: Subscriber, secret: str) -> None:
        self._host = host
        self._sink = sink
        self._secret = secret
        self._load = lab.perfdhcp(_NETWORK, _LOAD_ADDRESS)

    def offer(self, rate: int) -> float:
        """Completed exchanges a second."""
        return self._load.run(rate=rate, clients=_CLIENTS, seconds=_SECONDS, first_mac=_mac(0)).rate

    def all_told(self) -> _Told:
        """Waits until nothing more comes, and looks at everything."""
        wait_until(lambda: self._waiting() == 0, _SETTLE_S, "the hook has reported everything")
        self._wait_for_silence()
        name = "pkt4-ack-sent"
        acknowledged: int = self._host.command("statistic-get", name=name)["arguments"][name][0][0]
        return _look(self._sink, self._secret, acknowledged)

    def drain(self, count: int) -> float:
        """Events a second until the subscriber has so many."""
        begun = wait_until(lambda: time.time() if self._sent() else 0, _SETTLE_S, "the hook reports")
        wait_until(lambda: self._sent() >= count, _SETTLE_S, "the hook has reported everything")
        self._wait_for_silence()
        requests = list(self._sink.requests(self._secret))
        arrived = {(event["data"]["boot"], event["data"]["seq"]) for each in requests for event in each.events}
        if len(arrived) != count:
            raise RuntimeError(f"{len(arrived):,} events of {count:,} have arrived")
        return count / (requests[-1].at_s - begun)

    def _sent(self) -> int:
        sent: int = self._host.status()["events"]["sent"]
        return sent

    def _waiting(self) -> int:
        events = self._host.status()["events"]
        waiting: int = events["queued"] + events["spooled"]
        return waiting

    def _wait_for_silence(self) -> None:
        last, since = self._sink.octets(), time.monotonic()
        while time.monotonic() < since + 3:
            time.sleep(0.2)
            if self._sink.octets() != last:
                last, since = self._sink.octets(), time.monotonic()


@contextmanager
def _chain(*, reporting: bool, backlog: int = 0) -> Iterator[_Chain]:
    with Lab("bench-chain") as lab:
        control = lab.control_plane(webhook_allowed_networks="10.99.0.0/24")
        control.start()
        lab.network(_NETWORK)
        host = lab.host("bench", {_NETWORK: _HOST_ADDRESS})
        with (
            control.api() as api,
            Subscriber(lab.control, MANAGEMENT_ADDRESS, _SINK_PORT, lab.directory / "sink.bin") as sink,
        ):

            def call(method: str, path: str, **body: Any) -> dict[str, Any]:
                response = api.request(method, path, json=body)
                if response.is_error:
                    raise RuntimeError(f"{method} {path}: {response.status_code} {response.text}")
                answer: dict[str, Any] = response.json()
                return answer

            call(
                "PUT",
                f"/v1/hosts/{host.id}",
                control_url=host.control_url,
                username=host.username,
                password=host.password,
                networks={_NETWORK: {"interface": host.interfaces[_NETWORK], "address": host.addresses[_NETWORK]}},
            )
            secret = call(
                "POST",
                "/v1/webhooks",
                url=sink.url,
                types=["lease.*", "events.gap"],
                batch={"events": 1000},
            )["secret"]
            _install(host, control, reporting=reporting, backlog=backlog)
            host.start()
            host.start_agent()
            if not backlog:
                _promise(call, host)
            yield _Chain(lab, host, sink, secret)


def _install(host: Host, control: ControlPlane, *, reporting: bool, backlog: int) -> None:
    if backlog:
        _fill_spool(host.state_directory / "spool", backlog)
    host.install(
        report_url=control.report_url if reporting else None,
        token=control.token("host", host.id),
        parameters={"spool-limit": 2**30},
    )


def _promise(call: Any, host: Host) -> None:
    """Each client's vNIC is started, and its reservation is in Kea."""
    call("PUT", f"/v1/networks/{_NETWORK}", ipam_enabled=True, ipam_servers=1)
    subnet = call(
        "POST", "/v1/subnets", network=_NETWORK, cidr="10.0.0.0/8", ranges=[{"from": "10.1.0.0", "to": "10.2.0.0"}]
    )
    ids = [f"nic-{number}" for number in range(_CLIENTS)]
    for first in range(0, _CLIENTS, 1000):
        call(
            "POST",
            "/v1/vnics/bulk",
            vnics=[
                {"id": ids[number], "vm": f"vm-{number}", "name": "nic1", "subnet": subnet["id"], "mac": _mac(number)}
                for number in range(first, min(first + 1000, _CLIENTS))
            ],
        )
    with ThreadPoolExecutor(_STARTERS) as starters:
        list(starters.map(lambda id: call("POST", f"/v1/vnics/{id}/start", wait="none"), ids))

    def confirmed() -> bool:
        status = host.status()
        return (
            subnet["id"] in status["managed-subnets"] and sum(each["count"] for each in status["subnets"]) == _CLIENTS
        )

    wait_until(confirmed, _SETTLE_S, "Kea has all reservations")


def _fill_spool(spool: Path, count: int) -> None:
    """Events of an earlier life of this Kea, in segments as the hook writes them (hook/README.md)."""
    spool.mkdir(parents=True, mode=0o700)
    spool.parent.chmod(0o700)
    boot = uuid.uuid4()
    now_ms = time.time_ns() // 1_000_000
    for first in range(1, count + 1, 6_000):
        lines = [
            json.dumps(
                {
                    "seq": seq,
                    "type": "lease.renewed",
                    "at": now_ms,
                    "subnet": 1_000_000_000,
                    "ip": f"10.1.{seq >> 8 & 255}.{seq & 255}",
                    "mac": _mac(seq % 65536),
                    "valid_lft": 3600,
                    "cltt": now_ms // 1000,
                },
                separators=(",", ":"),
            )
            for seq in range(first, min(first + 6_000, count + 1))
        ]
        (spool / f"1-{boot}-{first}.ndjson").write_text("\n".join(lines) + "\n")


def _look(sink: Subscriber, secret: str, acknowledged: int) -> _Told:
    told = _Told(acknowledged=acknowledged)
    last: dict[str, int] = {}
    seen: set[tuple[str, int]] = set()
    for request in sink.requests(secret):
        for event in request.events:
            data = event["data"]
            if event["type"] == "events.gap":
                told.lost += data["lost"]
                continue
            key = (data["boot"], data["seq"])
            if key in seen:
                told.repeated += 1
                continue
            seen.add(key)
            told.arrived += 1
            told.out_of_order += data["seq"] < last.get(event["subject"], 0)
            last[event["subject"]] = data["seq"]
            told.latest_s = max(told.latest_s, request.at_s - _instant(event["time"]))
    return told


def _instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _mac(number: int) -> str:
    return (_FIRST_MAC + number).to_bytes(6, "big").hex(":")
