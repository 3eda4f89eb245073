"""The API: how long `start` takes beside one command to a server, and how many vNICs it makes a second."""

import json
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median
from urllib.parse import urlsplit

from bench.figures import Figure
from lab import Lab
from lab.control_plane import ControlPlane
from lab.postgres import postgres
from lab.stage import NETWORK, Stage

_TURNS = 3
_STARTS_A_TURN = 100
_WARM_UP = 20
_VNICS_A_TURN = 2_000
_CLIENTS = 8
_ASKED_A_SECOND = 1_000
_SUBNET = {"network": NETWORK, "cidr": "192.0.0.0/16", "ranges": [{"from": "192.0.3.0", "to": "192.0.60.0"}]}
_PING = json.dumps({"command": "list-commands", "service": ["dhcp4"]}).encode()

MakeControl = Callable[[Lab], ControlPlane]


def start() -> list[Figure]:
    """`start` with `wait=all` on two servers, in commands to one of them."""
    return [_start(name, make) for name, make in _kinds()]


def throughput() -> list[Figure]:
    """vNICs created one by one."""
    return [_throughput(name, make) for name, make in _kinds()]


def _kinds() -> Iterator[tuple[str, MakeControl]]:
    yield "SQLite", lambda lab: lab.control_plane()
    with postgres(durable=True) as server:
        yield "PostgreSQL", lambda lab: lab.cluster(server, settings={}, apis=2, workers=2)


def _start(name: str, make: MakeControl) -> Figure:
    ours: list[float] = []
    theirs: list[float] = []
    with _stage(make, hosts=2) as stage:
        host = stage.hosts[0]
        api = _Client(lambda: _connect(stage.control.url), {"Authorization": f"Bearer {stage.control.admin_token}"})
        credentials = b64encode(f"{host.username}:{host.password}".encode()).decode()
        agent = _Client(
            lambda: stage.lab.control.within(partial(_connect, host.control_url)),
            {"Authorization": f"Basic {credentials}"},
        )
        for turn in range(_TURNS + 1):
            starts, pings = [], []
            for number in range(_STARTS_A_TURN if turn else _WARM_UP):
                vnic = f"/v1/vnics/bench-{turn}-{number}"
                api.call("PUT", vnic, {"vm": "vm", "name": "nic1", "subnet": stage.subnet})
                starts.append(_timed(lambda vnic=vnic: api.call("POST", f"{vnic}/start", {"wait": "all"})))  # type: ignore[misc]
                pings.append(_timed(lambda: agent.send("POST", "/", _PING)))
            if turn:
                ours.append(median(starts))
                theirs.append(median(pings))
                print(f"  {name}, turn {turn}: start {ours[-1]:.2f} ms, command {theirs[-1]:.2f} ms", flush=True)
    return Figure(
        name=f"start, {name}",
        how="POST /v1/vnics/{id}/start with wait=all on a network with two servers, on one kept connection; the median "
        f"of {_STARTS_A_TURN}. Theirs: `list-commands` to one of these servers through its Control Agent, likewise, in "
        "turns with it." + (" Two `leasehold api` and two `leasehold worker`." if name == "PostgreSQL" else ""),
        asked="≤ 6",
        is_reached=lambda ratio: ratio <= 6,
        ours=ours,
        theirs=theirs,
        unit="ms",
    )


def _throughput(name: str, make: MakeControl) -> Figure:
    ours = []
    with _stage(make, hosts=0) as stage:
        for turn in range(_TURNS):
            ours.append(_VNICS_A_TURN / _timed(lambda turn=turn: _put_all(stage, turn)) * 1000)  # type: ignore[misc]
            print(f"  {name}, turn {turn + 1}: {ours[-1]:,.0f} vNICs/s", flush=True)
    return Figure(
        name=f"vNICs created a second, {name}",
        how=f"PUT /v1/vnics/{{id}}, each a request, by {_CLIENTS} clients on kept connections, on the cores of the "
        "control plane; each on disk before its answer. Theirs is what is asked for.",
        asked=f"≥ 1 (≥ {_ASKED_A_SECOND:,}/s)",
        is_reached=lambda ratio: ratio >= 1,
        ours=ours,
        theirs=[_ASKED_A_SECOND],
        unit="/s",
    )


def _put_all(stage: Stage, turn: int) -> None:
    urls = [str(each.url) for each in stage.control.apis]
    failures: list[BaseException] = []

    def put(client: int) -> None:
        try:
            own = _Client(
                lambda: _connect(urls[client % len(urls)]),
                {"Authorization": f"Bearer {stage.control.admin_token}"},
            )
            for number in range(_VNICS_A_TURN // _CLIENTS):
                body = {"vm": "vm", "name": "nic1", "subnet": stage.subnet}
                own.call("PUT", f"/v1/vnics/bench-{turn}-{client}-{number}", body)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=put, args=(client,)) for client in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@contextmanager
def _stage(make: MakeControl, hosts: int) -> Iterator[Stage]:
    with Lab("bench-api") as lab:
        control = make(lab)
        control.start()
        with control.api() as api:
            stage = Stage(lab, control, api)
            stage.add_hosts(hosts)
            stage.put(f"/v1/networks/{NETWORK}", ipam_enabled=True, ipam_servers=max(1, hosts))
            stage.subnet = stage.post("/v1/subnets", **_SUBNET)["id"]
            stage.wait_for_servers(hosts)
            yield stage


class _Client:
    """One kept connection, and as little besides as can be, so that what is measured is the other side."""

    def __init__(self, connect: Callable[[], socket.socket], headers: dict[str, str]) -> None:
        self._socket = connect()
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._file = self._socket.makefile("rb")

    def call(self, method: str, path: str, body: object) -> None:
        """Raises RuntimeError for an answer that is no success."""
        self.send(method, path, json.dumps(body).encode())

    def send(self, method: str, path: str, body: bytes) -> None:
        """Raises RuntimeError for an answer that is no success."""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{self._headers}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + body)
        status = self._file.readline()
        length = 0
        while (line := self._file.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        answer = self._file.read(length)
        if not status.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(f"{method} {path}: {status!r} {answer!r}")


def _connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    made = socket.create_connection((parts.hostname, parts.port), timeout=60)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def _timed(work: Callable[[], object]) -> float:
    """Milliseconds."""
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000
