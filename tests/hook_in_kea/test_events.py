"""What a real Kea does becomes events, each exactly once."""

from hook_in_kea.conftest import Served
from lab.dhcp import Type


def test_a_grant_is_assigned_and_a_renewal_renewed(served: Served) -> None:
    mac = served.mac()
    served.change(7, {mac: "192.0.2.10"})
    with served.client(mac) as client:
        served.bound(client)
        answer = client.renew("192.0.2.10")
        assert answer is not None
        assert answer.type is Type.ACK
    served.wait_until_told("192.0.2.10", "assigned", "renewed")
    first, second = served.events("192.0.2.10")
    assert (first["mac"], first["subnet"], first["valid_lft"]) == (mac, 7, 600)
    assert second["seq"] > first["seq"]
    (lease,) = served.host.command("lease4-get-by-hw-address", hw_address=mac)["arguments"]["leases"]
    assert abs(lease["cltt"] - second["cltt"]) <= 1


def test_an_offer_alone_is_no_event(served: Served) -> None:
    mac = served.mac()
    served.change(7, {mac: "192.0.2.11"})
    with served.client(mac) as client:
        assert client.discover() is not None
    served.settle()
    assert served.told("192.0.2.11") == []


def test_a_release_is_told_once_however_often_it_is_sent(served: Served) -> None:
    mac = served.mac()
    served.change(7, {mac: "192.0.2.12"})
    with served.client(mac) as client:
        server = served.bound(client).server or ""
        for _ in range(3):
            client.release("192.0.2.12", server)
    served.wait_until_told("192.0.2.12", "assigned", "released")
    served.settle()
    assert served.told("192.0.2.12") == ["assigned", "released"]


def test_a_release_by_someone_else_is_none(served: Served) -> None:
    mac, other = served.mac(), served.mac()
    served.change(7, {mac: "192.0.2.13", other: "192.0.2.14"})
    with served.client(mac) as client, served.client(other) as thief:
        server = served.bound(client).server or ""
        thief.release("192.0.2.13", server)
    served.settle()
    assert served.told("192.0.2.13") == ["assigned"]


def test_a_decline_and_the_end_of_its_probation_are_told_once(served: Served) -> None:
    mac = served.mac()
    served.change(7, {mac: "192.0.2.15"})
    with served.client(mac) as client:
        server = served.bound(client).server or ""
        for _ in range(3):
            client.decline("192.0.2.15", server)
        served.wait_until_told("192.0.2.15", "assigned", "declined", "expired")
        assert [event["mac"] for event in served.events("192.0.2.15")] == [mac, mac, None]
        served.bound(client)
    served.settle()
    assert served.told("192.0.2.15") == ["assigned", "declined", "expired", "assigned"]


def test_a_decline_by_someone_else_is_none(served: Served) -> None:
    mac, other = served.mac(), served.mac()
    served.change(7, {mac: "192.0.2.16", other: "192.0.2.17"})
    with served.client(mac) as client, served.client(other) as thief:
        server = served.bound(client).server or ""
        thief.decline("192.0.2.16", server)
        served.settle()
        assert served.told("192.0.2.16") == ["assigned"]
        assert client.renew("192.0.2.16") is not None


def test_a_lease_that_ends_is_expired_once_also_after_kea_has_forgotten_it(served: Served) -> None:
    macs = [served.mac() for _ in range(2)]
    served.change(10, dict(zip(macs, ("10.3.0.10", "10.3.0.11"), strict=True)))
    with served.client(macs[0], "red") as first, served.client(macs[1], "red") as second:
        served.bound(first)
        served.wait_until_told("10.3.0.10", "assigned", "expired")
        # Kea's own turn after the one that has reclaimed the second lease has flushed the first.
        served.bound(second)
        served.wait_until_told("10.3.0.11", "assigned", "expired")
        served.bound(first)
        served.wait_until_told("10.3.0.10", "assigned", "expired", "assigned", "expired")


def test_what_happens_across_a_reload_is_told_once(served: Served) -> None:
    mac = served.mac()
    served.change(7, {mac: "192.0.2.18"})
    with served.client(mac) as client:
        served.bound(client)
        assert served.host.command("config-reload")["result"] == 0
        assert client.renew("192.0.2.18", 20) is not None
    served.wait_until_told("192.0.2.18", "assigned", "renewed")


def test_sequence_numbers_have_no_gap(served: Served) -> None:
    served.settle()
    numbers = [event["seq"] for event in served.events()]
    assert numbers == list(range(1, len(numbers) + 1))
