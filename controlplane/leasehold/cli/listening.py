"""`leasehold webhook listen`: a receiver that believes only what is signed."""

import json
import signal
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import click

from leasehold.cli.printing import note
from leasehold.domain.webhooks import MOST_BATCH_OCTETS, fault_of, key_of

_STALLED_S = 30
_MOST_OCTETS = MOST_BATCH_OCTETS + 2**20

Subscribe = Callable[[str], tuple[str, Callable[[], None]]]
"""From the URL of the receiver: the secret that what comes there is signed with, and what is to be done in the end."""


def listen(bind: str, subscribe: Subscribe, *, as_json: bool, count: int | None) -> None:
    """Prints events until SIGINT or SIGTERM, or until there were so many. Raises FieldInvalid for what is no secret."""
    host, _, port = bind.rpartition(":")
    try:
        server = _Server((host.strip("[]"), int(port)), _Handler)
    except (OSError, ValueError, OverflowError) as error:
        raise click.ClickException(f"Cannot listen on {bind!r}: {error}.") from error
    server.print_event = _as_json if as_json else _as_text
    server.left = count
    with server:
        reached_at = f"http://{host}:{server.server_port}/"
        secret, end = subscribe(reached_at)
        try:
            key_of(secret)
            server.secret = secret
            note(f"Listening on {reached_at}.")
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: server.end())
            server.serve_forever(poll_interval=0.1)
        finally:
            end()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    secret = ""
    left: int | None = None
    print_event: Callable[[dict[str, Any]], None]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._lock = threading.Lock()

    def end(self) -> None:
        """Returns at once; `shutdown` would wait for the thread that it may be called in."""
        threading.Thread(target=self.shutdown, daemon=True).start()

    def take(self, headers: dict[str, str], body: bytes) -> int:
        """The HTTP status that answers a request."""
        if fault := fault_of(self.secret, headers, body, time.time()):
            note(f"Refused a request: {fault}.")
            return 401
        try:
            content = json.loads(body)
        except ValueError:
            note("Refused a request that is signed, and is not JSON.")
            return 400
        with self._lock:
            for event in content if isinstance(content, list) else [content]:
                if self.left == 0:
                    return 503
                self.print_event(event)
                if self.left is not None:
                    self.left -= 1
            if self.left == 0:
                self.end()
        return 204


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = _STALLED_S

    def do_POST(self) -> None:
        """One request."""
        text = self.headers.get("Content-Length", "")
        if not text.isdecimal() or int(text) > _MOST_OCTETS:
            self.close_connection = True
            self._answer(413 if text.isdecimal() else 411)
            return
        body = self.rfile.read(int(text))
        self._answer(self.server.take({name.lower(): value for name, value in self.headers.items()}, body))

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: the events are printed."""

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _as_json(event: dict[str, Any]) -> None:
    click.echo(json.dumps(event, ensure_ascii=False, separators=(",", ":")))


def _as_text(event: dict[str, Any]) -> None:
    data = event.get("data")
    facts = data.items() if isinstance(data, dict) else ()
    told = " ".join(f"{name}={value}" for name, value in facts if value is not None)
    click.echo(f"{event.get('time')} {event.get('type')} {event.get('subject')} {told}".rstrip())
