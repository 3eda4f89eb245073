"""`/v1/explain`, without servers."""

from typing import Any

import pytest

from web.conftest import Api


def explained(api: Api, **query: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = api.get("/v1/explain", **query).get_json()["items"]
    return items


def test_by_mac_and_by_address_it_says_the_same(api: Api, subnet: int) -> None:
    mac = api.put("/v1/vnics/a", vm="vm", name="nic1", subnet=subnet).get_json()["mac"]
    api.post("/v1/vnics/a/start", wait="none")
    ip = api.get("/v1/vnics/a").get_json()["ip"]
    (found,) = explained(api, mac=mac)
    assert found["verdict"]["cause"] == "no-servers"
    assert (found["evidence"]["promised"], found["evidence"]["vnic"]["id"]) == (ip, "a")
    assert explained(api, ip=ip) == [found]


def test_of_several_with_one_mac_those_that_run_come_first(api: Api, subnet: int) -> None:
    for name in ("a", "b"):
        api.put(f"/v1/vnics/{name}", vm="vm", name="nic1", subnet=subnet)
    mac = api.get("/v1/vnics/b").get_json()["mac"]
    assert api.post("/v1/vnics/a/twins", twin="b").status_code == 200
    api.post("/v1/vnics/b/start", wait="none")
    assert [each["evidence"]["vnic"]["id"] for each in explained(api, mac=mac)] == ["b", "a"]


@pytest.mark.parametrize("query", ["", "?mac=02:00:00:00:00:01&ip=192.0.2.1"])
def test_one_of_the_two_is_to_be_named(api: Api, query: str) -> None:
    answer = api.get(f"/v1/explain{query}")
    assert (answer.status_code, answer.get_json()["field"]) == (400, "mac")


def test_an_address_that_nobody_has_is_not_found(api: Api, subnet: int) -> None:
    answer = api.get("/v1/explain?ip=192.0.2.77")
    assert (answer.status_code, answer.get_json()["code"]) == (404, "address-unknown")
