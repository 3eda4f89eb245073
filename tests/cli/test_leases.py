"""`leasehold lease`."""

import json
import uuid

import pytest
from netaddr import IPNetwork

from cli.conftest import Run
from leasehold.domain.values import SubnetSpec
from leasehold.service import hosts, ingest, networks, subnets
from leasehold.service.context import Context
from web.test_reports import line


@pytest.fixture
def leased(ctx: Context) -> Context:
    networks.put(ctx, "blue", ipam_enabled=True, ipam_servers=1)
    subnets.create(ctx, SubnetSpec(network="blue", cidr=IPNetwork("192.0.2.0/24")))
    hosts.put(ctx, "host-a", control_url="http://192.0.2.2:8000/", username="u", password="p", networks={})
    lines = [line(1), line(2, ip="192.0.2.11"), line(3, ip="192.0.2.11", kind="lease.released")]
    ingest.ingest(ctx, "host-a", str(uuid.uuid4()), 1, lines)
    return ctx


def test_leases_are_listed(run: Run, leased: Context) -> None:
    found = json.loads(run("lease", "list", "--json").stdout)
    assert [(each["ip"], each["state"]) for each in found] == [("192.0.2.10", "expired"), ("192.0.2.11", "released")]
    assert "released" in run("lease", "list").stdout


def test_leases_are_filtered(run: Run, leased: Context) -> None:
    assert len(json.loads(run("lease", "list", "--ip", "192.0.2.11", "--json").stdout)) == 1
    assert len(json.loads(run("lease", "list", "--mac", "020000000001", "--host", "host-a", "--json").stdout)) == 2
    assert json.loads(run("lease", "list", "--subnet", "7", "--json").stdout) == []


def test_what_is_no_address_is_refused(run: Run, leased: Context) -> None:
    assert run("lease", "list", "--ip", "x").exit_code == 3
