"""`leasehold host`, `leasehold server`, `leasehold status` and `leasehold db restored`."""

import json
from pathlib import Path
from typing import Any

import pytest
from netaddr import IPNetwork
from sqlalchemy import update

from cli.conftest import Run
from leasehold.domain.addresses import Mac
from leasehold.domain.replication import HookStatus
from leasehold.domain.values import SubnetSpec
from leasehold.service import devices, hosts, management, networks, replication, sightings, subnets
from leasehold.service.context import Context
from leasehold.service.sightings import Answer, Watch
from leasehold.store.tables import server_subnets

ATTACHED = "blue=eth1,192.0.2.2"


@pytest.fixture
def password(tmp_path: Path) -> str:
    file = tmp_path / "password"
    file.write_text("hunter2\n")
    return str(file)


def put(run: Run, name: str, *more: str) -> dict[str, Any]:
    host: dict[str, Any] = json.loads(
        run("host", "put", name, "--control-url", "http://10.99.0.11:8000/", *more, "--json").stdout
    )
    return host


def serve(ctx: Context) -> None:
    """host-a begins to serve network blue."""
    networks.put(ctx, "blue", ipam_enabled=True, ipam_servers=1)
    subnets.create(ctx, SubnetSpec(network="blue", cidr=IPNetwork("192.0.2.0/24")))
    watch = Watch()
    status = HookStatus(host="host-a", boot="b", subnets=(), managed=frozenset())
    sightings.record_answers(ctx, watch, [Answer(host="host-a", asked_ms=ctx.now_ms(), status=status)])
    management.plan(ctx, watch)


def epoch(ctx: Context) -> str:
    with ctx.db.read() as connection:
        return replication.epoch_of(connection)


def test_a_host_is_put_and_shown_without_its_password(run: Run, ctx: Context, password: str) -> None:
    host = put(run, "host-a", "--username", "kea", "--password-file", password, "--network", ATTACHED)
    assert host["networks"] == {"blue": {"interface": "eth1", "address": "192.0.2.2"}}
    assert hosts.get(ctx, "host-a").password == "hunter2"
    assert json.loads(run("host", "show", "host-a", "--json").stdout) == host
    assert json.loads(run("host", "list", "--json").stdout) == [host]
    for shown in (run("host", "show", "host-a"), run("host", "list")):
        assert "host-a" in shown.stdout
        assert "hunter2" not in shown.stdout


@pytest.mark.parametrize("text", ["blue", "blue=eth1", "=eth1,192.0.2.2", "blue=eth1,here", "blue=a/b,192.0.2.2"])
def test_a_bad_attachment_is_refused_by_name(run: Run, text: str) -> None:
    refused = run("host", "put", "host-a", "--control-url", "http://10.99.0.11/", "--network", text)
    assert refused.exit_code == 3
    assert "--network" in refused.stderr


def test_a_host_that_is_put_again_keeps_its_credentials(run: Run, ctx: Context, password: str) -> None:
    put(run, "host-a", "--username", "kea", "--password-file", password)
    assert put(run, "host-a", "--network", ATTACHED)["username"] == "kea"
    assert hosts.get(ctx, "host-a").password == "hunter2"
    assert put(run, "host-a")["networks"] == {}
    assert put(run, "host-a", "--username", "")["username"] == ""


def test_what_is_changed_of_a_host_leaves_the_rest(run: Run, ctx: Context, password: str) -> None:
    before = put(run, "host-a", "--username", "kea", "--password-file", password, "--network", ATTACHED)

    def change(*arguments: str) -> dict[str, Any]:
        host: dict[str, Any] = json.loads(run("host", "change", "host-a", *arguments, "--json").stdout)
        return host

    green = {"interface": "eth2", "address": "198.51.100.2"}
    assert change("--network", "green=eth2,198.51.100.2", "--dry-run")["networks"].keys() == {"blue", "green"}
    assert change() == before
    assert change("--network", "green=eth2,198.51.100.2")["networks"] == before["networks"] | {"green": green}
    assert change("--detach", "blue", "--control-url", "http://10.99.0.12:8000/") == before | {
        "networks": {"green": green},
        "control_url": "http://10.99.0.12:8000/",
    }
    assert hosts.get(ctx, "host-a").password == "hunter2"
    assert run("host", "change", "host-a", "--password-file", "-", stdin="secret").exit_code == 0
    assert hosts.get(ctx, "host-a").password == "secret"


def test_a_change_that_does_not_fit_is_told(run: Run) -> None:
    put(run, "host-a", "--network", ATTACHED)
    assert run("host", "change", "host-b", "--username", "kea").exit_code == 4
    done = run("host", "change", "host-a", "--detach", "green")
    assert (done.exit_code, "--detach" in done.stderr) == (3, True)
    put(run, "host-b")
    assert run("host", "change", "host-b", "--network", ATTACHED).exit_code == 5


def test_the_state_of_a_host_follows_what_it_is_told(run: Run, ctx: Context) -> None:
    put(run, "host-a")
    assert json.loads(run("host", "maintenance", "host-a", "--dry-run", "--json").stdout)["state"] == "maintenance"
    assert json.loads(run("host", "show", "host-a", "--json").stdout)["state"] == "doubtful"
    assert json.loads(run("host", "maintenance", "host-a", "--json").stdout)["state"] == "maintenance"
    assert json.loads(run("host", "activate", "host-a", "--json").stdout)["state"] == "doubtful"
    assert run("host", "fence", "host-a").exit_code == 5
    sightings.record_unreachable(ctx, "host-a", "Connection refused")
    assert json.loads(run("host", "fence", "host-a", "--json").stdout)["state"] == "fenced"
    assert run("host", "delete", "host-a").exit_code == 0
    assert run("host", "show", "host-a").exit_code == 4


def test_a_host_that_serves_is_not_deleted(run: Run, ctx: Context) -> None:
    put(run, "host-a", "--network", ATTACHED)
    serve(ctx)
    refused = run("host", "delete", "host-a")
    assert refused.exit_code == 5
    assert "maintenance" in refused.stderr


def test_servers_are_listed_with_how_far_they_are(run: Run, ctx: Context) -> None:
    put(run, "host-a", "--network", ATTACHED)
    serve(ctx)
    (server,) = json.loads(run("server", "list", "--json").stdout)
    assert (server["host"], server["network"], server["state"]) == ("host-a", "blue", "starting")
    assert json.loads(run("server", "list", "--network", "blue", "--json").stdout) == [server]
    assert "everything" in run("server", "list").stdout
    assert run("server", "list", "--network", "nowhere").exit_code == 4


def test_a_server_is_shown_with_each_subnet(run: Run, ctx: Context) -> None:
    put(run, "host-a", "--network", ATTACHED)
    serve(ctx)
    server = json.loads(run("server", "show", "blue", "host-a", "--json").stdout)
    assert [server] == json.loads(run("server", "list", "--json").stdout)
    assert str(server["subnets"][0]["subnet"]) in run("server", "show", "blue", "host-a").stdout
    assert run("server", "show", "blue", "host-b").exit_code == 4
    assert run("server", "show", "green", "host-a").exit_code == 4


def test_how_far_a_server_is_behind_is_counted(run: Run, ctx: Context) -> None:
    put(run, "host-a", "--network", ATTACHED)
    serve(ctx)
    (subnet,) = subnets.list_subnets(ctx)
    replication.confirm(ctx, "host-a", subnet.id, epoch(ctx), 0)
    assert "everything" not in run("server", "list").stdout
    for number in range(3):
        devices.add(ctx, subnet.id, Mac(0x020000000000 + number), None)
    assert run("server", "list").stdout.split()[-2:] == ["3,", "settings"]
    with ctx.db.write() as connection:
        connection.execute(update(server_subnets).values(provided_revision=subnet.settings_revision))
    assert run("server", "list").stdout.split()[-1] == "3"


def test_the_status_is_hosts_and_servers(run: Run, ctx: Context, password: str) -> None:
    put(run, "host-a", "--network", ATTACHED, "--password-file", password)
    put(run, "host-b")
    serve(ctx)
    assert json.loads(run("status", "--json").stdout) == {
        "hosts": json.loads(run("host", "list", "--json").stdout),
        "servers": json.loads(run("server", "list", "--json").stdout),
    }
    shown = run("status").stdout
    assert "host-b" in shown
    assert "starting" in shown
    assert "hunter2" not in shown


def test_a_restored_database_begins_a_new_history(run: Run, ctx: Context) -> None:
    before = epoch(ctx)
    assert run("db", "restored").exit_code == 0
    assert epoch(ctx) != before
