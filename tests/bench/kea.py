"""Kea with the hook, against the same Kea with its own in-config reservations, and against one command at a time."""

import gzip
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bench.figures import Figure
from lab import Host, Lab
from lab.namespace import Namespace

RESERVATIONS = 100_000
_TURNS = 3
_SECONDS = 15
_OFFERED = 14_000
_FIRST_MAC = 0x020000000000
_NETWORK = "load"
_HOST_ADDRESS, _LOAD_ADDRESS = "10.255.0.1/8", "10.255.0.2/8"
_BATCH = 5_000
_SINGLES = 3_000


def dora() -> list[Figure]:
    """DORA per second at saturation, and resident memory, with 100,000 reservations; events are reported."""
    ours_rate, theirs_rate, ours_memory, theirs_memory = [], [], [], []
    for turn in range(_TURNS):
        rate, memory = _saturate(with_hook=True)
        ours_rate.append(rate)
        ours_memory.append(memory)
        print(f"  turn {turn + 1}: hook      {rate:,.0f} DORA/s, {memory:,.0f} MB", flush=True)
        rate, memory = _saturate(with_hook=False)
        theirs_rate.append(rate)
        theirs_memory.append(memory)
        print(f"  turn {turn + 1}: in-config {rate:,.0f} DORA/s, {memory:,.0f} MB", flush=True)
    return [
        Figure(
            name="DORA/s at saturation",
            how=f"perfdhcp offers {_OFFERED:,} exchanges a second for {_SECONDS} s over {RESERVATIONS:,} clients, on "
            "the machine's cores like Kea itself; every lease event is reported to a listener that acknowledges it. "
            "Theirs: the same reservations in Kea's configuration, no hook of ours.",
            asked="≥ 1.0",
            is_reached=lambda ratio: ratio >= 1,
            ours=ours_rate,
            theirs=theirs_rate,
            unit="DORA/s",
        ),
        Figure(
            name="resident memory",
            how="of kea-dhcp4 after that load.",
            asked="≤ 0.333",
            is_reached=lambda ratio: ratio <= 1 / 3,
            ours=ours_memory,
            theirs=theirs_memory,
            unit="MB",
        ),
    ]


def push() -> list[Figure]:
    """Reservations per second through the Control Agent, in batches and one by one."""
    ours, theirs = [], []
    with Lab("bench-push") as lab:
        host = _host(lab)
        host.install()
        host.start()
        host.start_agent()
        for turn in range(_TURNS):
            singles = [
                _command("reservation-add", {"reservation": {"subnet-id": 900 + turn, **each}})
                for each in reservations(_SINGLES)
            ]
            theirs.append(_SINGLES / _posted(host, singles))
            batches = list(_batches(100 + turn))
            ours.append(RESERVATIONS / _posted(host, batches))
            print(f"  turn {turn + 1}: batches {ours[-1]:,.0f}/s, one by one {theirs[-1]:,.0f}/s", flush=True)
    return [
        Figure(
            name="reservations pushed a second",
            how=f"{RESERVATIONS:,} as `leasehold-apply` of {_BATCH:,} each through the Control Agent with basic "
            "authentication, on disk before each answer. Theirs: `reservation-add`, one a request, through the same "
            "Control Agent on one kept connection (to our own hook: the official host_cmds is not part of Kea 2.2).",
            asked="≥ 20, and ≥ 50,000/s",
            is_reached=lambda ratio: ratio >= 20 and max(ours) >= 50_000,
            ours=ours,
            theirs=theirs,
            unit="/s",
        )
    ]


def _saturate(*, with_hook: bool) -> tuple[float, float]:
    subnet = {
        "id": 1,
        "subnet": "10.0.0.0/8",
        "valid-lifetime": 7200,
        "user-context": {"leasehold": {}} if with_hook else {},
        "reservations": [] if with_hook else list(reservations(RESERVATIONS)),
    }
    with Lab("bench-dora") as lab, _listener(lab.control) as url:
        host = _host(lab)
        host.install(hook=with_hook, subnets=[subnet], report_url=url, token="lh_bench")
        host.start()
        if with_hook:
            for batch in _batches(1):
                answer = host.raw_command(batch)
                if answer["result"] != 0:
                    raise RuntimeError(f"leasehold-apply: {answer}")
        load = lab.perfdhcp(_NETWORK, _LOAD_ADDRESS).run(
            rate=_OFFERED, clients=RESERVATIONS, seconds=_SECONDS, first_mac=mac(0)
        )
        return load.rate, host.resident_memory() / 2**20


def _host(lab: Lab) -> Host:
    lab.network(_NETWORK)
    return lab.host("bench", {_NETWORK: _HOST_ADDRESS})


def _posted(host: Host, bodies: list[bytes]) -> float:
    """Seconds that it takes to POST the bodies to the Control Agent, one after the other; each must succeed."""
    with host.agent_client() as client:
        begun = time.perf_counter()
        for body in bodies:
            (answer,) = client.post("/", content=body).raise_for_status().json()
            if answer["result"] != 0:
                raise RuntimeError(f"{body[:80]!r}: {answer}")
        return time.perf_counter() - begun


def _batches(subnet_id: int) -> Iterator[bytes]:
    entries = list(reservations(RESERVATIONS))
    for base in range(0, RESERVATIONS, _BATCH):
        yield _command(
            "leasehold-apply",
            {
                "subnet-id": subnet_id,
                "epoch": "bench",
                "base": base,
                "revision": base + _BATCH,
                "set": entries[base : base + _BATCH],
            },
        )


def _command(name: str, arguments: dict[str, object]) -> bytes:
    return json.dumps({"command": name, "service": ["dhcp4"], "arguments": arguments}).encode()


def reservations(count: int) -> Iterator[dict[str, str]]:
    for number in range(count):
        address = number + 256
        yield {
            "hw-address": mac(number),
            "ip-address": f"10.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}",
        }


def mac(number: int) -> str:
    return (_FIRST_MAC + number).to_bytes(6, "big").hex(":")


@contextmanager
def _listener(namespace: Namespace) -> Iterator[str]:
    """Acknowledges every report, and keeps none; yields its base URL for hosts."""
    server = namespace.within(lambda: ThreadingHTTPServer(("10.99.0.1", 0), _Acknowledge))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://10.99.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Acknowledge(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        lines = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"]))).splitlines()
        body = json.dumps({"acknowledged": json.loads(lines[-1])["seq"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: it would be a line a report."""
