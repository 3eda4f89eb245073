"""A subscriber of webhooks that takes what comes and looks at it only afterwards, so that it costs a benchmark little.

python -m bench.subscriber ADDRESS PORT FILE
"""

import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, Self

from standardwebhooks.webhooks import Webhook

from lab.namespace import Namespace
from lab.process import end
from lab.waiting import wait_until

_RECORD = struct.Struct("!QII")
_START_S = 10


@dataclass(frozen=True)
class Request:
    """One request: when it came, in seconds since the epoch, and its events."""

    at_s: float
    events: list[dict[str, Any]]


class Subscriber:
    """The subscriber as a process in a namespace. A context manager."""

    def __init__(self, namespace: Namespace, address: str, port: int, file: Path) -> None:
        self.url = f"http://{address}:{port}/"
        self._namespace = namespace
        self._address = (address, port)
        self._file = file
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        host, port = self._address
        command = [sys.executable, "-m", "bench.subscriber", host, str(port), str(self._file)]
        self._process = self._namespace.start(command, self._file.with_suffix(".log"))
        wait_until(self._listens, _START_S, "the subscriber listens")
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            end(self._process)

    def octets(self) -> int:
        """How much has come."""
        return self._file.stat().st_size if self._file.exists() else 0

    def requests(self, secret: str) -> Iterator[Request]:
        """What has come, in order of arrival; raises WebhookVerificationError for what is not signed with the secret,
        or came five minutes ago."""
        webhook = Webhook(secret)
        with self._file.open("rb") as file:
            while head := file.read(_RECORD.size):
                at_ns, headers_octets, body_octets = _RECORD.unpack(head)
                headers = json.loads(file.read(headers_octets))
                body = file.read(body_octets)
                if len(body) < body_octets:
                    return  # the last is being written
                webhook.verify(body, headers, json_parse=False)
                content = json.loads(body)
                yield Request(at_ns / 1e9, content if isinstance(content, list) else [content])

    def _listens(self) -> bool:
        try:
            self._namespace.within(lambda: socket.create_connection(self._address, 1).close())
        except OSError:
            return False
        return True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    file: BinaryIO

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        record = _RECORD.pack(time.time_ns(), len(headers), len(body)) + headers + body
        self.file.write(record)
        self.wfile.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: it would be a line a request."""


def main() -> None:
    address, port, file = sys.argv[1:]
    with Path(file).open("ab", buffering=0) as _Handler.file:
        ThreadingHTTPServer((address, int(port)), _Handler).serve_forever()


if __name__ == "__main__":
    main()
