"""The journal: what this server promises, in a SQLite file beside Kea's leases.

Every change is one transaction, on disk before the native store has it and before the command is answered. A start of
Kea reads everything back. Only the thread that opened a journal may use it.
"""

import contextlib
import fcntl
import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from leasehold_hook.border import Level, Withdrawal
from leasehold_hook.reservations import Batch, Packed, Row, address_text, digest_of, mac_text, pack

FILE_NAME = "journal.sqlite"

_APPLICATION_ID = 0x4C454153  # "LEAS"
_SCHEMA_VERSION = 1
_PURGE_EVERY_MS = 600_000
_MAX_IDLE_WAL_OCTETS = 4 * 2**20
# SQLite's cache of 2,000 KiB on top of what it writes before a checkpoint, 1,000 pages.
_ROOM_OCTETS = _MAX_IDLE_WAL_OCTETS + 2000 * 1024
_BUSY_S = 2
_SCHEMA = """
    CREATE TABLE boots (boot_order INTEGER NOT NULL) STRICT;
    INSERT INTO boots VALUES (0);
    CREATE TABLE subnets (
        subnet_id INTEGER PRIMARY KEY, epoch TEXT NOT NULL, revision INTEGER NOT NULL,
        count INTEGER NOT NULL, digest TEXT NOT NULL
    ) STRICT;
    CREATE TABLE reservations (
        subnet_id INTEGER NOT NULL, mac INTEGER NOT NULL, address INTEGER NOT NULL, hostname TEXT NOT NULL,
        PRIMARY KEY (subnet_id, mac)
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX reservations_address ON reservations (subnet_id, address);
    CREATE TABLE withdrawals (
        subnet_id INTEGER NOT NULL, mac INTEGER NOT NULL, until_ms INTEGER NOT NULL, PRIMARY KEY (subnet_id, mac)
    ) STRICT, WITHOUT ROWID;
"""
# Attached only while a resync is under way: detaching gives its memory back.
_STAGING = """
    CREATE TABLE staging.resync (
        subnet_id INTEGER NOT NULL, mac INTEGER NOT NULL, address INTEGER NOT NULL, hostname TEXT NOT NULL,
        PRIMARY KEY (subnet_id, mac)
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX staging.resync_address ON resync (subnet_id, address);
"""
# Only what differs is written: a resync of a set that is nearly right costs the disk little.
_REPLACE = (
    """
    INSERT OR REPLACE INTO withdrawals SELECT subnet_id, mac, :until FROM reservations
    WHERE subnet_id = :subnet AND mac NOT IN (SELECT mac FROM staging.resync WHERE subnet_id = :subnet)
    """,
    """
    DELETE FROM withdrawals
    WHERE subnet_id = :subnet AND mac IN (SELECT mac FROM staging.resync WHERE subnet_id = :subnet)
    """,
    """
    DELETE FROM reservations WHERE subnet_id = :subnet AND NOT EXISTS (
        SELECT 1 FROM staging.resync AS new WHERE new.subnet_id = :subnet AND new.mac = reservations.mac
        AND new.address = reservations.address AND new.hostname = reservations.hostname
    )
    """,
    """
    INSERT INTO reservations SELECT subnet_id, mac, address, hostname FROM staging.resync AS new
    WHERE subnet_id = :subnet AND NOT EXISTS (
        SELECT 1 FROM reservations AS old WHERE old.subnet_id = :subnet AND old.mac = new.mac
    )
    """,
)
_FORGET = (
    "DELETE FROM subnets WHERE subnet_id = ?",
    "DELETE FROM reservations WHERE subnet_id = ?",
    "DELETE FROM withdrawals WHERE subnet_id = ?",
)
# A subnet's reservations by columns. As JSON they come out of SQLite several times faster than row by row.
_IN_FORCE = """
    SELECT json_group_array(mac), json_group_array(address), json_group_array(length(hostname)),
        coalesce(group_concat(hostname, ''), '')
    FROM reservations WHERE subnet_id = ?
"""
_STAGED = """
    SELECT json_group_array(mac), json_group_array(address), json_group_array(length(hostname)),
        coalesce(group_concat(hostname, ''), '')
    FROM staging.resync WHERE subnet_id = ?
"""
_BY_MAC = "SELECT mac, address, hostname FROM reservations WHERE subnet_id = ? AND mac = ?"
_BY_ADDRESS = "SELECT mac, address, hostname FROM reservations WHERE subnet_id = ? AND address = ?"
_PAGE_OF_SUBNET = (
    "SELECT subnet_id, mac, address, hostname FROM reservations WHERE subnet_id = ? AND address > ?"
    " ORDER BY address LIMIT ?"
)
_PAGE_OF_ALL = (
    "SELECT subnet_id, mac, address, hostname FROM reservations WHERE (subnet_id, address) > (?, ?)"
    " ORDER BY subnet_id, address LIMIT ?"
)
_DIGEST = re.compile("[0-9a-f]{16}")
_NO_SPACE = (sqlite3.SQLITE_FULL,)
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

Log = Callable[[Level, str, str], None]


class StateUnusable(Exception):
    """The state directory cannot be used; the message says why and what to do."""


class JournalFailed(Exception):
    """The journal could not be read or written, and nothing was changed; the message says why and what to do."""


class Taken(Exception):
    """Two reservations of a subnet would clash; the message names both."""


class _Damaged(Exception):
    """The file is not a journal that can be trusted."""


@dataclass(frozen=True)
class SubnetState:
    """What is in force for a subnet. One that was never heard of has epoch "" and revision 0."""

    subnet_id: int
    epoch: str = ""
    revision: int = 0
    count: int = 0
    digest: int = 0


@dataclass(frozen=True)
class Contents:
    """A subnet's reservations and withdrawals, read back."""

    subnet_id: int
    reservations: Packed
    withdrawals: list[Withdrawal]


class Journal:
    """An open journal. `subnets` and `boot_order` are what is in force and the number of this boot of the host."""

    def __init__(self, directory: Path, *, now_ms: int, log: Log, spooled_boot_order: int = 0) -> None:
        """Open the journal of a state directory, or begin one, and count a boot of the host.

        A file that is damaged is set aside, with an ERROR, and a new one begun. The boot is counted on from the highest
        of the journal's, the lock file's and `spooled_boot_order`, so that a lost journal does not turn time back.
        Raises StateUnusable if the directory is used by another process or the file cannot be opened.
        """
        self._path = directory / FILE_NAME
        self._log = log
        self._purge_at_ms = 0
        self._contents: list[Contents] = []
        self._resyncs: set[int] = set()
        # Subnets that are forgotten, but still in the file.
        self._leaving: set[int] = set()
        self._lock = _lock(directory)
        opened = False
        try:
            last_boot = max(_number(self._lock.read()), spooled_boot_order)
            damage = self._open(last_boot, now_ms)
            if damage is not None:
                self._set_aside(damage, now_ms)
                damage = self._open(last_boot, now_ms)
            if damage is not None:
                raise StateUnusable(f"a new journal {self._path} cannot be read back ({damage}); see to the disk")
            self.boot_order: int = self._row("SELECT boot_order FROM boots")[0]
            self.subnets = {
                subnet_id: SubnetState(subnet_id, epoch, revision, count, int(digest, 16))
                for subnet_id, epoch, revision, count, digest in self._db.execute("SELECT * FROM subnets")
            }
            _write_number(self._lock, self.boot_order)
            opened = True
        except sqlite3.DatabaseError as error:
            raise StateUnusable(
                f"the journal {self._path} cannot be opened ({error}); it must be writable for Kea's user, "
                "with space left, and open in no other program"
            ) from None
        except OSError as error:
            raise StateUnusable(f"the journal {self._path} cannot be opened ({error})") from None
        finally:
            if not opened:
                self._lock.close()

    def close(self) -> None:
        """Close file and lock; harmless if closed."""
        self._db.close()
        self._lock.close()

    @property
    def count(self) -> int:
        """The number of reservations in all subnets."""
        return sum([state.count for state in list(self.subnets.values())])

    def state(self, subnet_id: int) -> SubnetState:
        """What is in force for the subnet."""
        return self.subnets.get(subnet_id) or SubnetState(subnet_id)

    def take_contents(self) -> list[Contents]:
        """All subnets as they were when the journal was opened, once."""
        contents, self._contents = self._contents, []
        return contents

    def apply(
        self, new: SubnetState, batch: Batch, unset: Sequence[int], *, now_ms: int, until_ms: int
    ) -> list[Withdrawal]:
        """Take `unset` out of a subnet's set, then put the batch in or over what its MACs had.

        `new` gives the subnet's id, epoch and revision; count and digest are worked out here. MACs that had a
        reservation and have none now are withdrawn until `until_ms`, and returned. Raises Taken and JournalFailed.
        """
        old = self.state(new.subnet_id)
        subnet_id = new.subnet_id
        macs = batch.macs
        try:
            with self._transaction(now_ms):
                touched = json.dumps([*unset, *macs])
                removed: list[Row] = self._db.execute(
                    "DELETE FROM reservations WHERE subnet_id = ? AND mac IN (SELECT value FROM json_each(?))"
                    " RETURNING mac, address, hostname",
                    (subnet_id, touched),
                ).fetchall()
                self._db.executemany(
                    "INSERT INTO reservations VALUES (?, ?, ?, ?)", [(subnet_id, *row) for row in batch.rows]
                )
                kept = set(macs)
                withdrawals = [(row[0], until_ms) for row in removed if row[0] not in kept]
                self._db.execute(
                    "DELETE FROM withdrawals WHERE subnet_id = ? AND mac IN (SELECT value FROM json_each(?))",
                    (subnet_id, json.dumps(macs)),
                )
                self._db.executemany(
                    "INSERT OR REPLACE INTO withdrawals VALUES (?, ?, ?)",
                    [(subnet_id, mac, until) for mac, until in withdrawals],
                )
                new = replace(
                    new,
                    count=old.count - len(removed) + len(batch.rows),
                    digest=old.digest ^ digest_of(removed) ^ batch.digest,
                )
                self._write_state(new)
        except sqlite3.IntegrityError:
            raise self._taken(subnet_id, batch, {*unset, *macs}) from None
        self.subnets[subnet_id] = new
        return withdrawals

    def stage(self, subnet_id: int, batch: Batch) -> None:
        """Keep a part of a subnet's coming set in memory. Raises Taken if it clashes with what is kept already."""
        with self._guarded():
            if not self._resyncs:
                self._db.execute("ATTACH ':memory:' AS staging")
                self._db.executescript(_STAGING)
            self._resyncs.add(subnet_id)
        try:
            with self._guarded(), self._committed():
                self._db.executemany(
                    "INSERT INTO staging.resync VALUES (?, ?, ?, ?)", [(subnet_id, *row) for row in batch.rows]
                )
        except sqlite3.IntegrityError:
            raise self._taken_in_resync(subnet_id, batch) from None

    def drop_staged(self, subnet_id: int) -> None:
        """Forget what was staged for a subnet; harmless if nothing was."""
        if subnet_id not in self._resyncs:
            return
        with self._guarded():
            self._db.execute("DELETE FROM staging.resync WHERE subnet_id = ?", (subnet_id,))
            self._resyncs.discard(subnet_id)
            if not self._resyncs:
                self._db.execute("DETACH staging")

    def replace(self, new: SubnetState, *, now_ms: int, until_ms: int) -> Packed:
        """Put what was staged for a subnet in the place of its set, and return it.

        `new` gives the subnet's id, epoch, revision and digest; the count is worked out here. MACs that are not in the
        new set are withdrawn until `until_ms`. Raises JournalFailed; what was staged stays then.
        """
        names = {"subnet": new.subnet_id, "until": until_ms}
        with self._transaction(now_ms):
            for statement in _REPLACE:
                self._db.execute(statement, names)
            packed = self._pack(_STAGED, new.subnet_id)
            new = replace(new, count=packed.count)
            self._write_state(new)
        self.subnets[new.subnet_id] = new
        self.drop_staged(new.subnet_id)
        return packed

    def forget(self, subnet_ids: Iterable[int], *, now_ms: int) -> list[int]:
        """Be as if these subnets had never been heard of, and those that could not be forgotten before.

        Returns the ids of those that are gone from the file now. Raises JournalFailed where it cannot be written: then
        they go with whatever is written next.
        """
        self._leaving.update(subnet_id for subnet_id in subnet_ids if self.subnets.pop(subnet_id, None) is not None)
        leaving = sorted(self._leaving)
        if leaving:
            with self._transaction(now_ms):
                pass
        return leaving

    def by_mac(self, subnet_id: int, mac: int) -> Row | None:
        """The reservation that a MAC has on a subnet."""
        return self._find(_BY_MAC, subnet_id, mac)

    def by_address(self, subnet_id: int, address: int) -> Row | None:
        """The reservation of an address on a subnet."""
        return self._find(_BY_ADDRESS, subnet_id, address)

    def page(self, subnet_id: int | None, after: tuple[int, int], limit: int) -> list[tuple[int, Row]]:
        """Up to `limit` reservations, each with its subnet's id, by (subnet id, address), past that pair."""
        with self._guarded():
            if subnet_id is None:
                found = self._db.execute(_PAGE_OF_ALL, (*after, limit))
            else:
                found = self._db.execute(_PAGE_OF_SUBNET, (subnet_id, after[1], limit))
            return [(row[0], row[1:]) for row in found]

    # ---- opening ---------------------------------------------------------------------------------------------------

    def _open(self, last_boot: int, now_ms: int) -> str | None:
        """Open the file, read everything and count the boot; or return what is wrong with the file, and close it."""
        if not self._path.exists():
            if left := [path.name for path in self._companions() if path.exists()]:
                return f"{self._path.name} is missing beside {left[0]}"
            _begin(self._path)
        elif self._path.stat().st_size == 0:
            return "it is empty"
        self._db = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)
        damage = None
        try:
            self._contents = self._inspect(now_ms)
            self._make_room()
            with self._committed():
                self._db.execute("DELETE FROM withdrawals WHERE until_ms <= ?", (now_ms,))
                self._db.execute("UPDATE boots SET boot_order = max(boot_order, ?) + 1", (last_boot,))
        except (_Damaged, OverflowError, UnicodeError) as error:
            damage = str(error)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                self._db.close()
                raise
            damage = str(error)
        # Not in the handlers: an exception holds on to cursors, and SQLite closes a file only with its last cursor. It
        # would then delete the -wal by its name, which may be that of a new journal by that time.
        if damage is not None:
            self._db.close()
        return damage

    def _make_room(self) -> None:
        """Give the write-ahead log the size that it grows to. A commit that makes it longer takes three times as long
        as one that writes over what is there."""
        try:
            # Pages that do not fit into the cache go into the log, and stay there as room when they are rolled back.
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("CREATE TABLE room (octets BLOB)")
            self._db.execute("INSERT INTO room VALUES (zeroblob(?))", (_ROOM_OCTETS,))
        except sqlite3.OperationalError:
            pass  # commits take longer on a disk without so much room, and say it where that is not even for them
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def _inspect(self, now_ms: int) -> list[Contents]:
        """The contents of a journal that can be trusted; raises _Damaged and more otherwise."""
        # Exclusive: nobody else can change what we have in memory, and no -shm file is needed.
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute(f"PRAGMA journal_size_limit = {_MAX_IDLE_WAL_OCTETS}")
        version = (self._row("PRAGMA application_id")[0], self._row("PRAGMA user_version")[0])
        if version != (_APPLICATION_ID, _SCHEMA_VERSION):
            wanted = (_APPLICATION_ID, _SCHEMA_VERSION)
            raise _Damaged(f"its application id and schema version are {version}, not {wanted}")
        check = self._row("PRAGMA quick_check(1)")[0]
        if check != "ok":
            raise _Damaged(str(check))
        if self._row("SELECT count(*) FROM boots") != (1,):
            raise _Damaged("its table `boots` has not one row")
        contents = self._read(now_ms)
        counts = {each.subnet_id: each.reservations.count for each in contents}
        for subnet_id, count, digest in self._db.execute("SELECT subnet_id, count, digest FROM subnets"):
            if counts[subnet_id] != count or not _DIGEST.fullmatch(digest):
                raise _Damaged(f"its count or digest of subnet {subnet_id} is wrong")
        if self._row("SELECT count(*) FROM reservations")[0] != sum(counts.values()):
            raise _Damaged("it has reservations on subnets that it does not list")
        return contents

    def _set_aside(self, damage: str, now_ms: int) -> None:
        stamp = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        aside = self._path.with_name(f"{FILE_NAME}.damaged-{stamp}")
        # The journal goes first: were we killed in between, a -wal without a journal is noticed, while a journal
        # without its -wal would pass for a sound one of an earlier time.
        moved = [
            path.rename(aside.with_name(aside.name + path.name.removeprefix(FILE_NAME)))
            for path in (self._path, *self._companions())
            if path.exists()
        ]
        self._log(
            Level.ERROR,
            "JOURNAL_DAMAGED",
            f"the journal {self._path} is damaged ({damage}); it was set aside as "
            f"{', '.join(map(str, moved))} and a new one begun: the control plane will send everything again",
        )

    def _companions(self) -> tuple[Path, Path]:
        return self._path.with_name(f"{FILE_NAME}-wal"), self._path.with_name(f"{FILE_NAME}-shm")

    # ---- reading and writing ---------------------------------------------------------------------------------------

    def _row(self, query: str) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self._db.execute(query).fetchone()
        return row

    def _read(self, now_ms: int) -> list[Contents]:
        withdrawals: dict[int, list[Withdrawal]] = {}
        for subnet_id, mac, until_ms in self._db.execute(
            "SELECT subnet_id, mac, until_ms FROM withdrawals WHERE until_ms > ?", (now_ms,)
        ):
            withdrawals.setdefault(subnet_id, []).append((mac, until_ms))
        # Every transaction on a subnet writes its row there, so these are all.
        subnets = [row[0] for row in self._db.execute("SELECT subnet_id FROM subnets")]
        return [
            Contents(subnet_id, self._pack(_IN_FORCE, subnet_id), withdrawals.get(subnet_id, []))
            for subnet_id in subnets
        ]

    def _pack(self, query: str, subnet_id: int) -> Packed:
        macs, addresses, lengths, names = self._db.execute(query, (subnet_id,)).fetchone()
        return pack(json.loads(macs), json.loads(addresses), json.loads(lengths), names)

    def _find(self, query: str, subnet_id: int, value: int) -> Row | None:
        with self._guarded():
            row: Row | None = self._db.execute(query, (subnet_id, value)).fetchone()
            return row

    def _write_state(self, state: SubnetState) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO subnets VALUES (?, ?, ?, ?, ?)",
            (state.subnet_id, state.epoch, state.revision, state.count, f"{state.digest:016x}"),
        )

    @contextlib.contextmanager
    def _transaction(self, now_ms: int) -> Iterator[None]:
        """One transaction of the journal, as `_committed`. It begins by forgetting the subnets that are leaving, and
        now and then it ends by forgetting withdrawals that are over."""
        with self._guarded():
            with self._committed():
                for statement in _FORGET:
                    self._db.executemany(statement, [(subnet_id,) for subnet_id in self._leaving])
                yield
                if now_ms >= self._purge_at_ms:
                    self._db.execute("DELETE FROM withdrawals WHERE until_ms <= ?", (now_ms,))
                    self._purge_at_ms = now_ms + _PURGE_EVERY_MS
            self._leaving.clear()

    @contextlib.contextmanager
    def _committed(self) -> Iterator[None]:
        """Commits at the end, or rolls back whatever ends it otherwise."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turns SQLite's errors, but IntegrityError, into JournalFailed."""
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as error:
            if _is_damage(error):
                advice = "the file is damaged; restart kea-dhcp4: it will be set aside, and everything sent again"
            elif error.sqlite_errorcode & 0xFF in _NO_SPACE:
                advice = f"make space where {self._path.parent} is"
            else:
                advice = f"see that {self._path.parent} can be written, and try again"
            raise JournalFailed(
                f"the journal {self._path} failed ({error}) and nothing was changed; {advice}"
            ) from error

    # ---- clashes ---------------------------------------------------------------------------------------------------

    def _taken(self, subnet_id: int, batch: Batch, touched: set[int]) -> Taken:
        holders: dict[int, int] = {}
        for mac, address, _ in batch.rows:
            holder = holders.setdefault(address, mac)
            if holder == mac:
                held = self.by_address(subnet_id, address)
                holder = held[0] if held is not None and held[0] not in touched else mac
            if holder != mac:
                return _taken(address, holder, mac)
        raise AssertionError("SQLite saw a clash that is not there")

    def _taken_in_resync(self, subnet_id: int, batch: Batch) -> Taken:
        macs, holders = set(), {}
        with self._guarded():
            for mac, address in self._db.execute(
                "SELECT mac, address FROM staging.resync WHERE subnet_id = ?", (subnet_id,)
            ):
                macs.add(mac)
                holders[address] = mac
        for mac, address, _ in batch.rows:
            if mac in macs:
                return Taken(f"'{mac_text(mac)}' was on an earlier page of this resync")
            if holders.setdefault(address, mac) != mac:
                return _taken(address, holders[address], mac)
        raise AssertionError("SQLite saw a clash that is not there")


def _taken(address: int, holder: int, other: int) -> Taken:
    return Taken(
        f"{address_text(address)} would be reserved for both {mac_text(holder)} and {mac_text(other)}; "
        "an address can be reserved for one client of a subnet"
    )


def _begin(path: Path) -> None:
    """Make an empty journal. It appears whole, so that a file which is not whole was damaged later."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(unfinished, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = MEMORY")  # a killed beginning leaves no file but the unfinished one
        db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
    unfinished.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _lock(directory: Path) -> TextIO:
    path = directory / "lock"
    try:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+")
    except OSError as error:
        raise StateUnusable(f"{path} cannot be opened ({error}); give Kea's user the right to write there") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise StateUnusable(
            f"the state directory {directory} is in use by another process; give each Kea server its own"
        ) from None
    return file


def _number(text: str) -> int:
    return int(text) if text.strip().isascii() and text.strip().isdigit() else 0


def _write_number(file: TextIO, number: int) -> None:
    file.seek(0)
    file.write(f"{number}\n")
    file.truncate()
    file.flush()


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    # An error without a code of SQLite's, or its plain SQLITE_ERROR, says that tables are not as they must be.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF in (*_DAMAGE, sqlite3.SQLITE_ERROR)
