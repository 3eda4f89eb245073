"""What happened in a run, in one list: calls and their answers, guests' exchanges, faults, and DHCP on the wire.

All instants are nanoseconds since the Unix epoch, of one machine's clock. Everything here is plain data, so that a
history can be written by hand in a test of the checker, kept in a file, and read by people.
"""

import dataclasses
import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

FOREVER = 2**63


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What stays as it is through a run: hosts' addresses by network (`servers[network][address]` is a host), and the
    network of each subnet."""

    servers: Mapping[str, Mapping[str, str]]
    subnets: Mapping[int, str]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of the API. `verb` is put, patch, move, start, stop, delete or get, of a vNIC; reserve, unreserve or
    get, of a device; or servers, the listing of a network's servers. `status` is None when no answer came: it was
    carried out, or it was not, by `end`."""

    begin: int
    end: int
    verb: str
    subject: str
    asked: Mapping[str, Any] = field(default_factory=dict)
    status: int | None
    answer: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Heard:
    """A server's OFFER or ACK of `ip` to `mac` (`kind` is OFFER or ACK), as it crossed the network's switch."""

    at: int
    network: str
    kind: str
    mac: str
    ip: str
    server: str


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A guest's try to get or keep an address: `asked` for (None: any), and what came of it. `outcome` is ack, nak or
    silence; `ip` the address of the ack, `server` whose answer it was."""

    begin: int
    end: int
    network: str
    mac: str
    asked: str | None
    outcome: str
    ip: str | None = None
    server: str | None = None


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """A fault, or an administrator's measure, while it lasted. `host` or `network` None: it concerns all of them.

    `dhcp` is False where guests' messages still reach the host's Kea, and its answers the guests. `moves` is True where
    servers may move because of it.
    """

    begin: int
    end: int
    what: str
    host: str | None = None
    network: str | None = None
    dhcp: bool = False
    moves: bool = True


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the control plane's own doctor found in one snapshot of its database."""

    at: int
    code: str
    subject: str
    sentence: str


Entry: TypeAlias = Call | Heard | Exchange | Trouble | Finding


class History:
    """Takes entries from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[Entry] = []

    def add(self, entry: Entry) -> None:
        """One more."""
        with self._lock:
            self._entries.append(entry)

    def entries(self) -> list[Entry]:
        """All so far, by their first instant."""
        with self._lock:
            return ordered(self._entries)


def begin_of(entry: Entry) -> int:
    """The first instant of an entry."""
    return entry.at if isinstance(entry, Heard | Finding) else entry.begin


def ordered(entries: Iterable[Entry]) -> list[Entry]:
    """By their first instant."""
    return sorted(entries, key=begin_of)


def line(entry: Entry, epoch: int) -> str:
    """An entry for people, its instants in seconds since `epoch`."""
    values = {key: value for key, value in dataclasses.asdict(entry).items() if value not in (None, {}, "")}
    for name in ("at", "begin", "end"):
        if name in values:
            values[name] = "…" if values[name] >= FOREVER else f"{(values[name] - epoch) / 1e9:.3f}"
    span = values.pop("at", None) or f"{values.pop('begin')}–{values.pop('end')}"
    told = json.dumps(values, ensure_ascii=False, default=str)
    return f"{span:>16} {type(entry).__name__:8} {told}"


def write(path: Path, entries: Iterable[Entry]) -> None:
    """All entries, a line each."""
    entries = list(entries)
    epoch = min(map(begin_of, entries), default=0)
    path.write_text("".join(f"{line(entry, epoch)}\n" for entry in entries))
