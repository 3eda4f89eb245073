"""Control commands, through the hook as Kea's main thread calls it."""

import json
from pathlib import Path
from typing import Any

import pytest

from hook.conftest import Run
from hook.faults import disk_full
from hook.stand_in import LIFETIME_S, StandIn
from leasehold_hook.border import Level
from leasehold_hook.hook import Hook
from leasehold_hook.reservations import address_text, digest_of, digest_text

A, B, C = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03"
MAC_A, MAC_B, MAC_C = 0x020000000001, 0x020000000002, 0x020000000003
IP_1, IP_2 = 0xC000020A, 0xC000020B
NOTHING = {"subnet-id": 7, "epoch": "", "revision": 0, "count": 0, "digest": "0" * 16}


def entry(mac: str, last_octet: int, hostname: str | None = None) -> dict[str, str]:
    fields = {"hw-address": mac, "ip-address": f"192.0.2.{last_octet}"}
    return fields if hostname is None else fields | {"hostname": hostname}


def batch(**changes: object) -> dict[str, object]:
    arguments = {"subnet-id": 7, "epoch": "e1", "base": 0, "revision": 1, "set": [entry(A, 10)], "unset": []}
    return arguments | {name.replace("_", "-"): value for name, value in changes.items()}


def page(**changes: object) -> dict[str, object]:
    arguments = {"subnet-id": 7, "epoch": "e1", "revision": 9, "replace": True, "page": 1, "last": True, "set": []}
    return arguments | {name.replace("_", "-"): value for name, value in changes.items()}


def in_force(run: Run) -> list[dict[str, Any]]:
    subnets: list[dict[str, Any]] = run("leasehold-status")["arguments"]["subnets"]
    return subnets


# ---- leasehold-apply -----------------------------------------------------------------------------------------------


def test_a_batch_answers_with_what_is_in_force(run: Run) -> None:
    digest = digest_text(digest_of([(MAC_A, IP_1, "a")]))
    assert run("leasehold-apply", batch(revision=5, set=[entry(A, 10, "a")])) == {
        "result": 0,
        "text": "1 set, 0 unset.",
        "arguments": {"subnet-id": 7, "epoch": "e1", "revision": 5, "count": 1, "digest": digest},
    }


def test_a_batch_reaches_the_store(run: Run, border: StandIn) -> None:
    run("leasehold-apply", batch(set=[entry(A, 10, "a"), entry(B, 11)]))
    assert border.held == {7: {MAC_A: (IP_1, "a"), MAC_B: (IP_2, "")}}


def test_a_batch_is_on_disk_before_it_reaches_the_store(run: Run, border: StandIn, state: Path) -> None:
    found = []
    wal = state / "journal.sqlite-wal"
    before = wal.read_bytes()
    border.before_apply = lambda: found.append(wal.read_bytes())
    run("leasehold-apply", batch())
    assert found[0] != before


@pytest.mark.parametrize(
    "changes",
    [{"base": 0, "revision": 2}, {"base": 2, "revision": 3}, {"base": 1, "revision": 2, "epoch": "e2"}],
    ids=["older base", "newer base", "other epoch"],
)
def test_a_base_that_is_not_in_force_is_a_conflict_and_changes_nothing(
    changes: dict[str, object], run: Run, border: StandIn
) -> None:
    first = run("leasehold-apply", batch())
    answer = run("leasehold-apply", batch(set=[entry(B, 11)], **changes))
    assert (answer["result"], answer["arguments"]) == (4, first["arguments"])
    assert (in_force(run), border.held) == ([first["arguments"]], {7: {MAC_A: (IP_1, "")}})


def test_a_batch_that_names_the_epoch_it_leads_from_leads_anywhere(run: Run, border: StandIn) -> None:
    """Into another history, and back to a lower revision."""
    run("leasehold-apply", batch(revision=9))
    answer = run(
        "leasehold-apply", batch(from_epoch="e1", epoch="e2", base=9, revision=4, set=[entry(B, 11)], unset=[A])
    )
    assert answer["result"] == 0
    assert (answer["arguments"]["epoch"], answer["arguments"]["revision"]) == ("e2", 4)
    assert border.held == {7: {MAC_B: (IP_2, "")}}


@pytest.mark.parametrize("changes", [{"from_epoch": "e2", "base": 1}, {"from_epoch": "e1", "base": 2}])
def test_a_batch_that_leads_from_elsewhere_is_a_conflict(changes: dict[str, object], run: Run) -> None:
    first = run("leasehold-apply", batch())
    answer = run("leasehold-apply", batch(epoch="e2", revision=1, set=[entry(B, 11)], **changes))
    assert (answer["result"], answer["arguments"]) == (4, first["arguments"])
    assert in_force(run) == [first["arguments"]]


def test_a_subnet_that_was_never_seen_has_revision_zero(run: Run) -> None:
    answer = run("leasehold-apply", batch(base=1, revision=2))
    assert (answer["result"], answer["arguments"]) == (4, NOTHING)


def test_a_mac_that_is_unset_is_withdrawn_for_the_longest_lease(run: Run, border: StandIn) -> None:
    run("leasehold-apply", batch())
    border.withdrawn[7].clear()
    run("leasehold-apply", batch(base=1, revision=2, set=[], unset=[A]))
    ((mac, until_ms),) = border.withdrawn[7].items()
    assert mac == MAC_A
    assert until_ms > LIFETIME_S * 1000


def test_unsetting_an_unknown_mac_is_fine_and_withdraws_nothing(run: Run, border: StandIn) -> None:
    answer = run("leasehold-apply", batch(unset=[B]))
    assert (answer["result"], border.withdrawn) == (0, {7: {}})


def test_unset_comes_first_then_set(run: Run, border: StandIn) -> None:
    run("leasehold-apply", batch())
    run("leasehold-apply", batch(base=1, revision=2, set=[entry(A, 11)], unset=[A]))
    assert (border.held, border.withdrawn) == ({7: {MAC_A: (IP_2, "")}}, {7: {}})


def test_two_macs_can_swap_their_addresses_in_one_batch(run: Run, border: StandIn) -> None:
    run("leasehold-apply", batch(set=[entry(A, 10), entry(B, 11)]))
    answer = run("leasehold-apply", batch(base=1, revision=2, set=[entry(A, 11), entry(B, 10)]))
    assert answer["result"] == 0
    assert border.held == {7: {MAC_A: (IP_2, ""), MAC_B: (IP_1, "")}}


def test_an_address_can_pass_from_an_unset_mac_to_another(run: Run, border: StandIn) -> None:
    run("leasehold-apply", batch())
    assert run("leasehold-apply", batch(base=1, revision=2, set=[entry(B, 10)], unset=[A]))["result"] == 0
    assert border.held == {7: {MAC_B: (IP_1, "")}}


@pytest.mark.parametrize("entries", [[entry(B, 10)], [entry(B, 12), entry(C, 12)]], ids=["held", "twice in the batch"])
def test_an_address_for_two_refuses_the_whole_batch_naming_both(
    entries: list[dict[str, str]], run: Run, border: StandIn
) -> None:
    first = run("leasehold-apply", batch())
    answer = run("leasehold-apply", batch(base=1, revision=2, set=[entry(C, 20), *entries][-2:]))
    holder, other, ip = (A, B, "192.0.2.10") if len(entries) == 1 else (B, C, "192.0.2.12")
    assert (answer["result"], answer["text"]) == (
        1,
        f"{ip} would be reserved for both {holder} and {other}; an address can be reserved for one client of a subnet",
    )
    assert (in_force(run), border.held) == ([first["arguments"]], {7: {MAC_A: (IP_1, "")}})


def test_the_same_address_on_two_subnets_is_no_clash(run: Run) -> None:
    run("leasehold-apply", batch())
    assert run("leasehold-apply", batch(subnet_id=8, set=[entry(B, 10)]))["result"] == 0


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"subnet_id": 0}, "subnet-id: 0 is not an integer from 1 to 4294967294"),
        ({"subnet_id": "7"}, "subnet-id: '7' is not an integer from 1 to 4294967294"),
        ({"epoch": ""}, "epoch: '' is not a text of 1 to 64 characters"),
        ({"from_epoch": ""}, "from-epoch: '' is not a text of 1 to 64 characters"),
        ({"epoch": 1}, "epoch: 1 is not a text of 1 to 64 characters"),
        ({"base": True}, "base: True is not an integer from 0 to 9223372036854775807"),
        ({"base": 3, "revision": 3}, "revision: 3 is not greater than base, 3"),
        ({"revision": 2**63}, f"revision: {2**63} is not an integer from 0 to 9223372036854775807"),
        ({"set": {}}, "set: {} is not a list"),
        ({"set": [entry(A, 300)]}, "set[0].ip-address: '192.0.2.300' is not an IPv4 address"),
        ({"unset": ["x"]}, "unset[0]: 'x' is not a MAC address of six octets like '02:00:00:00:00:01'"),
        ({"sets": []}, "sets: is not an argument of this command"),
        ({"replace": 1}, "base: is not an argument of this command"),
    ],
)
def test_a_bad_argument_is_named_and_nothing_changed(
    changes: dict[str, object], problem: str, run: Run, border: StandIn
) -> None:
    answer = run("leasehold-apply", batch(**changes))
    assert answer["result"] == 1
    assert answer["text"].startswith(problem)
    assert (in_force(run), border.held) == ([], {})


@pytest.mark.parametrize("missing", ["subnet-id", "epoch", "base", "revision"])
def test_a_missing_argument_is_named(missing: str, run: Run) -> None:
    arguments = batch()
    del arguments[missing]
    assert run("leasehold-apply", arguments) == {"result": 1, "text": f"{missing}: is missing"}


def test_a_store_that_disagrees_with_the_journal_is_told_loudly(run: Run, border: StandIn) -> None:
    border.held[7] = {MAC_C: (IP_2, "")}
    answer = run("leasehold-apply", batch())
    assert answer["result"] == 1
    assert "the packet path has 2 reservations of subnet 7 where the journal has 1" in answer["text"]
    assert [level for level, identifier, _ in border.logged if identifier == "STORE_DIFFERS"] == [Level.ERROR]


# ---- full resync ---------------------------------------------------------------------------------------------------


def test_what_left_a_lease_behind_is_an_error_and_not_told_as_in_force(run: Run, border: StandIn) -> None:
    run("leasehold-apply", batch())
    border.unsettled = {7}
    answer = run("leasehold-apply", batch(base=1, revision=2, set=[], unset=[A]))
    assert (answer["result"], "could not be deleted" in answer["text"]) == (1, True)
    assert [(each["epoch"], each["revision"]) for each in in_force(run)] == [("", 0)]
    border.unsettled = set()
    assert [(each["epoch"], each["revision"]) for each in in_force(run)] == [("e1", 2)]


def test_a_resync_takes_effect_at_its_last_page(run: Run, border: StandIn) -> None:
    run("leasehold-apply", batch(set=[entry(A, 10), entry(C, 12)]))
    run("leasehold-apply", page(last=False, set=[entry(A, 11)]))
    during = dict(border.held[7])
    answer = run("leasehold-apply", page(page=2, set=[entry(B, 10, "b")]))
    rows = [(MAC_A, IP_2, ""), (MAC_B, IP_1, "b")]
    assert during == {MAC_A: (IP_1, ""), MAC_C: (0xC000020C, "")}
    assert border.held[7] == {mac: (address, name) for mac, address, name in rows}
    assert answer["arguments"] == {
        "subnet-id": 7,
        "epoch": "e1",
        "revision": 9,
        "count": 2,
        "digest": digest_text(digest_of(rows)),
    }


def test_a_page_before_the_last_answers_with_the_state_still_in_force(run: Run) -> None:
    first = run("leasehold-apply", batch())
    answer = run("leasehold-apply", page(last=False, epoch="e2", set=[entry(B, 11)]))
    assert (answer["result"], answer["arguments"]) == (0, first["arguments"])


def test_what_a_resync_leaves_out_is_withdrawn(run: Run, border: StandIn, hook: Hook, state: Path) -> None:
    run("leasehold-apply", batch())
    run("leasehold-apply", page(set=[entry(B, 10)]))
    assert list(border.withdrawn[7]) == [MAC_A]
    hook.close()
    again = StandIn()
    Hook(again).load(json.dumps({"host-id": "h", "state-directory": str(state)}))
    assert list(again.withdrawn[7]) == [MAC_A]


def test_a_resync_brings_a_subnet_back_to_an_older_revision_and_another_epoch(run: Run) -> None:
    run("leasehold-apply", batch(revision=50))
    answer = run("leasehold-apply", page(epoch="e2", revision=3))
    assert (answer["result"], answer["arguments"]["epoch"], answer["arguments"]["revision"]) == (0, "e2", 3)


def test_a_resync_to_nothing_empties_the_subnet(run: Run, border: StandIn) -> None:
    run("leasehold-apply", batch())
    run("leasehold-apply", page())
    assert (border.held[7], in_force(run)) == ({}, [NOTHING | {"epoch": "e1", "revision": 9}])


@pytest.mark.parametrize(
    "follower",
    [page(page=3), page(page=2, revision=10), page(page=2, epoch="e2")],
    ids=["gap", "other revision", "other epoch"],
)
def test_a_page_that_does_not_follow_drops_the_resync(follower: dict[str, object], run: Run) -> None:
    run("leasehold-apply", page(last=False, set=[entry(A, 10)]))
    answer = run("leasehold-apply", follower)
    assert (answer["result"], answer["arguments"]) == (4, NOTHING)
    assert run("leasehold-apply", page(page=2))["result"] == 4


def test_a_page_without_a_first_is_a_conflict(run: Run) -> None:
    answer = run("leasehold-apply", page(page=2))
    assert (answer["result"], answer["arguments"]) == (4, NOTHING)


def test_a_new_first_page_drops_the_resync_begun_before(run: Run, border: StandIn) -> None:
    run("leasehold-apply", page(last=False, set=[entry(A, 10)]))
    run("leasehold-apply", page(last=False, set=[entry(B, 10)]))
    run("leasehold-apply", page(page=2, set=[]))
    assert border.held[7] == {MAC_B: (IP_1, "")}


def test_a_restart_drops_a_resync(run: Run, hook: Hook, state: Path) -> None:
    run("leasehold-apply", page(last=False, set=[entry(A, 10)]))
    hook.close()
    again = Hook(StandIn())
    again.load(json.dumps({"host-id": "h", "state-directory": str(state)}))
    command = {"command": "leasehold-apply", "arguments": page(page=2)}
    assert json.loads(again.command(json.dumps(command).encode()))["result"] == 4


def test_a_resync_that_comes_late_takes_nothing_back(run: Run, border: StandIn) -> None:
    run("leasehold-apply", page(revision=12, set=[entry(B, 11)]))
    answer = run("leasehold-apply", page(revision=11, set=[entry(A, 10)]))
    assert answer["result"] == 4
    assert answer["text"].startswith("subnet 7 is at revision 12 of epoch 'e1' already")
    assert answer["arguments"]["revision"] == 12
    assert border.held[7] == {MAC_B: (IP_2, "")}
    assert run("leasehold-apply", page(revision=12, set=[entry(A, 10)]))["result"] == 0


def test_a_batch_drops_the_resync_of_its_subnet(run: Run) -> None:
    run("leasehold-apply", page(last=False))
    run("leasehold-apply", batch())
    assert run("leasehold-apply", page(page=2))["result"] == 4


def test_resyncs_of_two_subnets_do_not_disturb_each_other(run: Run, border: StandIn) -> None:
    run("leasehold-apply", page(last=False, set=[entry(A, 10)]))
    run("leasehold-apply", page(last=False, subnet_id=8, set=[entry(A, 10)]))
    run("leasehold-apply", page(page=2))
    run("leasehold-apply", page(page=2, subnet_id=8))
    assert border.held == {7: {MAC_A: (IP_1, "")}, 8: {MAC_A: (IP_1, "")}}


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        (entry(B, 10), f"192.0.2.10 would be reserved for both {A} and {B}"),
        (entry(A, 11), f"'{A}' was on an earlier page of this resync"),
    ],
)
def test_a_clash_between_pages_is_refused_and_the_page_can_be_sent_right(
    second: dict[str, str], problem: str, run: Run, border: StandIn
) -> None:
    run("leasehold-apply", page(last=False, set=[entry(A, 10)]))
    answer = run("leasehold-apply", page(page=2, set=[second]))
    assert answer["result"] == 1
    assert answer["text"].startswith(problem)
    run("leasehold-apply", page(page=2, set=[entry(B, 11)]))
    assert border.held[7] == {MAC_A: (IP_1, ""), MAC_B: (IP_2, "")}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"page": 0}, "page: 0 is not an integer from 1 to"),
        ({"last": 1}, "last: 1 is not true or false"),
        ({"base": 1}, "base: is not an argument of this command"),
        ({"unset": []}, "unset: is not an argument of this command"),
        ({"replace": "yes"}, "replace: 'yes' is not true or false"),
    ],
)
def test_a_bad_argument_of_a_resync_is_named(changes: dict[str, object], problem: str, run: Run) -> None:
    answer = run("leasehold-apply", page(**changes))
    assert answer["result"] == 1
    assert answer["text"].startswith(problem)


# ---- Kea's reservation commands ------------------------------------------------------------------------------------


def reservation(mac: str, last_octet: int, **more: object) -> dict[str, object]:
    return {"reservation": {"subnet-id": 7} | entry(mac, last_octet) | more}


def host(mac: str, last_octet: int, hostname: str = "") -> dict[str, object]:
    return {
        "boot-file-name": "",
        "client-classes": [],
        "hostname": hostname,
        "hw-address": mac,
        "ip-address": f"192.0.2.{last_octet}",
        "next-server": address_text(0),
        "option-data": [],
        "server-hostname": "",
        "subnet-id": 7,
    }


def test_reservation_add_answers_as_kea(run: Run) -> None:
    assert run("reservation-add", reservation(A, 10)) == {"result": 0, "text": "Host added."}


def test_reservation_add_changes_count_and_digest_and_not_the_revision(run: Run) -> None:
    run("leasehold-apply", batch(revision=5))
    run("reservation-add", reservation(B, 11, hostname="b"))
    digest = digest_text(digest_of([(MAC_A, IP_1, ""), (MAC_B, IP_2, "b")]))
    assert in_force(run) == [{"subnet-id": 7, "epoch": "e1", "revision": 5, "count": 2, "digest": digest}]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "reservation must be specified"),
        ({"reservation": []}, "reservation: [] is not a map"),
        ({"reservation": entry(A, 10)}, "Mandatory 'subnet-id' parameter missing."),
        (
            reservation(B, 11, **{"option-data": []}),
            "unsupported configuration parameter 'option-data': Leasehold does not keep it",
        ),
        (
            reservation(B, 11, duid="01:02"),
            "unsupported configuration parameter 'duid': Leasehold does not keep it",
        ),
        ({"reservation": {"subnet-id": 7, "hw-address": A}}, "ip-address: is missing"),
        (
            reservation(A, 11),
            f"failed to add new host using the HW address '{A}' to the IPv4 subnet id '7' as this host has already "
            "been added",
        ),
        (
            reservation(B, 10),
            f"failed to add new host using the HW address '{B}' to the IPv4 subnet id '7' for the address 192.0.2.10: "
            f"There's already a reservation for this address, held by '{A}'",
        ),
        (
            reservation(B, 11) | {"operation-target": "memory"},
            "The 'operation-target' value (memory) means Kea's configuration, where Leasehold keeps no reservations; "
            "use database, all or default",
        ),
        (
            reservation(B, 11) | {"operation-target": "disk"},
            "The 'operation-target' value (disk) is not within expected set: (memory, database, all, default)",
        ),
        (
            reservation(B, 11, **{"subnet-id": 0}),
            "subnet-id: 0 means global reservations, which Leasehold does not keep; name a subnet",
        ),
    ],
)
def test_reservation_add_refuses_with_the_reason(arguments: dict[str, object], text: str, run: Run) -> None:
    run("reservation-add", reservation(A, 10))
    assert run("reservation-add", arguments) == {"result": 1, "text": text}


BY_ADDRESS = {"subnet-id": 7, "ip-address": "192.0.2.10"}
BY_MAC = {"subnet-id": 7, "identifier-type": "hw-address", "identifier": A}


@pytest.mark.parametrize(
    "arguments",
    [
        BY_ADDRESS,
        BY_MAC,
        BY_MAC | {"identifier": "020000000001"},
        BY_MAC | {"identifier": "0x020000000001"},
        BY_MAC | {"operation-target": "all"},
    ],
)
def test_reservation_get_finds_by_address_and_by_mac(arguments: dict[str, object], run: Run) -> None:
    run("reservation-add", reservation(A, 10, hostname="a"))
    assert run("reservation-get", arguments) == {"result": 0, "text": "Host found.", "arguments": host(A, 10, "a")}


@pytest.mark.parametrize(
    "arguments",
    [BY_ADDRESS | {"subnet-id": 8}, BY_MAC | {"identifier": B}, BY_MAC | {"identifier-type": "duid"}],
)
def test_reservation_get_of_a_missing_one_is_empty(arguments: dict[str, object], run: Run) -> None:
    run("reservation-add", reservation(A, 10))
    assert run("reservation-get", arguments) == {"result": 3, "text": "Host not found."}


@pytest.mark.parametrize("name", ["reservation-get", "reservation-del"])
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "missing parameter 'subnet-id'"),
        (
            {"subnet-id": 7},
            "No 'ip-address' provided and 'identifier-type' is either missing or not a string.",
        ),
        (
            {"subnet-id": 7, "identifier-type": "hw-address"},
            "No 'ip-address' provided and 'identifier' is either missing or not a string.",
        ),
        ({"subnet-id": 7, "ip-address": 1}, "'ip-address' is not a string."),
        ({"subnet-id": 7, "ip-address": "x"}, "ip-address: 'x' is not an IPv4 address"),
        (BY_MAC | {"identifier-type": "mac"}, "Value of 'identifier-type' was not recognized."),
        ({"subnet-id": "7"}, "invalid type specified for parameter 'subnet-id'"),
        (
            {"subnet-id": 4294967295},
            "The 'subnet-id' value (4294967295) is not within expected range: (0 - 4294967294)",
        ),
    ],
)
def test_bad_arguments_of_get_and_del_are_answered_as_by_kea(
    name: str, arguments: dict[str, object], text: str, run: Run
) -> None:
    assert run(name, arguments) == {"result": 1, "text": text}


@pytest.mark.parametrize("arguments", [BY_ADDRESS, BY_MAC])
def test_reservation_del_takes_it_out(arguments: dict[str, object], run: Run, border: StandIn) -> None:
    run("reservation-add", reservation(A, 10))
    assert run("reservation-del", arguments) == {"result": 0, "text": "Host deleted."}
    assert (border.held, list(border.withdrawn[7])) == ({7: {}}, [MAC_A])


def test_reservation_del_of_a_missing_one_is_empty(run: Run) -> None:
    assert run("reservation-del", BY_MAC) == {"result": 3, "text": "Host not deleted (not found)."}


def pages(run: Run, **first: object) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All hosts, page by page as Kea's manual says, and the last answer."""
    arguments: dict[str, object] = {name.replace("_", "-"): value for name, value in first.items()}
    hosts: list[dict[str, Any]] = []
    while (answer := run("reservation-get-page", arguments))["result"] == 0:
        hosts += answer["arguments"]["hosts"]
        arguments |= answer["arguments"]["next"]
    return hosts, answer


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_reservation_get_page_gives_each_of_a_subnet_once(limit: int, run: Run) -> None:
    run("leasehold-apply", batch(set=[entry(A, 12), entry(B, 11), entry(C, 10, "c")]))
    run("leasehold-apply", batch(subnet_id=8))
    hosts, _ = pages(run, subnet_id=7, limit=limit)
    assert hosts == [host(C, 10, "c"), host(B, 11), host(A, 12)]


def test_reservation_get_page_gives_those_of_all_subnets_where_none_is_named(run: Run) -> None:
    for subnet_id in (7, 4294967294):
        run("leasehold-apply", batch(subnet_id=subnet_id, set=[entry(A, 10), entry(B, 11)]))
    hosts, _ = pages(run, limit=1)
    assert [(each["subnet-id"], each["ip-address"]) for each in hosts] == [
        (7, "192.0.2.10"),
        (7, "192.0.2.11"),
        (4294967294, "192.0.2.10"),
        (4294967294, "192.0.2.11"),
    ]


def test_a_page_counts_its_hosts_and_says_where_the_next_begins(run: Run) -> None:
    run("leasehold-apply", batch())
    answer = run("reservation-get-page", {"subnet-id": 7, "limit": 10})
    assert (answer["text"], answer["arguments"]["count"]) == ("1 IPv4 host(s) found.", 1)
    assert answer["arguments"]["next"]["source-index"] == 1


def test_the_page_past_the_last_is_empty_without_a_next(run: Run) -> None:
    run("leasehold-apply", batch())
    _, last = pages(run, subnet_id=7, limit=10)
    assert last == {"result": 3, "text": "0 IPv4 host(s) found.", "arguments": {"count": 0, "hosts": []}}


def test_our_source_begins_at_its_beginning_after_keas_configuration(run: Run) -> None:
    """As in Kea, where `from` counts in the source that is named, and the next source starts at 0."""
    run("leasehold-apply", batch())
    assert run("reservation-get-page", {"limit": 10, "source-index": 0, "from": 2**62})["arguments"]["count"] == 1


def test_there_is_nothing_in_sources_after_ours(run: Run) -> None:
    run("leasehold-apply", batch())
    assert run("reservation-get-page", {"limit": 10, "source-index": 2})["result"] == 3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"subnet-id": 7}, "missing parameter 'limit'"),
        ({"limit": 0}, "page size of retrieved hosts must not be 0"),
        ({"limit": "1"}, "invalid type specified for parameter 'limit'"),
        ({"limit": 1, "source-index": 11}, "The 'source-index' value (11) is not within expected range: (0 - 10)"),
    ],
)
def test_bad_arguments_of_get_page_are_answered_as_by_kea(arguments: dict[str, object], text: str, run: Run) -> None:
    assert run("reservation-get-page", arguments) == {"result": 1, "text": text}


# ---- all of them ---------------------------------------------------------------------------------------------------


def test_status_tells_who_this_is_and_what_is_in_force(run: Run) -> None:
    state = run("leasehold-apply", batch())["arguments"]
    status = run("leasehold-status")["arguments"]
    assert status | {"boot-id": "…"} == {
        "host-id": "host-a",
        "boot-id": "…",
        "boot-order": 1,
        "version": "0.1.0",
        "kea-version": "2.2.0",
        "subnets": [state],
        "managed-subnets": [7],
        "interfaces": {"eth1": None, "eth2": "no-link"},
        "events": {
            "queued": 0,
            "spooled": 0,
            "spooled-octets": 0,
            "sent": 0,
            "lost": 0,
            "last-sequence": 0,
            "reporting": False,
            "last-error": None,
        },
        "rejections": {"unknown": 3, "withdrawn": 0, "doubt": 0},
    }


def test_an_unknown_command_is_unsupported(run: Run) -> None:
    assert run("reservation-update", {}) == {"result": 2, "text": "'reservation-update' command not supported."}


@pytest.mark.parametrize("octets", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_not_json_is_an_error(octets: bytes, hook: Hook) -> None:
    answer = json.loads(hook.command(octets))
    assert answer["result"] == 1
    assert answer["text"].startswith("the command is not JSON: ")


@pytest.mark.parametrize("command", ["7", "[]", "{}", '{"command": 7}'])
def test_a_command_without_a_name_is_an_error(command: str, hook: Hook) -> None:
    assert json.loads(hook.command(command.encode())) == {"result": 1, "text": "the command has no name"}


@pytest.mark.parametrize("arguments", ["x", 7, [], None])
def test_arguments_that_are_not_a_map_are_an_error(arguments: object, hook: Hook) -> None:
    command = {"command": "reservation-get", "arguments": arguments}
    text = "Parameters missing or are not a map."
    assert json.loads(hook.command(json.dumps(command).encode())) == {"result": 1, "text": text}


def test_a_change_that_does_not_fit_on_the_disk_is_an_error_and_changes_nothing(run: Run, border: StandIn) -> None:
    first = run("leasehold-apply", batch())
    many = [{"hw-address": f"02:00:00:00:01:{i:02x}", "ip-address": f"192.0.2.{i}"} for i in range(100, 200)]
    with disk_full():
        answer = run("leasehold-apply", batch(base=1, revision=2, set=many))
    assert answer["result"] == 1
    assert "nothing was changed" in answer["text"]
    assert (in_force(run), border.held) == ([first["arguments"]], {7: {MAC_A: (IP_1, "")}})
    assert border.logged_as("JOURNAL_FAILED") == [answer["text"]]
    assert run("leasehold-apply", batch(base=1, revision=2, set=many))["result"] == 0


def test_a_client_is_known_by_its_mac(run: Run) -> None:
    assert run("leasehold-client-get", {"hw-address": "02:00:00:00:00:01"}) == {
        "result": 3,
        "text": "02:00:00:00:00:01 is known on 0 subnet(s).",
        "arguments": {"hw-address": "02:00:00:00:00:01", "subnets": []},
    }


def test_a_clients_mac_that_is_none_is_named(run: Run) -> None:
    answer = run("leasehold-client-get", {"hw-address": "02:00:00:00:00"})
    assert (answer["result"], answer["text"].partition(":")[0]) == (1, "hw-address")
