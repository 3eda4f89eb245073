"""`leasehold-client-get`: what a server knows of one client."""

from typing import Any

from hook_in_kea.conftest import Served
from lab.waiting import wait_until


def known(served: Served, mac: str) -> dict[int, dict[str, Any]]:
    """What the server says of a client, by subnet."""
    answer = served.host.command("leasehold-client-get", hw_address=mac)
    assert answer["arguments"]["hw-address"] == mac
    assert answer["result"] == (0 if answer["arguments"]["subnets"] else 3)
    return {each["subnet-id"]: each for each in answer["arguments"]["subnets"]}


def test_a_client_that_was_never_heard_of(served: Served) -> None:
    assert known(served, served.mac()) == {}


def test_a_reservation_that_nobody_has_asked_for(served: Served) -> None:
    mac = served.mac()
    served.change(7, {mac: "192.0.2.60"})
    assert known(served, mac) == {
        7: {
            "subnet-id": 7,
            "ip-address": "192.0.2.60",
            "withdrawn-until": None,
            "last-message": None,
            "rejections": [],
            "leases": [],
        }
    }


def test_the_last_message_its_answer_and_the_lease(served: Served) -> None:
    mac = served.mac()
    served.change(7, {mac: "192.0.2.61"})
    with served.client(mac) as client:
        offer = client.discover(10)
        assert offer is not None
        seen = known(served, mac)[7]
        assert (seen["last-message"]["type"], seen["last-message"]["answer"]) == ("DISCOVER", "OFFER")
        assert seen["leases"] == []
        client.select(offer, 10)
        seen = known(served, mac)[7]
        assert (seen["last-message"]["type"], seen["last-message"]["answer"]) == ("REQUEST", "ACK")
        (lease,) = seen["leases"]
        assert (lease["ip-address"], lease["hw-address"], lease["state"]) == ("192.0.2.61", mac, "assigned")
        assert lease["expires"] == (lease["cltt"] + 600) * 1000
        assert abs(seen["last-message"]["at"] - lease["cltt"] * 1000) <= 1000
        client.request("192.0.2.62", silence_s=10)
        seen = known(served, mac)[7]
        assert (seen["last-message"]["type"], seen["last-message"]["answer"]) == ("REQUEST", "NAK")


def test_a_client_that_asks_on_another_subnet_than_the_one_it_is_reserved_on(served: Served) -> None:
    mac = served.mac()
    served.change(10, {mac: "10.3.0.60"})
    with served.client(mac) as client:
        client.discover(0.1)
        client.discover(0.1)
    wait_until(lambda: 7 in known(served, mac), 10, "the rejection")
    here = known(served, mac)[7]
    assert (here["ip-address"], known(served, mac)[10]["ip-address"]) == (None, "10.3.0.60")
    wait_until(lambda: known(served, mac)[7]["rejections"][0]["count"] == 2, 10, "both are counted")
    (rejection,) = known(served, mac)[7]["rejections"]
    assert (rejection["reason"], rejection["message"]) == ("elsewhere", "DISCOVER")
    assert here["last-message"]["type"] == "DISCOVER"
    event = wait_until(
        lambda: next(
            (each for each in served.events() if each["type"] == "client.rejected" and each["mac"] == mac), None
        ),
        10,
        "the rejection as an event",
    )
    assert event is not None
    assert event["reason"] == "elsewhere"
    assert known(served, mac)[7]["rejections"] == [rejection]


def test_a_stranger_is_unknown_also_after_the_report(served: Served) -> None:
    mac = served.mac()
    with served.client(mac) as client:
        client.discover(0.1)
        wait_until(lambda: any(each.get("mac") == mac for each in served.events()), 10, "the report")
        client.request("192.0.2.63", silence_s=0.1)
    wait_until(lambda: known(served, mac)[7]["rejections"][0]["count"] == 2, 10, "both are counted")
    (rejection,) = known(served, mac)[7]["rejections"]
    assert (rejection["reason"], rejection["message"]) == ("unknown", "REQUEST")
    assert rejection["first"] <= rejection["last"]


def test_a_withdrawn_client(served: Served) -> None:
    mac = served.mac()
    served.change(7, {mac: "192.0.2.64"})
    with served.client(mac) as client:
        served.bound(client)
        served.change(7, unset=(mac,))
        client.renew("192.0.2.64", 10)
    seen = known(served, mac)[7]
    assert (seen["ip-address"], seen["leases"]) == (None, [])
    assert seen["withdrawn-until"] > seen["last-message"]["at"]
    assert [(each["reason"], each["message"]) for each in seen["rejections"]] == [("withdrawn", "REQUEST")]


def test_somebody_elses_lease_in_the_way(served: Served) -> None:
    mac, other = served.mac(), served.mac()
    served.change(7, {mac: "192.0.2.65"})
    added = served.host.command("lease4-add", subnet_id=7, ip_address="192.0.2.65", hw_address=other)
    assert added["result"] == 0
    (lease,) = known(served, mac)[7]["leases"]
    assert (lease["hw-address"], lease["state"]) == (other, "assigned")
    assert served.host.command("lease4-del", ip_address="192.0.2.65")["result"] == 0


def test_bad_arguments_are_named(served: Served) -> None:
    answer = served.host.command("leasehold-client-get", hw_address="02:00")
    assert (answer["result"], answer["text"].partition(":")[0]) == (1, "hw-address")
    assert served.host.command("leasehold-client-get")["text"] == "hw-address: is missing"
