"""`leasehold vnic`."""

import json
from pathlib import Path
from typing import Any

import pytest
from netaddr import IPNetwork

from cli.conftest import Run
from leasehold.domain.addresses import Mac, MacRange
from leasehold.domain.values import SubnetSpec, Vnic
from leasehold.service import mac_pools, networks, scopes, subnets, vnics
from leasehold.service.context import Context

MAC = "02:00:00:00:00:01"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "vnics.json"


def put(run: Run, vnic_id: str, *more: str) -> dict[str, Any]:
    answer = run("vnic", "put", vnic_id, "--vm", "web-1", "--name", "nic1", *more, "--json").stdout
    vnic: dict[str, Any] = json.loads(answer)
    return vnic


def all_vnics(ctx: Context) -> list[Vnic]:
    return vnics.list_vnics(ctx, limit=100)


def test_a_vnic_as_json_is_as_the_api_answers_it(run: Run) -> None:
    vnic = put(run, "v", "--mac", "02-00-00-00-00-01")
    assert vnic == {
        "id": "v",
        "vm": "web-1",
        "name": "nic1",
        "cluster": None,
        "vm_pool": None,
        "network": None,
        "subnet": None,
        "mac": MAC,
        "mac_pool": "default",
        "in_range": False,
        "twins": [],
        "running": False,
        "ip": None,
        "ip_state": None,
        "revision": 1,
        "missing_since": None,
    }
    assert json.loads(run("vnic", "show", "v", "--json").stdout) == vnic
    assert json.loads(run("vnic", "list", "--json").stdout) == [vnic]


def test_tables_show_the_mac(run: Run) -> None:
    put(run, "v", "--mac", MAC)
    assert MAC in run("vnic", "list").stdout
    assert MAC in run("vnic", "show", "v").stdout


def test_the_list_has_more_than_are_read_at_once(run: Run, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leasehold.cli.paging.AT_ONCE", 2)
    for number in range(5):
        put(run, f"v{number}")
    assert [each["id"] for each in json.loads(run("vnic", "list", "--json").stdout)] == [f"v{n}" for n in range(5)]


def test_the_list_can_be_of_some(run: Run, ctx: Context) -> None:
    for name in ("blue", "green"):
        networks.put(ctx, name, ipam_enabled=False, ipam_servers=None)
    subnet = subnets.create(ctx, SubnetSpec(network="blue", cidr=IPNetwork("192.0.2.0/24"))).id
    put(run, "a", "--subnet", str(subnet))
    put(run, "b", "--network", "blue")
    put(run, "c", "--network", "green")
    run("vnic", "put", "d", "--vm", "web-2", "--name", "nic1", "--network", "blue")
    run("vnic", "start", "b")

    def listed(*arguments: str) -> list[str]:
        return [each["id"] for each in json.loads(run("vnic", "list", *arguments, "--json").stdout)]

    assert listed("--network", "blue") == ["a", "b", "d"]
    assert listed("--network", "blue", "--vm", "web-1") == ["a", "b"]
    assert listed("--subnet", str(subnet)) == ["a"]
    assert (listed("--running"), listed("--stopped")) == (["b"], ["a", "c", "d"])
    shown = run("vnic", "list", "--vm", "web-1").stdout
    assert ("blue" in shown, str(subnet) in shown, "web-2" in shown) == (True, True, False)


@pytest.mark.parametrize(
    "arguments",
    [
        ("put", "w", "--vm", "web-2", "--name", "nic1"),
        ("move", "v", "--cluster", "c", "--new-mac"),
        ("twin", "v", "u"),
        ("delete", "v"),
        ("change", "v", "--name", "nic2"),
        ("start", "v"),
    ],
)
def test_a_dry_run_says_so_and_changes_nothing(run: Run, ctx: Context, arguments: tuple[str, ...]) -> None:
    put(run, "u")
    put(run, "v")
    few = MacRange(Mac.parse("02:00:00:00:00:00"), Mac.parse("02:00:00:00:00:ff"))
    scopes.put(ctx, "cluster", "c", mac_pool=mac_pools.create(ctx, name="few", ranges=[few]).id)
    before = all_vnics(ctx)
    done = run("vnic", *arguments, "--dry-run")
    assert (done.exit_code, "nothing was changed" in done.stderr) == (0, True)
    assert all_vnics(ctx) == before


def test_a_mac_in_use_ends_with_5_and_names_its_holder(run: Run) -> None:
    put(run, "v", "--mac", MAC)
    done = run("vnic", "put", "w", "--vm", "web-2", "--name", "nic1", "--mac", MAC)
    assert (done.exit_code, "VM web-1" in done.stderr) == (5, True)


def test_what_is_no_mac_is_told(run: Run) -> None:
    done = run("vnic", "put", "v", "--vm", "web-1", "--name", "nic1", "--mac", "02:00")
    assert (done.exit_code, "--mac" in done.stderr) == (3, True)


def test_a_vm_without_a_name_is_told(run: Run) -> None:
    done = run("vnic", "put", "v", "--vm", "", "--name", "nic1")
    assert (done.exit_code, "vm:" in done.stderr) == (3, True)


def test_a_vnic_moves_to_a_cluster_and_gets_a_mac_there(run: Run, ctx: Context) -> None:
    few = MacRange(Mac.parse("02:00:00:00:00:00"), Mac.parse("02:00:00:00:00:00"))
    scopes.put(ctx, "cluster", "c", mac_pool=mac_pools.create(ctx, name="few", ranges=[few]).id)
    put(run, "v")
    moved = json.loads(run("vnic", "move", "v", "--cluster", "c", "--new-mac", "--json").stdout)
    assert (moved["cluster"], moved["mac"]) == ("c", "02:00:00:00:00:00")


def test_twins_share_a_mac_until_they_part(run: Run) -> None:
    put(run, "u", "--mac", MAC)
    put(run, "v")
    twin = json.loads(run("vnic", "twin", "v", "u", "--json").stdout)
    assert (twin["mac"], twin["twins"]) == (MAC, ["u"])
    parted = json.loads(run("vnic", "untwin", "v", "u", "--json").stdout)
    assert parted["mac"] != MAC
    assert parted["twins"] == []


def test_a_deleted_vnic_is_unknown(run: Run) -> None:
    put(run, "v")
    assert run("vnic", "delete", "v").exit_code == 0
    assert run("vnic", "show", "v").exit_code == 4


def test_bulk_makes_all_that_the_file_has(run: Run, ctx: Context, file: Path) -> None:
    file.write_text(json.dumps({"vnics": [{"id": f"v{n}", "vm": "web-1", "name": f"nic{n}"} for n in range(3)]}))
    assert run("vnic", "bulk", str(file), "--dry-run").exit_code == 0
    assert all_vnics(ctx) == []
    made = json.loads(run("vnic", "bulk", str(file), "--json").stdout)
    assert [each["id"] for each in made] == ["v0", "v1", "v2"]


def test_bulk_names_file_and_field_that_do_not_fit(run: Run, file: Path) -> None:
    file.write_text(json.dumps({"vnics": [{"id": "v", "vm": "web-1", "name": "nic1", "mac": "x"}]}))
    done = run("vnic", "bulk", str(file))
    assert done.exit_code == 3
    assert f"{file}.vnics.0.mac" in done.stderr


def test_bulk_of_a_file_that_is_no_json_is_told(run: Run, file: Path) -> None:
    file.write_text("{")
    done = run("vnic", "bulk", str(file))
    assert (done.exit_code, str(file) in done.stderr) == (3, True)


def test_a_hyphen_is_stdin(run: Run) -> None:
    body = json.dumps({"vnics": [{"id": "v", "vm": "web-1", "name": "nic1"}]})
    assert run("vnic", "bulk", "-", stdin=body).exit_code == 0
    assert run("vnic", "show", "v").exit_code == 0
    assert run("vnic", "bulk", "-", stdin="{").exit_code == 3


def test_a_file_that_is_not_there_is_wrong_usage(run: Run, file: Path) -> None:
    assert run("vnic", "bulk", str(file)).exit_code == 2


def test_an_import_reports_macs_outside_every_range(run: Run, ctx: Context, file: Path) -> None:
    file.write_text(json.dumps({"vnics": [{"id": "v", "vm": "web-1", "name": "nic1", "mac": MAC}]}))
    assert "Outside every pool's ranges" in run("vnic", "import", str(file), "--dry-run").stdout
    assert all_vnics(ctx) == []
    assert json.loads(run("vnic", "import", str(file), "--json").stdout)["external"] == ["v"]


def test_an_import_gives_new_macs_if_asked(run: Run, file: Path) -> None:
    file.write_text(json.dumps({"vnics": [{"id": "v", "vm": "web-1", "name": "nic1", "mac": MAC}]}))
    arguments = ("vnic", "import", str(file), "--reassign-bad-macs")
    assert "out-of-range" in run(*arguments, "--dry-run").stdout
    (new,) = json.loads(run(*arguments, "--json").stdout)["reassigned"]
    assert (new["vnic"], new["before"], new["reason"]) == ("v", MAC, "out-of-range")


def test_what_is_changed_keeps_the_rest(run: Run) -> None:
    before = put(run, "v", "--mac", MAC)
    changed = json.loads(run("vnic", "change", "v", "--name", "nic2", "--json").stdout)["vnic"]
    assert changed == before | {"name": "nic2", "revision": 2}
    assert json.loads(run("vnic", "change", "v", "--new-mac", "--json").stdout)["mac"] != MAC


def test_a_change_can_clear_what_a_vnic_has(run: Run, ctx: Context) -> None:
    networks.put(ctx, "blue", ipam_enabled=False, ipam_servers=None)
    subnet = subnets.create(ctx, SubnetSpec(network="blue", cidr=IPNetwork("192.0.2.0/24"))).id
    scopes.put(ctx, "cluster", "c")
    scopes.put(ctx, "vm_pool", "p")
    put(run, "v", "--cluster", "c", "--vm-pool", "p", "--subnet", str(subnet))

    def cleared(*names: str) -> list[object]:
        options = [word for name in names for word in ("--clear", name)]
        vnic = json.loads(run("vnic", "change", "v", *options, "--json").stdout)["vnic"]
        return [vnic[name] for name in ("cluster", "vm_pool", "network", "subnet")]

    assert cleared("vm-pool") == ["c", None, "blue", subnet]
    assert cleared("cluster", "subnet") == [None, None, "blue", None]
    assert cleared("network") == [None, None, None, None]
    assert run("vnic", "change", "v", "--cluster", "c", "--clear", "cluster").exit_code == 2
    assert run("vnic", "change", "v", "--mac", MAC, "--new-mac").exit_code == 2


def test_a_change_of_another_revision_is_refused(run: Run) -> None:
    put(run, "v")
    assert run("vnic", "change", "v", "--name", "nic2", "--revision", "1").exit_code == 0
    done = run("vnic", "change", "v", "--name", "nic3", "--revision", "1")
    assert (done.exit_code, "revision 2" in done.stderr) == (5, True)
    assert "nic2" in run("vnic", "show", "v").stdout


def test_a_vnic_starts_and_stops(run: Run) -> None:
    put(run, "v")
    started = json.loads(run("vnic", "start", "v", "--json").stdout)
    assert (started["vnic"]["running"], started["ipam"]) == (True, False)
    assert json.loads(run("vnic", "stop", "v", "--json").stdout)["running"] is False


def test_sync_tells_the_difference(run: Run, file: Path) -> None:
    put(run, "v")
    put(run, "w")
    file.write_text(json.dumps({"vnics": [{"id": "v", "vm": "web-2", "name": "nic1"}]}))
    assert "marked" in run("vnic", "sync", str(file), "--dry-run").stdout
    found = json.loads(run("vnic", "sync", str(file), "--json").stdout)
    assert (found["updated"], found["marked"]) == ([{"vnic": "v", "fields": ["vm"]}], ["w"])
    file.write_text(json.dumps({"vnics": []}))
    assert run("vnic", "sync", str(file)).exit_code == 3
    assert run("vnic", "sync", str(file), "--allow-empty").exit_code == 0
