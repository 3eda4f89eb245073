"""The journal as a file: damage, locks, full disks, and reading it back."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hook.faults import disk_full
from hook.stand_in import StandIn, unpack
from leasehold_hook.border import Level
from leasehold_hook.journal import Journal, JournalFailed, StateUnusable, SubnetState
from leasehold_hook.reservations import Batch, Row, digest_of

NOW_MS = 1_700_000_000_000
UNTIL_MS = NOW_MS + 3_600_000
ROWS = [
    (0x020000000000 + number, 0xC0000200 + number, f"vm-{number}" if number % 2 else "") for number in range(1, 200)
]


def opened(state: Path, border: StandIn, now_ms: int = NOW_MS) -> Journal:
    state.mkdir(exist_ok=True)
    return Journal(state, now_ms=now_ms, log=border.log)


def put(journal: Journal, rows: list[Row], unset: list[int] | None = None, subnet_id: int = 7) -> None:
    state = journal.state(subnet_id)
    new = SubnetState(subnet_id, "epoch", state.revision + 1)
    journal.apply(new, Batch(rows, digest_of(rows)), unset or [], now_ms=NOW_MS, until_ms=UNTIL_MS)


def written(state: Path, border: StandIn) -> Path:
    """A journal with ROWS on subnet 7; returns its file."""
    journal = opened(state, border)
    put(journal, ROWS)
    journal.close()
    return state / "journal.sqlite"


def test_what_was_committed_is_read_back(state: Path, border: StandIn) -> None:
    written(state, border)
    (contents,) = opened(state, border).take_contents()
    assert (contents.subnet_id, unpack(contents.reservations)) == (7, ROWS)


def test_the_state_of_a_subnet_is_read_back(state: Path, border: StandIn) -> None:
    written(state, border)
    assert opened(state, border).state(7) == SubnetState(7, "epoch", 1, len(ROWS), digest_of(ROWS))


def test_what_was_committed_survives_a_kill(state: Path, border: StandIn) -> None:
    program = (
        "import os, pathlib, signal, sys\n"
        "from hook.stand_in import StandIn\n"
        "from hook.test_journal import ROWS, opened, put\n"
        "put(opened(pathlib.Path(sys.argv[1]), StandIn()), ROWS)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", program, str(state)], env=environment, check=False)
    assert killed.returncode == -9
    assert opened(state, border).count == len(ROWS)


def test_commits_are_synced_to_the_disk_itself(state: Path, border: StandIn) -> None:
    """Which only a power cut would show; 2 is FULL."""
    journal = opened(state, border)
    assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,)
    journal.close()


def test_withdrawals_are_read_back_until_they_are_over(state: Path, border: StandIn) -> None:
    journal = opened(state, border)
    put(journal, ROWS[:2])
    put(journal, [], [ROWS[0][0]])
    journal.close()
    before = opened(state, border, UNTIL_MS - 1)
    (contents,) = before.take_contents()
    before.close()
    (later,) = opened(state, border, UNTIL_MS).take_contents()
    assert (contents.withdrawals, later.withdrawals) == ([(ROWS[0][0], UNTIL_MS)], [])


def test_each_opening_is_a_boot_of_the_host(state: Path, border: StandIn) -> None:
    orders = []
    for _ in range(3):
        journal = opened(state, border)
        orders.append(journal.boot_order)
        journal.close()
    assert orders == [1, 2, 3]


def test_boots_are_counted_on_when_the_journal_was_lost(state: Path, border: StandIn) -> None:
    opened(state, border).close()
    opened(state, border).close()
    (state / "journal.sqlite").unlink()
    assert opened(state, border).boot_order == 3


def test_boots_are_counted_on_from_the_spool_when_all_else_was_lost(state: Path, border: StandIn) -> None:
    state.mkdir()
    assert Journal(state, now_ms=NOW_MS, log=border.log, spooled_boot_order=41).boot_order == 42


def truncated(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2 + 100)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def made_garbage(path: Path) -> None:
    path.write_bytes(b"\xa5" * 40_000)


def garbled_pages(path: Path) -> None:
    octets = bytearray(path.read_bytes())
    octets[4096:] = b"\xa5" * (len(octets) - 4096)
    path.write_bytes(octets)


def garbled_one_page(path: Path) -> None:
    octets = bytearray(path.read_bytes())
    octets[-4096:] = b"\xa5" * 4096
    path.write_bytes(octets)


def changed(statement: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with sqlite3.connect(path) as db:
            db.execute(statement)
        db.close()

    change.__name__ = statement
    return change


def lost_its_journal_but_not_its_wal(path: Path) -> None:
    path.unlink()
    path.with_name("journal.sqlite-wal").write_bytes(b"left")


DAMAGES = [
    truncated,
    emptied,
    made_garbage,
    garbled_pages,
    garbled_one_page,
    changed("PRAGMA user_version = 2"),
    changed("PRAGMA application_id = 1"),
    changed("DROP TABLE withdrawals"),
    changed("DELETE FROM boots"),
    changed("DELETE FROM reservations WHERE mac = 2199023255553"),
    changed("DELETE FROM subnets"),
    changed("UPDATE subnets SET digest = 'x'"),
    changed("UPDATE reservations SET mac = -1 WHERE mac = 2199023255553"),
    changed("UPDATE reservations SET address = 4294967296 WHERE mac = 2199023255553"),
    changed("UPDATE reservations SET hostname = 'ü' WHERE mac = 2199023255553"),
    changed("UPDATE reservations SET hostname = CAST(x'ff' AS TEXT) WHERE mac = 2199023255553"),
    lost_its_journal_but_not_its_wal,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_journal_gives_way_to_an_empty_one(
    damage: Callable[[Path], None], state: Path, border: StandIn
) -> None:
    damage(written(state, border))
    journal = opened(state, border)
    assert (journal.count, journal.state(7)) == (0, SubnetState(7))


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_journal_is_set_aside_whole(damage: Callable[[Path], None], state: Path, border: StandIn) -> None:
    path = written(state, border)
    damage(path)
    left = {file.read_bytes() for file in state.glob("journal.sqlite*")}
    opened(state, border).close()
    assert {file.read_bytes() for file in state.glob("journal.sqlite.damaged-*")} == left


def test_a_damaged_journal_is_logged_as_an_error_with_its_new_name(state: Path, border: StandIn) -> None:
    made_garbage(written(state, border))
    opened(state, border)
    ((level, identifier, text),) = border.logged
    (aside,) = state.glob("journal.sqlite.damaged-*")
    assert (level, identifier) == (Level.ERROR, "JOURNAL_DAMAGED")
    assert str(aside) in text


def test_a_journal_that_replaced_a_damaged_one_is_used(state: Path, border: StandIn) -> None:
    changed("UPDATE reservations SET mac = -1 WHERE mac = 2199023255553")(written(state, border))
    journal = opened(state, border)
    put(journal, ROWS)
    journal.close()
    assert opened(state, border).count == len(ROWS)


def test_a_journal_that_was_damaged_twice_is_set_aside_twice(state: Path, border: StandIn) -> None:
    for now_ms in (NOW_MS, NOW_MS + 1):
        state.mkdir(exist_ok=True)
        made_garbage(state / "journal.sqlite")
        opened(state, border, now_ms).close()
    assert len(list(state.glob("journal.sqlite.damaged-*"))) == 2


def test_an_unfinished_new_journal_is_begun_again(state: Path, border: StandIn) -> None:
    state.mkdir()
    (state / "journal.sqlite.new").write_bytes(b"killed while it was made")
    assert opened(state, border).count == 0


def test_a_second_process_is_refused(state: Path, border: StandIn) -> None:
    first = opened(state, border)
    with pytest.raises(StateUnusable, match=f"the state directory {state} is in use by another process"):
        opened(state, border)
    first.close()


def test_a_closed_journal_gives_its_directory_free(state: Path, border: StandIn) -> None:
    opened(state, border).close()
    assert opened(state, border).boot_order == 2


def test_a_journal_that_another_program_writes_to_is_refused_and_not_set_aside(state: Path, border: StandIn) -> None:
    path = written(state, border)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StateUnusable, match=r"cannot be opened \(database is locked\)"):
        opened(state, border)
    other.close()
    assert opened(state, border).count == len(ROWS)


def test_a_journal_that_is_a_directory_is_refused(state: Path, border: StandIn) -> None:
    (state / "journal.sqlite").mkdir(parents=True)
    with pytest.raises(StateUnusable, match="cannot be opened"):
        opened(state, border)


def test_a_missing_directory_is_refused(tmp_path: Path, border: StandIn) -> None:
    with pytest.raises(StateUnusable, match="No such file or directory"):
        Journal(tmp_path / "none", now_ms=NOW_MS, log=border.log)


def test_a_change_that_does_not_fit_on_the_disk_changes_nothing(state: Path, border: StandIn) -> None:
    journal = opened(state, border)
    put(journal, ROWS[:1])
    before = journal.state(7)
    with disk_full(), pytest.raises(JournalFailed, match="nothing was changed"):
        put(journal, ROWS[1:])
    assert (journal.state(7), journal.by_mac(7, ROWS[1][0])) == (before, None)


def test_a_disk_without_room_for_the_log_to_come_keeps_no_journal_from_being_read_and_written(
    state: Path, border: StandIn
) -> None:
    journal = opened(state, border)
    put(journal, ROWS[:1])
    journal.close()
    with disk_full(2_000_000):
        again = opened(state, border)
        put(again, ROWS[1:])
    assert again.count == len(ROWS)


def test_changes_are_taken_again_once_the_disk_has_room(state: Path, border: StandIn) -> None:
    journal = opened(state, border)
    with disk_full(), pytest.raises(JournalFailed):
        put(journal, ROWS)
    put(journal, ROWS)
    journal.close()
    assert opened(state, border).state(7) == SubnetState(7, "epoch", 1, len(ROWS), digest_of(ROWS))


def test_a_forgotten_subnet_is_gone_with_all_it_had(state: Path, border: StandIn) -> None:
    journal = opened(state, border)
    put(journal, ROWS, subnet_id=7)
    put(journal, ROWS[:2], subnet_id=8)
    put(journal, [], unset=[ROWS[0][0]], subnet_id=7)
    assert journal.forget([7, 9], now_ms=NOW_MS) == [7]
    assert (journal.state(7), journal.by_mac(7, ROWS[1][0]), journal.count) == (SubnetState(7), None, 2)
    journal.close()
    (contents,) = opened(state, border).take_contents()
    assert (contents.subnet_id, unpack(contents.reservations), contents.withdrawals) == (8, ROWS[:2], [])


def test_what_could_not_be_forgotten_goes_with_the_next_change(state: Path, border: StandIn) -> None:
    """Also where that is a new set for the same subnet."""
    journal = opened(state, border)
    put(journal, ROWS, subnet_id=7)
    put(journal, ROWS[:2], subnet_id=8)
    with disk_full(), pytest.raises(JournalFailed):
        journal.forget([7, 8], now_ms=NOW_MS)
    assert journal.state(7) == SubnetState(7)
    put(journal, ROWS[:1], subnet_id=7)
    journal.close()
    again = opened(state, border)
    assert again.subnets == {7: SubnetState(7, "epoch", 1, 1, digest_of(ROWS[:1]))}
    assert [unpack(each.reservations) for each in again.take_contents()] == [ROWS[:1]]


def test_a_copy_of_the_files_taken_while_open_is_whole(state: Path, border: StandIn, tmp_path: Path) -> None:
    """What the disk has after a power cut is what was committed: nothing waits in memory."""
    journal = opened(state, border)
    put(journal, ROWS)
    shutil.copytree(state, tmp_path / "copy")
    assert opened(tmp_path / "copy", border).count == len(ROWS)
