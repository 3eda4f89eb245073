"""Lists are answered part by part."""

from collections.abc import Iterator
from typing import Any

import pytest

from leasehold.store.tables import FIRST_SUBNET_ID
from web.conftest import Api


def pages(api: Api, path: str, limit: int) -> Iterator[list[dict[str, Any]]]:
    query: dict[str, object] = {"limit": limit}
    while True:
        answer = api.get(path, **query).get_json()
        yield answer["items"]
        if answer["next"] is None:
            return
        query["cursor"] = answer["next"]


@pytest.fixture
def filled(api: Api, subnet: int) -> None:
    """Five of everything that engines make, the one network and subnet among them."""
    for number in range(4):
        api.put(f"/v1/networks/n{number}")
        api.post("/v1/subnets", network=f"n{number}", cidr="192.0.2.0/24")
        api.post("/v1/tokens", role="read")
    for number in range(5):
        api.put(f"/v1/hosts/h{number}", control_url="http://192.0.2.7/", username="", password="")
        api.put(f"/v1/vnics/v{number}", vm="vm1", name="nic1", subnet=subnet)
        api.post(f"/v1/vnics/v{number}/start", wait="none")


@pytest.mark.parametrize("limit", [1, 2, 4, 5, 6])
@pytest.mark.parametrize(
    "path", ["networks", "subnets", "hosts", "vnics", "tokens", f"subnets/{FIRST_SUBNET_ID}/reservations"]
)
def test_parts_make_the_whole(api: Api, filled: None, path: str, limit: int) -> None:
    whole = api.get(f"/v1/{path}").get_json()
    assert (len(whole["items"]), whole["next"]) == (5, None)
    parts = list(pages(api, f"/v1/{path}", limit))
    assert [each for part in parts for each in part] == whole["items"]
    assert all(len(part) == limit for part in parts[:-1])
    assert parts[-1]


def test_what_goes_between_two_parts_hides_nothing(api: Api, filled: None) -> None:
    first = api.get("/v1/vnics", limit=2).get_json()
    api.delete("/v1/vnics/v0")
    api.delete("/v1/vnics/v1")
    rest = api.get("/v1/vnics", limit=2, cursor=first["next"]).get_json()
    assert [each["id"] for each in rest["items"]] == ["v2", "v3"]


def test_a_cursor_of_another_list_is_refused(api: Api, filled: None) -> None:
    cursor = api.get("/v1/vnics", limit=1).get_json()["next"]
    assert api.get("/v1/hosts", cursor=cursor).status_code == 400
