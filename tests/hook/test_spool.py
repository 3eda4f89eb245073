"""The spool: what is on disk, what is offered, what is lost and counted."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hook.faults import disk_full
from hook.stand_in import StandIn, assigned, decoded, lines, renewed
from leasehold_hook.spool import Batch, Spool, highest_boot_order

BOOT = "11111111-1111-4111-8111-111111111111"
NOW_MS = 1_700_000_000_999
LIMIT = 2**20
Event = dict[str, Any]


def opened(directory: Path, *, boot_order: int = 1, limit: int = LIMIT, border: StandIn | None = None) -> Spool:
    boot = BOOT[:-1] + str(boot_order % 10)
    log = (border or StandIn()).log
    return Spool(directory, boot_order=boot_order, boot=boot, limit=limit, clock_ms=lambda: NOW_MS, log=log)


def append(spool: Spool, events: list[Event]) -> None:
    spool.append(lines(events, spool.last_sequence + 1), len(events))


def crash(spool: Spool) -> None:
    """Nothing more comes from this process; what it wrote is on disk."""
    spool.sync()


def sent(spool: Spool, limit: int = 1_000) -> list[tuple[int, Event]]:
    """Everything there is, each with its boot order, acknowledged batch by batch."""
    events: list[tuple[int, Event]] = []
    while batch := spool.batch(limit):
        events += [(batch.boot_order, event) for event in decoded(batch.lines)]
        spool.acknowledge(batch, batch.last)
    return events


def sequences(events: list[tuple[int, Event]]) -> list[int]:
    return [event["seq"] for _, event in events]


def taken(spool: Spool, limit: int = 1_000) -> Batch:
    batch = spool.batch(limit)
    assert batch is not None
    return batch


def gap(sequence: int, lost: int, reason: str, first: int) -> Event:
    return {
        "seq": sequence,
        "type": "events.gap",
        "at": NOW_MS,
        "lost": lost,
        "reason": reason,
        "first_seq": first,
        "last_seq": sequence,
    }


def test_events_are_offered_in_order_and_unchanged(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    append(spool, [assigned(1), renewed(2)])
    append(spool, [assigned(3)])
    batch = taken(spool)
    assert batch == Batch(1, BOOT, lines([assigned(1), renewed(2), assigned(3)], 1), 3, 1, 3)


def test_a_batch_has_as_many_lines_as_are_wanted(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    append(spool, [assigned(number) for number in range(5)])
    batch = taken(spool, 2)
    assert (batch.count, batch.first, batch.last, len(decoded(batch.lines))) == (2, 1, 2, 2)


def test_nothing_is_offered_where_nothing_is(tmp_path: Path) -> None:
    assert opened(tmp_path).batch(1_000) is None


def test_what_is_not_acknowledged_is_offered_again(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    append(spool, [assigned()])
    assert taken(spool) == taken(spool)


def test_what_is_acknowledged_in_part_is_offered_from_there(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    append(spool, [assigned(number) for number in range(5)])
    spool.acknowledge(taken(spool), 3)
    assert (taken(spool).first, spool.count, spool.sent) == (4, 2, 3)


def test_files_that_were_sent_are_deleted(tmp_path: Path) -> None:
    spool = opened(tmp_path, limit=2**26)
    for _ in range(20):
        append(spool, [assigned(number) for number in range(1_000)])
    assert len(sent(spool)) == 20_000
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_files_hold_at_most_about_an_eighth_of_the_limit(tmp_path: Path) -> None:
    spool = opened(tmp_path, limit=80_000)
    for _ in range(40):
        append(spool, [assigned()] * 10)
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < 10_000 + len(lines([assigned()] * 10, 100))


def test_files_are_named_by_boot_order_boot_and_first_sequence(tmp_path: Path) -> None:
    spool = opened(tmp_path, boot_order=1)
    append(spool, [assigned()])
    assert [path.name for path in tmp_path.iterdir()] == [f"1-{BOOT}-1.ndjson"]


def test_events_survive_a_crash(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    append(spool, [assigned(1), assigned(2)])
    crash(spool)
    assert sent(opened(tmp_path, boot_order=2)) == [(1, {"seq": 1} | assigned(1)), (1, {"seq": 2} | assigned(2))]


def test_older_boots_come_first_in_their_order(tmp_path: Path) -> None:
    for boot_order in (2, 10, 9):
        spool = opened(tmp_path, boot_order=boot_order)
        append(spool, [assigned(), assigned()])
        crash(spool)
    spool = opened(tmp_path, boot_order=11)
    append(spool, [assigned()])
    assert [(order, event["seq"]) for order, event in sent(spool)] == [
        (2, 1),
        (2, 2),
        (9, 1),
        (9, 2),
        (10, 1),
        (10, 2),
        (11, 1),
    ]


def test_a_batch_never_mixes_boots(tmp_path: Path) -> None:
    old = opened(tmp_path)
    append(old, [assigned()])
    crash(old)
    spool = opened(tmp_path, boot_order=2)
    append(spool, [assigned()])
    assert taken(spool).count == 1


def test_the_highest_boot_order_is_read_from_the_names(tmp_path: Path) -> None:
    for boot_order in (3, 12):
        append(opened(tmp_path, boot_order=boot_order), [assigned()])
    assert highest_boot_order(tmp_path) == 12


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("keep")
    spool = opened(tmp_path)
    append(spool, [assigned()])
    sent(spool)
    spool.close()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


# ---- damage --------------------------------------------------------------------------------------------------------


def left_by_a_crash(directory: Path, damage: Callable[[bytes], bytes], count: int = 3) -> Path:
    spool = opened(directory)
    append(spool, [assigned(number) for number in range(count)])
    crash(spool)
    (path,) = directory.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    return path


def test_a_torn_last_line_becomes_a_gap(tmp_path: Path) -> None:
    left_by_a_crash(tmp_path, lambda content: content[:-10])
    events = sent(opened(tmp_path, boot_order=2))
    assert [event for _, event in events] == [
        {"seq": 1} | assigned(0),
        {"seq": 2} | assigned(1),
        gap(3, 1, "damaged", 3),
    ]


def test_a_last_line_that_lacks_but_its_end_is_kept(tmp_path: Path) -> None:
    left_by_a_crash(tmp_path, lambda content: content[:-1])
    assert sequences(sent(opened(tmp_path, boot_order=2))) == [1, 2, 3]


def test_a_line_of_garbage_becomes_a_gap_in_its_place(tmp_path: Path) -> None:
    left_by_a_crash(tmp_path, lambda content: content.replace(b'"seq":2', b'"seq":x'))
    events = sent(opened(tmp_path, boot_order=2))
    assert [event for _, event in events][1] == gap(2, 1, "damaged", 2)
    assert sequences(events) == [1, 2, 3]


def test_a_file_of_zeros_becomes_a_gap(tmp_path: Path) -> None:
    left_by_a_crash(tmp_path, lambda content: bytes(len(content)))
    assert [event for _, event in sent(opened(tmp_path, boot_order=2))] == [gap(1, 1, "damaged", 1)]


def test_an_empty_file_is_forgotten(tmp_path: Path) -> None:
    left_by_a_crash(tmp_path, lambda content: b"")
    spool = opened(tmp_path, boot_order=2)
    assert (spool.check_one(), spool.batch(1_000)) == (True, None)
    assert list(tmp_path.iterdir()) == []


def test_damage_is_logged_with_the_file(tmp_path: Path, border: StandIn) -> None:
    path = left_by_a_crash(tmp_path, lambda content: content[:-10])
    spool = opened(tmp_path, boot_order=2, border=border)
    assert spool.check_one()
    assert border.logged_as("SPOOL_DAMAGED") == [f"{path} was damaged; 1 events are lost"]
    assert (spool.lost, spool.count) == (1, 3)


def test_each_file_of_an_earlier_boot_is_looked_at_once(tmp_path: Path) -> None:
    left_by_a_crash(tmp_path, lambda content: content)
    spool = opened(tmp_path, boot_order=2)
    assert [spool.check_one(), spool.check_one(), spool.count] == [True, False, 3]


def test_a_file_that_vanished_is_counted_as_lost(tmp_path: Path, border: StandIn) -> None:
    path = left_by_a_crash(tmp_path, lambda content: content)
    spool = opened(tmp_path, boot_order=2, border=border)
    spool.check_one()
    path.unlink()
    ((boot_order, event),) = sent(spool)
    assert (boot_order, event["lost"], event["reason"], spool.lost) == (2, 3, "damaged", 3)
    assert len(border.logged_as("SPOOL_DAMAGED")) == 1


def test_a_file_that_shrank_is_counted_as_lost(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    append(spool, [assigned(), assigned()])
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"")
    assert [event["lost"] for _, event in sent(spool)] == [2]


def test_a_damaged_file_on_a_full_disk_is_sent_without_its_damage(tmp_path: Path) -> None:
    left_by_a_crash(tmp_path, lambda content: content[:-10], count=100)
    with disk_full():
        events = sent(opened(tmp_path, boot_order=2))
    assert sequences(events) == [*range(1, 101)]
    assert events[-1][1]["type"] == "events.gap"


def test_what_a_killed_rewrite_left_is_removed(tmp_path: Path) -> None:
    path = left_by_a_crash(tmp_path, lambda content: content)
    path.with_name(path.name + ".new").write_bytes(b"half")
    assert sequences(sent(opened(tmp_path, boot_order=2))) == [1, 2, 3]
    assert list(tmp_path.iterdir()) == []


# ---- room ----------------------------------------------------------------------------------------------------------


def overfilled(directory: Path, kinds: list[Callable[[int], Event]], count: int = 4_000) -> Spool:
    """A spool with room for half of the events that it was given."""
    size = len(lines([kinds[0](0)] * 1_000, 1_000_000)) // 1_000
    spool = opened(directory, limit=max(2**16, count * size // 2))
    for start in range(0, count, 100):
        append(spool, [kinds[number % len(kinds)](number) for number in range(start, start + 100)])
    return spool


def accounted(events: list[tuple[int, Event]]) -> int:
    """Events that arrived, and those that gaps say were lost."""
    return sum(event["lost"] if event["type"] == "events.gap" else 1 for _, event in events)


def test_the_spool_stays_within_its_limit(tmp_path: Path) -> None:
    spool = overfilled(tmp_path, [assigned])
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= spool.limit
    assert spool.octets <= spool.limit


@pytest.mark.parametrize("kinds", [[assigned], [renewed], [assigned, renewed], [renewed, renewed, assigned]])
def test_every_event_arrives_or_is_counted(kinds: list[Callable[[int], Event]], tmp_path: Path) -> None:
    spool = overfilled(tmp_path, kinds)
    events = sent(spool)
    assert accounted(events) == 4_000
    assert spool.lost == 4_000 - sum(event["type"] != "events.gap" for _, event in events)


def test_renewals_go_first(tmp_path: Path) -> None:
    events = sent(overfilled(tmp_path, [renewed, renewed, renewed, assigned]))
    assert sum(event["type"] == "lease.assigned" for _, event in events) == 1_000


def test_a_full_spool_on_a_full_disk_loses_nothing_that_it_has(tmp_path: Path) -> None:
    spool = opened(tmp_path, limit=2**16)
    append(spool, [assigned()] * 500)
    spool.limit = 2**15
    with disk_full(10):
        append(spool, [assigned()])
    assert sequences(sent(spool)) == [*range(1, 502)]


def test_without_renewals_the_oldest_go(tmp_path: Path) -> None:
    (_, first), *rest = sent(overfilled(tmp_path, [assigned]))
    assert (first["type"], first["reason"], first["first_seq"]) == ("events.gap", "spool", 1)
    assert [event["seq"] for _, event in rest] == [*range(first["last_seq"] + 1, 4_001)]


def test_a_gap_is_in_the_place_of_what_it_counts(tmp_path: Path) -> None:
    events = sent(overfilled(tmp_path, [renewed, assigned]))
    assert sequences(events) == sorted(set(sequences(events)))


def test_a_smaller_limit_makes_room_at_the_next_event(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    append(spool, [assigned()] * 5_000)
    spool.limit = 2**16
    append(spool, [assigned()])
    assert spool.octets <= 2**16
    assert accounted(sent(spool)) == 5_001


def test_gaps_of_different_boots_are_not_mixed(tmp_path: Path) -> None:
    for boot_order in (1, 2):
        spool = opened(tmp_path, boot_order=boot_order)
        append(spool, [assigned()] * 1_000)
        crash(spool)
    spool = opened(tmp_path, boot_order=3, limit=2**16)
    append(spool, [assigned()])
    append(spool, [assigned()] * 500)
    lost = [(order, event["lost"]) for order, event in sent(spool) if event["type"] == "events.gap"]
    assert lost[:2] == [(1, 1_000), (2, 1_000)]


def test_an_acknowledgement_of_what_was_sacrificed_meanwhile_changes_nothing(tmp_path: Path) -> None:
    spool = opened(tmp_path, limit=2**16)
    append(spool, [renewed()] * 100)
    batch = taken(spool)
    append(spool, [assigned()] * 600)
    spool.acknowledge(batch, batch.last)
    assert accounted(sent(spool)) == 700


# ---- a disk that cannot be written ---------------------------------------------------------------------------------


def test_what_cannot_be_written_is_offered_from_memory(tmp_path: Path, border: StandIn) -> None:
    spool = opened(tmp_path, border=border)
    with disk_full():
        append(spool, [assigned()] * 100)
        assert sequences(sent(spool)) == [*range(1, 101)]
    assert len(border.logged_as("SPOOL_UNWRITABLE")) == 1


def test_what_could_not_be_written_is_written_as_soon_as_it_can(tmp_path: Path, border: StandIn) -> None:
    spool = opened(tmp_path, border=border)
    with disk_full():
        append(spool, [assigned()] * 100)
    append(spool, [assigned()])
    crash(spool)
    assert sequences(sent(opened(tmp_path, boot_order=2))) == [*range(1, 102)]
    assert len(border.logged_as("SPOOL_WRITABLE")) == 1


def test_what_memory_cannot_keep_is_counted(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    with disk_full():
        for _ in range(200):
            append(spool, [assigned()] * 100)
    append(spool, [assigned()])
    events = sent(spool)
    assert accounted(events) == 20_001
    assert {event["reason"] for _, event in events if event["type"] == "events.gap"} == {"spool"}


def test_a_spool_whose_folder_vanished_loses_nothing_that_memory_can_keep(tmp_path: Path) -> None:
    spool = opened(tmp_path / "spool")
    shutil.rmtree(tmp_path / "spool")
    append(spool, [assigned()])
    assert sequences(sent(spool)) == [1]


def test_memory_is_acknowledged_in_part_as_files_are(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    with disk_full():
        append(spool, [assigned()] * 100)
        spool.acknowledge(taken(spool), 30)
        assert taken(spool).first == 31


# ---- any kill point ------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(counts=st.lists(st.integers(1, 5), min_size=1, max_size=5), cut=st.floats(0, 1))
def test_a_file_cut_at_any_octet_gives_its_whole_lines_and_one_gap(counts: list[int], cut: float) -> None:
    directory = Path(tempfile.mkdtemp())
    try:
        spool = opened(directory)
        for count in counts:
            append(spool, [assigned(number) for number in range(count)])
        crash(spool)
        (path,) = directory.iterdir()
        content = path.read_bytes()[: round(cut * path.stat().st_size)]
        path.write_bytes(content)
        events = sent(opened(directory, boot_order=2))
        rest = content.rpartition(b"\n")[2]
        whole = content.count(b"\n") + rest.endswith(b"}")
        torn = bool(rest) and not rest.endswith(b"}")
        assert sequences(events) == [*range(1, whole + torn + 1)]
        assert [event["type"] for _, event in events] == ["lease.assigned"] * whole + ["events.gap"] * torn
    finally:
        shutil.rmtree(directory)


@settings(max_examples=30, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["append", "renew", "send", "part", "crash", "full"]), st.integers(1, 400)),
        max_size=15,
    )
)
def test_whatever_happens_every_event_arrives_or_is_counted(steps: list[tuple[str, int]]) -> None:
    """And within a boot in order; those that were acknowledged just before a crash may arrive again."""
    directory = Path(tempfile.mkdtemp())
    try:
        boot_order, given = 1, {1: 0}
        arrived: dict[int, dict[int, Event]] = {}
        spool = opened(directory, limit=2**16)

        def receive(batch: Batch, upto: int) -> None:
            for event in decoded(batch.lines):
                if event["seq"] <= upto:
                    arrived.setdefault(batch.boot_order, {})[event["seq"]] = event

        for what, number in steps:
            if what in ("append", "renew"):
                append(spool, [(assigned if what == "append" else renewed)(each) for each in range(number)])
                given[boot_order] += number
            elif what == "full":
                with disk_full():
                    append(spool, [assigned(each) for each in range(number)])
                append(spool, [assigned()])
                given[boot_order] += number + 1
            elif what == "crash":
                crash(spool)
                boot_order += 1
                given[boot_order] = 0
                spool = opened(directory, boot_order=boot_order, limit=2**16)
            elif batch := spool.batch(number):
                upto = batch.last if what == "send" else (batch.first + batch.last) // 2
                receive(batch, upto)
                spool.acknowledge(batch, upto)
        while batch := spool.batch(1_000):
            receive(batch, batch.last)
            spool.acknowledge(batch, batch.last)
        for boot, count in given.items():
            covered: set[int] = set()
            for sequence, event in arrived.get(boot, {}).items():
                gapped = event["type"] == "events.gap"
                covered |= {*range(event["first_seq"], event["last_seq"] + 1)} if gapped else {sequence}
                assert not gapped or event["lost"] <= event["last_seq"] - event["first_seq"] + 1
            assert covered == {*range(1, count + 1)}
    finally:
        shutil.rmtree(directory)
