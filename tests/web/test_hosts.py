"""`/v1/hosts`: what they serve and hold up, and what they are to do."""

import pytest

from leasehold.service import sightings
from leasehold.service.context import Context
from web.conftest import Api

HOST = {"control_url": "http://10.99.0.11:8000/", "username": "kea", "password": "hunter2"}
ATTACHED = {"blue": {"interface": "eth0", "address": "192.0.2.2"}}


@pytest.fixture
def host(api: Api) -> str:
    """The path of a host that was never asked."""
    api.put("/v1/hosts/host-a", **HOST, networks=ATTACHED)
    return "/v1/hosts/host-a"


def state(api: Api, path: str) -> object:
    return api.get(path).get_json()["state"]


def test_maintenance_of_a_host_that_serves_nothing_is_done_at_once(api: Api, host: str) -> None:
    answer = api.post(f"{host}/maintenance")
    assert (answer.status_code, answer.get_json()["state"]) == (200, "maintenance")
    assert api.post(f"{host}/maintenance").get_json() == answer.get_json()
    assert api.post(f"{host}/activate").get_json()["state"] == "doubtful"
    assert api.post(f"{host}/activate").status_code == 200


def test_a_host_that_does_not_answer_can_be_fenced_and_not_activated(api: Api, host: str, ctx: Context) -> None:
    answer = api.post(f"{host}/fence")
    assert (answer.status_code, answer.get_json()["code"]) == (409, "host-answers")
    sightings.record_unreachable(ctx, "host-a", "Connection refused")
    answer = api.post(f"{host}/fence")
    assert (answer.status_code, answer.get_json()["state"]) == (200, "fenced")
    assert api.post(f"{host}/fence").get_json() == answer.get_json()
    answer = api.post(f"{host}/activate")
    assert (answer.status_code, answer.get_json()["code"]) == (409, "host-fenced")


@pytest.mark.parametrize("call", ["maintenance", "activate", "fence"])
def test_what_is_to_be_done_with_an_unknown_host_is_not_found(api: Api, call: str) -> None:
    assert api.post(f"/v1/hosts/nobody/{call}").get_json()["code"] == "host-not-found"


@pytest.mark.parametrize("call", ["maintenance", "fence"])
def test_a_dry_run_says_what_would_be(api: Api, host: str, ctx: Context, call: str) -> None:
    sightings.record_unreachable(ctx, "host-a", "Connection refused")
    before = state(api, host)
    answer = api.post(f"{host}/{call}?dry_run=true").get_json()
    assert answer["state"] != before == state(api, host)


def test_a_dry_run_of_a_put_or_a_deletion_changes_nothing(api: Api, host: str) -> None:
    assert api.put("/v1/hosts/host-b?dry_run=true", **HOST).status_code == 200
    assert api.delete(f"{host}?dry_run=true").status_code == 204
    assert [each["id"] for each in api.get("/v1/hosts").get_json()["items"]] == ["host-a"]


def test_a_patch_changes_what_it_names_and_nothing_else(api: Api, host: str) -> None:
    before = api.get(host).get_json()
    answer = api.patch(host, username="other")
    assert answer.get_json() == before | {"username": "other"} == api.get(host).get_json()
    moved = {"blue": {"interface": "eth1", "address": "192.0.2.3"}}
    assert api.patch(f"{host}?dry_run=true", networks=moved).get_json()["networks"] == moved
    assert api.patch(host, networks=moved).get_json()["networks"] == moved
    assert api.patch(host, networks={}).get_json()["networks"] == {}


def test_two_hosts_do_not_have_one_address(api: Api, host: str) -> None:
    answer = api.put("/v1/hosts/host-b", **HOST, networks=ATTACHED)
    assert (answer.status_code, answer.get_json()["code"]) == (409, "address-taken")
    api.put("/v1/hosts/host-b", **HOST)
    assert api.patch("/v1/hosts/host-b", networks=ATTACHED).get_json()["code"] == "address-taken"


def test_what_was_done_with_a_host_is_told(api: Api, host: str) -> None:
    api.post(f"{host}/maintenance")
    api.post(f"{host}/activate")
    told = api.get("/v1/events").get_json()["items"]
    assert [(each["type"], each["subject"]) for each in told] == [
        ("host.maintenance", "hosts/host-a"),
        ("host.activated", "hosts/host-a"),
    ]
    assert all(each["data"]["by"] for each in told)
