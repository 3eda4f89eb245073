"""The spool: lease events on disk until the control plane has them. Lines of JSON in files of about a mebibyte.

A file, a segment, is named `<boot order>-<boot id>-<first sequence number>.ndjson`. Whatever is lost, by damage, by a
disk that cannot be written, or because the spool is full, leaves an `events.gap` line in its place with the number of
events, the range that their sequence numbers were in, and the reason. A gap bears the last of these numbers, so that it
is news even to a control plane that has seen some of the range.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from leasehold_hook.border import Level
from leasehold_hook.journal import Log

_SEGMENT_OCTETS = 2**20
# A segment that is sent is deleted from this size on; a crash makes us send at most so much again.
_FINISHED_OCTETS = 2**18
_READ_OCTETS = 2**18
_MAX_LINE = 4096
_UNFINISHED = ".new"
_NAME = re.compile(r"(\d{1,18})-([0-9a-f-]{36})-(\d{1,18})\.ndjson")
_SEQUENCE = len(b'{"seq":')
_RENEWED = b'"type":"lease.renewed"'
_GAP = b'"type":"events.gap"'


@dataclass(frozen=True)
class Batch:
    """`count` lines of one boot, in order, with sequence numbers from `first` to `last`."""

    boot_order: int
    boot: str
    lines: bytes
    count: int
    first: int
    last: int


@dataclass
class _Segment:
    """A file of the spool, of which the first `sent` octets are acknowledged.

    `count` is the number of lines after those. One that an earlier boot left is not `checked` until its lines were
    looked at, and its count is not known. `compact` has no renewals, `gap` is nothing but one events.gap line.
    `repaired` is what a damaged one must have, where the disk does not take it.
    """

    path: Path
    boot_order: int
    boot: str
    first: int
    octets: int
    checked: bool
    sent: int = 0
    count: int = 0
    compact: bool = False
    gap: bool = False
    repaired: bytes | None = None

    @property
    def order(self) -> tuple[int, str, int]:
        """Older boots first; the id breaks a tie that only a lost journal can make."""
        return self.boot_order, self.boot, self.first

    @property
    def waiting(self) -> int:
        """Octets that are not acknowledged."""
        return self.octets - self.sent

    def read(self, octets: int) -> bytes:
        """The first of those; raises OSError."""
        if self.repaired is not None:
            return self.repaired[self.sent : self.sent + octets]
        file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(file, octets, self.sent)
        finally:
            os.close(file)


def highest_boot_order(directory: Path) -> int:
    """Of the boots that left something in the spool; 0 if there is nothing. Raises OSError."""
    return max((segment.boot_order for segment in _list(directory)), default=0)


class Spool:
    """The spool of one state directory, in one boot. Not thread-safe.

    After it was opened no method raises OSError: what cannot be written is kept in memory, up to a segment's worth,
    and counted as lost past that.
    """

    def __init__(
        self, directory: Path, *, boot_order: int, boot: str, limit: int, clock_ms: Callable[[], int], log: Log
    ) -> None:
        """List what earlier boots left, and make the folder if need be; raises OSError. `limit` is in octets."""
        self._directory = directory
        self._boot_order = boot_order
        self._boot = boot
        self._clock_ms = clock_ms
        self._log = log
        self.limit = limit
        self.sent = 0
        self.lost = 0
        self.last_sequence = 0
        self._segments = _list(directory)
        # The segment that is written to, always the last; the lines that are not in it yet, and their number.
        self._file: int | None = None
        self._tail = b""
        self._tail_count = 0
        self._unsynced = False
        self._failing = False
        self._offered: tuple[_Segment | None, Batch] | None = None

    @property
    def octets(self) -> int:
        """Octets that are not acknowledged."""
        return sum(segment.waiting for segment in self._segments) + len(self._tail)

    @property
    def count(self) -> int:
        """Lines that are not acknowledged, but for segments of earlier boots that were not looked at yet."""
        return sum(segment.count for segment in self._segments) + self._tail_count

    def append(self, lines: bytes, count: int) -> None:
        """Add `count` lines, the first of which has the sequence number after `last_sequence`."""
        if not count:
            return
        self._tail += lines
        self._tail_count += count
        self.last_sequence += count
        self._write_tail()
        self._keep_within_limit()

    def sync(self) -> None:
        """Bring what is written and not acknowledged to the disk itself."""
        if self._file is not None and self._unsynced and self._segments[-1].waiting:
            try:
                os.fdatasync(self._file)
            except OSError as error:
                self._unwritable(error)
            self._unsynced = False

    def close(self) -> None:
        """Bring everything to disk. The spool can be used on."""
        self._write_tail()
        self.sync()
        self._finish()

    def check_one(self) -> bool:
        """Look at the lines of one segment that an earlier boot left; whether there was one."""
        for segment in self._segments:
            if not segment.checked:
                self._check(segment)
                return True
        return False

    def batch(self, limit: int) -> Batch | None:
        """The oldest lines that are not acknowledged, up to `limit`; None if there are none."""
        while segment := next((segment for segment in self._segments if segment.waiting), None):
            if not segment.checked:
                self._check(segment)
                continue
            try:
                chunk = segment.read(min(segment.waiting, _READ_OCTETS))
            except OSError as error:
                self._give_up(segment, str(error))
                continue
            if b"\n" not in chunk:
                self._give_up(segment, "it is shorter than it was")
                continue
            return self._offer(segment, chunk, limit)
        return self._offer(None, self._tail, limit) if self._tail else None

    def acknowledge(self, batch: Batch, sequence: int) -> None:
        """Forget the lines of the batch up to a sequence number.

        If they were moved meanwhile, to make room or to disk, this does nothing and they are offered again.
        """
        if self._offered is None or self._offered[1] is not batch:
            return
        segment = self._offered[0]
        self._offered = None
        octets, count = len(batch.lines), batch.count
        if sequence < batch.last:
            done = [line for line in batch.lines.splitlines(keepends=True) if _sequence(line) <= sequence]
            octets, count = sum(map(len, done)), len(done)
        self.sent += count
        if segment is None:
            self._tail = self._tail[octets:]
            self._tail_count -= count
            return
        segment.sent += octets
        segment.count -= count
        if not segment.waiting:
            if segment is not self._active():
                self._delete(segment)
            elif segment.octets >= _FINISHED_OCTETS:
                self._finish()

    # ---- writing ---------------------------------------------------------------------------------------------------

    def _active(self) -> _Segment | None:
        return self._segments[-1] if self._file is not None else None

    def _write_tail(self) -> None:
        if not self._tail:
            return
        try:
            self._write(self._tail)
        except OSError as error:
            self._unwritable(error)
            if len(self._tail) > _SEGMENT_OCTETS:
                self._offered = None
                lines = self._tail.splitlines(keepends=True)
                self._count_lost(lines)
                self._tail = self._gap_for(lines)
                self._tail_count = 1
            return
        if self._failing:
            self._failing = False
            self._log(Level.INFO, "SPOOL_WRITABLE", f"events are written to {self._directory} again")
        if self._offered is not None and self._offered[0] is None:
            self._offered = None
        self._segments[-1].count += self._tail_count
        self._tail = b""
        self._tail_count = 0

    def _write(self, lines: bytes) -> None:
        segment = self._active()
        if segment is not None and segment.octets >= min(_SEGMENT_OCTETS, self.limit // 8):
            self.sync()
            self._finish()
            segment = None
        if segment is None:
            first = _sequence(lines)
            path = self._directory / f"{self._boot_order}-{self._boot}-{first}.ndjson"
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            segment = _Segment(path, self._boot_order, self._boot, first, 0, checked=True)
            self._segments.append(segment)
        if self._file is None:
            raise AssertionError("a segment is written to, and its file is not open")
        self._unsynced = True
        _write_all(self._file, lines, segment.octets)
        segment.octets += len(lines)

    def _finish(self) -> None:
        """Write no more to the active segment, and delete it if everything in it is acknowledged."""
        segment = self._active()
        if segment is not None and self._file is not None:
            os.close(self._file)
            self._file = None
            if not segment.waiting:
                self._delete(segment)

    def _delete(self, segment: _Segment) -> None:
        self._segments.remove(segment)
        try:
            segment.path.unlink(missing_ok=True)
        except OSError as error:
            self._unwritable(error)

    def _unwritable(self, error: OSError) -> None:
        if not self._failing:
            self._failing = True
            self._log(
                Level.ERROR,
                "SPOOL_UNWRITABLE",
                f"events cannot be written to {self._directory} ({error}); they are kept in memory, and are lost past "
                "1 MiB: make space, or let Kea's user write there",
            )

    # ---- losing ----------------------------------------------------------------------------------------------------

    def _keep_within_limit(self) -> None:
        """Make room: renewals go first, from the oldest segment on; then the oldest segments whole."""
        while self.octets > self.limit:
            if segment := next((segment for segment in self._segments if not segment.compact), None):
                done = self._make_compact(segment)
            elif segment := next((segment for segment in self._segments if not segment.gap), None):
                done = self._make_gap(segment)
            else:
                return
            if not done:
                return  # the disk cannot be written: then the spool does not grow there either

    def _make_compact(self, segment: _Segment) -> bool:
        """Take the renewals out of a segment; whether that was possible."""
        lines = self._lines_of(segment)
        segment.compact = True
        renewals = [line for line in lines if _RENEWED in line]
        if not renewals:
            return True
        gap = self._gap_for(renewals)
        kept = [line for line in lines if _RENEWED not in line]
        place = sum(_sequence(line) < _sequence(gap) for line in kept)
        segment.compact = self._rewrite(segment, [*kept[:place], gap, *kept[place:]])
        if segment.compact:
            self._count_lost(renewals)
        return segment.compact

    def _make_gap(self, segment: _Segment) -> bool:
        """Put one gap in the place of a segment, and of the gap before it; whether that was possible."""
        lines = self._lines_of(segment)
        if not lines:
            return True
        at = self._segments.index(segment)
        before = self._segments[at - 1] if at else None
        if before is not None and before.gap and before.boot == segment.boot:
            # Written before the other is deleted: a crash in between counts some twice, and none never.
            done = self._rewrite(before, [self._gap_for([*self._lines_of(before), *lines])])
            if done:
                self._delete(segment)
        else:
            done = segment.gap = self._rewrite(segment, [self._gap_for(lines)])
        if done:
            self._count_lost(lines)
        return done

    def _lines_of(self, segment: _Segment) -> list[bytes]:
        """The lines of a segment that are not acknowledged, after which it is written to no more."""
        if segment is self._active():
            self._finish()
        if not segment.checked:
            self._check(segment)
        if not segment.waiting:
            if segment in self._segments:
                self._delete(segment)
            return []
        try:
            return segment.read(segment.waiting).splitlines(keepends=True)
        except OSError as error:
            self._give_up(segment, str(error))
            return []

    def _rewrite(self, segment: _Segment, lines: list[bytes]) -> bool:
        """Put lines in the place of those that a segment has, in one step; whether that was possible."""
        content = b"".join(lines)
        unfinished = segment.path.with_name(segment.path.name + _UNFINISHED)
        try:
            file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                _write_all(file, content, 0)
                os.fdatasync(file)
            finally:
                os.close(file)
            unfinished.rename(segment.path)
        except OSError as error:
            self._unwritable(error)
            return False
        self._offered = None
        segment.octets = len(content)
        segment.sent = 0
        segment.count = len(lines)
        segment.repaired = None
        return True

    def _give_up(self, segment: _Segment, why: str) -> None:
        """A segment that cannot be read becomes a gap among what was not sent yet."""
        self._offered = None
        if segment is self._active():
            self._finish()
        if segment in self._segments:
            self._segments.remove(segment)
        lost = max(segment.count, 1)
        self.lost += lost
        self._log(
            Level.ERROR, "SPOOL_DAMAGED", f"{segment.path} cannot be read ({why}); {lost} events or more are lost"
        )
        self.append(self._gap(self.last_sequence + 1, lost, "damaged"), 1)

    def _check(self, segment: _Segment) -> None:
        """Leave whole lines only in a segment that an earlier boot left: a crash may have torn the last, or worse."""
        segment.checked = True
        try:
            content = segment.path.read_bytes()
        except OSError as error:
            self._give_up(segment, str(error))
            return
        kept: list[bytes] = []
        last, broken, lost = segment.first - 1, 0, 0
        for line in content.split(b"\n"):
            sequence = _valid_sequence(line)
            if sequence is None:
                broken += bool(line)
            elif sequence > last:
                if broken and sequence - last > 1:
                    lost += sequence - 1 - last
                    kept.append(self._gap(sequence - 1, sequence - 1 - last, "damaged", last + 1))
                kept.append(line + b"\n")
                last, broken = sequence, 0
        if broken:
            lost += broken
            kept.append(self._gap(last + broken, broken, "damaged", last + 1))
        segment.octets = len(content)
        segment.count = len(kept)
        whole = b"".join(kept)
        if whole != content and not self._rewrite(segment, kept):
            segment.octets = len(whole)
            segment.repaired = whole
        if lost:
            self.lost += lost
            self._log(Level.WARN, "SPOOL_DAMAGED", f"{segment.path} was damaged; {lost} events are lost")
        if not segment.waiting and segment in self._segments:
            self._delete(segment)

    def _count_lost(self, lines: Iterable[bytes]) -> None:
        self.lost += sum(_GAP not in line for line in lines)

    def _gap_for(self, lines: list[bytes]) -> bytes:
        """One gap in the place of lines, gaps among them included."""
        lost, first = 0, _sequence(lines[0])
        for line in lines:
            if _GAP in line:
                gap = json.loads(line)
                lost += gap["lost"]
                first = min(first, gap.get("first_seq", first))
            else:
                lost += 1
        return self._gap(_sequence(lines[-1]), lost, "spool", first)

    def _gap(self, sequence: int, lost: int, reason: str, first: int | None = None) -> bytes:
        gap: dict[str, object] = {
            "seq": sequence,
            "type": "events.gap",
            "at": self._clock_ms(),
            "lost": lost,
            "reason": reason,
        }
        if first is not None:
            gap |= {"first_seq": first, "last_seq": sequence}
        return json.dumps(gap, separators=(",", ":")).encode() + b"\n"

    def _offer(self, segment: _Segment | None, chunk: bytes, limit: int) -> Batch:
        *lines, rest = chunk.split(b"\n", limit)
        batch = Batch(
            segment.boot_order if segment else self._boot_order,
            segment.boot if segment else self._boot,
            chunk[: len(chunk) - len(rest)],
            len(lines),
            _sequence(lines[0]),
            _sequence(lines[-1]),
        )
        self._offered = (segment, batch)
        return batch


def _list(directory: Path) -> list[_Segment]:
    """The segments in the folder, oldest first; makes the folder. Other files are left alone. Raises OSError."""
    directory.mkdir(mode=0o700, exist_ok=True)
    return sorted(_named(directory), key=lambda segment: segment.order)


def _named(directory: Path) -> Iterator[_Segment]:
    for path in directory.iterdir():
        if path.name.endswith(_UNFINISHED):
            path.unlink()
        elif name := _NAME.fullmatch(path.name):
            boot_order, boot, first = name.groups()
            yield _Segment(path, int(boot_order), boot, int(first), path.stat().st_size, checked=False)


def _write_all(file: int, content: bytes, offset: int) -> None:
    rest = memoryview(content)
    while rest:
        written = os.pwrite(file, rest, offset)
        rest, offset = rest[written:], offset + written


def _sequence(line: bytes) -> int:
    """The sequence number of a line, or of the first of several; each begins with it."""
    return int(line[_SEQUENCE : line.index(b",")])


def _valid_sequence(line: bytes) -> int | None:
    """The sequence number of a line, None if it is not whole or not ours."""
    if len(line) > _MAX_LINE or not line.startswith(b'{"seq":'):
        return None
    try:
        event = json.loads(line)
    except ValueError:
        return None
    sequence = event["seq"]
    ours = "type" in event and (event["type"] != "events.gap" or type(event.get("lost")) is int)
    return sequence if type(sequence) is int and sequence > 0 and ours else None
