"""`/v1/leases`, as reports make them."""

import pytest

from web.conftest import Api, Clients
from web.test_reports import line, ndjson, report


@pytest.fixture
def leased(api: Api, clients: Clients, subnet: int) -> Api:
    """Three addresses, of two MACs."""
    api.put("/v1/hosts/host-a", control_url="http://192.0.2.7/", username="", password="")
    hook = clients("host", "host-a")
    lines = [line(number, ip=f"192.0.2.{number + 9}") for number in range(1, 4)]
    lines[2]["mac"] = "02:00:00:00:00:02"
    report(hook, ndjson(*lines))
    return api


def test_a_lease_says_whose_it_is(leased: Api, subnet: int) -> None:
    (lease,) = leased.get("/v1/leases", mac="02-00-00-00-00-02").get_json()["items"]
    assert lease | {"since": 0, "expires_at": 0} == {
        "ip": "192.0.2.12",
        "mac": "02:00:00:00:00:02",
        "subnet": subnet,
        "network": "blue",
        "host": "host-a",
        "vnic": None,
        "state": "expired",  # the reports are of long ago
        "since": 0,
        "expires_at": 0,
        "is_reserved": False,
        "diverged": True,
    }


def test_leases_are_filtered(leased: Api, subnet: int) -> None:
    def found(**query: object) -> list[str]:
        return [each["ip"] for each in leased.get("/v1/leases", **query).get_json()["items"]]

    assert found(mac="02:00:00:00:00:01") == ["192.0.2.10", "192.0.2.11"]
    assert found(ip="192.0.2.11") == ["192.0.2.11"]
    assert found(subnet=subnet) == found(host="host-a") == ["192.0.2.10", "192.0.2.11", "192.0.2.12"]
    assert found(subnet=subnet + 1) == found(host="host-b") == found(ip="198.51.100.1") == []


def test_leases_come_in_parts(leased: Api) -> None:
    first = leased.get("/v1/leases", limit=2).get_json()
    rest = leased.get("/v1/leases", limit=2, cursor=first["next"]).get_json()
    assert [each["ip"][-2:] for each in first["items"] + rest["items"]] == ["10", "11", "12"]
    assert rest["next"] is None


def test_events_are_found_by_mac_vnic_and_address(leased: Api, subnet: int) -> None:
    def found(**query: object) -> list[int]:
        return [
            each["data"]["seq"] for each in leased.get("/v1/events", **query, type="lease.assigned").get_json()["items"]
        ]

    assert found(mac="02:00:00:00:00:02") == found(ip="192.0.2.12") == [3]
    assert found(vnic="v1") == []
    vnic = leased.put("/v1/vnics/v1", vm="vm1", name="nic1", subnet=subnet)
    assert vnic.status_code == 201
    leased.post("/v1/vnics/v1/start", wait="none")
    (added,) = leased.get("/v1/events", vnic="v1").get_json()["items"]
    assert added["type"] == "reservation.added"
    ip = added["data"]["ip"]
    assert added in leased.get("/v1/events", ip=ip).get_json()["items"]
