"""One command to one host's Kea over HTTP: through the Control Agent, or to the server's own socket.

Source: Kea 2.2 Administrator Reference Manual, "Management API"; Kea 3.0's for the server's own HTTP socket.
"""

import json
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from http import HTTPStatus
from typing import Any

import httpx

from leasehold.config import Settings
from leasehold.domain.values import Host
from leasehold.errors import HostUnreachable, KeaRefused

# Kea closes an idle connection after 30 s. One given up earlier cannot be found closed in the middle of a command.
_KEEPALIVE_S = 20

# What the Control Agent answers, as result 1, for a DHCP server that is not running.
_NOT_FORWARDED = "unable to forward command"


class Result(IntEnum):
    """The results that are answers; Kea's others (1 error, 2 unsupported) are raised as KeaRefused."""

    SUCCESS = 0
    EMPTY = 3
    CONFLICT = 4


@dataclass(frozen=True)
class Answer:
    """What Kea answered. `arguments` is empty where it gave none."""

    result: Result
    arguments: Mapping[str, Any]


class Transport:
    """Connections to all hosts, each host's its own, kept open between commands. Threads may share it.

    `service` is the server that a Control Agent is to forward to; None for a server's own HTTP socket.
    """

    def __init__(self, settings: Settings, service: str | None = "dhcp4") -> None:
        self._service = service
        self._timeout = httpx.Timeout(settings.control_timeout_s, connect=settings.control_connect_timeout_s)
        self._tls = ssl.create_default_context()
        self._lock = threading.Lock()
        self._clients: dict[str, tuple[tuple[str, str, str], httpx.Client]] = {}

    def command(self, host: Host, command: str, arguments: Mapping[str, Any] | None = None) -> Answer:
        """Sends a command and waits for its answer. Raises HostUnreachable, KeaRefused."""
        body: dict[str, Any] = {"command": command}
        if self._service is not None:
            body["service"] = [self._service]
        if arguments is not None:
            body["arguments"] = arguments
        try:
            response = self._client(host).post("", json=body)
        except httpx.TimeoutException as error:
            raise _unreachable(host, f"no answer in time ({_name(error)})") from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise _unreachable(host, str(error) or _name(error)) from error
        return _answer(host, command, response)

    def close(self) -> None:
        """Closes every connection."""
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        for _, client in clients:
            client.close()

    def _client(self, host: Host) -> httpx.Client:
        key = (host.control_url, host.username, host.password)
        with self._lock:
            known = self._clients.get(host.id)
            if known is not None and known[0] == key:
                return known[1]
            client = httpx.Client(
                base_url=host.control_url,
                auth=(host.username, host.password),
                timeout=self._timeout,
                limits=httpx.Limits(keepalive_expiry=_KEEPALIVE_S),
                verify=self._tls,
                trust_env=False,
            )
            self._clients[host.id] = (key, client)
        if known is not None:
            known[1].close()
        return client


def _answer(host: Host, command: str, response: httpx.Response) -> Answer:
    if response.status_code == HTTPStatus.UNAUTHORIZED:
        raise _refused(
            host,
            command,
            HTTPStatus.UNAUTHORIZED,
            f"user {host.username!r} is not let in. Give the host the username and password of its Control Agent.",
        )
    if response.status_code != HTTPStatus.OK:
        raise _refused(host, command, response.status_code, f"HTTP status {response.status_code}.")
    try:
        answers = response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        answers = None
    answer = answers[0] if isinstance(answers, list) and len(answers) == 1 else None
    if not isinstance(answer, dict) or not isinstance(answer.get("result"), int):
        raise _refused(
            host, command, None, f"{response.text[:80]!r} is no answer of Kea. Does {host.control_url} lead to one?"
        )
    result, text, arguments = answer["result"], str(answer.get("text", "")), answer.get("arguments", {})
    if text.startswith(_NOT_FORWARDED):
        raise _unreachable(host, text)
    if result not in list(Result):
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
