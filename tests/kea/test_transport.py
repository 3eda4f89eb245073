"""Commands over HTTP: what is an answer, a refusal, or no answer at all."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lab.host import Host as LabHost
from leasehold.config import Settings
from leasehold.domain.values import Host
from leasehold.errors import HostUnreachable, KeaRefused
from leasehold.kea.transport import Result, Transport

Serve = Callable[[int, bytes], Host]


def host_at(url: str) -> Host:
    return Host(
        id="host-a",
        control_url=url,
        username="leasehold",
        password="secret",
        networks={},
        answered_at=None,
        unreachable_reason=None,
    )


@pytest.fixture
def here() -> Iterator[Transport]:
    transport = Transport(Settings(control_timeout_s=1, control_connect_timeout_s=1))
    yield transport
    transport.close()


@pytest.fixture
def requests() -> list[bytes]:
    """What the double was asked."""
    return []


@pytest.fixture
def serve(requests: list[bytes]) -> Iterator[Serve]:
    """A double for answers that a real Kea cannot be made to give."""
    servers: list[ThreadingHTTPServer] = []

    def start(status: int, body: bytes) -> Host:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                requests.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Silent."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return host_at(f"http://127.0.0.1:{server.server_port}/")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def answer(**fields: object) -> bytes:
    return json.dumps([fields]).encode()


def test_a_real_kea_answers_with_arguments(transport: Transport, host: Host) -> None:
    answered = transport.command(host, "config-get")
    assert answered.result is Result.SUCCESS
    assert "subnet4" in answered.arguments["Dhcp4"]


def test_a_real_kea_refuses_a_command_that_it_does_not_know(transport: Transport, host: Host) -> None:
    with pytest.raises(KeaRefused) as refused:
        transport.command(host, "make-coffee")
    assert refused.value.facts == {
        "host": "host-a",
        "command": "make-coffee",
        "result": 2,
        "text": "'make-coffee' command not supported.",
    }


def test_a_real_control_agent_refuses_a_wrong_password(transport: Transport, host: Host) -> None:
    with pytest.raises(KeaRefused, match="user 'leasehold' is not let in"):
        transport.command(replace(host, password="wrong"), "config-get")


def test_a_password_that_was_changed_is_used_at_once(transport: Transport, host: Host) -> None:
    with pytest.raises(KeaRefused):
        transport.command(replace(host, password="wrong"), "config-get")
    assert transport.command(host, "config-get").result is Result.SUCCESS


def test_a_real_control_agent_without_its_kea_is_no_answer(transport: Transport, host: Host, kea: LabHost) -> None:
    kea.kill()
    with pytest.raises(HostUnreachable) as unreachable:
        transport.command(host, "config-get")
    assert unreachable.value.facts["host"] == "host-a"
    assert unreachable.value.facts["url"] == host.control_url
    assert "unable to forward command" in str(unreachable.value.facts["reason"])


def test_an_agent_that_was_restarted_answers_again(transport: Transport, host: Host, kea: LabHost) -> None:
    transport.command(host, "config-get")
    kea.stop_agent()
    with pytest.raises(HostUnreachable):
        transport.command(host, "config-get")
    kea.start_agent()
    assert transport.command(host, "config-get").result is Result.SUCCESS


def test_nobody_listens(here: Transport) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(HostUnreachable, match="Connection refused"):
            here.command(host_at(f"http://127.0.0.1:{taken.getsockname()[1]}/"), "config-get")


def test_somebody_listens_and_says_nothing(here: Transport) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(HostUnreachable, match="no answer in time"),
    ):
        here.command(host_at(f"http://127.0.0.1:{silent.getsockname()[1]}/"), "config-get")


def test_a_url_that_is_none(here: Transport) -> None:
    with pytest.raises(HostUnreachable):
        here.command(host_at("host-a:8000"), "config-get")


def test_empty_is_an_answer(here: Transport, serve: Serve) -> None:
    assert here.command(serve(200, answer(result=3, text="0 found")), "lease4-get").result is Result.EMPTY


def test_conflict_is_an_answer_with_arguments(here: Transport, serve: Serve) -> None:
    answered = here.command(serve(200, answer(result=4, arguments={"revision": 7})), "leasehold-apply")
    assert answered.result is Result.CONFLICT
    assert answered.arguments == {"revision": 7}


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{}", b"[]", b"[1]", b'[{"text": "no result"}]', b'[{"result": "0"}]', b"\xff"]
)
def test_garbage_is_refused_with_a_sentence(here: Transport, serve: Serve, body: bytes) -> None:
    with pytest.raises(KeaRefused, match="is no answer of Kea"):
        here.command(serve(200, body), "config-get")


def test_an_http_error_is_refused_with_its_status(here: Transport, serve: Serve) -> None:
    with pytest.raises(KeaRefused, match="HTTP status 503"):
        here.command(serve(503, b"busy"), "config-get")


def test_the_control_agent_is_told_the_service(here: Transport, serve: Serve, requests: list[bytes]) -> None:
    here.command(serve(200, answer(result=0)), "config-get", {"a": 1})
    assert json.loads(requests[0]) == {"command": "config-get", "service": ["dhcp4"], "arguments": {"a": 1}}


def test_a_servers_own_socket_is_told_no_service(serve: Serve, requests: list[bytes]) -> None:
    direct = Transport(Settings(), service=None)
    direct.command(serve(200, answer(result=0)), "config-get")
    direct.close()
    assert json.loads(requests[0]) == {"command": "config-get"}


@pytest.fixture
def say() -> Iterator[Callable[..., Host]]:
    """A double that says these octets, piece by piece, to whoever asks, and then closes."""
    listening: list[socket.socket] = []

    def start(*pieces: bytes) -> Host:
        server = socket.create_server(("127.0.0.1", 0))
        listening.append(server)

        def serve() -> None:
            asking, _ = server.accept()
            with asking:
                asking.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                asked = b""
                while not asked.endswith(b"}"):
                    asked += asking.recv(65536)
                for piece in pieces:
                    asking.sendall(piece)

        threading.Thread(target=serve, daemon=True).start()
        return host_at(f"http://127.0.0.1:{server.getsockname()[1]}/")

    yield start
    for each in listening:
        each.close()


def test_an_answer_may_come_octet_by_octet(here: Transport, say: Callable[..., Host]) -> None:
    body = answer(result=0, text="", arguments={"a": 1})
    whole = b"HTTP/1.1 200 OK\r\ncontent-length:  %d\r\nDate: now\r\n\r\n%b" % (len(body), body)
    host = say(*(whole[at : at + 1] for at in range(len(whole))))
    assert here.command(host, "list-commands").arguments == {"a": 1}


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[{}",
        b"HTTP/1.1 200 OK\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n[]",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
    ],
    ids=["nothing", "half a head", "half a body", "no length", "chunks", "a negative length", "no HTTP", "a long head"],
)
def test_half_an_answer_or_none_of_keas_is_no_answer(here: Transport, say: Callable[..., Host], said: bytes) -> None:
    with pytest.raises(HostUnreachable, match="host-a"):
        here.command(say(said), "list-commands")
