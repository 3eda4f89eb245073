"""Posting batches of events to the control plane. Imported where something is to be reported: http.client is heavy."""

import gzip
import http.client
import json
import ssl
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from leasehold_hook.spool import Batch

_CONNECT_S = 2
_ANSWER_S = 5
_MAX_ANSWER_OCTETS = 65_536


class Undelivered(Exception):
    """The batch did not arrive, or was not taken. `status` is the answer's, None if there was none."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Backlog:
    """What waits in the spool, the batch that is sent included, and how many events were lost in this boot."""

    spooled: int
    spooled_octets: int
    lost: int


class Sender:
    """One connection to the control plane, kept open between batches and opened anew when it broke."""

    def __init__(self, report_url: str, host_id: str, tls: ssl.SSLContext | None) -> None:
        url = urlsplit(report_url)
        self._url = report_url
        self._path = f"{url.path}/v1/hosts/{quote(host_id, safe='')}/events"
        host = url.hostname or ""
        self._connection = (
            http.client.HTTPSConnection(host, url.port, timeout=_CONNECT_S, context=tls)
            if url.scheme == "https"
            else http.client.HTTPConnection(host, url.port, timeout=_CONNECT_S)
        )

    def post(self, batch: Batch, token: str, backlog: Backlog) -> int:
        """Send a batch; returns the sequence number up to which events are stored. Raises Undelivered."""
        body = gzip.compress(batch.lines, compresslevel=1, mtime=0)
        path = f"{self._path}?boot={batch.boot}&boot_order={batch.boot_order}"
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/x-ndjson",
            "Content-Encoding": "gzip",
            "Leasehold-Spooled": str(backlog.spooled),
            "Leasehold-Spooled-Octets": str(backlog.spooled_octets),
            "Leasehold-Lost": str(backlog.lost),
        }
        kept_open = self._connection.sock is not None
        try:
            status, answer = self._exchange(path, body, headers)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
            self.close()
            # A server may close a connection that was idle, just as we use it again.
            if not kept_open:
                raise Undelivered(f"{self._url}: {_words(error)}") from None
            return self.post(batch, token, backlog)
        except (http.client.HTTPException, OSError) as error:
            self.close()
            raise Undelivered(f"{self._url}: {_words(error)}") from None
        if status != http.HTTPStatus.OK:
            words = answer.decode(errors="replace")[:500]
            raise Undelivered(f"{self._url}: answered {status} to events {batch.first}–{batch.last}: {words}", status)
        return self._acknowledged(answer, batch)

    def close(self) -> None:
        """Close the connection; the next batch opens it."""
        self._connection.close()

    def _connect(self) -> None:
        self._connection.connect()
        self._connection.sock.settimeout(_ANSWER_S)

    def _exchange(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        connection = self._connection
        if connection.sock is None:
            self._connect()
        connection.request("POST", path, body, headers)
        with connection.getresponse() as response:
            answer = response.read(_MAX_ANSWER_OCTETS)
            if response.read(1):
                self.close()
            return response.status, answer

    def _acknowledged(self, answer: bytes, batch: Batch) -> int:
        try:
            acknowledged = json.loads(answer)["acknowledged"]
        except (ValueError, TypeError, KeyError):
            acknowledged = None
        if type(acknowledged) is not int:
            raise Undelivered(f"{self._url}: answered 200 without the number of the last event that it stored")
        if not batch.first <= acknowledged:
            raise Undelivered(
                f"{self._url}: acknowledged event {acknowledged} only, when sent events {batch.first}–{batch.last}"
            )
        return acknowledged


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
