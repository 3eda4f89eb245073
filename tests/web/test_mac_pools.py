"""MAC pools, scopes, moves, imports and twins over HTTP."""

from typing import Any

import pytest

from web.conftest import Api

ONE = {"from": "02:10:00:00:00:00", "to": "02:10:00:00:00:ff"}
OTHER = {"from": "02:20:00:00:00:00", "to": "02:20:00:00:00:ff"}


def a_pool(api: Api, name: str = "one", ranges: list[dict[str, str]] | None = None, **fields: Any) -> dict[str, Any]:
    answer = api.post("/v1/mac-pools", name=name, ranges=ranges or [ONE], **fields)
    assert answer.status_code == 201, answer.get_data()
    pool: dict[str, Any] = answer.get_json()
    return pool


def test_a_pool_answers_what_it_was_given(api: Api) -> None:
    pool = a_pool(api, description="for tests", allow_duplicates=True)
    found = api.get(f"/v1/mac-pools/{pool['id']}")
    assert found.get_json() == pool
    assert (pool["ranges"], pool["allow_duplicates"], pool["default_pool"]) == ([ONE], True, False)
    assert pool["usage"] == {"size": 256, "free": 256, "used": 0, "cooling": 0, "out_of_range": 0}


def test_an_edit_of_what_somebody_else_changed_meanwhile_is_refused(api: Api) -> None:
    pool = a_pool(api)
    path = f"/v1/mac-pools/{pool['id']}"
    read = api.get(path).headers["ETag"]
    assert api.patch(path, headers={"If-Match": read}, description="first").status_code == 200
    late = api.patch(path, headers={"If-Match": read}, description="second")
    assert (late.status_code, late.get_json()["code"]) == (412, "revision-mismatch")
    assert api.get(path).get_json()["description"] == "first"
    fresh = api.get(path).headers["ETag"]
    assert api.patch(path, headers={"If-Match": fresh}, description="second").status_code == 200


@pytest.mark.parametrize("etag", ["1", '"one"', 'W/"1"', '"1", "2"', ""])
def test_an_if_match_that_is_no_etag_is_refused(api: Api, etag: str) -> None:
    pool = a_pool(api)
    answer = api.patch(f"/v1/mac-pools/{pool['id']}", headers={"If-Match": etag}, description="x")
    assert (answer.status_code, answer.get_json()["field"]) == (400, "If-Match")


def test_fields_left_out_of_a_patch_stay(api: Api) -> None:
    pool = a_pool(api, description="kept")
    changed = api.patch(f"/v1/mac-pools/{pool['id']}", ranges=[OTHER]).get_json()["mac_pool"]
    assert (changed["name"], changed["description"], changed["ranges"]) == ("one", "kept", [OTHER])


def test_a_dry_run_answers_and_changes_nothing(api: Api) -> None:
    answer = api.post("/v1/mac-pools?dry_run=true", name="one", ranges=[ONE])
    assert (answer.status_code, answer.get_json()["name"]) == (200, "one")
    assert [each["id"] for each in api.get("/v1/mac-pools").get_json()["items"]] == ["default"]
    pool = a_pool(api)
    api.put("/v1/clusters/c", mac_pool=pool["id"])
    vnic = api.put("/v1/vnics/a?dry_run=true", vm="vm", name="eth0", cluster="c")
    assert vnic.get_json()["mac"] == ONE["from"]
    assert api.get("/v1/vnics/a").status_code == 404
    assert api.get(f"/v1/mac-pools/{pool['id']}").get_json() == pool


def test_shrinking_names_the_vnics_that_it_leaves_out(api: Api) -> None:
    pool = a_pool(api)
    api.put("/v1/clusters/c", mac_pool=pool["id"])
    api.put("/v1/vnics/a", vm="vm", name="eth0", cluster="c")
    path = f"/v1/mac-pools/{pool['id']}"
    told = api.patch(f"{path}?dry_run=true", ranges=[OTHER]).get_json()
    assert told["out_of_range"] == [{"mac": ONE["from"], "vnic": "a", "vm": "vm", "in_range": False}]
    assert api.get(path).get_json()["ranges"] == [ONE]
    api.patch(path, ranges=[OTHER])
    assert api.get("/v1/vnics/a").get_json()["in_range"] is False
    assert api.get(path).get_json()["usage"]["out_of_range"] == 1


def test_the_most_specific_scope_wins(api: Api) -> None:
    one, other = a_pool(api), a_pool(api, "other", [OTHER])
    api.put("/v1/data-centers/d", mac_pool=one["id"])
    api.put("/v1/clusters/c", parent="d")
    api.put("/v1/vm-pools/p", parent="c", mac_pool=other["id"])
    macs = [
        api.put(f"/v1/vnics/{name}", vm="vm", name="eth0", **scope).get_json()["mac_pool"]
        for name, scope in (("a", {"cluster": "c"}), ("b", {"cluster": "c", "vm_pool": "p"}), ("c", {}))
    ]
    assert macs == [one["id"], other["id"], "default"]


def test_bulk_is_all_or_nothing(api: Api) -> None:
    pool = a_pool(api, ranges=[{"from": "02:10:00:00:00:00", "to": "02:10:00:00:00:02"}])
    api.put("/v1/clusters/c", mac_pool=pool["id"])

    def many(count: int) -> list[dict[str, Any]]:
        return [{"id": f"v{number}", "vm": "vm", "name": "eth0", "cluster": "c"} for number in range(count)]

    refused = api.post("/v1/vnics/bulk", vnics=many(4))
    assert (refused.status_code, refused.get_json()["wanted"], refused.get_json()["free"]) == (409, 4, 3)
    assert api.get("/v1/vnics").get_json()["items"] == []
    done = api.post("/v1/vnics/bulk", vnics=many(3)).get_json()["items"]
    assert [each["mac"] for each in done] == [f"02:10:00:00:00:0{number}" for number in range(3)]


def test_import_names_every_bad_mac_and_its_holder(api: Api) -> None:
    api.put("/v1/vnics/held", vm="vm", name="eth0", mac="02:99:00:00:00:01")
    vnics = [
        {"id": "a", "vm": "vm-a", "name": "eth0", "mac": "02:99:00:00:00:01"},
        {"id": "b", "vm": "vm-b", "name": "eth0", "mac": "02:99:00:00:00:02"},
        {"id": "c", "vm": "vm-c", "name": "eth0"},
    ]
    refused = api.post("/v1/vnics/import", vnics=vnics)
    assert refused.status_code == 409
    assert refused.get_json()["bad"] == [
        {
            "vnic": "a",
            "mac": "02:99:00:00:00:01",
            "reason": "in-use",
            "holders": [{"vnic": "held", "vm": "vm", "mac_pool": "default"}],
        }
    ]
    done = api.post("/v1/vnics/import", vnics=vnics, reassign_bad_macs=True).get_json()
    assert [(each["vnic"], each["before"], each["reason"]) for each in done["reassigned"]] == [
        ("a", "02:99:00:00:00:01", "in-use"),
        ("b", "02:99:00:00:00:02", "out-of-range"),
        ("c", None, "empty"),
    ]


def test_twins_share_a_mac_and_part_again(api: Api) -> None:
    first = api.put("/v1/vnics/a", vm="vm-a", name="eth0").get_json()
    api.put("/v1/vnics/b", vm="vm-b", name="eth0")
    twin = api.post("/v1/vnics/b/twins", twin="a").get_json()
    assert (twin["mac"], twin["twins"]) == (first["mac"], ["a"])
    parted = api.delete("/v1/vnics/b/twins/a").get_json()
    assert (parted["mac"] != first["mac"], parted["twins"]) == (True, [])


def test_every_holder_of_a_shared_mac_is_on_some_page(api: Api) -> None:
    api.put("/v1/vnics/a", vm="vm-a", name="eth0")
    for name in ("b", "c", "d"):
        api.put(f"/v1/vnics/{name}", vm="vm", name="eth0")
    api.post("/v1/vnics/b/twins", twin="a")
    seen, cursor = [], None
    while True:
        query = {"limit": 1} | ({} if cursor is None else {"cursor": cursor})
        page = api.get("/v1/mac-pools/default/macs", **query).get_json()
        seen += [each["vnic"] for each in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == ["a", "b", "c", "d"]


def test_a_word_of_the_api_is_no_id(api: Api) -> None:
    answer = api.put("/v1/vnics/bulk", vm="vm", name="eth0")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
