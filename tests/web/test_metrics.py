"""What `/metrics` tells, and that dashboard and alerts ask for nothing else."""

import functools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import insert, update

from leasehold.service.context import Context
from leasehold.store.tables import server_subnets, servers, subnets
from web.conftest import Api, Clients

MONITORING = Path(__file__).parents[2] / "docker"
DASHBOARD = MONITORING / "grafana" / "leasehold.json"
RULES = MONITORING / "prometheus" / "leasehold.rules.yml"
RULE_TESTS = RULES.with_name("leasehold.rules.test.yml")
_MADE_OF_A_HISTOGRAM = re.compile("_(bucket|count|sum)$")


def samples(api: Api) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Values by name and labels."""
    return {
        (each.name, frozenset(each.labels.items())): each.value
        for family in text_string_to_metric_families(api.get("/metrics").text)
        for each in family.samples
    }


def value(api: Api, metric: str, /, **labels: str) -> float:
    return samples(api)[metric, frozenset(labels.items())]


@pytest.fixture
def pool(api: Api) -> str:
    """A MAC pool of ten."""
    ranges = [{"from": "02:00:00:00:00:00", "to": "02:00:00:00:00:09"}]
    answer = api.post("/v1/mac-pools", name="red", ranges=ranges)
    api.put("/v1/clusters/red", mac_pool=answer.get_json()["id"])
    return str(answer.get_json()["id"])


def test_pools_and_subnets_are_told_by_state(api: Api, pool: str, subnet: int) -> None:
    for name in ("a", "b", "c"):
        api.put(f"/v1/vnics/{name}", vm="vm", name="nic1", cluster="red", subnet=subnet)
    for name in ("a", "b"):
        api.post(f"/v1/vnics/{name}/start", wait="none")
    api.post("/v1/vnics/b/stop")
    of_pool = {"mac_pool": pool, "name": "red"}
    assert value(api, "leasehold_mac_pool_macs", **of_pool, state="free") == 7
    assert value(api, "leasehold_mac_pool_macs", **of_pool, state="taken") == 3
    of_subnet = {"subnet": "192.0.2.0/24", "subnet_id": str(subnet), "network": "blue"}
    told = {
        state: value(api, "leasehold_subnet_addresses", **of_subnet, state=state)
        for state in ("free", "held", "draining", "cooling")
    }
    assert told == {"free": 251, "held": 1, "draining": 1, "cooling": 0}
    assert value(api, "leasehold_vnics", running="true") == 1
    assert value(api, "leasehold_vnics", running="false") == 2


def test_servers_are_told_with_what_they_lack(api: Api, ctx: Context, subnet: int) -> None:
    api.put(
        "/v1/hosts/host-a",
        control_url="http://192.0.2.7/",
        username="",
        password="",
        networks={"blue": {"interface": "eth0", "address": "192.0.2.7"}},
    )
    assert value(api, "leasehold_servers_wanted", network="blue") == ctx.settings.ipam_servers
    assert value(api, "leasehold_servers", network="blue", state="running") == 0
    assert value(api, "leasehold_host_up", server="host-a") == 0
    with ctx.db.write() as connection:
        connection.execute(insert(servers).values(host_id="host-a", network_id="blue", state="running", since_ms=0))
        connection.execute(
            insert(server_subnets).values(
                host_id="host-a", subnet_id=subnet, confirmed_revision=2, confirmed_ms=0, provided_revision=1
            )
        )
        connection.execute(update(subnets).values(revision=5))
    where = {"server": "host-a", "subnet": "192.0.2.0/24", "subnet_id": str(subnet), "network": "blue"}
    assert value(api, "leasehold_servers", network="blue", state="running") == 1
    assert value(api, "leasehold_server_lag_revisions", **where) == 3
    assert value(api, "leasehold_server_in_sync", **where) == 0
    assert value(api, "leasehold_server_settings_in_sync", **where) == 1
    api.patch(f"/v1/subnets/{subnet}", mtu=1400)
    assert value(api, "leasehold_server_settings_in_sync", **where) == 0


def test_webhooks_are_told_with_what_they_lack(api: Api, pool: str) -> None:
    webhook = api.post("/v1/webhooks", url="https://monitoring.example/").get_json()["id"]
    before = value(api, "leasehold_events_stored_total")
    for number in range(10):
        api.put(f"/v1/vnics/v{number}", vm="vm", name="nic1", cluster="red")
    assert value(api, "leasehold_events_stored_total") - before == 1
    assert value(api, "leasehold_webhook_backlog_events", webhook=webhook) == 1
    assert value(api, "leasehold_webhook_active", webhook=webhook) == 1


def test_what_waits_in_a_hooks_spool_is_told(api: Api, clients: Clients) -> None:
    api.put("/v1/hosts/host-a", control_url="http://192.0.2.7/", username="", password="")
    report = functools.partial(
        clients("host", "host-a").call,
        "POST",
        "/v1/hosts/host-a/events?boot=4b9c1e6a-7f0d-4c1b-9a55-2f6f0c7f2f11&boot_order=1",
        content_type="application/x-ndjson",
        data=b'{"seq": 1, "type": "events.gap", "at": 1, "lost": 3, "reason": "queue"}\n',
    )
    lost = ("leasehold_events_lost_total", frozenset({("server", "host-a")}))
    before = samples(api).get(lost, 0)
    assert report(headers={"Leasehold-Spooled": "8"}).status_code == 200
    assert value(api, "leasehold_hook_spool_events", server="host-a") == 7
    assert report(headers={"Leasehold-Spooled": "many"}).status_code == 200
    assert value(api, "leasehold_hook_spool_events", server="host-a") == 7
    assert samples(api)[lost] - before == 3


def test_without_its_database_the_process_still_tells_of_itself(api: Api, ctx: Context) -> None:
    assert value(api, "leasehold_database_up") == 1
    with ctx.db.write() as connection:
        connection.exec_driver_sql("DROP TABLE event_heads")
        connection.exec_driver_sql("DROP TABLE deliveries")
    assert value(api, "leasehold_database_up") == 0
    assert any(name == "leasehold_http_requests_total" for name, _ in samples(api))


def asked() -> Iterator[str]:
    """Every expression of dashboard and alerts."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    rules = RULES.read_text()
    yield from re.findall(r"expr: (?:>-\s*)?((?:.*\n)+?)\s*(?:for|labels):", rules)


def test_dashboard_and_alerts_ask_for_metrics_that_there_are(api: Api) -> None:
    told = {
        sample
        for family in text_string_to_metric_families(api.get("/metrics").text)
        for sample in (family.name, f"{family.name}_total")
    }
    wanted = {_MADE_OF_A_HISTOGRAM.sub("", name) for each in asked() for name in re.findall(r"leasehold_\w+", each)}
    assert len(wanted) > 15
    assert wanted <= told


def test_dashboard_and_alerts_ask_by_labels_that_there_are() -> None:
    known = {"subnet", "subnet_id", "network", "state", "server", "mac_pool", "name", "running", "webhook", "outcome"}
    known |= {"type", "kind", "le", "route", "status", "instance", "job", "method"}
    for each in asked():
        named = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", each)
        named += [name for group in re.findall(r"(?:by|on)\s*\(([^)]*)\)", each) for name in re.split(r",\s*", group)]
        assert set(named) <= known, each


def test_the_alerts_are_sound_and_fire_when_they_should() -> None:
    for command in (["check", "rules", str(RULES)], ["test", "rules", str(RULE_TESTS)]):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False, cwd=RULES.parent)
        assert done.returncode == 0, done.stdout + done.stderr
