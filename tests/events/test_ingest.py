"""What hooks report, and what becomes of it."""

import uuid
from typing import Any

import pytest
from netaddr import IPNetwork
from sqlalchemy import insert

from leasehold.domain.values import Event, Subnet, SubnetSpec, VnicSpec
from leasehold.errors import FieldInvalid, HostNotFound
from leasehold.service import events, hosts, ingest, networks, subnets, vnics
from leasehold.service.context import Context
from leasehold.store.tables import FIRST_SUBNET_ID, server_subnets

BOOT = str(uuid.UUID(int=1))
NEXT_BOOT = str(uuid.UUID(int=2))
MAC = "02:00:00:00:00:01"


def lease(seq: int, **differences: Any) -> dict[str, Any]:
    return {
        "seq": seq,
        "type": "lease.assigned",
        "at": 1_700_000_000_123,
        "subnet": FIRST_SUBNET_ID,
        "ip": "192.0.2.10",
        "mac": MAC,
        "valid_lft": 3600,
        "cltt": 1_700_000_000,
    } | differences


def rejection(seq: int, **differences: Any) -> dict[str, Any]:
    return {
        "seq": seq,
        "type": "client.rejected",
        "at": 1_700_000_010_000,
        "subnet": FIRST_SUBNET_ID,
        "mac": MAC,
        "reason": "unknown",
        "count": 12,
        "first": 1_700_000_000_000,
        "last": 1_700_000_009_000,
    } | differences


def loss(seq: int, **differences: Any) -> dict[str, Any]:
    return {"seq": seq, "type": "events.gap", "at": 1_700_000_000_000, "lost": 5, "reason": "queue"} | differences


@pytest.fixture
def subnet(ctx: Context) -> Subnet:
    """The first subnet, on network blue, with two servers that have confirmed nothing: no lease of theirs is known to
    diverge."""
    networks.put(ctx, "blue", ipam_enabled=True, ipam_servers=1)
    for name in ("host-a", "host-b"):
        hosts.put(ctx, name, control_url="http://192.0.2.2:8000/", username="u", password="p", networks={})
    subnet = subnets.create(ctx, SubnetSpec(network="blue", cidr=IPNetwork("192.0.2.0/24")))
    with ctx.db.write() as connection:
        for name in ("host-a", "host-b"):
            connection.execute(insert(server_subnets).values(host_id=name, subnet_id=subnet.id))
    return subnet


def report(ctx: Context, *lines: dict[str, Any], boot: str = BOOT, host: str = "host-a") -> int:
    return ingest.ingest(ctx, host, boot, 1, lines)


def told(ctx: Context) -> list[Event]:
    """But for the control plane's own word on reservations."""
    return [each for each in events.list_events(ctx, limit=2000) if not each.type.startswith("reservation.")]


def sequences(ctx: Context) -> list[object]:
    return [each.data["seq"] for each in told(ctx)]


def test_a_lease_becomes_an_event(ctx: Context, subnet: Subnet) -> None:
    report(ctx, lease(1))
    (event,) = told(ctx)
    assert (event.type, event.subject, event.sequence) == (
        "lease.assigned",
        f"subnets/{FIRST_SUBNET_ID}/addresses/192.0.2.10",
        1,
    )
    assert event.time.isoformat() == "2023-11-14T22:13:20.123000+00:00"
    assert event.data == {
        "host": "host-a",
        "boot": BOOT,
        "seq": 1,
        "subnet": FIRST_SUBNET_ID,
        "network": "blue",
        "ip": "192.0.2.10",
        "mac": MAC,
        "vnic": None,
        "vm": None,
        "lease_time_s": 3600,
        "expires_at": "2023-11-14T23:13:20.000Z",
    }


def test_a_rejection_becomes_an_event_of_the_client(ctx: Context, subnet: Subnet) -> None:
    report(ctx, rejection(1))
    (event,) = told(ctx)
    assert (event.type, event.subject) == ("client.rejected", f"subnets/{FIRST_SUBNET_ID}/clients/{MAC}")
    assert (event.data["reason"], event.data["count"]) == ("unknown", 12)
    assert (event.data["first_at"], event.data["last_at"]) == ("2023-11-14T22:13:20.000Z", "2023-11-14T22:13:29.000Z")


def test_rejections_of_clients_that_were_not_counted_one_by_one(ctx: Context, subnet: Subnet) -> None:
    report(ctx, rejection(1, mac=None))
    assert told(ctx)[0].subject == f"subnets/{FIRST_SUBNET_ID}/clients"


def test_a_loss_becomes_an_event_of_the_host(ctx: Context, subnet: Subnet) -> None:
    report(ctx, loss(1, lost=17, first_seq=None))
    (event,) = told(ctx)
    assert (event.type, event.subject, event.data["lost"]) == ("events.gap", "hosts/host-a/events", 17)


def test_the_vnic_that_holds_the_address_is_named(ctx: Context, subnet: Subnet) -> None:
    vnic, _ = vnics.put(ctx, VnicSpec(id="vnic-1", vm="vm-1", name="eth0", subnet=subnet.id))
    start = vnics.start(ctx, "vnic-1", wait="none")
    report(ctx, lease(1, ip=str(start.ip), mac=str(vnic.mac)))
    assert (told(ctx)[0].data["vnic"], told(ctx)[0].data["vm"]) == ("vnic-1", "vm-1")


def test_a_rejected_vnic_that_was_not_started_is_named(ctx: Context, subnet: Subnet) -> None:
    vnic, _ = vnics.put(ctx, VnicSpec(id="vnic-1", vm="vm-1", name="eth0", subnet=subnet.id))
    report(ctx, rejection(1, mac=str(vnic.mac)))
    assert (told(ctx)[0].data["vnic"], told(ctx)[0].data["vm"]) == ("vnic-1", "vm-1")


def test_a_vnic_that_is_gone_is_named_while_its_address_is_not_free(ctx: Context, subnet: Subnet) -> None:
    vnic, _ = vnics.put(ctx, VnicSpec(id="vnic-1", vm="vm-1", name="eth0", subnet=subnet.id))
    start = vnics.start(ctx, "vnic-1", wait="none")
    vnics.delete_vnic(ctx, "vnic-1")
    report(ctx, lease(1, ip=str(start.ip), mac=str(vnic.mac)))
    assert (told(ctx)[0].data["vnic"], told(ctx)[0].data["vm"]) == ("vnic-1", None)


def test_a_vnic_on_another_subnet_is_not_named(ctx: Context, subnet: Subnet) -> None:
    other = subnets.create(ctx, SubnetSpec(network="blue", cidr=IPNetwork("198.51.100.0/24")))
    vnic, _ = vnics.put(ctx, VnicSpec(id="vnic-1", vm="vm-1", name="eth0", subnet=other.id))
    report(ctx, rejection(1, mac=str(vnic.mac)))
    assert told(ctx)[0].data["vnic"] is None


@pytest.mark.parametrize("differences", [{"subnet": 999}, {"ip": "203.0.113.1"}, {"ip": "2001:db8::1"}])
def test_a_lease_of_an_address_that_is_not_ours_is_kept(
    ctx: Context, subnet: Subnet, differences: dict[str, Any]
) -> None:
    report(ctx, lease(1, **differences))
    assert len(told(ctx)) == 1


def test_everything_reported_is_acknowledged(ctx: Context, subnet: Subnet) -> None:
    assert report(ctx, lease(1), lease(2), rejection(3)) == 3


def test_an_empty_report_acknowledges_what_was_stored_before(ctx: Context, subnet: Subnet) -> None:
    assert report(ctx) == 0
    report(ctx, lease(1))
    assert report(ctx) == 1


def test_the_same_report_again_changes_nothing(ctx: Context, subnet: Subnet) -> None:
    report(ctx, lease(1), lease(2))
    before = told(ctx)
    assert report(ctx, lease(1), lease(2)) == 2
    assert told(ctx) == before


def test_of_an_overlapping_report_only_the_new_lines_are_stored(ctx: Context, subnet: Subnet) -> None:
    report(ctx, lease(1), lease(2))
    assert report(ctx, lease(2), lease(3)) == 3
    assert sequences(ctx) == [1, 2, 3]


def test_each_boot_counts_for_itself(ctx: Context, subnet: Subnet) -> None:
    report(ctx, lease(1), lease(2))
    assert report(ctx, lease(1), boot=NEXT_BOOT) == 1
    assert len(told(ctx)) == 3


def test_each_host_counts_for_itself(ctx: Context, subnet: Subnet) -> None:
    report(ctx, lease(1), loss(2))
    report(ctx, lease(1), boot=NEXT_BOOT, host="host-b")
    assert [each.data["host"] for each in told(ctx)] == ["host-a", "host-a", "host-b"]


def test_events_of_a_subject_are_numbered(ctx: Context, subnet: Subnet) -> None:
    report(ctx, lease(1), lease(2, ip="192.0.2.11"), lease(3))
    report(ctx, lease(4), lease(5, ip="192.0.2.11"))
    assert [(each.subject[-2:], each.sequence) for each in told(ctx)] == [
        ("10", 1),
        ("11", 1),
        ("10", 2),
        ("10", 3),
        ("11", 2),
    ]


def test_missing_numbers_become_a_gap_where_they_are_missing(ctx: Context, subnet: Subnet) -> None:
    report(ctx, lease(1), lease(5))
    assert [each.type for each in told(ctx)] == ["lease.assigned", "events.gap", "lease.assigned"]
    gap = told(ctx)[1].data
    assert (gap["lost"], gap["first_seq"], gap["last_seq"], gap["reason"]) == (3, 2, 4, "missing")


def test_numbers_missing_between_two_reports_become_a_gap(ctx: Context, subnet: Subnet) -> None:
    report(ctx, lease(1))
    report(ctx, lease(4))
    assert [each.data["lost"] for each in told(ctx) if each.type == "events.gap"] == [2]


def test_numbers_missing_at_the_beginning_of_a_boot_become_a_gap(ctx: Context, subnet: Subnet) -> None:
    report(ctx, lease(3))
    assert [each.data["lost"] for each in told(ctx) if each.type == "events.gap"] == [2]


def test_what_the_hook_announced_as_lost_is_not_counted_twice(ctx: Context, subnet: Subnet) -> None:
    """The announcement bears the last of the lost numbers."""
    report(ctx, lease(1), loss(6, lost=5, first_seq=2, last_seq=6), lease(7))
    assert [each.data["lost"] for each in told(ctx) if each.type == "events.gap"] == [5]


def test_what_the_hook_announced_in_an_earlier_report_is_not_counted_twice(ctx: Context, subnet: Subnet) -> None:
    report(ctx, lease(1), loss(2, lost=5, first_seq=2, last_seq=6))
    report(ctx, lease(7))
    assert [each.data["lost"] for each in told(ctx) if each.type == "events.gap"] == [5]


def test_what_is_missing_besides_what_the_hook_announced(ctx: Context, subnet: Subnet) -> None:
    report(ctx, loss(6, lost=3, first_seq=4, last_seq=6), lease(9))
    assert [each.data["lost"] for each in told(ctx) if each.type == "events.gap"] == [3, 3, 2]


def test_what_was_missed_first_and_announced_later_is_counted_once(ctx: Context, subnet: Subnet) -> None:
    report(ctx, lease(1), lease(5))
    report(ctx, loss(6, lost=4, first_seq=2, last_seq=6), lease(7))
    gaps = [each.data for each in told(ctx) if each.type == "events.gap"]
    assert [(each["reason"], each["lost"], each.get("told_before")) for each in gaps] == [
        ("missing", 3, None),
        ("queue", 1, 3),
    ]


def test_an_announcement_of_another_boot_covers_nothing(ctx: Context, subnet: Subnet) -> None:
    report(ctx, loss(3, lost=3, first_seq=1, last_seq=3))
    report(ctx, lease(4), boot=NEXT_BOOT)
    assert [each.data["lost"] for each in told(ctx) if each.type == "events.gap"] == [3, 3]


BAD = [
    ({"seq": 0}, "seq"),
    ({"seq": "2"}, "seq"),
    ({"seq": True}, "seq"),
    ({"seq": None}, "seq"),
    ({"type": "lease.invented"}, "type"),
    ({"type": 7}, "type"),
    ({"at": -1}, "at"),
    ({"at": 1.5}, "at"),
    ({"at": 10**18}, "at"),
    ({"subnet": 0}, "subnet"),
    ({"subnet": 2**40}, "subnet"),
    ({"ip": "192.0.2.300"}, "ip"),
    ({"ip": 3221225994}, "ip"),
    ({"mac": "02:00"}, "mac"),
    ({"mac": None}, "mac"),
    ({"valid_lft": -1}, "valid_lft"),
    ({"cltt": 10**18}, "cltt"),
]


@pytest.mark.parametrize(("difference", "field"), BAD, ids=lambda each: str(each))
def test_a_bad_line_is_named_and_nothing_is_stored(
    ctx: Context, subnet: Subnet, difference: dict[str, Any], field: str
) -> None:
    with pytest.raises(FieldInvalid, match=f"line 2: {field}: ") as raised:
        report(ctx, lease(1), lease(2) | difference, lease(3))
    assert (raised.value.facts["line"], raised.value.facts["field"]) == (2, field)
    assert told(ctx) == []


@pytest.mark.parametrize("field", ["seq", "type", "at", "subnet", "ip", "mac"])
def test_a_missing_field_is_named(ctx: Context, subnet: Subnet, field: str) -> None:
    line = lease(1)
    del line[field]
    with pytest.raises(FieldInvalid, match=f"line 1: {field}: missing"):
        report(ctx, line)


def test_lines_out_of_order_are_refused(ctx: Context, subnet: Subnet) -> None:
    with pytest.raises(FieldInvalid, match="line 2: seq: 1 does not come after 2"):
        report(ctx, lease(2), lease(1))


def test_fields_that_are_not_known_are_left_out(ctx: Context, subnet: Subnet) -> None:
    report(ctx, lease(1, colour="blue"))
    assert "colour" not in told(ctx)[0].data


def test_an_unknown_host_is_refused(ctx: Context, subnet: Subnet) -> None:
    with pytest.raises(HostNotFound):
        report(ctx, lease(1), host="host-z")


def test_events_wake_those_who_wait(ctx: Context, subnet: Subnet) -> None:
    before = ctx.bell.count
    report(ctx, lease(1))
    assert ctx.bell.count > before


def test_a_thousand_lines_of_one_report(ctx: Context, subnet: Subnet) -> None:
    lines = [lease(number, ip=f"192.0.2.{number % 200 + 1}") for number in range(1, 1001)]
    assert report(ctx, *lines) == 1000
    assert len(told(ctx)) == 1000


def test_events_are_listed_by_type_and_subject(ctx: Context, subnet: Subnet) -> None:
    report(ctx, lease(1), rejection(2), lease(3, ip="192.0.2.11"))
    assert [each.data["seq"] for each in events.list_events(ctx, limit=9, types=("client.rejected",))] == [2]
    assert [
        each.data["seq"]
        for each in events.list_events(ctx, limit=9, subject=f"subnets/{FIRST_SUBNET_ID}/addresses/192.0.2.11")
    ] == [3]
    assert [each.data["seq"] for each in events.list_events(ctx, after_position=1, limit=1)] == [2]
