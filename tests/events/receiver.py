"""A webhook receiver on loopback, with answers as a test wants them. `standardwebhooks` verifies each request."""

import json
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

Event = dict[str, Any]
Answer = tuple[int, Mapping[str, str]]

TAKEN: Answer = (204, {})


class Receiver:
    """`answer` decides by the event, and for a batch by the first that is not taken; `requests` are all events that
    came and were signed rightly, in order, with the id of the message; `taken` those that were answered with success;
    `batches` how many came together."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.answer: Callable[[Event], Answer] = lambda _: TAKEN
        self.requests: list[tuple[str, Event]] = []
        self.taken: list[Event] = []
        self.batches: list[int] = []
        self.headers: list[Mapping[str, str]] = []
        self.unsigned: list[str] = []
        self.secret = ""
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, headers = receiver.take(dict(self.headers.items()), body)
                self.send_response(status)
                for name, value in {"Content-Length": "0", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/hook?from=leasehold"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, headers: Mapping[str, str], body: bytes) -> Answer:
        try:
            Webhook(self.secret).verify(body, dict(headers), json_parse=False)
        except WebhookVerificationError as error:
            self.unsigned.append(str(error))
            return 401, {}
        content = json.loads(body)
        events = content if isinstance(content, list) else [content]
        with self._lock:
            self.headers.append(headers)
            self.batches.append(len(events))
            self.requests += [(headers["webhook-id"], event) for event in events]
        answers = [self.answer(event) for event in events]
        answer = next((each for each in answers if each[0] >= 300), answers[0])
        if answer[0] < 300:
            with self._lock:
                self.taken += events
        return answer


def unused_port() -> int:
    """A port of loopback where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
