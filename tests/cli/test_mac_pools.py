"""`leasehold mac-pool`, and the scopes that use MAC pools."""

import json
from typing import Any

import pytest

from cli.conftest import Run
from leasehold.domain.addresses import Mac, MacRange
from leasehold.domain.values import VnicSpec
from leasehold.service import mac_pools, scopes, vnics
from leasehold.service.context import Context

FIRST = "02:00:00:00:00:00-02:00:00:00:00:0f"
SECOND = "02:00:00:00:00:10-02:00:00:00:00:1f"
SHOWN = {"from": "02:00:00:00:00:00", "to": "02:00:00:00:00:0f"}


@pytest.fixture
def pool_id(run: Run) -> str:
    created: dict[str, Any] = json.loads(run("mac-pool", "create", "--name", "a", "--range", FIRST, "--json").stdout)
    return str(created["id"])


@pytest.fixture
def vnic(ctx: Context, pool_id: str) -> str:
    """Has the last MAC of the pool."""
    scopes.put(ctx, "cluster", "c", mac_pool=pool_id)
    vnics.put(ctx, VnicSpec(id="v", vm="web-1", name="nic1", cluster="c", mac=Mac.parse("02:00:00:00:00:0f")))
    return "v"


@pytest.mark.parametrize(
    "text",
    [
        FIRST,
        FIRST.replace("-", "/"),
        "02-00-00-00-00-00-02-00-00-00-00-0f",
        "0200.0000.0000-02:00:00:00:00:0F",
        "020000000000/02000000000f",
    ],
)
def test_a_range_is_from_to_in_any_form_of_macs(run: Run, text: str) -> None:
    created = json.loads(run("mac-pool", "create", "--name", "a", "--range", text, "--dry-run", "--json").stdout)
    assert created["ranges"] == [SHOWN]


def test_what_is_no_range_is_told(run: Run) -> None:
    done = run("mac-pool", "create", "--name", "a", "--range", "02:00:00:00:00:00")
    assert done.exit_code == 3
    assert "--range" in done.stderr
    assert "FROM-TO" in done.stderr


def test_a_pool_as_json_is_as_the_api_answers_it(run: Run, pool_id: str) -> None:
    assert json.loads(run("mac-pool", "show", pool_id, "--json").stdout) == {
        "id": pool_id,
        "name": "a",
        "description": "",
        "allow_duplicates": False,
        "default_pool": False,
        "revision": 1,
        "ranges": [SHOWN],
        "usage": {"size": 16, "free": 16, "used": 0, "cooling": 0, "out_of_range": 0},
    }


def test_tables_show_names_and_ranges(run: Run, pool_id: str) -> None:
    for shown in (run("mac-pool", "list").stdout, run("mac-pool", "show", pool_id).stdout):
        assert pool_id in shown
        assert FIRST in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "--name", "b", "--range", SECOND),
        ("change", "POOL", "--name", "b"),
        ("make-default", "POOL"),
        ("split", "POOL", "--name", "b", "--range", "02:00:00:00:00:00-02:00:00:00:00:07"),
        ("merge", "default", "POOL"),
        ("delete", "POOL"),
    ],
)
def test_a_dry_run_says_so_and_changes_nothing(
    run: Run, ctx: Context, pool_id: str, arguments: tuple[str, ...]
) -> None:
    before = mac_pools.list_pools(ctx)
    done = run("mac-pool", *(pool_id if each == "POOL" else each for each in arguments), "--dry-run")
    assert (done.exit_code, "nothing was changed" in done.stderr) == (0, True)
    assert mac_pools.list_pools(ctx) == before


def test_a_change_lists_the_macs_that_it_leaves_out_of_range(run: Run, pool_id: str, vnic: str) -> None:
    arguments = ("mac-pool", "change", pool_id, "--range", SECOND, "--dry-run")
    assert "web-1" in run(*arguments).stdout
    changed = json.loads(run(*arguments, "--json").stdout)
    assert changed["out_of_range_count"] == 1
    assert changed["out_of_range"] == [{"mac": "02:00:00:00:00:0f", "vnic": vnic, "vm": "web-1", "in_range": False}]


def test_a_change_leaves_what_it_does_not_name(run: Run, ctx: Context, pool_id: str) -> None:
    assert run("mac-pool", "change", pool_id, "--allow-duplicates").exit_code == 0
    assert run("mac-pool", "change", pool_id, "--description", "for tests").exit_code == 0
    pool = mac_pools.get(ctx, pool_id)
    assert (pool.name, pool.description, pool.allow_duplicates) == ("a", "for tests", True)


def test_a_change_of_what_somebody_else_changed_ends_with_5(run: Run, pool_id: str) -> None:
    run("mac-pool", "change", pool_id, "--name", "b")
    done = run("mac-pool", "change", pool_id, "--name", "c", "--revision", "1")
    assert (done.exit_code, "revision-mismatch" in done.stderr) == (5, True)


def test_split_and_merge(run: Run, ctx: Context, pool_id: str, vnic: str) -> None:
    part = "02:00:00:00:00:08-02:00:00:00:00:0f"
    made = json.loads(run("mac-pool", "split", pool_id, "--name", "b", "--range", part, "--json").stdout)
    assert vnics.get(ctx, vnic).mac_pool == made["id"]
    assert run("mac-pool", "merge", pool_id, made["id"]).exit_code == 0
    assert mac_pools.get(ctx, pool_id).usage.size == 16
    assert vnics.get(ctx, vnic).mac_pool == pool_id


def test_make_default_and_delete(run: Run, ctx: Context, pool_id: str) -> None:
    assert run("mac-pool", "make-default", pool_id).exit_code == 0
    assert run("mac-pool", "delete", pool_id).exit_code == 5
    assert run("mac-pool", "delete", "default").exit_code == 0
    assert [each.id for each in mac_pools.list_pools(ctx)] == [pool_id]


def test_the_macs_of_a_pool(run: Run, pool_id: str, vnic: str) -> None:
    assert "02:00:00:00:00:0f" in run("mac-pool", "macs", pool_id).stdout
    listed = json.loads(run("mac-pool", "macs", pool_id, "--json").stdout)
    assert [(each["vnic"], each["in_range"]) for each in listed] == [(vnic, True)]


def test_ranges_of_another_pool_end_with_5_and_name_it(run: Run, pool_id: str) -> None:
    done = run("mac-pool", "create", "--name", "b", "--range", FIRST)
    assert (done.exit_code, "MAC pool a" in done.stderr) == (5, True)


def test_without_overlaps_there_is_nothing_to_list(run: Run, pool_id: str) -> None:
    assert json.loads(run("mac-pool", "overlaps", "--json").stdout) == []


def test_an_unknown_pool_ends_with_4(run: Run) -> None:
    assert run("mac-pool", "show", "unheard-of").exit_code == 4


@pytest.mark.parametrize("kind", ["data-center", "cluster", "vm-pool"])
def test_a_scope_from_put_to_delete(run: Run, pool_id: str, kind: str) -> None:
    scope = {"id": "s", "parent": None, "mac_pool": pool_id, "effective_mac_pool": pool_id}
    assert run(kind, "put", "s", "--mac-pool", pool_id, "--dry-run").exit_code == 0
    assert json.loads(run(kind, "list", "--json").stdout) == []
    assert json.loads(run(kind, "put", "s", "--mac-pool", pool_id, "--json").stdout) == scope
    assert json.loads(run(kind, "show", "s", "--json").stdout) == scope
    assert pool_id in run(kind, "list").stdout
    assert run(kind, "delete", "s", "--dry-run").exit_code == 0
    assert run(kind, "delete", "s").exit_code == 0
    assert run(kind, "show", "s").exit_code == 4


def test_a_scope_uses_its_parents_pool(run: Run, pool_id: str) -> None:
    run("data-center", "put", "d", "--mac-pool", pool_id)
    run("cluster", "put", "c", "--parent", "d")
    made = json.loads(run("vm-pool", "put", "p", "--parent", "c", "--json").stdout)
    assert made["effective_mac_pool"] == pool_id


def test_a_data_center_has_no_parent(run: Run) -> None:
    assert run("data-center", "put", "d", "--parent", "c").exit_code == 2


def test_an_id_that_is_none_is_told(run: Run) -> None:
    done = run("cluster", "put", "no/id")
    assert (done.exit_code, "scope_id" in done.stderr) == (3, True)


def test_ranges_are_shown_as_they_are_typed(run: Run, ctx: Context, pool_id: str) -> None:
    wanted = MacRange(Mac.parse("02:00:00:00:00:00"), Mac.parse("02:00:00:00:00:0f"))
    assert mac_pools.get(ctx, pool_id).ranges == (wanted,)
