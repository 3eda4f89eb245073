"""POST to an endpoint that a subscriber chose: to a checked address, without redirects, bounded in time and size."""

import io
import select
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import BadStatusLine, HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

from netaddr import IPAddress, IPNetwork

from leasehold.domain.webhooks import refusal

_KEEPALIVE_S = 15
_RESOLVED_FOR_S = 30
_MOST_OCTETS_READ = 16 * 1024
_PORTS = {"http": 80, "https": 443}

Resolve = Callable[[str, int], Sequence[str]]
"""The addresses of a name, as text; raises OSError when there are none."""


class NoAnswer(Exception):
    """The endpoint gave no HTTP answer, or must not be asked; the text says why."""


@dataclass(frozen=True)
class Response:
    """An HTTP status, and for how many seconds the endpoint asked to be left alone, if it did."""

    status: int
    retry_after_s: float | None


def resolve(host: str, port: int) -> list[str]:
    """What the system says; raises OSError, and UnicodeError for what cannot be a name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class Endpoint:
    """One URL, with its own connection, for one thread. It resolves the name itself and connects to what it checked, so
    that a name that resolves otherwise the second time leads nowhere else.

    `timeout_s` is for a whole request: an endpoint that answers octet by octet gets no more time than one that is mute.
    """

    def __init__(self, url: str, *, timeout_s: float, allowed: Sequence[IPNetwork], resolve: Resolve = resolve) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or _PORTS[parts.scheme]
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._head = (
            f"POST {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: leasehold\r\nAccept-Encoding: identity\r\n"
        )
        self._timeout_s = timeout_s
        self._allowed = allowed
        self._resolve = resolve
        self._addresses: list[str] = []
        self._resolved_until = 0.0
        self._connection: _Connection | None = None
        self._request = b""
        self._deadline = 0.0
        self._is_reused = False

    def post(self, body: bytes, headers: Mapping[str, str]) -> Response:
        """Sends the body, and reads no more of the answer than its status needs. Raises NoAnswer."""
        self.send(body, headers)
        return self.answer()

    def send(self, body: bytes, headers: Mapping[str, str]) -> None:
        """The first half of `post`: until the answer the caller has something else to do. Raises NoAnswer."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._request = f"{self._head}{lines}Content-Length: {len(body)}\r\n\r\n".encode("ascii") + body
        self._deadline = time.monotonic() + self._timeout_s
        connection = self._connection
        self._is_reused = connection is not None and connection.is_usable()
        if connection is None or not self._is_reused:
            self._send_anew()
            return
        try:
            connection.send(self._request, self._deadline)
        except (ConnectionError, ssl.SSLError):
            self._send_anew()
        except OSError as error:
            raise self._lost(error) from error

    def answer(self) -> Response:
        """The second half. Raises NoAnswer."""
        try:
            return self._read()
        except (ConnectionError, BadStatusLine) as error:
            # An endpoint may close an idle connection at any time, also just before a request on it.
            if not self._is_reused:
                raise self._lost(error) from error
        except (OSError, HTTPException) as error:
            raise self._lost(error) from error
        self._send_anew()
        try:
            return self._read()
        except (OSError, HTTPException) as error:
            raise self._lost(error) from error

    def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _send_anew(self) -> None:
        self.close()
        self._is_reused = False
        self._connection = self._connected()
        try:
            self._connection.send(self._request, self._deadline)
        except OSError as error:
            raise self._lost(error) from error

    def _read(self) -> Response:
        if self._connection is None:
            raise ConnectionError("nothing was sent")
        response, is_whole = self._connection.read(self._deadline)
        if not is_whole:
            self.close()
        return response

    def _lost(self, error: Exception) -> NoAnswer:
        self.close()
        self._resolved_until = 0
        if isinstance(error, TimeoutError):
            return NoAnswer(f"no answer within {self._timeout_s:g} s")
        return NoAnswer(f"{str(error) or type(error).__name__}")

    def _connected(self) -> "_Connection":
        addresses = self._checked()
        why: Exception | None = None
        for number, address in enumerate(addresses):
            share_s = (self._deadline - time.monotonic()) / (len(addresses) - number)
            try:
                plain = socket.create_connection((address, self._port), timeout=max(0.001, share_s))
            except OSError as error:
                why = error
                continue
            try:
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls is None:
                    return _Connection(plain)
                plain.settimeout(_left_s(self._deadline))
                # The certificate must be for the name, not for the address that it has at the moment.
                return _Connection(self._tls.wrap_socket(plain, server_hostname=self._host))
            except OSError as error:
                plain.close()
                raise self._lost(error) from error
        self._resolved_until = 0
        raise NoAnswer(f"no connection to {addresses[-1]}: {why or 'timed out'}") from why

    def _checked(self) -> list[str]:
        if time.monotonic() < self._resolved_until:
            return self._addresses
        try:
            addresses = list(self._resolve(self._host, self._port))
        except (OSError, UnicodeError) as error:
            raise NoAnswer(f"{self._host} cannot be resolved: {error}") from error
        if not addresses:
            raise NoAnswer(f"{self._host} has no address")
        for address in addresses:
            plain = IPAddress(address.partition("%")[0])
            if why := refusal(plain, is_own=_is_own(address), allowed=self._allowed):
                raise NoAnswer(f"{self._host} must not be sent to: {why}")
        self._addresses = addresses
        self._resolved_until = time.monotonic() + _RESOLVED_FOR_S
        return addresses


class _Connection:
    """A socket, each of whose uses has a deadline of `time.monotonic()`."""

    def __init__(self, plain: socket.socket) -> None:
        self._socket = plain
        self._used_at = time.monotonic()

    def is_usable(self) -> bool:
        """False when it idled for long, or the other side closed it, or talks unasked."""
        if time.monotonic() - self._used_at > _KEEPALIVE_S:
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def send(self, request: bytes, deadline: float) -> None:
        """Raises OSError. Python's own time-out of `sendall` is for all of it."""
        self._socket.settimeout(_left_s(deadline))
        self._socket.sendall(request)

    def read(self, deadline: float) -> tuple[Response, bool]:
        """The answer, and whether it was read to its end and leaves the connection open. The status counts, also when
        the rest does not come. Raises OSError, HTTPException."""
        with HTTPResponse(_Readable(self._socket, deadline), method="POST") as response:  # type: ignore[arg-type]
            response.begin()
            answer = Response(response.status, _retry_after_s(response.headers.get("Retry-After")))
            try:
                response.read(_MOST_OCTETS_READ)
                is_whole = response.isclosed() and not response.will_close
            except (OSError, HTTPException):
                is_whole = False
        self._used_at = time.monotonic()
        return answer, is_whole

    def close(self) -> None:
        """Ends it."""
        self._socket.close()


class _Readable(io.RawIOBase):
    """What http.client reads an answer from: a socket whose every read has only what is left of the time. (Its own
    time-out would begin anew with each octet.)"""

    def __init__(self, plain: socket.socket, deadline: float) -> None:
        self._socket = plain
        self._deadline = deadline

    def makefile(self, _mode: str) -> io.BufferedReader:
        """As sockets have it."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Raises TimeoutError."""
        self._socket.settimeout(_left_s(self._deadline))
        return self._socket.recv_into(buffer)


def _left_s(deadline: float) -> float:
    """Raises TimeoutError when nothing is left: a time-out of 0 would mean something else."""
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _is_own(address: str) -> bool:
    """True for an address of this machine: only that can a socket be bound to."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
        return True


def _retry_after_s(value: str | None) -> float | None:
    """Seconds from now, of a number of seconds or an HTTP date. Source: RFC 9110, 10.2.3."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        instant = parsedate_to_datetime(value)
    except ValueError:
        return None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return max(0.0, (instant - datetime.now(UTC)).total_seconds())
