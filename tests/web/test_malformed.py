"""Malformed input: an answer that names every field that does not fit, and nothing done."""

from typing import Any

import pytest

from web.conftest import Api

NETWORK: dict[str, Any] = {"ipam_enabled": True}
SUBNET: dict[str, Any] = {"network": "blue", "cidr": "198.51.100.0/24"}
HOST: dict[str, Any] = {"control_url": "http://192.0.2.7:8000/", "username": "kea", "password": "x"}
VNIC: dict[str, Any] = {"vm": "vm1", "name": "nic1"}
RANGE = {"from": "198.51.100.5", "to": "198.51.100.9"}

SOUND: dict[str, dict[str, Any]] = {
    "PUT /v1/networks/new": NETWORK,
    "POST /v1/subnets": SUBNET,
    "PUT /v1/hosts/new": HOST,
    "PUT /v1/vnics/new": VNIC,
    "POST /v1/tokens": {"role": "read"},
    "POST /v1/webhooks": {"url": "http://192.0.2.7/"},
}
BAD: dict[tuple[str, str], list[object]] = {
    ("PUT /v1/networks/new", "ipam_enabled"): [1, "true", None, [], {}],
    ("PUT /v1/networks/new", "ipam_servers"): [0, -1, 101, "2", 1.5, True, 10**30],
    ("PUT /v1/networks/new", "unheard_of"): [1],
    ("POST /v1/subnets", "network"): [None, 3, "", "a b", "a\n", "-a", "x" * 129, "ä"],
    ("POST /v1/subnets", "cidr"): [
        "198.51.100.0", "198.51.100.1/24", "198.51.100.0/33", "2001:db8::/64", "224.0.0.0/8", "", None, 7,
    ],
    ("POST /v1/subnets", "gateway"): ["", "gw", "198.51.100.256", "192.0.2.1", 5],
    ("POST /v1/subnets", "dns"): ["192.0.2.1", {}, None],
    ("POST /v1/subnets", "domain"): ["", "a b", "-a.example", "x" * 64, "a..b"],
    ("POST /v1/subnets", "lease_time"): [0, 59, 2**31, -1, "3600", 60.5, None],
    ("POST /v1/subnets", "ranges"): [{}, "all", None],
    ("POST /v1/subnets", "mtu"): [0, 67, 65536, "1500", 1500.5, True],
    ("PUT /v1/hosts/new", "control_url"): [
        "", "192.0.2.7:8000", "ftp://192.0.2.7/", "http://", "http://u:p@192.0.2.7/", "http://192.0.2.7:99999/",
        "http://192.0.2.7/ x", "http://[::1", None, 5,
    ],
    ("PUT /v1/hosts/new", "username"): ["a:b", "a\x00", None, 5],
    ("PUT /v1/hosts/new", "networks"): [[], None, "blue"],
    ("PUT /v1/vnics/new", "vm"): ["", None, 5, "a\x00b", "x" * 256],
    ("PUT /v1/vnics/new", "name"): ["", None, [], "\x7f"],
    ("PUT /v1/vnics/new", "subnet"): [0, -1, "1", 2**31, 1.0, True],
    ("PUT /v1/vnics/new", "mac"): [
        "", "zz", "02:00:00:00:00", "02:00:00:00:00:0g", "02:00-00:00:00:01", 5, "02:00:00:00:00:01\n",
    ],
    ("POST /v1/tokens", "role"): ["root", "", None, 1],
    ("POST /v1/tokens", "host"): ["host-a"],
    ("POST /v1/webhooks", "url"): ["", "x", "file:///a", None],
    ("POST /v1/webhooks", "types"): ["lease.assigned", {}, None],
}  # fmt: skip


def contents(api: Api) -> list[object]:
    """What the database has, as far as these calls could change it."""
    lists = ("networks", "subnets", "hosts", "vnics", "tokens", "webhooks")
    return [api.get(f"/v1/{each}").get_json() for each in lists]


@pytest.mark.parametrize(
    ("call", "field", "value"), [(call, field, value) for (call, field), values in BAD.items() for value in values]
)
def test_a_value_that_does_not_fit_is_named_and_nothing_is_done(
    api: Api, subnet: int, call: str, field: str, value: object
) -> None:
    before = contents(api)
    answer = api.call(*call.split(), json=SOUND[call] | {field: value})
    assert answer.status_code == 400
    assert answer.get_json()["field"] == field
    assert field in answer.get_json()["detail"]
    assert contents(api) == before


@pytest.mark.parametrize(
    ("call", "field"),
    [
        ("POST /v1/subnets", "cidr"),
        ("PUT /v1/hosts/new", "password"),
        ("PUT /v1/vnics/new", "vm"),
        ("POST /v1/tokens", "role"),
        ("POST /v1/webhooks", "url"),
    ],
)
def test_a_missing_field_is_named(api: Api, call: str, field: str) -> None:
    answer = api.call(*call.split(), json={name: value for name, value in SOUND[call].items() if name != field})
    assert answer.get_json()["errors"] == [{"field": field, "reason": "is missing", "value": None}]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (SUBNET | {"dns": ["192.0.2.1", "x"]}, "dns.1"),
        (SUBNET | {"ranges": [RANGE, {"from": "198.51.100.20"}]}, "ranges.1.to"),
        (SUBNET | {"ranges": [RANGE | {"step": 2}]}, "ranges.0.step"),
        (SUBNET | {"exclusions": [RANGE | {"to": "x"}]}, "exclusions.0.to"),
    ],
)
def test_a_value_deep_inside_is_named_by_its_path(api: Api, subnet: int, body: dict[str, Any], field: str) -> None:
    assert api.post("/v1/subnets", **body).get_json()["field"] == field


def test_a_network_of_a_host_is_named_by_its_id(api: Api) -> None:
    networks = {"blue": {"interface": "eth 0", "address": "192.0.2.2"}}
    answer = api.put("/v1/hosts/new", **HOST, networks=networks)
    assert answer.get_json()["field"] == "networks.blue.interface"


def test_every_field_that_does_not_fit_is_listed(api: Api) -> None:
    answer = api.call("PUT", "/v1/vnics/no id", json={"vm": 5, "mac": "zz", "colour": "red"})
    assert {each["field"]: each["value"] for each in answer.get_json()["errors"]} == {
        "vnic_id": "no id",
        "vm": 5,
        "name": None,
        "mac": "zz",
        "colour": "red",
    }


def test_a_password_is_not_repeated(api: Api) -> None:
    answer = api.put("/v1/hosts/new", **HOST | {"password": ["hunter2"]})
    assert answer.status_code == 400
    assert "hunter2" not in answer.text


def test_a_long_value_is_repeated_in_part(api: Api) -> None:
    answer = api.put("/v1/vnics/new", **VNIC | {"vm": "x" * 10_000})
    assert len(answer.get_json()["value"]) < 300


@pytest.mark.parametrize("body", [b"", b"{", b'{"vm": "a",}', b"{'vm': 1}", b"\xff\xfe", b'{"vm": "\\ud800"}', b"{} {}",
                                  b"[" * 100_000, b'{"vm": NaN', b"\x00"])  # fmt: skip
def test_what_is_no_json_is_told_where(api: Api, body: bytes) -> None:
    answer = api.call("PUT", "/v1/vnics/new", data=body, content_type="application/json")
    assert answer.status_code == 400
    problem = answer.get_json()
    assert problem["code"] == "body-malformed"
    assert problem["line"] == 1
    assert "column" in problem["detail"]


@pytest.mark.parametrize("body", [b"null", b"[]", b'"text"', b"5", b'[{"vm": "a", "name": "b"}]'])
def test_json_that_is_no_object_is_refused(api: Api, body: bytes) -> None:
    answer = api.call("PUT", "/v1/vnics/new", data=body, content_type="application/json")
    assert (answer.status_code, answer.get_json()["field"]) == (400, "body")


@pytest.mark.parametrize("media_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/xml"])
def test_another_media_type_is_refused(api: Api, media_type: str) -> None:
    answer = api.call("PUT", "/v1/vnics/new", data=b"{}", content_type=media_type)
    assert answer.status_code == 415
    assert answer.get_json()["supported"] == ["application/json"]


def test_a_media_type_may_say_its_charset(api: Api) -> None:
    content_type = "application/json; charset=utf-8"
    answer = api.call("PUT", "/v1/networks/new", data=b"{}", content_type=content_type)
    assert answer.status_code == 201


def test_compressed_json_is_refused(api: Api) -> None:
    answer = api.call("PUT", "/v1/networks/n", data=b"{}", content_type="application/json",
                      headers={"Content-Encoding": "gzip"})  # fmt: skip
    assert (answer.status_code, answer.get_json()["header"]) == (415, "Content-Encoding")


def test_a_body_that_is_too_large_is_refused(api: Api) -> None:
    body = b'{"vm": "' + b"x" * (4 * 1024 * 1024) + b'"}'
    answer = api.call("PUT", "/v1/vnics/new", data=body, content_type="application/json")
    assert answer.status_code == 413
    assert answer.get_json()["limit"] == 4 * 1024 * 1024


@pytest.mark.parametrize(
    "path", ["/v1/networks/{}", "/v1/hosts/{}", "/v1/vnics/{}", "/v1/mac-pools/{}", "/v1/webhooks/{}"]
)
@pytest.mark.parametrize("text", ["a b", ".", "..a", "-a", "x" * 129, "%00", "%0a", "%ff", "a%0a", "'", "%C3%A4"])
def test_a_path_that_names_no_id_is_refused(api: Api, path: str, text: str) -> None:
    answer = api.get(path.format(text))
    assert (answer.status_code, answer.get_json()["code"]) == (400, "field-invalid")


@pytest.mark.parametrize("text", ["x", "0", "-1", "1.0", " 1", "01", "2147483648", "9" * 5000, "%D9%A1", "1_0"])
def test_a_subnet_is_named_by_a_number(api: Api, text: str) -> None:
    answer = api.get(f"/v1/subnets/{text}")
    assert (answer.status_code, answer.get_json()["field"]) == (400, "subnet_id")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("limit=", "limit"),
        ("limit=1&limit=2", "limit"),
        ("limit=%D9%A1", "limit"),
        ("cursor=", "cursor"),
        ("cursor=x", "cursor"),
        ("cursor=%00", "cursor"),
        ("cursor=%C3%A4", "cursor"),
        ("cursor=bmV0d29ya3M", "cursor"),  # networks
        ("cursor=dm5pY3MgYQ", "cursor"),  # vnics a
        ("cursor=bmV0d29ya3MgAA", "cursor"),  # networks \0
        ("cursor=" + "x" * 513, "cursor"),
        ("offset=1", "offset"),
    ],
)
def test_a_query_that_does_not_fit_is_named(api: Api, query: str, field: str) -> None:
    answer = api.call("GET", f"/v1/networks?{query}")
    assert (answer.status_code, answer.get_json()["field"]) == (400, field)


def test_a_cursor_far_beyond_every_number_is_refused(api: Api) -> None:
    cursor = "c3VibmV0cyA5OTk5OTk5OTk5OTk5OTk5OTk5OTk"  # subnets 99999999999999999999
    assert api.get("/v1/subnets", cursor=cursor).status_code == 400


@pytest.mark.parametrize(("body", "field"), [({"wait": "both"}, "wait"), ({"wait": None}, "wait"), ({"ip": "x"}, "ip"),
                                             ({"waits": "one"}, "waits")])  # fmt: skip
def test_start_names_what_does_not_fit_and_starts_nothing(
    api: Api, subnet: int, body: dict[str, Any], field: str
) -> None:
    api.put("/v1/vnics/v1", **VNIC, subnet=subnet)
    answer = api.post("/v1/vnics/v1/start", **body)
    assert (answer.status_code, answer.get_json()["field"]) == (400, field)
    assert api.get("/v1/vnics/v1").get_json()["running"] is False
