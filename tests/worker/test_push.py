"""Reservations on their way to real hosts."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from netaddr import IPAddress, IPNetwork
from prometheus_client import REGISTRY
from sqlalchemy import update

from lab.host import Host as LabHost
from leasehold.domain.replication import Batch, Resync
from leasehold.domain.values import Host, SubnetSpec, VnicSpec
from leasehold.errors import KeaRefused, NotConfirmed, SubnetRecovering
from leasehold.kea.commands import Applied, Commands
from leasehold.kea.transport import Transport
from leasehold.service import events, networks, replication, subnets, vnics
from leasehold.store.tables import lineage, server_subnets
from leasehold.worker.push import Push
from worker.site import PATIENCE_S, Site


@contextmanager
def paused(host: LabHost) -> Iterator[None]:
    """Its Kea hears, and does not answer."""
    os.kill(host.kea_pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(host.kea_pid, signal.SIGCONT)


def held(site: Site) -> set[str]:
    return {str(each.ip) for each in vnics.list_vnics(site.ctx, limit=1000) if each.ip_state == "held"}


def on_host(host: LabHost, subnet_id: int) -> set[str]:
    answer = host.command("reservation-get-page", subnet_id=subnet_id, limit=1000)
    return {each["ip-address"] for each in answer["arguments"]["hosts"]}


def test_a_host_that_does_not_answer_delays_no_other(site: Site) -> None:
    site.change_settings(control_timeout_s=60, host_down_after_s=60, start_budget_s=15)
    slow = site.add_host("host-a")
    site.add_host("host-b")
    networks.put(site.ctx, "blue", ipam_enabled=True, ipam_servers=2)
    site.subnet()
    site.start()
    site.wait_for(host_a="running", host_b="running")
    with paused(slow):
        starts = [site.started(number) for number in range(3)]
    assert all("host-b" in {each.host for each in start.servers if each.state == "confirmed"} for start in starts)


def test_fifty_starts_wait_for_no_dead_host(site: Site) -> None:
    """What is sent to it is lost without an answer."""
    site.change_settings(control_connect_timeout_s=30, control_timeout_s=30, host_down_after_s=300, start_budget_s=15)
    dead = site.add_host("host-a")
    site.add_host("host-b")
    networks.put(site.ctx, "blue", ipam_enabled=True, ipam_servers=2)
    site.subnet()
    site.start()
    site.wait_for(host_a="running", host_b="running")
    dead.cut_management()
    with ThreadPoolExecutor(50) as callers:
        starts = list(callers.map(site.started, range(50)))
    dead.mend_management()
    assert all({each.host for each in one.servers if each.state == "confirmed"} == {"host-b"} for one in starts)


def test_a_start_that_wants_all_names_the_dead_host_without_waiting_for_its_budget(site: Site) -> None:
    site.change_settings(host_down_after_s=300, start_budget_s=600)
    dead = site.add_host("host-a")
    site.add_host("host-b")
    networks.put(site.ctx, "blue", ipam_enabled=True, ipam_servers=2)
    site.subnet()
    site.start()
    site.wait_for(host_a="running", host_b="running")
    dead.cut_management()
    with pytest.raises(NotConfirmed) as refusal:
        site.started(1, wait="all")
    assert refusal.value.facts["hosts"] == ["host-a"]


def test_a_start_has_a_host_asked_again_that_was_away(site: Site) -> None:
    """And is not refused because the host was away long ago. No pass of the manager's own would ask it in this test."""
    site.change_settings(manage_interval_s=600)
    host = site.add_host("host-a")
    site.subnet()
    site.start()
    site.wait_for(host_a="running")
    host.stop_agent()
    with pytest.raises(NotConfirmed):
        site.started(1)
    host.start_agent()

    def starts() -> bool:
        try:
            return site.started(1).ip is not None
        except NotConfirmed:
            return False

    site.until(starts, "the host is asked again")


def test_a_subnet_whose_reservations_a_host_refuses_delays_no_other(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although it is the first in order, and is asked about again and again."""
    host = site.add_host("host-a")
    first = site.subnet()
    second = subnets.create(site.ctx, SubnetSpec(network="blue", cidr=IPNetwork("198.51.100.0/24")))
    site.start()
    site.until(lambda: not replication.lagging(site.ctx), "the host has both subnets")
    site.wait_for(host_a="running")
    apply = Commands.apply

    def refuse(self: Commands, host: Host, change: Batch | Resync, *_: object) -> Applied:
        if change.subnet == second.id and isinstance(change, Batch):
            return apply(self, host, change)
        raise KeaRefused("Its journal is full.", host=host.id, command="leasehold-apply", result=1, text="full")

    with monkeypatch.context() as refusing:
        refusing.setattr(Commands, "apply", refuse)
        refusing.setattr(Commands, "resync", refuse)
        site.started(1, wait="none")
        site.until(lambda: first.id in replication.lagging(site.ctx).get("host-a", {}), "the host lacks one")
        vnics.put(site.ctx, VnicSpec(id="other", vm="vm", name="eth0", network="blue", subnet=second.id))
        ip = str(vnics.start(site.ctx, "other", wait="none").ip)
        site.until(lambda: on_host(host, second.id) == {ip}, "the host has the other's")
        site.until(lambda: list(replication.lagging(site.ctx)["host-a"]) == [first.id], "it is known to have it")
    site.until(lambda: not replication.lagging(site.ctx), "the host has all")


def test_all_servers_confirm(site: Site) -> None:
    site.add_host("host-a")
    site.add_host("host-b")
    networks.put(site.ctx, "blue", ipam_enabled=True, ipam_servers=2)
    site.subnet()
    site.start()
    site.wait_for(host_a="running", host_b="running")
    assert {each.state for each in site.started(1, wait="all").servers} == {"confirmed"}


def test_what_is_pushed_is_counted(site: Site) -> None:
    def counted() -> tuple[float, float]:
        accepted = {"server": "host-a", "kind": "batch", "outcome": "accepted"}
        return (
            REGISTRY.get_sample_value("leasehold_push_commands_total", accepted) or 0,
            REGISTRY.get_sample_value("leasehold_push_reservations_total", {"server": "host-a"}) or 0,
        )

    site.add_host("host-a")
    networks.put(site.ctx, "blue", ipam_enabled=True, ipam_servers=1)
    site.subnet()
    site.start()
    site.wait_for(host_a="running")
    before = counted()
    site.started(0)
    after = counted()
    assert (after[0] - before[0], after[1] - before[1]) == (1, 1)


def test_more_changes_than_one_batch_holds(site: Site) -> None:
    """A batch holds four of them here."""
    host = site.add_host("host-a")
    subnet = site.subnet()
    site.start()
    site.wait_for(host_a="running")
    with paused(host):
        threads = [threading.Thread(target=site.started, args=(number, "none")) for number in range(11)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    site.until(lambda: on_host(host, subnet.id) == held(site), "the host has all reservations")
    assert len(held(site)) == 11


def test_after_a_confirmation_that_was_lost_the_log_goes_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the control plane ends between the host's answer and its own commit: no full resync is needed."""
    host = site.add_host("host-a")
    subnet = site.subnet()
    site.start()
    for number in range(3):
        site.started(number)
    site.stop()
    with site.ctx.db.write() as connection:
        connection.execute(update(server_subnets).values(confirmed_revision=1))
    resyncs: list[Resync] = []
    monkeypatch.setattr(Commands, "resync", lambda self, host, resync, page_size: resyncs.append(resync))
    transport = Transport(site.ctx.settings)
    push = Push(site.ctx, Commands(transport))
    push.start()
    site.started(3)
    push.stop()
    assert push.join(time.monotonic() + PATIENCE_S)
    transport.close()
    assert on_host(host, subnet.id) == held(site)
    assert resyncs == []


def test_a_start_is_pushed_without_a_look_at_the_log(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who starts hands it over."""
    host = site.add_host("host-a")
    subnet = site.subnet()
    site.start()
    site.wait_for(host_a="running")
    site.started(0)
    looks: list[object] = []
    look = replication.next_step

    def next_step(*where: object) -> Batch | Resync | None:
        looks.append(where)
        return look(*where)  # type: ignore[arg-type]

    monkeypatch.setattr(replication, "next_step", next_step)
    for number in range(1, 6):
        site.started(number)
    monkeypatch.undo()
    assert on_host(host, subnet.id) == held(site)
    assert looks == []


EPOCH = "11111111-1111-1111-1111-111111111111"


def replace_database(site: Site) -> None:
    """Its history is another from now on: what hosts confirmed in the old one means nothing."""
    with site.ctx.db.write() as connection:
        connection.execute(update(lineage).values(epoch=EPOCH))


def epochs(host: LabHost) -> list[str]:
    return [each["epoch"] for each in host.status()["subnets"]]


def test_a_database_that_was_replaced(site: Site) -> None:
    """Nothing is promised anew before the host has given up what it serves of the old one."""
    host = site.add_host("host-a")
    subnet = site.subnet()
    site.start()
    site.started(1)
    site.stop()
    replace_database(site)
    site.start()

    def started() -> bool:
        told = {each.type for each in events.list_events(site.ctx, limit=100)}
        try:
            return "subnet.recovering" in told and site.started(2).ip is not None
        except SubnetRecovering:
            return False

    site.until(started, "addresses are promised again")
    assert epochs(host) == [EPOCH]
    assert on_host(host, subnet.id) == held(site)


def test_a_push_that_comes_before_the_manager_sees_a_replaced_database_too(site: Site) -> None:
    """No manager runs in this test."""
    host = site.add_host("host-a")
    subnet = site.subnet()
    site.start()
    site.started(1)
    site.stop()
    replace_database(site)
    with site.ctx.db.write() as connection:
        connection.execute(update(server_subnets).values(confirmed_revision=0))
    transport = Transport(site.ctx.settings)
    push = Push(site.ctx, Commands(transport))
    push.start()
    site.until(lambda: epochs(host) == [EPOCH], "the host has the new history")
    push.stop()
    assert push.join(time.monotonic() + PATIENCE_S)
    transport.close()
    with pytest.raises(SubnetRecovering):
        site.started(2)
    assert on_host(host, subnet.id) == held(site)


def test_a_reservation_that_was_added_on_the_host_stands_in_the_way(site: Site) -> None:
    """The host refuses the batch that gives the address to another; it is mended by all reservations anew."""
    host = site.add_host("host-a")
    subnet = site.subnet()
    site.start()
    site.wait_for(host_a="running")
    foreign = {"subnet-id": subnet.id, "hw-address": "02:ff:00:00:00:01", "ip-address": "192.0.2.200"}
    assert host.command("reservation-add", reservation=foreign)["result"] == 0
    vnics.put(site.ctx, VnicSpec(id="vnic-1", vm="vm-1", name="eth0", network="blue", subnet=subnet.id))
    vnics.start(site.ctx, "vnic-1", ip=IPAddress("192.0.2.200"))
    assert host.command("reservation-get", subnet_id=subnet.id, ip_address="192.0.2.200")["arguments"][
        "hw-address"
    ] == str(vnics.get(site.ctx, "vnic-1").mac)


def test_a_host_that_serves_is_mended_and_not_replaced(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what differs is sent, in steps of four here, so that Kea is never kept from its guests for long."""
    host = site.add_host("host-a")
    subnet = site.subnet()
    site.start()
    for number in range(12):
        site.started(number)
    sent: list[Batch] = []
    apply = Commands.apply

    def noted(self: Commands, host: Host, batch: Batch) -> Applied:
        sent.append(batch)
        return apply(self, host, batch)

    monkeypatch.setattr(Commands, "apply", noted)
    monkeypatch.setattr(Commands, "resync", lambda *_: pytest.fail("the whole set was replaced"))
    for ip in sorted(held(site))[:5]:
        host.command("reservation-del", subnet_id=subnet.id, ip_address=ip)
    for number in range(3):
        foreign = {
            "subnet-id": subnet.id,
            "hw-address": f"02:ff:00:00:00:0{number}",
            "ip-address": f"192.0.2.20{number}",
        }
        host.command("reservation-add", reservation=foreign)
    site.until(lambda: on_host(host, subnet.id) == held(site), "the host has what is promised")
    site.until(lambda: not replication.lagging(site.ctx), "it is known to have it")
    assert all(len(each.set) + len(each.unset) <= 4 for each in sent)
    assert sum(len(each.set) for each in sent) == 5
