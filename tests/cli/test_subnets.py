"""`leasehold network`, `leasehold subnet` and `leasehold reservation`."""

import json
from typing import Any

import pytest

from cli.conftest import Run

EVERYTHING = [
    "--gateway", "192.0.2.1", "--dns", "192.0.2.53", "--dns", "198.51.100.53", "--ntp", "192.0.2.123",
    "--domain", "blue.example", "--mtu", "1400", "--lease-time", "600", "--route", "10.0.0.0/8=192.0.2.9",
    "--option", "tftp-server-name=a=b", "--option", "log-servers=192.0.2.7,192.0.2.8", "--option", "19=true",
    "--option", "default-ip-ttl=64", "--option", "224=0a0b", "--range", "192.0.2.100-192.0.2.199",
    "--exclude", "192.0.2.150-192.0.2.159", "--mac-range", "02:00:00:00:01:00-02:00:00:00:01:ff",
]  # fmt: skip


@pytest.fixture
def subnet(run: Run) -> str:
    """The id of a subnet with everything on network blue, where IPAM is on."""
    assert run("network", "put", "blue", "--ipam", "--servers", "2").exit_code == 0
    return str(made(run, "subnet", "create", "--network", "blue", "--cidr", "192.0.2.0/24", *EVERYTHING)["id"])


def made(run: Run, *arguments: str) -> dict[str, Any]:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_network_from_put_to_delete(run: Run) -> None:
    assert run("network", "put", "blue", "--dry-run").exit_code == 0
    assert json.loads(run("network", "list", "--json").stdout) == []
    assert made(run, "network", "put", "blue") == {"id": "blue", "ipam_enabled": False, "ipam_servers": None}
    assert made(run, "network", "change", "blue", "--ipam")["ipam_enabled"] is True
    assert made(run, "network", "change", "blue", "--servers", "3")["ipam_servers"] == 3
    assert made(run, "network", "change", "blue", "--no-ipam", "--dry-run")["ipam_enabled"] is False
    assert made(run, "network", "show", "blue") == {"id": "blue", "ipam_enabled": True, "ipam_servers": 3}
    assert made(run, "network", "change", "blue", "--default-servers")["ipam_servers"] is None
    assert run("network", "change", "blue", "--default-servers", "--servers", "1").exit_code == 2
    assert run("network", "change", "blue", "--servers", "0").exit_code == 3
    assert "blue" in run("network", "list").stdout
    assert run("network", "delete", "blue", "--dry-run").exit_code == 0
    assert run("network", "delete", "blue").exit_code == 0
    assert run("network", "show", "blue").exit_code == 4


def test_a_network_in_use_is_not_deleted(run: Run, subnet: str) -> None:
    done = run("network", "delete", "blue")
    assert (done.exit_code, subnet in done.stderr) == (5, True)


def test_a_subnet_is_shown_as_it_was_created(run: Run, subnet: str) -> None:
    found = made(run, "subnet", "show", subnet)
    assert found["options"] == [
        {"code": 66, "name": "tftp-server-name", "type": "string", "value": "a=b"},
        {"code": 7, "name": "log-servers", "type": "ipv4", "value": ["192.0.2.7", "192.0.2.8"]},
        {"code": 19, "name": "ip-forwarding", "type": "boolean", "value": True},
        {"code": 23, "name": "default-ip-ttl", "type": "uint8", "value": 64},
        {"code": 224, "name": None, "type": "octets", "value": "0a0b"},
    ]
    assert (found["mtu"], found["lease_time"], found["usage"]["size"]) == (1400, 600, 90)
    shown = run("subnet", "show", subnet).stdout
    for text in (
        "10.0.0.0/8=192.0.2.9",
        "log-servers=192.0.2.7,192.0.2.8",
        "192.0.2.150-192.0.2.159",
        "02:00:00:00:01:00",
    ):
        assert text in shown
    assert json.loads(run("subnet", "list", "--network", "green", "--json").stdout) == []
    assert subnet in run("subnet", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["--option", "no-such=1"], "name"),
        (["--option", "default-ip-ttl=x"], "value"),
        (["--option", "default-ip-ttl"], "--option"),
        (["--option", "51=1"], "lease_time"),
        (["--route", "10.0.0.0/8"], "--route"),
        (["--range", "192.0.2.1"], "--range"),
        (["--gateway", "x"], "gateway"),
        (["--mtu", "1"], "mtu"),
    ],
)
def test_what_does_not_fit_is_named(run: Run, arguments: list[str], field: str) -> None:
    run("network", "put", "blue")
    done = run("subnet", "create", "--network", "blue", "--cidr", "192.0.2.0/24", *arguments)
    assert (done.exit_code, field in done.stderr) == (3, True), done.stderr
    assert json.loads(run("subnet", "list", "--json").stdout) == []


def test_a_change_says_who_is_out_of_range(run: Run, subnet: str) -> None:
    run("vnic", "put", "a", "--vm", "vm", "--name", "eth0", "--subnet", subnet, "--mac", "02:00:00:00:09:99")
    assert run("reservation", "add", subnet, "02:00:00:00:00:77", "--ip", "192.0.2.100").exit_code == 0
    dry = run("subnet", "change", subnet, "--range", "192.0.2.110-192.0.2.119", "--dry-run")
    assert (dry.exit_code, "192.0.2.100" in dry.stdout) == (0, True)
    changed = made(run, "subnet", "change", subnet, "--mtu", "1500", "--clear", "options", "--clear", "domain")
    assert (changed["subnet"]["mtu"], changed["subnet"]["options"], changed["subnet"]["domain"]) == (1500, [], None)
    assert changed["subnet"]["dns"] == ["192.0.2.53", "198.51.100.53"]
    assert run("subnet", "change", subnet, "--mtu", "1400", "--revision", "1").exit_code == 5
    assert run("subnet", "change", subnet, "--mtu", "1400", "--clear", "mtu").exit_code == 2
    assert run("subnet", "change", subnet, "--cidr", "198.51.100.0/24").exit_code == 3
    lost = run("subnet", "change", subnet, "--gateway", "192.0.2.100")
    assert (lost.exit_code, "02:00:00:00:00:77" in lost.stderr) == (5, True)


def test_a_subnet_is_renumbered(run: Run, subnet: str) -> None:
    run("reservation", "add", subnet, "02:00:00:00:00:77", "--ip", "192.0.2.100")
    dry = run("subnet", "renumber", subnet, "--cidr", "198.51.100.0/24", "--dry-run")
    assert "198.51.100.100" in dry.stdout
    done = made(run, "subnet", "renumber", subnet, "--cidr", "198.51.100.0/24", "--gateway", "198.51.100.254")
    assert (done["subnet"]["gateway"], done["moved"][0]["after"]) == ("198.51.100.254", "198.51.100.100")
    assert made(run, "subnet", "show", subnet)["successor"] == done["subnet"]["id"]


def test_a_devices_reservation_comes_and_goes(run: Run, subnet: str) -> None:
    mac = "02:00:00:00:00:77"
    assert run("reservation", "add", subnet, mac, "--dry-run").exit_code == 0
    assert json.loads(run("reservation", "list", subnet, "--json").stdout) == []
    wanted = {"ip": "192.0.2.100", "mac": mac, "vnic": None}
    assert made(run, "reservation", "add", subnet, mac) == wanted
    assert json.loads(run("reservation", "list", subnet, "--json").stdout) == [wanted]
    assert "192.0.2.100" in run("reservation", "list", subnet).stdout
    assert run("reservation", "remove", subnet, "192.0.2.100", "--dry-run").exit_code == 0
    assert run("reservation", "remove", subnet, "192.0.2.100").exit_code == 0
    assert run("reservation", "remove", subnet, "192.0.2.100").exit_code == 4
    assert run("subnet", "delete", subnet).exit_code == 5
    empty = str(made(run, "subnet", "create", "--network", "blue", "--cidr", "203.0.113.0/24")["id"])
    assert run("subnet", "delete", empty, "--dry-run").exit_code == 0
    assert run("subnet", "delete", empty).exit_code == 0
    assert run("subnet", "show", empty).exit_code == 4
