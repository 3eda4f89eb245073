"""`leasehold serve` as a real process, on loopback."""

import gzip
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from lab.postgres import Postgres
from lab.process import children
from lab.waiting import wait_until
from leasehold.cli.server import THREADS
from leasehold.store.tables import FIRST_SUBNET_ID

LEASEHOLD = Path(sys.executable).with_name("leasehold")
BOOT = "4b9c1e6a-7f0d-4c1b-9a55-2f6f0c7f2f11"
LINE = {
    "seq": 1,
    "type": "lease.assigned",
    "at": 1_700_000_000_000,
    "subnet": FIRST_SUBNET_ID,
    "ip": "192.0.2.10",
    "mac": "02:00:00:00:00:01",
    "valid_lft": 3600,
    "cltt": 1_700_000_000,
}


@dataclass
class Server:
    """One process with its log."""

    process: subprocess.Popen[bytes]
    log: Path
    token: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What it logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    @property
    def urls(self) -> list[str]:
        """Where it listens; empty until it does."""
        return [url for line in self.lines if line["message"] == "Serving." for url in line["addresses"]]

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens first."""
        url = httpx.URL(self.urls[0])
        return url.host, url.port or 80

    def api(self) -> httpx.Client:
        return httpx.Client(base_url=self.urls[0], headers={"Authorization": f"Bearer {self.token}"}, timeout=30)

    def send(self, request: str, body: bytes = b"", headers: str = "") -> socket.socket:
        """A request on a connection of its own, whose answer nobody reads yet."""
        connection = socket.create_connection(self.address, timeout=60)
        head = f"{request} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.token}\r\n{headers}"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return connection


Serve = Callable[..., Server]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"LEASEHOLD_DATABASE_URL": f"sqlite:///{tmp_path}/leasehold.sqlite"}


@pytest.fixture
def serve(tmp_path: Path, environment: dict[str, str]) -> Iterator[Serve]:
    """Starts a server that is ready when this returns, and ends with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*binds: str, fds: tuple[int, ...] = (), **settings: object) -> Server:
        own = environment | {f"LEASEHOLD_{name.upper()}": str(value) for name, value in settings.items()}
        arguments = [each for bind in binds or ("127.0.0.1:0",) for each in ("--bind", bind)]
        log = tmp_path / f"log-{len(started)}"
        with log.open("wb") as output:
            process = subprocess.Popen([LEASEHOLD, "serve", *arguments], env=own, stderr=output, pass_fds=fds)
        started.append(process)
        made = subprocess.run(
            [LEASEHOLD, "token", "create", "--role", "admin", "--json"], env=own, capture_output=True, check=True
        )
        server = Server(process, log, json.loads(made.stdout)["secret"])

        def is_ready() -> bool:
            assert process.poll() is None, log.read_text()
            return bool(server.urls) and httpx.get(f"{server.urls[0]}/readyz").is_success

        wait_until(is_ready, 30, "the server is ready")
        return server

    yield start
    for process in started:
        process.kill()
        process.wait()


@contextmanager
def started_vnics(server: Server, count: int) -> Iterator[list[socket.socket]]:
    """Connections that wait in `start`, on a network that no host serves."""
    with server.api() as api:
        api.put("/v1/networks/blue", json={"ipam_enabled": True}).raise_for_status()
        api.post("/v1/subnets", json={"network": "blue", "cidr": "192.0.2.0/24"}).raise_for_status()
        for number in range(count):
            vnic = {"vm": "vm1", "name": "nic1", "subnet": FIRST_SUBNET_ID}
            api.put(f"/v1/vnics/v{number}", json=vnic).raise_for_status()
        waiting = [server.send(f"POST /v1/vnics/v{number}/start") for number in range(count)]

        def all_wait() -> bool:
            return all(each["running"] for each in api.get("/v1/vnics?limit=1000").json()["items"])

        wait_until(all_wait, 60, "every start waits")
        yield waiting
    for connection in waiting:
        connection.close()


def answer(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def is_refused(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_it_listens_on_addresses_and_inherited_sockets_at_once(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        server = serve("127.0.0.1:0", f"fd://{inherited.fileno()}", fds=(inherited.fileno(),))
        port = inherited.getsockname()[1]
        assert len(server.urls) == 2
        assert all(httpx.get(f"{url}/healthz").is_success for url in server.urls)
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").is_success


def test_it_listens_on_ipv6(serve: Serve) -> None:
    server = serve("[::1]:0")
    assert server.urls[0].startswith("http://[::1]:")


def test_more_idle_connections_than_threads_stay_usable(serve: Serve) -> None:
    """As many hosts' hooks keep one each, and come back to it."""
    server = serve()
    connections = [HTTPConnection(*server.address, timeout=30) for _ in range(THREADS + 50)]
    for connection in connections:
        connection.connect()
    opened = [connection.sock for connection in connections]
    for _ in range(3):
        for connection in connections:
            connection.request("GET", "/healthz")
            assert connection.getresponse().read() == b'{"status":"ok"}'
    assert [connection.sock for connection in connections] == opened
    for connection in connections:
        connection.close()


def test_events_are_taken_while_many_starts_wait(serve: Serve) -> None:
    server = serve(start_budget_s=120)
    with started_vnics(server, 100) as waiting, server.api() as api:
        host = {"control_url": "http://127.0.0.1:1/", "username": "", "password": ""}
        api.put("/v1/hosts/host-a", json=host).raise_for_status()
        report = api.post(
            f"/v1/hosts/host-a/events?boot={BOOT}&boot_order=1",
            content=gzip.compress(json.dumps(LINE).encode() + b"\n"),
            headers={"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"},
        )
        assert report.json() == {"acknowledged": 1}
        assert select.select(waiting, [], [], 0)[0] == []


def test_sigterm_lets_a_waiting_request_have_its_answer(serve: Serve) -> None:
    server = serve(start_budget_s=3)
    with started_vnics(server, 1) as (waiting,):
        server.process.send_signal(signal.SIGTERM)
        assert b"503 SERVICE UNAVAILABLE" in answer(waiting)
    assert server.process.wait(60) == 0


def test_a_killed_parent_takes_its_child_with_it(serve: Serve) -> None:
    """Also one that still has requests to answer, which would keep the address for as long."""
    server = serve(start_budget_s=120)
    address = server.address
    with started_vnics(server, 1):
        server.process.kill()
        wait_until(lambda: is_refused(address), 15, "nobody listens any more")
    assert serve(f"127.0.0.1:{address[1]}").address == address


def test_a_killed_child_is_replaced(serve: Serve) -> None:
    server = serve()
    (child,) = children(server.process.pid)
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: children(server.process.pid) not in ([], [child]), 30, "there is another child")
    with server.api() as api:
        assert api.get("/v1/networks").is_success


def test_a_client_that_stops_in_the_middle_of_its_request_is_dropped(serve: Serve) -> None:
    server = serve()
    connection = socket.create_connection(server.address, timeout=60)
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: loc")
    assert answer(connection) == b""


def test_a_body_that_is_cut_off_changes_nothing(serve: Serve) -> None:
    server = serve()
    body = b'{"ipam_enabled": true}'
    head = (
        f"PUT /v1/networks/blue HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body) + 1}\r\n\r\n"
    )
    with socket.create_connection(server.address, timeout=60) as cut:
        cut.sendall(head.encode() + body)
        cut.shutdown(socket.SHUT_WR)
        assert b"400 BAD REQUEST" in answer(cut)
    with server.api() as api:
        assert api.get("/v1/networks").json()["items"] == []


def test_a_chunked_body_is_taken_and_limited(serve: Serve) -> None:
    server = serve()
    with server.api() as api:
        taken = api.put("/v1/networks/blue", content=iter([b"{", b"}"]), headers={"Content-Type": "application/json"})
        assert taken.status_code == 201
        large = api.put(
            "/v1/networks/blue", content=iter([b" " * 2**20] * 5), headers={"Content-Type": "application/json"}
        )
        assert large.json()["code"] == "body-too-large"


def test_every_line_of_the_log_is_json_and_none_has_a_secret(serve: Serve) -> None:
    server = serve()
    with server.api() as api:
        api.put("/v1/hosts/h", json={"control_url": "http://127.0.0.1:1/", "username": "u", "password": "hunter2"})
        api.get("/v1/networks", headers={"X-Request-Id": "engine-7"})
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(60)
    (line,) = [line for line in server.lines if line.get("request_id") == "engine-7"]
    assert (line["method"], line["path"], line["status"], line["role"]) == ("GET", "/v1/networks", 200, "admin")
    assert "hunter2" not in server.log.read_text()
    assert server.token not in server.log.read_text()


def test_an_address_in_use_is_told(serve: Serve, environment: dict[str, str]) -> None:
    host, port = serve().address
    second = subprocess.run(
        [LEASEHOLD, "serve", "--bind", f"{host}:{port}"], env=environment, capture_output=True, text=True, check=False
    )
    assert second.returncode == 1
    assert f"{host}:{port}: Address already in use" in second.stderr


def test_a_setting_that_the_worker_refuses_ends_the_server_with_a_sentence(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [LEASEHOLD, "serve", "--bind", "127.0.0.1:0"],
        env=environment | {"LEASEHOLD_WEBHOOK_ALLOWED_NETWORKS": "anywhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "'anywhere'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_apart_tells_of_its_health_and_work(tmp_path: Path, postgres_server: Postgres) -> None:
    log = tmp_path / "worker.log"
    environment = os.environ | {"LEASEHOLD_DATABASE_URL": postgres_server.fresh_database()}
    with log.open("wb") as output:
        process = subprocess.Popen([LEASEHOLD, "worker", "--bind", "127.0.0.1:0"], stderr=output, env=environment)
    try:
        server = Server(process, log, "")
        wait_until(lambda: any(line["message"] == "Working." for line in server.lines), 30, "the worker works")
        (url,) = (each for line in server.lines if line["message"] == "Working." for each in line["addresses"])
        with httpx.Client(base_url=url, timeout=30) as client:
            assert client.get("/healthz").json() == client.get("/readyz").json() == {"status": "ok"}
            assert "leasehold_database_up 1.0" in client.get("/metrics").text
            assert client.get("/v1/vnics").status_code == 404
    finally:
        process.terminate()
        process.wait(30)
