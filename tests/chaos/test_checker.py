"""The checker finds each violation in a history that was written for it, and nothing in one that is sound."""

from typing import Any

from chaos.checker import check
from chaos.history import Call, Entry, Exchange, Finding, Ground, Heard, Trouble

SECOND = 1_000_000_000
BLUE, RED = 1, 2
GROUND = Ground(
    servers={
        "blue": {"192.0.2.1": "host-a", "192.0.2.2": "host-b"},
        "red": {"198.51.100.1": "host-a", "198.51.100.2": "host-b"},
    },
    subnets={BLUE: "blue", RED: "red"},
)
MAC_1, MAC_2 = "02:00:00:00:00:01", "02:00:00:00:00:02"
IP, OTHER_IP = "192.0.2.10", "192.0.2.11"
A, B = "192.0.2.1", "192.0.2.2"


def ns(seconds: float) -> int:
    return round(seconds * SECOND)


def call(at: float, verb: str, vnic: str, status: int | None, *, until: float | None = None, **more: Any) -> Call:
    """A call from `at` on that takes a tenth of a second."""
    end = ns(at + 0.1 if until is None else until)
    return Call(begin=ns(at), end=end, verb=verb, subject=vnic, status=status, **more)


def put(at: float, vnic: str, mac: str, status: int = 201) -> Call:
    return call(at, "put", vnic, status, asked={"subnet": BLUE}, answer={"mac": mac, "ip": None, "ip_state": None})


def start(at: float, vnic: str, mac: str, ip: str, *confirmed: str) -> Call:
    servers = [{"host": host, "state": "confirmed"} for host in confirmed]
    return call(at, "start", vnic, 200, answer={"mac": mac, "ip": ip, "servers": servers})


def stop(at: float, vnic: str, mac: str) -> Call:
    return call(at, "stop", vnic, 200, answer={"mac": mac, "ip": None, "ip_state": None})


def heard(at: float, mac: str, ip: str, server: str = A, kind: str = "ACK") -> Heard:
    return Heard(at=ns(at), network="blue", kind=kind, mac=mac, ip=ip, server=server)


def exchange(at: float, mac: str, outcome: str, **more: Any) -> Exchange:
    return Exchange(begin=ns(at), end=ns(at + 3), network="blue", mac=mac, outcome=outcome, **({"asked": None} | more))


def listing(at: float, *hosts: str, revision: int = 5, confirmed: int = 5, since: str = "noon") -> Call:
    row = {"subnet": BLUE, "confirmed_revision": confirmed, "revision": revision}
    items = [{"host": host, "state": "running", "since": since, "subnets": [row]} for host in hosts]
    return call(at, "servers", "blue", 200, answer={"items": items})


def found(*entries: Entry) -> list[str]:
    """The invariants that are broken."""
    return [each.invariant for each in check(GROUND, entries)]


LIFE = (
    listing(0, "host-a", "host-b"),
    put(1, "v1", MAC_1),
    start(2, "v1", MAC_1, IP, "host-a", "host-b"),
    heard(3, MAC_1, IP, kind="OFFER"),
    heard(3.1, MAC_1, IP),
    exchange(3, MAC_1, "ack", ip=IP, server=A),
    listing(9, "host-a", "host-b"),
    stop(10, "v1", MAC_1),
    listing(11, "host-a", "host-b"),
    put(12, "v2", MAC_2),
    start(13, "v2", MAC_2, IP, "host-a"),
    heard(14, MAC_2, IP),
    call(20, "get", "v2", 200, answer={"mac": MAC_2, "ip": IP, "ip_state": "held"}),
)


def test_a_sound_history_passes() -> None:
    assert found(*LIFE) == []


def test_i1_two_holders_by_the_answers() -> None:
    assert found(put(1, "v1", MAC_1), put(1, "v2", MAC_2), start(2, "v1", MAC_1, IP), start(3, "v2", MAC_2, IP)) == [
        "I1"
    ]


def test_i1_a_stale_server_beside_the_new_holder() -> None:
    assert "I1" in found(*LIFE, heard(15, MAC_1, IP, B))


def test_i1_an_offer_by_a_stale_server_counts_too() -> None:
    assert "I1" in found(*LIFE, heard(15, MAC_1, IP, B, kind="OFFER"))


def test_i1_an_address_that_moves_on_although_nobody_let_it_go() -> None:
    """By the wire alone: the answers are unknown."""
    assert "I1" in found(
        put(1, "v1", MAC_1),
        put(1, "v2", MAC_2),
        call(2, "start", "v1", None),
        call(3, "start", "v2", None),
        heard(4, MAC_1, IP),
        heard(5, MAC_2, IP),
    )


def test_i1_an_address_promised_on_before_the_former_owner_was_last_served() -> None:
    assert "I1" in found(
        put(1, "v1", MAC_1),
        put(1, "v2", MAC_2),
        start(2, "v1", MAC_1, IP),
        stop(3, "v1", MAC_1),
        call(4, "start", "v2", None),
        heard(5, MAC_1, IP),
        heard(6, MAC_2, IP),
    )


def test_i1_holds_while_a_start_may_have_come_in_between() -> None:
    assert (
        found(
            put(1, "v1", MAC_1),
            put(1, "v2", MAC_2),
            start(2, "v1", MAC_1, IP),
            stop(3, "v1", MAC_1),
            call(4, "start", "v2", None, until=5.5),
            heard(5, MAC_1, IP),
            heard(6, MAC_2, IP),
        )
        == []
    )


def test_i2_one_mac_at_two_vnics() -> None:
    assert found(put(1, "v1", MAC_1), put(2, "v2", MAC_1)) == ["I2"]


def test_i2_holds_when_the_first_was_deleted() -> None:
    assert found(put(1, "v1", MAC_1), call(2, "delete", "v1", 204), put(3, "v2", MAC_1)) == []


def test_i3_another_address_than_the_confirmed_one() -> None:
    assert "I3" in found(
        put(1, "v1", MAC_1),
        start(2, "v1", MAC_1, OTHER_IP, "host-a"),
        stop(3, "v1", MAC_1),
        start(4, "v1", MAC_1, IP, "host-a"),
        heard(5, MAC_1, OTHER_IP, A),
    )


def test_i3_holds_for_a_server_that_had_not_confirmed() -> None:
    assert (
        found(
            put(1, "v1", MAC_1),
            start(2, "v1", MAC_1, OTHER_IP, "host-b"),
            stop(3, "v1", MAC_1),
            start(4, "v1", MAC_1, IP, "host-a"),
            heard(5, MAC_1, OTHER_IP, B),
        )
        == []
    )


def test_i3_a_refusal_of_the_confirmed_address() -> None:
    assert found(
        put(1, "v1", MAC_1),
        start(2, "v1", MAC_1, IP, "host-a"),
        exchange(3, MAC_1, "nak", asked=IP, server=A),
    ) == ["I3"]


SILENT = (
    listing(0, "host-a"),
    put(1, "v1", MAC_1),
    start(2, "v1", MAC_1, IP, "host-a"),
    exchange(3, MAC_1, "silence"),
    listing(7, "host-a"),
)


def test_i3_silence_of_a_server_that_lives() -> None:
    assert found(*SILENT) == ["I3"]


def test_i3_holds_while_the_server_cannot_be_heard() -> None:
    assert found(*SILENT, Trouble(begin=ns(2.5), end=ns(3.5), what="kea killed", host="host-a", dhcp=True)) == []


def test_i3_holds_when_the_server_was_replaced_meanwhile() -> None:
    assert found(*SILENT[:-1], listing(7, "host-a", since="one")) == []


def test_i4_an_offer_to_somebody_unknown() -> None:
    assert found(heard(1, MAC_1, IP, kind="OFFER")) == ["I4"]


def test_i4_an_offer_before_the_start() -> None:
    assert found(put(1, "v1", MAC_1), heard(2, MAC_1, IP), start(3, "v1", MAC_1, IP)) == ["I4"]


def test_i4_an_address_that_was_never_promised() -> None:
    assert found(put(1, "v1", MAC_1), start(2, "v1", MAC_1, IP, "host-b"), heard(3, MAC_1, OTHER_IP)) == ["I4"]


def test_i4_a_server_that_serves_what_it_confirmed_to_be_withdrawn() -> None:
    assert found(*LIFE[:-4], heard(11.5, MAC_1, IP)) == ["I4"]


def test_i4_holds_while_the_server_lags() -> None:
    assert found(*LIFE[:-5], listing(11, "host-a", "host-b", revision=6), heard(11.5, MAC_1, IP)) == []


def test_i5_a_lost_creation() -> None:
    assert found(put(1, "v1", MAC_1), call(2, "get", "v1", 404, answer={"code": "vnic-not-found"})) == ["I5"]


def test_i5_a_lost_start() -> None:
    assert found(
        put(1, "v1", MAC_1),
        start(2, "v1", MAC_1, IP),
        call(3, "get", "v1", 200, answer={"mac": MAC_1, "ip": None, "ip_state": None}),
    ) == ["I5"]


def test_i5_a_repeated_start_that_answers_another_address() -> None:
    assert "I5" in found(put(1, "v1", MAC_1), start(2, "v1", MAC_1, IP), start(3, "v1", MAC_1, OTHER_IP))


def test_i5_a_deletion_undone() -> None:
    assert found(
        put(1, "v1", MAC_1),
        call(2, "delete", "v1", 204),
        call(3, "get", "v1", 200, answer={"mac": MAC_1, "ip": None, "ip_state": None}),
    ) == ["I5"]


def test_i5_holds_for_either_outcome_of_an_unanswered_call() -> None:
    for later in (
        call(3, "get", "v1", 404, answer={"code": "vnic-not-found"}),
        call(3, "get", "v1", 200, answer={"mac": MAC_1, "ip": None, "ip_state": None}),
    ):
        assert found(put(1, "v1", MAC_1), call(2, "delete", "v1", None), later) == []


def test_i5_what_was_seen_once_is_no_longer_open() -> None:
    assert found(
        put(1, "v1", MAC_1),
        call(2, "delete", "v1", None),
        call(3, "get", "v1", 200, answer={"mac": MAC_1, "ip": None, "ip_state": None}),
        call(4, "get", "v1", 404, answer={"code": "vnic-not-found"}),
    ) == ["I5"]


def test_i5_an_unconfirmed_start_is_a_promise() -> None:
    late = call(2, "start", "v1", 503, answer={"code": "not-confirmed", "ip": IP, "mac": MAC_1, "vnic": "v1"})
    assert found(put(1, "v1", MAC_1), late, start(3, "v1", MAC_1, OTHER_IP)) == ["I5"]


def test_i5_another_server_without_a_cause() -> None:
    control_plane = Trouble(begin=ns(2), end=ns(3), what="control plane killed", moves=False)
    assert found(listing(1, "host-a"), control_plane, listing(4, "host-b")) == ["I5"]


def test_i5_holds_for_another_server_with_a_cause() -> None:
    killed = Trouble(begin=ns(2), end=ns(30), what="kea killed", host="host-a", dhcp=True)
    assert found(listing(1, "host-a"), killed, listing(4, "host-b")) == []


def test_i7_what_the_doctor_found() -> None:
    assert found(Finding(at=1, code="number-lost", subject="subnets/1", sentence="192.0.2.7 is nobody's")) == ["I7"]


def patched(at: float, vnic: str, mac: str, ip: str | None, *confirmed: str) -> Call:
    vnic_shown = {"mac": mac, "ip": ip, "ip_state": "held" if ip else "draining"}
    servers = [{"host": host, "state": "confirmed"} for host in confirmed]
    answer = {"vnic": vnic_shown, "mac": mac, "ip": ip, "servers": servers}
    return call(at, "patch", vnic, 200, asked={"mac": mac}, answer=answer)


def test_another_mac_keeps_the_address_which_the_old_one_gets_no_more() -> None:
    changed = (put(1, "v1", MAC_1), start(2, "v1", MAC_1, IP, "host-a"), heard(3, MAC_1, IP))
    assert found(*changed, patched(4, "v1", MAC_2, IP, "host-a"), heard(5, MAC_2, IP)) == []
    assert "I1" in found(*changed, patched(4, "v1", MAC_2, IP), heard(5, MAC_2, IP), heard(6, MAC_1, IP, B))


def test_an_address_that_another_mac_waits_for_comes_by_itself() -> None:
    waiting = call(
        4, "patch", "v1", 503, asked={"mac": MAC_2}, answer={"code": "not-confirmed", "ip": None, "mac": MAC_2}
    )
    shown = {"mac": MAC_2, "ip": IP}
    assert (
        found(
            put(1, "v1", MAC_1),
            start(2, "v1", MAC_1, IP, "host-a"),
            heard(3, MAC_1, IP),
            waiting,
            heard(5, MAC_1, IP, B),
            call(6, "get", "v1", 200, answer=shown | {"ip_state": "draining"}),
            heard(7, MAC_2, IP),
            call(8, "get", "v1", 200, answer=shown | {"ip_state": "held"}),
        )
        == []
    )


def test_a_start_without_ipam_lets_nothing_go() -> None:
    off: dict[str, Any] = {
        "vnic": {"mac": MAC_1, "ip": IP, "ip_state": "held"},
        "ip": None,
        "mac": MAC_1,
        "servers": [],
    }
    assert found(put(1, "v1", MAC_1), start(2, "v1", MAC_1, IP), call(3, "start", "v1", 200, answer=off)) == []


def test_a_devices_address_is_a_promise_too() -> None:
    reserved = call(1, "reserve", "d1", 201, asked={"mac": MAC_1, "subnet": BLUE}, answer={"mac": MAC_1, "ip": IP})
    gone = call(3, "unreserve", "d1", 204)
    after = (put(4, "v2", MAC_2), start(5, "v2", MAC_2, IP))
    assert found(reserved, heard(2, MAC_1, IP), gone, *after) == []
    assert "I1" in found(reserved, *after)
    assert "I1" in found(reserved, gone, *after, heard(6, MAC_1, IP))
    assert found(reserved, call(2, "get", "d1", 404, answer={"code": "reservation-not-found"})) == ["I5"]
