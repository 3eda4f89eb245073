"""`leasehold import ovirt-macs`: an engine's MAC pools and NICs, out of what its REST API answers."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Run
from leasehold.domain.addresses import Mac, MacRange
from leasehold.domain.values import VnicSpec
from leasehold.service import mac_pools, macs, scopes, vnics
from leasehold.service.context import Context, utc_now

DATA = Path(__file__).parent / "data"
XML = DATA / "engine.xml"
JSON = DATA / "engine.json"
DEFAULT = "58ca604b-017d-0374-0220-00000000014e"
LEGACY = "b7a1f1f0-7d1c-4b7e-9a39-2f1d0a4b6c11"
SHARING = "e0d6c2f4-93a5-4d0c-8f57-6b2a9c1e7d22"
CLUSTER = "2c1f6a7e-11d5-4a35-8b1c-5e0c9d3f4a01"
VM_POOL = "4283bf5e-773b-409b-8172-b462f395a007"
WEB, EXTERNAL = "a1d5c0de-0000-4000-8000-000000000001", "a1d5c0de-0000-4000-8000-000000000002"
SQL_A, SQL_B = "b1d5c0de-0000-4000-8000-000000000001", "c1d5c0de-0000-4000-8000-000000000001"
DESKTOP = "d1d5c0de-0000-4000-8000-000000000001"


def take(run: Run, *arguments: object) -> dict[str, Any]:
    done = run("import", "ovirt-macs", *map(str, arguments), "--json")
    assert done.exit_code == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def engine() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(JSON.read_text())
    return document


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "engine"


@pytest.mark.parametrize("source", [XML, JSON])
def test_pools_keep_their_ids_and_get_their_ranges(run: Run, ctx: Context, source: Path) -> None:
    take(run, source)
    pools = {each.id: each for each in mac_pools.list_pools(ctx)}
    assert set(pools) == {"default", DEFAULT, LEGACY, SHARING}
    assert pools[SHARING].name == "windows-clusters"
    assert pools[SHARING].allow_duplicates
    assert pools[SHARING].ranges == (MacRange(Mac.parse("00:1a:4a:16:01:51"), Mac.parse("00:1a:4a:16:01:e6")),)


@pytest.mark.parametrize("source", [XML, JSON])
def test_nics_come_with_their_macs_under_their_clusters_pools(run: Run, ctx: Context, source: Path) -> None:
    take(run, source)
    found = vnics.get(ctx, WEB)
    assert (found.vm, found.name, str(found.mac)) == ("web-1", "nic1", "56:6f:1a:3d:00:00")
    assert (found.cluster, found.mac_pool) == (CLUSTER, DEFAULT)


def test_a_vm_pool_and_data_centers_come_along(run: Run, ctx: Context) -> None:
    take(run, XML)
    assert scopes.get(ctx, "vm_pool", VM_POOL).parent == CLUSTER
    assert scopes.get(ctx, "cluster", CLUSTER).parent == "9b0e6f52-5a0f-4c55-a3f6-c1a1d7c3b0dc"
    assert vnics.get(ctx, DESKTOP).vm_pool == VM_POOL


def test_a_dry_run_reports_the_same_and_changes_nothing(run: Run, ctx: Context) -> None:
    before = mac_pools.list_pools(ctx)
    tried = take(run, XML, "--dry-run")
    assert mac_pools.list_pools(ctx) == before
    assert vnics.list_vnics(ctx, limit=10) == []
    assert take(run, XML) == tried


def test_overlaps_are_kept_reported_and_listed(run: Run) -> None:
    overlap = {
        "mac_pool": DEFAULT,
        "range": {"from": "56:6f:1a:3d:00:00", "to": "56:6f:1a:3d:00:ff"},
        "other_pool": LEGACY,
        "other_range": {"from": "56:6f:1a:3d:00:f0", "to": "56:6f:1a:3d:01:1f"},
    }
    assert take(run, XML)["overlaps"] == [overlap]
    assert json.loads(run("mac-pool", "overlaps", "--json").stdout) == [overlap]
    assert LEGACY in run("mac-pool", "overlaps").stdout


def test_ranges_of_one_pool_that_overlap_are_joined_and_reported(run: Run, ctx: Context) -> None:
    assert take(run, XML)["joined"] == [LEGACY]
    pool = mac_pools.get(ctx, LEGACY)
    assert pool.ranges == (MacRange(Mac.parse("56:6f:1a:3d:00:f0"), Mac.parse("56:6f:1a:3d:01:1f")),)
    assert pool.usage.free == pool.usage.size == 48


def test_a_mac_of_an_overlap_is_taken_out_of_both_pools_and_swept_back_into_both(run: Run, ctx: Context) -> None:
    take(run, XML)
    before = {each.id: each.usage.free for each in mac_pools.list_pools(ctx)}
    vnics.put(ctx, VnicSpec(id="v", vm="w", name="nic1", cluster=CLUSTER, mac=Mac.parse("56:6f:1a:3d:00:f0")))
    taken = {each.id: each.usage.free for each in mac_pools.list_pools(ctx)}
    assert {pool for pool in before if before[pool] - taken[pool] == 1} == {DEFAULT, LEGACY}
    vnics.delete_vnic(ctx, "v")
    later = replace(ctx, clock=lambda: utc_now() + timedelta(days=1))
    assert macs.sweep(later) == 1
    assert {each.id: each.usage.free for each in mac_pools.list_pools(ctx)} == before


def test_pools_that_overlap_never_hand_out_one_mac_twice(run: Run, ctx: Context) -> None:
    take(run, XML)
    scopes.put(ctx, "cluster", "legacy", mac_pool=LEGACY)
    wanted = [VnicSpec(id=f"l{n}", vm="l", name="nic", cluster="legacy") for n in range(48)]
    wanted += [VnicSpec(id=f"d{n}", vm="d", name="nic", cluster=CLUSTER) for n in range(256 - 16 - 2)]
    made = vnics.put_all(ctx, wanted)
    assert len({each.mac for each in made}) == len(wanted)
    assert [mac_pools.get(ctx, each).usage.free for each in (DEFAULT, LEGACY)] == [0, 0]


def test_duplicates_that_a_pool_allows_are_reported_with_their_holders(run: Run) -> None:
    assert take(run, XML)["duplicates"] == [
        {
            "mac": "00:1a:4a:16:01:60",
            "holders": [
                {"vnic": SQL_A, "vm": "sql-a", "mac_pool": SHARING},
                {"vnic": SQL_B, "vm": "sql-b", "mac_pool": SHARING},
            ],
        }
    ]


def test_duplicates_that_no_pool_allows_are_refused_by_name_and_nothing_comes(
    run: Run, ctx: Context, file: Path
) -> None:
    document = engine()
    for pool in document["mac_pool"]:
        pool["allow_duplicates"] = "false"
    file.write_text(json.dumps(document))
    done = run("import", "ovirt-macs", str(file))
    assert (done.exit_code, done.stdout) == (5, "")
    assert "00:1a:4a:16:01:60" in done.stderr
    assert "VM sql-a" in done.stderr
    assert [each.id for each in mac_pools.list_pools(ctx)] == ["default"]


def test_duplicates_get_new_macs_if_asked(run: Run, file: Path) -> None:
    document = engine()
    for pool in document["mac_pool"]:
        pool["allow_duplicates"] = "false"
    file.write_text(json.dumps(document))
    reassigned = take(run, file, "--reassign-bad-macs")["vnics"]["reassigned"]
    assert {each["vnic"]: each["reason"] for each in reassigned} == {
        EXTERNAL: "out-of-range",
        SQL_B: "in-use",
        DESKTOP: "empty",
    }


def test_strays_are_reported(run: Run) -> None:
    done = take(run, XML)
    assert [(each["id"], each["vm"], each["mac"]) for each in done["strays"]] == [
        (EXTERNAL, "web-1", "00:50:56:9a:bc:de")
    ]
    assert done["vnics"]["external"] == [EXTERNAL]


def test_a_nic_without_mac_gets_one(run: Run, ctx: Context) -> None:
    (new,) = take(run, XML)["vnics"]["reassigned"]
    assert (new["vnic"], new["reason"]) == (DESKTOP, "empty")
    assert vnics.get(ctx, DESKTOP).in_range


def test_the_engines_default_stays_beside_ours_under_another_name(run: Run, ctx: Context) -> None:
    done = take(run, XML)
    assert done["engine_default"] == DEFAULT
    assert done["renamed"] == [{"mac_pool": DEFAULT, "before": "Default", "after": "Default (oVirt)"}]
    assert mac_pools.get(ctx, "default").default_pool


def test_a_cluster_without_pool_comes_under_the_engines_default(run: Run, ctx: Context, file: Path) -> None:
    document = engine()
    del document["cluster"]
    file.write_text(json.dumps(document | {"vm": document["vm"][:1]}))
    take(run, file)
    assert scopes.get(ctx, "cluster", CLUSTER).mac_pool == DEFAULT


def test_an_import_can_be_repeated(run: Run, ctx: Context) -> None:
    take(run, XML)
    before = vnics.list_vnics(ctx, limit=10)
    assert run("import", "ovirt-macs", str(XML)).exit_code == 0
    assert vnics.list_vnics(ctx, limit=10) == before


def test_people_get_tables_and_warnings(run: Run) -> None:
    done = run("import", "ovirt-macs", str(XML), "--dry-run")
    for part in ("legacy", "VM sql-b", "00:50:56:9a:bc:de", LEGACY):
        assert part in done.stdout
    for part in (
        "Default (oVirt)",
        "overlapped each other",
        "mac-pool overlaps",
        "make-default",
        "nothing was changed",
    ):
        assert part in done.stderr


def test_several_files_are_one_engine(run: Run, ctx: Context, tmp_path: Path) -> None:
    document = engine()
    parts = {"pools": {"mac_pools": {"mac_pool": document["mac_pool"]}}, "clusters": {"cluster": document["cluster"]}}
    parts["vms"] = {"vm": document["vm"]}
    files = []
    for name, part in parts.items():
        files.append(tmp_path / name)
        files[-1].write_text(json.dumps(part))
    take(run, *files)
    assert vnics.get(ctx, SQL_A).mac_pool == SHARING


def test_a_hyphen_is_stdin(run: Run) -> None:
    assert run("import", "ovirt-macs", "-", stdin=JSON.read_text()).exit_code == 0


def test_xml_may_be_one_list_alone(run: Run, ctx: Context, file: Path) -> None:
    text = XML.read_text()
    end = "</mac_pools>"
    file.write_text(text[text.index("<mac_pools>") : text.index(end) + len(end)])
    take(run, file)
    assert mac_pools.get(ctx, LEGACY).name == "legacy"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('<!DOCTYPE a><mac_pools><mac_pool id="1"/></mac_pools>', "DOCTYPE"),
        ('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]><vms>&b;</vms>', "DOCTYPE"),
        ("<vms>&b;</vms>", "not XML"),
        ("<vms>", "not XML"),
        ('<?xml version="1.0" encoding="unheard-of"?><vms/>', "XML"),
        ("<a>" * 100 + "</a>" * 100, "nested"),
        ("{", "neither JSON nor XML"),
        ("[" * 100_000, "neither JSON nor XML"),
        ("[]", "no JSON object"),
        ("{}", "no mac_pool"),
        ('<vms><vm id="1"><id>2</id></vm></vms>', "both an attribute and an element"),
        ('<vms><vm id="1"><name>a</name></vm></vms>', "follow=nics"),
        ("<vms><vm><nics/></vm></vms>", "no id"),
        ('{"vm": [1]}', "no object"),
        ('{"mac_pool": [{"id": "no/id"}]}', "mac_pool.id"),
        ('{"mac_pool": [{"id": "p", "name": "p", "allow_duplicates": "perhaps"}]}', "perhaps"),
        ('{"mac_pool": [{"id": "p", "name": "p", "ranges": {"range": [{"from": "x", "to": "x"}]}}]}', "ranges.0.from"),
        ('{"mac_pool": [{"id": "p", "name": "p"}]}', "ranges"),
        ('{"mac_pool": [{"id": "p", "name": {"a": 1}}]}', "not one text"),
        ('{"vm": [{"id": "v", "nics": {"nic": [{"id": "n", "mac": {"address": "x"}}]}}]}', "nics.n.mac"),
    ],
)
def test_a_file_that_is_no_engines_answer_is_told(run: Run, file: Path, content: str, told: str) -> None:
    file.write_text(content)
    done = run("import", "ovirt-macs", str(file))
    assert done.exit_code == 3
    assert told in done.stderr


@pytest.mark.parametrize(
    ("first", "last", "code"),
    [
        ("02:00:00:00:00:09", "02:00:00:00:00:01", "range-invalid"),
        ("00:ff:ff:ff:ff:00", "01:00:00:00:00:ff", "range-not-unicast"),
    ],
)
def test_an_unsound_range_is_refused_with_the_name_of_its_pool(
    run: Run, file: Path, first: str, last: str, code: str
) -> None:
    pool = {"id": "p", "name": "odd", "ranges": {"range": [{"from": first, "to": last}]}}
    file.write_text(json.dumps({"mac_pool": [pool]}))
    done = run("import", "ovirt-macs", str(file))
    assert done.exit_code == 3
    assert code in done.stderr
    assert "mac_pools.odd.ranges[0]" in done.stderr


def test_a_cluster_with_an_unknown_pool_ends_with_4(run: Run, file: Path) -> None:
    file.write_text(json.dumps({"cluster": [{"id": "c", "mac_pool": {"id": "unheard-of"}}]}))
    assert run("import", "ovirt-macs", str(file)).exit_code == 4
