"""One command to one host's Kea over HTTP: through the Control Agent, or to the server's own socket.

Source: Kea 2.2 Administrator Reference Manual, "Management API"; Kea 3.0's for the server's own HTTP socket.
"""

import errno
import json
import re
import select
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from http import HTTPStatus
from http.client import HTTPConnection, HTTPSConnection
from typing import Any, cast
from urllib.parse import urlsplit

from leasehold.config import Settings
from leasehold.domain.values import Host
from leasehold.errors import HostUnreachable, KeaRefused

# Kea closes an idle connection after 30 s. One given up earlier cannot be found closed in the middle of a command.
_KEEPALIVE_S = 20

_MOST_HEAD = 65_536
_CHUNK_OCTETS = 262_144

# What the Control Agent answers, as result 1, for a DHCP server that is not running.
_NOT_FORWARDED = "unable to forward command"


class Result(IntEnum):
    """The results that are answers; Kea's others (1 error, 2 unsupported) are raised as KeaRefused."""

    SUCCESS = 0
    EMPTY = 3
    CONFLICT = 4


_RESULTS = frozenset(Result)


@dataclass(frozen=True)
class Answer:
    """What Kea answered. `arguments` is empty where it gave none."""

    result: Result
    arguments: Mapping[str, Any]


class Transport:
    """Connections to all hosts, each host's its own, kept open between commands. Threads may share it.

    `service` is the server that a Control Agent is to forward to; None for a server's own HTTP socket.

    Nothing of HTTP is spoken but what Kea speaks, one request and one answer of known length at a time: the time that
    `start` takes is made of commands, and a client for all of HTTP costs a quarter of a command more.
    """

    def __init__(self, settings: Settings, service: str | None = "dhcp4") -> None:
        self._service = service
        self._settings = settings
        self._tls = ssl.create_default_context()
        self._lock = threading.Lock()
        self._idle: dict[str, list[_Connection]] = {}

    def command(self, host: Host, command: str, arguments: Mapping[str, Any] | None = None) -> Answer:
        """Sends a command and waits for its answer. Raises HostUnreachable, KeaRefused."""
        body: dict[str, Any] = {"command": command}
        if self._service is not None:
            body["service"] = [self._service]
        if arguments is not None:
            body["arguments"] = arguments
        try:
            connection = self._take(host)
            try:
                status, answered = connection.post(json.dumps(body).encode())
            except BaseException:
                connection.close()
                raise
        except TimeoutError as error:
            raise _unreachable(host, f"no answer in time ({error or _name(error)})") from error
        except (OSError, ValueError) as error:
            raise _unreachable(host, getattr(error, "strerror", None) or str(error) or _name(error)) from error
        self._give_back(host, connection)
        return _answer(host, command, status, answered)

    def close(self) -> None:
        """Closes every connection that is not in use."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for each in idle.values():
            for connection in each:
                connection.close()

    def _take(self, host: Host) -> "_Connection":
        """One that is open and to where the host is now, or a new one."""
        with self._lock:
            idle = self._idle.get(host.id, [])
            while idle:
                connection = idle.pop()
                if connection.is_usable(host):
                    return connection
                connection.close()
        return _Connection(host, self._settings, self._tls)

    def _give_back(self, host: Host, connection: "_Connection") -> None:
        with self._lock:
            self._idle.setdefault(host.id, []).append(connection)


class _Connection:
    """One kept-open connection to a host's control channel."""

    def __init__(self, host: Host, settings: Settings, tls: ssl.SSLContext) -> None:
        """Raises ValueError for a URL that is none."""
        self._target = _target(host)
        self._used_at = time.monotonic()
        self._timeout_s = settings.control_timeout_s
        url = urlsplit(host.control_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"{host.control_url!r} is no URL of a control channel; write http://ADDRESS:PORT/")
        credentials = b64encode(f"{host.username}:{host.password}".encode()).decode()
        self._head = (
            f"POST {url.path or '/'} HTTP/1.1\r\nHost: {url.netloc.rpartition('@')[2]}\r\n"
            f"Content-Type: application/json\r\nAuthorization: Basic {credentials}\r\nContent-Length: "
        ).encode()
        connect_timeout_s = settings.control_connect_timeout_s
        self._http = (
            HTTPSConnection(url.hostname, url.port, timeout=connect_timeout_s, context=tls)
            if url.scheme == "https"
            else HTTPConnection(url.hostname, url.port, timeout=connect_timeout_s)
        )

    def is_usable(self, host: Host) -> bool:
        """True while it is to where the host is now, and the other side has not closed it."""
        sock = self._http.sock
        return (
            sock is not None
            and self._target == _target(host)
            and time.monotonic() - self._used_at < _KEEPALIVE_S
            and not _has_ended(sock)
        )

    def post(self, body: bytes) -> tuple[int, bytes]:
        """The answer's status and body. Raises OSError, and ValueError for what is no answer of Kea's."""
        sock = self._socket()
        # In one piece: the other side wakes for each.
        sock.sendall(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
        answered = _received(sock)
        self._used_at = time.monotonic()
        return answered

    def close(self) -> None:
        self._http.close()

    def _socket(self) -> socket.socket:
        opened: socket.socket | None = self._http.sock
        if opened is None:
            self._http.connect()
            opened = cast("socket.socket", self._http.sock)
            opened.settimeout(self._timeout_s)
        return opened


def _received(sock: socket.socket) -> tuple[int, bytes]:
    """The status and body of one answer. Source: RFC 9112, 2.1, 6.3."""
    received = bytearray()
    while (end := received.find(b"\r\n\r\n")) < 0:
        if len(received) > _MOST_HEAD:
            raise ValueError(f"an answer whose head is longer than {_MOST_HEAD} octets is none of Kea's")
        received += _chunk(sock)
    head = received[:end]
    status = re.match(rb"HTTP/1\.[01] ([1-5][0-9]{2})", head)
    length = re.search(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*(?:\r\n|$)", head, re.IGNORECASE)
    if status is None or length is None:
        raise ValueError(f"{bytes(head[:80])!r} begins no answer of Kea's: it has no status, or no Content-Length")
    body = received[end + 4 :]
    while len(body) < int(length[1]):
        body += _chunk(sock)
    return int(status[1]), bytes(body)


def _chunk(sock: socket.socket) -> bytes:
    chunk = sock.recv(_CHUNK_OCTETS)
    if not chunk:
        raise ConnectionResetError(errno.ECONNRESET, "the connection was closed in the middle of an answer")
    return chunk


def _has_ended(sock: socket.socket) -> bool:
    """What can be read unasked is the end. Not by select(2), which knows no descriptors above 1023."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _target(host: Host) -> tuple[str, str, str]:
    return host.control_url, host.username, host.password


def _answer(host: Host, command: str, status: int, body: bytes) -> Answer:
    if status == HTTPStatus.UNAUTHORIZED:
        raise _refused(
            host,
            command,
            HTTPStatus.UNAUTHORIZED,
            f"user {host.username!r} is not let in. Give the host the username and password of its Control Agent.",
        )
    if status != HTTPStatus.OK:
        raise _refused(host, command, status, f"HTTP status {status}.")
    try:
        answers = json.loads(body)
    except (json.JSONDecodeError, UnicodeDecodeError):
        answers = None
    answer = answers[0] if isinstance(answers, list) and len(answers) == 1 else None
    if not isinstance(answer, dict) or not isinstance(answer.get("result"), int):
        begin = body[:80].decode(errors="replace")
        raise _refused(host, command, None, f"{begin!r} is no answer of Kea. Does {host.control_url} lead to one?")
    result, text, arguments = answer["result"], str(answer.get("text", "")), answer.get("arguments", {})
    if text.startswith(_NOT_FORWARDED):
        raise _unreachable(host, text)
    if result not in _RESULTS:
        raise _refused(host, command, result, text)
    return Answer(Result(result), arguments if isinstance(arguments, dict) else {})


def _unreachable(host: Host, reason: str) -> HostUnreachable:
    return HostUnreachable(
        f"Host {host.id} does not answer at {host.control_url}: {reason}",
        host=host.id,
        url=host.control_url,
        reason=reason,
    )


def _refused(host: Host, command: str, result: int | None, text: str) -> KeaRefused:
    return KeaRefused(
        f"Kea on host {host.id} refused {command}: {text}", host=host.id, command=command, result=result, text=text
    )


def _name(error: Exception) -> str:
    return type(error).__name__
