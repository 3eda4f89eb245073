"""The hook's life inside one Kea process: load, configuration, commands, unload, and load again."""

import json
import time
import uuid
from dataclasses import dataclass
from typing import Any

from leasehold_hook import __version__
from leasehold_hook.border import Border
from leasehold_hook.commands import Commands
from leasehold_hook.journal import Journal, StateUnusable
from leasehold_hook.parameters import InvalidParameter, Parameters
from leasehold_hook.reporter import Reporter
from leasehold_hook.spool import Spool, highest_boot_order

_SPOOL = "spool"


class Hook:
    """All state that outlives a reload of the library: Kea unloads and loads hooks at every change of configuration."""

    def __init__(self, border: Border) -> None:
        self._border = border
        self._boot = str(uuid.uuid4())
        self._opened: _Opened | None = None

    def load(self, parameters_json: str) -> str | None:
        """Take the parameters; at the first load, read the journal back. Returns None, or why it cannot be done."""
        try:
            parameters = Parameters.parse(parameters_json)
            if self._opened is None:
                self._opened = self._open(parameters)
            elif parameters.state_directory != self._opened.parameters.state_directory:
                return (
                    f"state-directory: {str(parameters.state_directory)!r} is not "
                    f"{str(self._opened.parameters.state_directory)!r}, where this process keeps its state; "
                    "restart kea-dhcp4 to change it"
                )
        except (InvalidParameter, StateUnusable) as error:
            return str(error)
        self._opened.parameters = parameters
        self._border.configure(parameters.unknown_clients, parameters.event_queue, parameters.rejection_table)
        self._opened.reporter.configure(parameters)
        return None

    def configured(self) -> None:
        """Kea serves from now on. Only now the reporter starts, so that it takes nothing from the start of Kea."""
        if self._opened is not None:
            self._opened.reporter.start()

    def forget(self, subnet_ids: list[int]) -> None:
        """Subnets left Kea's configuration, and the store has forgotten them: so does the journal."""
        if self._opened is not None:
            self._opened.commands.forget(subnet_ids)

    def unload(self) -> None:
        """Bring everything to disk. The reporter goes on: this may be a reload."""
        if self._opened is not None:
            self._opened.reporter.flush()

    def command(self, command: bytes) -> bytes:
        """One control command as JSON, and its answer likewise."""
        if self._opened is None:
            return failure("the leasehold library was not loaded; see Kea's log")
        return json.dumps(self._opened.commands.answer(command)).encode()

    def close(self) -> None:
        """End everything and give the state directory free, as the end of the process does."""
        if self._opened is not None:
            self._opened.reporter.stop()
            self._opened.journal.close()
            self._opened = None

    def _open(self, parameters: Parameters) -> "_Opened":
        directory = parameters.state_directory
        log = self._border.log
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            spooled = highest_boot_order(directory / _SPOOL)
        except OSError as error:
            raise StateUnusable(
                f"state-directory: {str(directory)!r} cannot be used ({error}); name a directory that Kea's user can "
                "write, or whose parent it can write"
            ) from None
        journal = Journal(directory, now_ms=clock_ms(), log=log, spooled_boot_order=spooled)
        for subnet in journal.take_contents():
            self._border.store_apply(subnet.subnet_id, subnet.reservations, subnet.withdrawals, None)
        spool = Spool(
            directory / _SPOOL,
            boot_order=journal.boot_order,
            boot=self._boot,
            limit=parameters.spool_limit,
            clock_ms=clock_ms,
            log=log,
        )
        reporter = Reporter(spool, self._border, parameters, lambda: journal.count)
        commands = Commands(journal, self._border, clock_ms, self._status)
        return _Opened(parameters, journal, reporter, commands)

    def _status(self) -> dict[str, Any]:
        if self._opened is None:
            raise AssertionError("a command came before the library was loaded")
        counters = self._border.counters()
        figures = self._opened.reporter.figures
        return {
            "host-id": self._opened.parameters.host_id,
            "boot-id": self._boot,
            "boot-order": self._opened.journal.boot_order,
            "version": __version__,
            "kea-version": self._border.kea_version(),
            "managed-subnets": self._border.managed_subnets(),
            "interfaces": self._border.interfaces(),
            "events": {
                "queued": counters.queued,
                "spooled": figures.spooled,
                "spooled-octets": figures.spooled_octets,
                "sent": figures.sent,
                "lost": figures.lost,
                "last-sequence": figures.last_sequence,
                "reporting": figures.reporting,
                "last-error": figures.last_error,
            },
            "rejections": {
                "unknown": counters.rejected_unknown,
                "withdrawn": counters.rejected_withdrawn,
                "doubt": counters.rejected_doubt,
            },
        }


@dataclass
class _Opened:
    """What is there once the state directory is open. The parameters are those of the last load."""

    parameters: Parameters
    journal: Journal
    reporter: Reporter
    commands: Commands


def clock_ms() -> int:
    """Milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


def failure(text: str) -> bytes:
    """Kea's answer for an error."""
    return json.dumps({"result": 1, "text": text}).encode()
