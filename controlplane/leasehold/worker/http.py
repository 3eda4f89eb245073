"""POST to an endpoint that a subscriber chose: to a checked address, without redirects, bounded in time and size."""

import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
from netaddr import IPAddress, IPNetwork

from leasehold.domain.webhooks import refusal

_KEEPALIVE_S = 15
_RESOLVED_FOR_S = 30
_MOST_OCTETS_READ = 16 * 1024


class NoAnswer(Exception):
    """The endpoint gave no HTTP answer, or must not be asked; the text says why."""


@dataclass(frozen=True)
class Response:
    """An HTTP status, and for how many seconds the endpoint asked to be left alone, if it did."""

    status: int
    retry_after_s: float | None


class Endpoint:
    """One URL, with its own connection. It resolves the name itself and connects to what it checked, so that a name
    that resolves otherwise the second time leads nowhere else."""

    def __init__(self, url: str, *, timeout_s: float, allowed: Sequence[IPNetwork]) -> None:
        self._url = httpx.URL(url)
        self._timeout_s = timeout_s
        self._allowed = allowed
        self._addresses: list[str] = []
        self._resolved_until = 0.0
        self._client = httpx.Client(
            timeout=timeout_s,
            verify=ssl.create_default_context(),
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=2, keepalive_expiry=_KEEPALIVE_S),
            headers={"User-Agent": "leasehold", "Accept-Encoding": "identity"},
        )

    def post(self, body: bytes, headers: Mapping[str, str]) -> Response:
        """Sends the body, and reads no more of the answer than its status needs. Raises NoAnswer."""
        for number, address in enumerate(addresses := self._resolve(), start=1):
            try:
                return self._post_to(address, body, headers)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                self._resolved_until = 0
                if number == len(addresses):
                    raise NoAnswer(f"no connection to {address}: {error or type(error).__name__}") from error
            except httpx.TransportError as error:
                self._resolved_until = 0
                raise NoAnswer(str(error) or type(error).__name__) from error
        raise NoAnswer(f"{self._url.host} has no address")

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    def _post_to(self, address: str, body: bytes, headers: Mapping[str, str]) -> Response:
        deadline = time.monotonic() + self._timeout_s
        with self._client.stream(
            "POST",
            self._url.copy_with(host=address),
            content=body,
            headers={**headers, "Host": self._url.netloc.decode("ascii")},
            # The certificate must be for the name, not for the address that it has at the moment.
            extensions={"sni_hostname": self._url.raw_host.decode("ascii")},
        ) as response:
            read = 0
            for chunk in response.iter_raw():
                read += len(chunk)
                if read > _MOST_OCTETS_READ or time.monotonic() > deadline:
                    break
            return Response(response.status_code, _retry_after_s(response.headers.get("Retry-After")))

    def _resolve(self) -> list[str]:
        if time.monotonic() >= self._resolved_until:
            self._addresses = self._checked(self._url.host, self._url.port)
            self._resolved_until = time.monotonic() + _RESOLVED_FOR_S
        return self._addresses

    def _checked(self, host: str, port: int | None) -> list[str]:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise NoAnswer(f"{host} cannot be resolved: {error}") from error
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        for address in addresses:
            plain = IPAddress(address.partition("%")[0])
            if why := refusal(plain, is_own=_is_own(address), allowed=self._allowed):
                raise NoAnswer(f"{host} must not be sent to: {why}")
        return addresses


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
