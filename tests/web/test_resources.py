"""What each resource answers."""

import logging
from typing import Any

import pytest
from sqlalchemy import update

from leasehold.domain.addresses import Mac
from leasehold.service import hosts
from leasehold.service.context import Context
from leasehold.service.pulse import pulse
from leasehold.store.tables import spaces
from web.conftest import Api

HOST: dict[str, Any] = {"control_url": "http://10.99.0.11:8000/", "username": "kea", "password": "hunter2"}
ATTACHED = {"blue": {"interface": "eth-blue", "address": "192.0.2.2"}}


def test_a_put_creates_and_then_replaces(api: Api) -> None:
    created = api.put("/v1/networks/blue", ipam_enabled=True)
    replaced = api.put("/v1/networks/blue", ipam_enabled=False, ipam_servers=3)
    assert (created.status_code, created.headers["Location"]) == (201, "/v1/networks/blue")
    assert replaced.status_code == 200
    assert api.get("/v1/networks/blue").get_json() == {"id": "blue", "ipam_enabled": False, "ipam_servers": 3}


def test_a_put_that_leaves_a_field_out_gives_it_its_default(api: Api) -> None:
    api.put("/v1/networks/blue", ipam_enabled=True, ipam_servers=3)
    assert api.put("/v1/networks/blue").get_json() == {"id": "blue", "ipam_enabled": False, "ipam_servers": None}


def test_a_deleted_network_is_gone(api: Api) -> None:
    api.put("/v1/networks/blue")
    answer = api.delete("/v1/networks/blue")
    assert (answer.status_code, answer.data) == (204, b"")
    assert api.get("/v1/networks/blue").get_json()["code"] == "network-not-found"


def test_a_network_with_a_subnet_stays(api: Api, subnet: int) -> None:
    answer = api.delete("/v1/networks/blue")
    assert (answer.status_code, answer.get_json()["subnets"]) == (409, [subnet])


def test_a_network_changes_by_what_is_said_of_it(api: Api) -> None:
    path = "/v1/networks/blue"
    assert api.call("PUT", f"{path}?dry_run=true", json={}).status_code == 200
    assert api.patch(path, ipam_enabled=True).status_code == 404
    api.put(path, ipam_enabled=True, ipam_servers=3)
    assert api.call("PATCH", f"{path}?dry_run=true", json={"ipam_enabled": False}).get_json()["ipam_enabled"] is False
    assert api.patch(path, ipam_servers=None).get_json() == {"id": "blue", "ipam_enabled": True, "ipam_servers": None}
    assert api.patch(path, ipam_enabled=False).get_json()["ipam_enabled"] is False
    assert api.patch(path, ipam_servers=0).get_json()["field"] == "ipam_servers"
    assert api.delete(f"{path}?dry_run=true").status_code == 204
    assert api.get(path).status_code == 200


def test_a_network_without_servers_lists_none(api: Api, subnet: int) -> None:
    assert api.get("/v1/networks/blue/servers").get_json() == {"items": [], "next": None}


def test_a_subnet_answers_what_it_was_given(api: Api) -> None:
    api.put("/v1/networks/blue")
    given = {
        "network": "blue",
        "cidr": "192.0.2.0/24",
        "gateway": "192.0.2.1",
        "dns": ["192.0.2.53", "198.51.100.53"],
        "ntp": ["192.0.2.123"],
        "domain": "blue.example",
        "mtu": 9000,
        "routes": [{"destination": "10.0.0.0/8", "gateway": "192.0.2.9"}],
        "options": [
            {"code": 66, "name": "tftp-server-name", "type": "string", "value": "boot.example"},
            {"code": 7, "name": "log-servers", "type": "ipv4", "value": ["192.0.2.7"]},
            {"code": 19, "name": "ip-forwarding", "type": "boolean", "value": False},
            {"code": 224, "name": None, "type": "uint16", "value": [1, 2]},
        ],
        "lease_time": 600,
        "ranges": [{"from": "192.0.2.100", "to": "192.0.2.199"}],
        "exclusions": [{"from": "192.0.2.150", "to": "192.0.2.159"}],
        "mac_ranges": [{"from": "02:00:00:00:01:00", "to": "02:00:00:00:01:ff"}],
    }
    created = api.post("/v1/subnets", **given)
    assert created.status_code == 201
    assert api.get(created.headers["Location"]).get_json() == given | {
        "id": created.get_json()["id"],
        "revision": 0,
        "settings_revision": 1,
        "successor": None,
        "usage": {"size": 90, "free": 90, "held": 0, "draining": 0, "cooling": 0, "out_of_range": 0},
    }


def test_a_dry_run_of_a_subnet_makes_none(api: Api) -> None:
    api.put("/v1/networks/blue")
    answer = api.call(
        "POST", "/v1/subnets?dry_run=true", json={"network": "blue", "cidr": "192.0.2.0/24", "gateway": "192.0.2.1"}
    )
    assert (answer.status_code, answer.get_json()["usage"]["free"]) == (200, 253)
    assert api.get("/v1/subnets").get_json()["items"] == []
    overlapping = api.post("/v1/subnets", network="blue", cidr="192.0.2.0/24").get_json()["id"]
    assert api.delete(f"/v1/subnets/{overlapping}?dry_run=true").status_code == 204
    assert api.get(f"/v1/subnets/{overlapping}").status_code == 200
    again = api.call("POST", "/v1/subnets?dry_run=true", json={"network": "blue", "cidr": "192.0.0.0/16"})
    assert (again.status_code, again.get_json()["subnet"]) == (409, overlapping)


def test_a_subnet_changes_by_what_is_said_of_it(api: Api, subnet: int) -> None:
    path = f"/v1/subnets/{subnet}"
    api.put("/v1/vnics/a", vm="vm", name="eth0", subnet=subnet)
    api.post("/v1/vnics/a/start", wait="none", ip="192.0.2.10")
    etag = api.get(path).headers["ETag"]
    changed = api.patch(path, headers={"If-Match": etag}, mtu=1400, options=[{"code": 66, "value": "a.example"}])
    assert (changed.status_code, changed.get_json()["subnet"]["mtu"]) == (200, 1400)
    assert changed.headers["ETag"] != etag
    assert api.patch(path, headers={"If-Match": etag}, mtu=1500).status_code == 412
    ranges = [{"from": "192.0.2.20", "to": "192.0.2.29"}]
    dry = api.call("PATCH", f"{path}?dry_run=true", json={"ranges": ranges}).get_json()
    assert (dry["out_of_range_count"], dry["out_of_range"][0]["ip"]) == (1, "192.0.2.10")
    assert api.get(path).get_json()["ranges"] == []
    left = api.patch(path, mtu=None, gateway=None).get_json()["subnet"]
    assert (left["mtu"], left["gateway"], left["options"][0]["value"]) == (None, None, "a.example")
    lost = api.patch(path, cidr="192.0.2.64/26")
    assert (lost.status_code, lost.get_json()["vnics"]) == (409, ["a"])
    bad = api.patch(path, options=[{"name": "tftp-server-name", "value": 7}])
    assert (bad.status_code, bad.get_json()["field"]) == (400, "options.0.value")
    assert api.patch(path, network="green").get_json()["field"] == "network"


def test_a_subnet_is_renumbered(api: Api, subnet: int) -> None:
    api.put("/v1/vnics/a", vm="vm", name="eth0", subnet=subnet)
    api.post("/v1/vnics/a/start", wait="none", ip="192.0.2.10")
    path = f"/v1/subnets/{subnet}/renumber"
    dry = api.call("POST", f"{path}?dry_run=true", json={"cidr": "198.51.100.0/24"})
    done = api.post(path, cidr="198.51.100.0/24", gateway="198.51.100.254")
    assert (dry.status_code, done.status_code) == (200, 201)
    assert dry.get_json()["moved"] == done.get_json()["moved"]
    (moved,) = done.get_json()["moved"]
    assert (moved["vnic"], moved["before"], moved["after"]) == ("a", "192.0.2.10", "198.51.100.10")
    new = api.get(done.headers["Location"]).get_json()
    assert (new["gateway"], dry.get_json()["subnet"]["gateway"]) == ("198.51.100.254", "198.51.100.1")
    assert api.get(f"/v1/subnets/{subnet}").get_json()["successor"] == new["id"]
    again = api.put("/v1/vnics/a", vm="vm", name="eth0", subnet=subnet)
    assert (again.status_code, again.get_json()["successor"]) == (409, new["id"])


def test_a_device_has_a_reservation_until_it_is_removed(api: Api, subnet: int) -> None:
    path = f"/v1/subnets/{subnet}/reservations"
    dry = api.call("POST", f"{path}?dry_run=true", json={"mac": "02:00:00:00:00:77"})
    assert (dry.status_code, dry.get_json()["ip"]) == (200, "192.0.2.2")
    assert api.get(path).get_json()["items"] == []
    made = api.post(path, mac="02:00:00:00:00:77", ip="192.0.2.77")
    wanted = {"ip": "192.0.2.77", "mac": "02:00:00:00:00:77", "vnic": None}
    assert (made.status_code, made.get_json(), made.headers["Location"]) == (201, wanted, f"{path}/192.0.2.77")
    assert api.post(path, mac="02:00:00:00:00:77").status_code == 200
    assert api.get(path).get_json()["items"] == [wanted]
    other = api.post(path, mac="02:00:00:00:00:77", ip="192.0.2.78")
    assert (other.status_code, other.get_json()["code"], other.get_json()["ip"]) == (409, "mac-reserved", "192.0.2.77")
    assert api.delete(f"{path}/192.0.2.77?dry_run=true").status_code == 204
    assert api.delete(f"{path}/192.0.2.77").status_code == 204
    assert api.delete(f"{path}/192.0.2.77").get_json()["code"] == "reservation-not-found"
    assert api.get(f"/v1/subnets/{subnet}").get_json()["usage"]["draining"] == 1


def test_a_vnics_address_is_not_removed_as_a_devices(api: Api, subnet: int) -> None:
    api.put("/v1/vnics/a", vm="vm", name="eth0", subnet=subnet)
    api.post("/v1/vnics/a/start", wait="none")
    answer = api.delete(f"/v1/subnets/{subnet}/reservations/192.0.2.2")
    assert (answer.status_code, answer.get_json()["vnics"]) == (409, ["a"])


def test_a_range_that_ends_before_it_begins_is_refused(api: Api) -> None:
    api.put("/v1/networks/blue")
    ranges = [{"from": "192.0.2.9", "to": "192.0.2.5"}]
    answer = api.post("/v1/subnets", network="blue", cidr="192.0.2.0/24", ranges=ranges)
    assert (answer.status_code, answer.get_json()["code"]) == (400, "range-invalid")
    assert api.get("/v1/subnets").get_json()["items"] == []


def test_an_overlapping_subnet_is_refused_by_name(api: Api, subnet: int) -> None:
    answer = api.post("/v1/subnets", network="blue", cidr="192.0.2.128/25")
    assert (answer.status_code, answer.get_json()["subnet"]) == (409, subnet)


def test_subnets_of_one_network_can_be_asked_for(api: Api, subnet: int) -> None:
    api.put("/v1/networks/red")
    red = api.post("/v1/subnets", network="red", cidr="192.0.2.0/24").get_json()["id"]
    assert [each["id"] for each in api.get("/v1/subnets", network="red").get_json()["items"]] == [red]


def test_a_host_answers_all_but_its_password(api: Api, ctx: Context) -> None:
    answers = [
        api.put("/v1/hosts/host-a", **HOST, networks=ATTACHED),
        api.get("/v1/hosts/host-a"),
        api.get("/v1/hosts"),
    ]
    assert hosts.get(ctx, "host-a").password == "hunter2"
    assert not any("hunter2" in answer.text for answer in answers)
    assert answers[1].get_json() == {
        "id": "host-a",
        "state": "doubtful",
        "detail": "It was not asked yet.",
        "control_url": "http://10.99.0.11:8000/",
        "username": "kea",
        "networks": ATTACHED,
        "servers": [],
        "holds_up": {"count": 0, "first": []},
        "held_back_until": None,
        "answered_at": None,
        "unreachable_reason": None,
    }


def test_an_address_of_a_vnic_is_no_hosts_own(api: Api, subnet: int) -> None:
    api.put("/v1/vnics/v1", vm="vm1", name="nic1", subnet=subnet)
    api.post("/v1/vnics/v1/start", wait="none", ip="192.0.2.2")
    answer = api.put("/v1/hosts/host-a", **HOST, networks=ATTACHED)
    assert (answer.status_code, answer.get_json()["holder"]) == (409, "v1")
    assert api.get("/v1/hosts").get_json()["items"] == []


def test_a_new_vnic_has_a_mac_of_the_default_pool(api: Api, subnet: int) -> None:
    (pool,) = api.get("/v1/mac-pools").get_json()["items"]
    vnic = api.put("/v1/vnics/v1", vm="vm1", name="nic1", subnet=subnet).get_json()
    (span,) = pool["ranges"]
    assert vnic["mac_pool"] == pool["id"]
    assert Mac.parse(span["from"]) <= Mac.parse(vnic["mac"]) <= Mac.parse(span["to"])
    assert api.get(f"/v1/mac-pools/{pool['id']}").get_json()["usage"]["used"] == 1


@pytest.mark.parametrize("text", ["02:00:00:00:AB:01", "02-00-00-00-ab-01", "0200.0000.ab01", "02000000ab01"])
def test_a_mac_is_taken_in_every_usual_form(api: Api, text: str) -> None:
    assert api.put("/v1/vnics/v1", vm="vm1", name="nic1", mac=text).get_json()["mac"] == "02:00:00:00:ab:01"


def test_a_mac_in_use_is_told_with_its_holder(api: Api) -> None:
    api.put("/v1/vnics/v1", vm="vm1", name="nic1", mac="02:00:00:00:00:01")
    answer = api.put("/v1/vnics/v2", vm="vm2", name="nic1", mac="02:00:00:00:00:01")
    assert answer.status_code == 409
    assert answer.get_json()["holders"] == [{"vnic": "v1", "vm": "vm1", "mac_pool": "default"}]


def test_a_multicast_mac_is_refused(api: Api) -> None:
    answer = api.put("/v1/vnics/v1", vm="vm1", name="nic1", mac="01:00:5e:00:00:01")
    assert (answer.status_code, answer.get_json()["code"]) == (400, "mac-not-unicast")


def test_start_answers_the_promise(api: Api, subnet: int) -> None:
    mac = api.put("/v1/vnics/v1", vm="vm1", name="nic1", subnet=subnet).get_json()["mac"]
    answer = api.post("/v1/vnics/v1/start", wait="none", ip="192.0.2.77")
    assert answer.status_code == 200
    started = answer.get_json()
    assert (started["ip"], started["mac"], started["servers"]) == ("192.0.2.77", mac, [])
    assert (started["vnic"]["running"], started["vnic"]["ip_state"]) == (True, "held")
    assert api.get(f"/v1/subnets/{subnet}/reservations").get_json()["items"] == [
        {"ip": "192.0.2.77", "mac": mac, "vnic": "v1"}
    ]


def test_start_without_a_body_waits_for_one_server(api: Api, subnet: int) -> None:
    api.put("/v1/vnics/v1", vm="vm1", name="nic1", subnet=subnet)
    answer = api.call("POST", "/v1/vnics/v1/start")
    assert (answer.status_code, answer.get_json()["code"]) == (503, "no-server")


def test_a_start_that_no_server_confirms_keeps_its_address(api: Api, subnet: int) -> None:
    api.put("/v1/vnics/v1", vm="vm1", name="nic1", subnet=subnet)
    held = api.post("/v1/vnics/v1/start").get_json()["ip"]
    assert api.get("/v1/vnics/v1").get_json()["ip"] == held


def test_start_without_a_subnet_is_without_ipam_service(api: Api) -> None:
    api.put("/v1/vnics/v1", vm="vm1", name="nic1")
    answer = api.call("POST", "/v1/vnics/v1/start")
    assert answer.status_code == 200
    assert {name: answer.get_json()[name] for name in ("ipam", "ip", "servers")} == {
        "ipam": False,
        "ip": None,
        "servers": [],
    }
    assert answer.get_json()["vnic"]["running"]
    answer = api.post("/v1/vnics/v1/start", ip="192.0.2.7")
    assert (answer.status_code, answer.get_json()["code"]) == (400, "no-ipam-service")


def test_a_patch_changes_what_it_names_only(api: Api, subnet: int) -> None:
    before = api.put("/v1/vnics/v1", vm="vm1", name="nic1", subnet=subnet).get_json()
    after = api.patch("/v1/vnics/v1", name="nic2").get_json()["vnic"]
    assert after == before | {"name": "nic2", "revision": 2}
    after = api.patch("/v1/vnics/v1", subnet=None, network=None).get_json()["vnic"]
    assert (after["subnet"], after["network"], after["mac"]) == (None, None, before["mac"])
    assert api.patch("/v1/vnics/v1", mac=None).get_json()["vnic"]["mac"] != before["mac"]
    for field in ("vm", "name"):
        assert api.patch("/v1/vnics/v1", **{field: None}).status_code == 400
    assert api.patch("/v1/vnics/v2", name="nic2").status_code == 404


def test_a_patch_of_what_somebody_else_changed_since_is_refused(api: Api) -> None:
    etag = api.put("/v1/vnics/v1", vm="vm1", name="nic1").headers["ETag"]
    first = api.patch("/v1/vnics/v1", {"If-Match": etag}, name="nic2")
    assert first.status_code == 200
    second = api.patch("/v1/vnics/v1", {"If-Match": etag}, name="nic3")
    assert (second.status_code, second.get_json()["code"]) == (412, "revision-mismatch")
    assert api.get("/v1/vnics/v1").get_json()["name"] == "nic2"
    assert api.get("/v1/vnics/v1").headers["ETag"] == first.headers["ETag"] != etag


def test_a_patch_of_a_running_vnic_waits_as_start_does(api: Api, subnet: int) -> None:
    api.put("/v1/vnics/v1", vm="vm1", name="nic1", subnet=subnet)
    held = api.post("/v1/vnics/v1/start", wait="none").get_json()["ip"]
    swap = {"mac": "02:00:00:00:00:99"}
    refused = api.call("PATCH", "/v1/vnics/v1", json=swap)
    assert (refused.status_code, refused.get_json()["code"]) == (503, "no-server")
    answer = api.call("PATCH", "/v1/vnics/v1", json=swap, query_string={"wait": "none"}).get_json()
    assert (answer["ip"], answer["mac"]) == (held, swap["mac"])


@pytest.mark.parametrize("call", ["start", "stop"])
def test_a_dry_run_starts_and_stops_nothing(api: Api, subnet: int, call: str) -> None:
    api.put("/v1/vnics/v1", vm="vm1", name="nic1", subnet=subnet)
    if call == "stop":
        api.post("/v1/vnics/v1/start", wait="none")
    before = api.get("/v1/vnics/v1").get_json()
    answer = api.call("POST", f"/v1/vnics/v1/{call}", query_string={"dry_run": "true"}).get_json()
    assert answer.get("vnic", answer)["running"] != before["running"]
    assert api.get("/v1/vnics/v1").get_json() == before


def test_a_stopped_vnics_address_drains(api: Api, subnet: int) -> None:
    api.put("/v1/vnics/v1", vm="vm1", name="nic1", subnet=subnet)
    api.post("/v1/vnics/v1/start", wait="none")
    stopped = api.call("POST", "/v1/vnics/v1/stop").get_json()
    assert (stopped["running"], stopped["ip_state"]) == (False, "draining")
    assert api.get(f"/v1/subnets/{subnet}/reservations").get_json()["items"] == []


def test_a_deleted_vnic_is_gone(api: Api) -> None:
    api.put("/v1/vnics/v1", vm="vm1", name="nic1")
    assert api.delete("/v1/vnics/v1").status_code == 204
    assert api.delete("/v1/vnics/v1").get_json()["code"] == "vnic-not-found"


def test_a_tokens_secret_is_shown_at_its_creation_and_never_again(api: Api) -> None:
    created = api.post("/v1/tokens", role="host", host="host-a", description="its hook")
    assert created.status_code == 201
    token = created.get_json()
    secret = token.pop("secret")
    assert secret.startswith("lh_")
    listed = api.get("/v1/tokens")
    assert token in listed.get_json()["items"]
    assert secret not in listed.text


def test_instants_are_utc_with_a_z(api: Api) -> None:
    assert api.post("/v1/tokens", role="read").get_json()["created_at"].endswith("Z")


def test_metrics_count_requests_by_route(api: Api) -> None:
    api.get("/v1/vnics/unheard-of")
    line = 'leasehold_http_requests_total{method="GET",route="/v1/vnics/<vnic_id>",status="404"}'
    assert line in api.get("/metrics").text


def test_root_points_to_the_description(api: Api) -> None:
    assert api.get(api.get("/").get_json()["openapi"]).get_json()["openapi"].startswith("3.1")


def test_readyz_is_503_when_the_database_does_not_answer(api: Api, ctx: Context) -> None:
    with ctx.db.write() as connection:
        connection.exec_driver_sql("DROP TABLE lineage")
    answer = api.get("/readyz")
    assert (answer.status_code, answer.get_json()["code"]) == (503, "database-unavailable")
    assert api.get("/healthz").status_code == 200


def test_readyz_is_503_at_another_schema(api: Api, ctx: Context) -> None:
    assert api.get("/readyz").status_code == 200
    with ctx.db.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'other'")
    answer = api.get("/readyz")
    assert (answer.status_code, answer.get_json()["code"]) == (503, "database-unavailable")
    assert "other" in answer.get_json()["detail"]


def test_healthz_is_503_when_a_loop_is_gone(api: Api) -> None:
    loop = object()
    pulse.watch(loop, lambda: "The loop push has ended.")
    answer = api.get("/healthz")
    pulse.unwatch(loop)
    assert (answer.status_code, answer.get_json()["troubles"]) == (503, ["The loop push has ended."])
    assert api.get("/healthz").status_code == 200


def test_a_full_list_is_answered_by_its_difference(api: Api, subnet: int) -> None:
    api.put("/v1/vnics/v1", vm="vm1", name="nic1")
    api.put("/v1/vnics/v2", vm="vm1", name="nic2")
    listed = [{"id": "v1", "vm": "vm1", "name": "nic1", "subnet": subnet, "running": True}]
    answer = api.post("/v1/vnics/sync", vnics=listed).get_json()
    assert {name: value for name, value in answer.items() if value} == {
        "updated": [{"vnic": "v1", "fields": ["network", "subnet"]}],
        "marked": ["v2"],
        "started": ["v1"],
    }
    assert api.get("/v1/vnics/v2").get_json()["missing_since"] is not None
    assert api.post("/v1/vnics/sync", vnics=[]).status_code == 400
    empty = api.call("POST", "/v1/vnics/sync", json={"vnics": []}, query_string={"allow_empty": "true"})
    assert empty.get_json()["marked"] == ["v1"]


def test_a_full_list_may_be_larger_than_other_bodies(api: Api) -> None:
    listed = [{"id": f"v{n}", "vm": "x" * 250, "name": "y" * 250, "mac": "01:00:00:00:00:00"} for n in range(8000)]
    path = "/v1/vnics/{}"
    assert api.post(path.format("sync"), vnics=listed).status_code == 200
    assert api.post(path.format("bulk"), vnics=listed).status_code == 413


def test_the_doctor_tells_where_what_and_what_to_do(api: Api, ctx: Context) -> None:
    assert api.get("/v1/doctor").get_json() == {"items": []}
    with ctx.db.write() as connection:
        connection.execute(update(spaces).values(free=spaces.c.free - 1))
    (found,) = api.get("/v1/doctor", servers="false").get_json()["items"]
    assert (found["code"], found["subject"]) == ("count-wrong", "mac-pools/default")
    assert found["sentence"]
    assert found["mend"]


def test_the_log_says_which_vnic_a_request_was_about(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "leasehold.web.observe")
    api.call("GET", "/v1/vnics/v7", headers={"X-Request-Id": "engine-7"})
    (facts,) = [record.facts for record in caplog.records if hasattr(record, "facts")]
    assert (facts["vnic"], facts["request_id"], facts["status"]) == ("v7", "engine-7", 404)
