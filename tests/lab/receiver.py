"""A receiver of webhooks that believes nothing: the `standardwebhooks` package verifies each request's signature."""

import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from lab.namespace import Namespace
from lab.waiting import wait_until

_SECRET_PATIENCE_S = 10


class WebhookReceiver:
    """Made by `Lab.receiver`. `url` is for the control plane; `expect` tells it the subscription's secret.

    Requests that come before the secret is known wait for it. `refused` has a sentence for each refused request.
    """

    def __init__(self, namespace: Namespace, address: str) -> None:
        self.refused: list[str] = []
        self._events: list[dict[str, Any]] = []
        self._answers: list[int] = []
        self._lock = threading.Lock()
        self._webhook: Webhook | None = None
        self._known = threading.Event()
        self._server = _Server(self, namespace.within(lambda: _listen(address)))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="webhook-receiver")
        host, port = self._server.socket.getsockname()
        self.url = f"http://{host}:{port}/"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def expect(self, secret: str) -> None:
        """The subscription's secret, `whsec_…`, as the control plane gave it."""
        self._webhook = Webhook(secret)
        self._known.set()

    def answer_with(self, *statuses: int) -> None:
        """The HTTP statuses of the next answers; 204 again after those. Events answered with an error do not count."""
        with self._lock:
            self._answers = list(statuses)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The CloudEvents that came and were verified, in order of arrival, with repetitions."""
        with self._lock:
            return list(self._events)

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool], timeout_s: float, what: str) -> dict[str, Any]:
        """The first event that `wanted` is true of; raises TimeoutError naming `what`."""

        def seen() -> dict[str, Any] | None:
            return next((event for event in self.events if wanted(event)), None)

        found = wait_until(seen, timeout_s, what)
        assert found is not None
        return found

    def take(self, body: bytes, headers: dict[str, str]) -> int:
        """Verify and keep one request; the HTTP status of the answer."""
        self._known.wait(_SECRET_PATIENCE_S)
        if self._webhook is None:
            return self._refuse("a webhook came before the receiver was told its secret")
        try:
            self._webhook.verify(body, headers, json_parse=False)
        except WebhookVerificationError as error:
            return self._refuse(f"{error}: {body[:200]!r}")
        with self._lock:
            status = self._answers.pop(0) if self._answers else 204
            if status < 300:
                content = json.loads(body)
                self._events += content if isinstance(content, list) else [content]
        return status

    def _refuse(self, why: str) -> int:
        with self._lock:
            self.refused.append(why)
        return 401


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, receiver: WebhookReceiver, listener: socket.socket) -> None:
        super().__init__(listener.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.receiver = receiver


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.send_response(self.server.receiver.take(body, dict(self.headers.items())))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the events are kept."""


def _listen(address: str) -> socket.socket:
    return socket.create_server((address, 0), backlog=128)
