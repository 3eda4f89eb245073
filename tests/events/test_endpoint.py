"""Where a webhook may go, and how long it may take: real sockets, and a resolver of the test's own."""

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import pytest

from events.post import Post, until
from events.receiver import Receiver
from leasehold.domain.values import WebhookSpec
from leasehold.domain.webhooks import allowed_networks
from leasehold.errors import FieldInvalid
from leasehold.outbound.endpoint import Endpoint, NoAnswer, Response
from leasehold.service import delivery_log, webhooks

LOOPBACK = allowed_networks("127.0.0.1/32")
HEADERS = {"webhook-id": "m", "webhook-timestamp": "0", "webhook-signature": "v1,x"}


class Names:
    """A resolver whose answers change: the last one stays."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked = 0

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


@pytest.fixture
def unheard() -> Iterator[socket.socket]:
    """Listens on all of loopback and of this machine; nobody may connect."""
    with socket.create_server(("0.0.0.0", 0)) as server:  # noqa: S104
        server.setblocking(False)
        yield server
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.fixture
def own_address() -> Iterator[str]:
    """An address of this machine that is none of loopback's."""
    address = ["10.99.77.1/32", "dev", "lo"]
    subprocess.run(["ip", "address", "add", *address], check=True)
    yield "10.99.77.1"
    subprocess.run(["ip", "address", "delete", *address], check=True)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",  # noqa: S104
        "0.0.0.5",
        "169.254.169.254",
        "224.0.0.1",
        "239.1.2.3",
        "255.255.255.255",
        "240.0.0.1",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::1",
        "fe80::1",
        "fe80::1%lo",
        "ff02::1",
    ],
)
def test_an_address_that_only_we_can_reach_is_refused(address: str, unheard: socket.socket) -> None:
    port = unheard.getsockname()[1]
    endpoint = Endpoint(f"http://a.example:{port}/", timeout_s=2, allowed=(), resolve=Names([address]))
    with pytest.raises(NoAnswer, match=r"must not be sent to.*LEASEHOLD_WEBHOOK_ALLOWED_NETWORKS"):
        endpoint.post(b"{}", HEADERS)


def test_an_address_of_this_machine_is_refused(own_address: str, unheard: socket.socket) -> None:
    """The API listens there, or a database."""
    port = unheard.getsockname()[1]
    endpoint = Endpoint(f"http://{own_address}:{port}/", timeout_s=2, allowed=())
    with pytest.raises(NoAnswer, match="this machine's own"):
        endpoint.post(b"{}", HEADERS)


def test_a_name_with_one_address_that_is_refused_is_refused(unheard: socket.socket) -> None:
    names = Names(["127.0.0.1", "127.0.0.2"])
    port = unheard.getsockname()[1]
    endpoint = Endpoint(f"http://a.example:{port}/", timeout_s=2, allowed=LOOPBACK, resolve=names)
    with pytest.raises(NoAnswer, match=r"127\.0\.0\.2 is loopback"):
        endpoint.post(b"{}", HEADERS)


def test_a_name_that_changes_its_address_after_the_check_leads_nowhere_else(unheard: socket.socket) -> None:
    """DNS rebinding: the check saw one address, and whoever resolves again gets loopback. Nobody resolves again."""
    names = Names(["192.0.2.1"], ["127.0.0.1"])
    port = unheard.getsockname()[1]
    # 192.0.2.1 is refused as reserved unless it is allowed, and nobody answers there.
    allowed = allowed_networks("192.0.2.0/24")
    endpoint = Endpoint(f"http://a.example:{port}/", timeout_s=0.3, allowed=allowed, resolve=names)
    with pytest.raises(NoAnswer, match=r"no connection to 192\.0\.2\.1"):
        endpoint.post(b"{}", HEADERS)
    assert names.asked == 1
    with pytest.raises(NoAnswer, match=r"127\.0\.0\.1 is loopback"):
        endpoint.post(b"{}", HEADERS)


def test_a_name_is_resolved_once_for_a_request(unheard: socket.socket) -> None:
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    with closing(Server(say(b"HTTP/1.1 204 No Content\r\n\r\n"))) as server:
        url = f"http://a.example:{server.port}/"
        with closing(Endpoint(url, timeout_s=2, allowed=LOOPBACK, resolve=names)) as endpoint:
            assert endpoint.post(b"{}", HEADERS).status == 204
    assert names.asked == 1


def test_a_redirect_to_loopback_is_not_followed(post: Post, receiver: Receiver, unheard: socket.socket) -> None:
    receiver.answer = lambda _: (307, {"Location": f"http://127.0.0.1:{unheard.getsockname()[1]}/"})
    webhook = post.subscribe(receiver)
    told = webhooks.test(post.ctx, webhook.id)
    assert (told.status, told.error) == (307, "HTTP status 307: a redirect, which is not followed")


def test_no_line_break_gets_into_the_request(post: Post) -> None:
    for url in ("http://a.example/\r\nX: 1", "http://a.example/ HTTP/1.1", "http://a.exa\nmple/", "http://ü.example/"):
        with pytest.raises(FieldInvalid, match="url"):
            webhooks.create(post.ctx, WebhookSpec(url=url))


# ---- endpoints that misbehave


class Server:
    """Does with each connection what a test says, in a thread."""

    def __init__(self, behave: Callable[[socket.socket], None]) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.connections = 0
        self._behave = behave
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection:
            try:
                self._behave(connection)
            except OSError:
                return


def drip(text: bytes) -> Callable[[socket.socket], None]:
    def behave(connection: socket.socket) -> None:
        connection.recv(65536)
        for octet in text:
            connection.sendall(bytes([octet]))
            time.sleep(0.05)

    return behave


def say(text: bytes) -> Callable[[socket.socket], None]:
    def behave(connection: socket.socket) -> None:
        while connection.recv(65536):
            connection.sendall(text)

    return behave


def posted(server: Server, body: bytes = b"{}", timeout_s: float = 0.5) -> Response:
    with closing(server), closing(Endpoint(server.url, timeout_s=timeout_s, allowed=LOOPBACK)) as endpoint:
        return endpoint.post(body, HEADERS)


@pytest.mark.parametrize(
    "behave",
    [
        lambda connection: time.sleep(5),
        drip(b"HTTP/1.1 204 No Content\r\n" + b"X-Slow: 1\r\n" * 100),
        drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    ],
    ids=["mute", "slow headers", "slow continues"],
)
def test_an_endpoint_gets_so_much_time_and_no_more(behave: Callable[[socket.socket], None]) -> None:
    """Not so much for each octet."""
    with pytest.raises(NoAnswer, match=r"no answer within 0\.5 s"):
        posted(Server(behave))


def test_an_endpoint_that_does_not_read_gets_no_more_time() -> None:
    with pytest.raises(NoAnswer, match=r"no answer within 0\.5 s"):
        posted(Server(lambda connection: time.sleep(5)), b"x" * 20_000_000)


@pytest.mark.parametrize("text", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 ", b"HTTP/1.1 2x4 Odd\r\n\r\n"])
def test_an_endpoint_that_talks_no_http_gives_no_answer(text: bytes) -> None:
    def behave(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(text)

    with pytest.raises(NoAnswer):
        posted(Server(behave))


def test_a_status_counts_though_the_rest_does_not_come() -> None:
    assert posted(Server(say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx"))).status == 200


def test_an_endless_answer_is_not_read() -> None:
    def behave(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    assert posted(Server(behave), timeout_s=30).status == 200


@pytest.mark.parametrize(
    ("text", "connections"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 1),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 1),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 1),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 3),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", 3),
    ],
)
def test_a_connection_is_kept_where_the_endpoint_keeps_it(text: bytes, connections: int) -> None:
    server = Server(say(text))
    with closing(server), closing(Endpoint(server.url, timeout_s=5, allowed=LOOPBACK)) as endpoint:
        for _ in range(3):
            assert endpoint.post(b"{}", HEADERS).status in (200, 204)
    assert server.connections == connections


def test_a_connection_that_was_closed_meanwhile_is_made_again() -> None:
    def once(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    server = Server(once)
    with closing(server), closing(Endpoint(server.url, timeout_s=5, allowed=LOOPBACK)) as endpoint:
        for _ in range(3):
            assert endpoint.post(b"{}", HEADERS).status == 204


def test_a_request_that_came_too_late_on_a_kept_connection_is_sent_on_a_new_one() -> None:
    """The endpoint closes it only when it has the request."""

    def twice(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        connection.recv(65536)

    server = Server(twice)
    with closing(server), closing(Endpoint(server.url, timeout_s=5, allowed=LOOPBACK)) as endpoint:
        for _ in range(4):
            assert endpoint.post(b"{}", HEADERS).status == 204


# ---- beside each other


def test_dead_endpoints_hang_while_the_healthy_one_is_told_everything(post: Post, receiver: Receiver) -> None:
    """Of every kind; they are still being waited for when the last event has arrived."""
    hanging = threading.Event()

    def hang(connection: socket.socket) -> None:
        hanging.wait()

    kinds = [hang, drip(b"HTTP/1.1 204 No Content\r\n" + b"X-Slow: 1\r\n" * 1000), say(b"HTTP/1.1 500 Broken\r\n\r\n")]
    servers = [Server(kinds[number % len(kinds)]) for number in range(10)]
    dead = [webhooks.create(post.ctx, WebhookSpec(url=each.url)) for each in servers]
    healthy = post.subscribe(receiver)
    try:
        post.start()
        for number in range(60):
            post.tell(f"subject-{number % 3}", number)
        until(lambda: len(receiver.taken) == 60, "all events arrived")
        until(lambda: all(each.connections for each in servers), "each dead one was tried")
        until(lambda: delivery_log.progress(post.ctx, healthy.id)[0].behind == 0, "that is known")
        for webhook in dead:
            (progress,) = delivery_log.progress(post.ctx, webhook.id)
            assert progress.behind + progress.waiting == 60
    finally:
        hanging.set()
        for server in servers:
            server.close()
