"""What breaks, and what holds all the same."""

import json
from functools import partial

import httpx
import pytest

from lab.host import Host
from lab.stage import NETWORK, Stage
from lab.waiting import wait_until


def test_a_killed_kea_serves_again_without_the_control_plane(single: Stage) -> None:
    (host,) = single.hosts
    single.vnic("a")
    promised = single.start("a")
    host.kill()
    single.control.kill()
    host.start()
    lease = single.guest("a", promised["mac"]).dhcp()
    assert lease is not None
    assert lease.address == promised["ip"]


def test_start_with_kea_away_names_the_host_keeps_the_address_and_completes_by_itself(single: Stage) -> None:
    (host,) = single.hosts
    host.kill()
    single.vnic("a")
    with pytest.raises(httpx.HTTPStatusError) as refusal:
        single.start("a")
    problem = refusal.value.response.json()
    assert (problem["status"], problem["code"]) == (503, "not-confirmed")
    assert problem["hosts"] == [host.id]
    assert host.id in problem["detail"]
    assert int(refusal.value.response.headers["retry-after"]) > 0
    held = single.get("/v1/vnics/a")
    assert (held["ip"], held["ip_state"]) == (problem["ip"], "held")
    host.start()
    wait_until(lambda: host.status()["subnets"] and host.status()["subnets"][0]["count"] == 1, 30, "the push completes")
    wait_until(lambda: single.running() == [host.id], 30, "the server runs again")
    assert single.start("a")["ip"] == held["ip"]
    lease = single.guest("a").dhcp()
    assert lease is not None
    assert lease.address == held["ip"]


def test_with_the_control_plane_away_leases_are_served_and_events_arrive_later(single: Stage) -> None:
    (host,) = single.hosts
    receiver = single.subscribe()
    single.vnic("a")
    promised = single.start("a")
    guest = single.guest("a")
    single.control.kill()
    lease = guest.dhcp()
    assert lease is not None
    assert lease.address == promised["ip"]
    wait_until(lambda: host.status()["events"]["spooled"] > 0, 10, "the event is spooled")
    single.control.start()
    arrived = receiver.wait_for(lambda event: event["type"] == "lease.assigned", 60, "the event after the fact")
    assert arrived["data"]["ip"] == promised["ip"]
    wait_until(lambda: host.status()["events"]["spooled"] == 0, 10, "the spool is empty")


def test_a_killed_control_plane_keeps_its_servers_and_its_promises(single: Stage) -> None:
    before = single.servers()
    single.vnic("a")
    promised = single.start("a")
    single.control.kill()
    single.control.start()
    wait_until(lambda: single.running() == [each["host"] for each in before], 10, "the server still runs")
    assert [each["since"] for each in single.servers()] == [each["since"] for each in before]
    assert single.start("a")["ip"] == promised["ip"]


def test_a_host_that_lost_its_journal_gets_the_whole_set_again(single: Stage) -> None:
    (host,) = single.hosts
    single.vnic("a")
    promised = single.start("a")
    host.stop()
    for part in host.state_directory.glob("journal.sqlite*"):
        part.unlink()
    host.start()
    wait_until(lambda: [each["count"] for each in host.status()["subnets"]] == [1], 30, "a full resync")
    lease = single.guest("a").dhcp()
    assert lease is not None
    assert lease.address == promised["ip"]


@pytest.mark.parametrize("damage", ["truncated", "garbage", "wrong version"])
def test_a_damaged_journal_is_set_aside_and_made_good(single: Stage, damage: str) -> None:
    (host,) = single.hosts
    single.vnic("a")
    single.start("a")
    host.stop()
    journal = host.state_directory / "journal.sqlite"
    for beside in host.state_directory.glob("journal.sqlite-*"):
        beside.unlink()  # SQLite would mend from it what is damaged here
    whole = journal.read_bytes()
    if damage == "truncated":
        journal.write_bytes(whole[: len(whole) // 2 + 100])
    elif damage == "garbage":
        journal.write_bytes(b"no database at all" * 400)
    else:
        journal.write_bytes(whole[:60] + (999).to_bytes(4, "big") + whole[64:])  # user_version: SQLite file format, 1.3
    damaged = journal.read_bytes()
    host.start()
    wait_until(lambda: [each["count"] for each in host.status()["subnets"]] == [1], 30, "a full resync")
    (aside,) = host.state_directory.glob("journal.sqlite.damaged-*Z")
    assert aside.read_bytes() == damaged
    assert "LEASEHOLD_JOURNAL_DAMAGED" in host.log.read_text()


def test_reloads_under_load_lose_nothing_and_leak_nothing(single: Stage) -> None:
    (host,) = single.hosts
    macs = 50
    (pool,) = single.get("/v1/mac-pools")["items"]
    for number in range(macs):
        mac = (int(pool["ranges"][0]["from"].replace(":", ""), 16) + number).to_bytes(6, "big").hex(":")
        single.vnic(f"load-{number}", mac=mac)
        single.start(f"load-{number}", wait="none")
    wait_until(lambda: [each["count"] for each in host.status()["subnets"]] == [macs], 30, "all reservations")
    before = host.status()["subnets"]
    load = single.lab.perfdhcp(NETWORK, "192.0.2.240/24").start(
        rate=300, clients=macs, seconds=40, first_mac=pool["ranges"][0]["from"]
    )
    memory = []
    pid = host.kea_pid
    for _ in range(20):
        before_reload = _acknowledged(host)
        assert host.command("config-reload")["result"] == 0
        wait_until(partial(_has_acknowledged, host, before_reload + 50), 10, "it goes on serving")
        memory.append(host.resident_memory())
    assert load.runs
    assert host.kea_runs
    assert host.kea_pid == pid
    load.end()
    assert host.status()["subnets"] == before
    assert memory[-1] <= memory[9] * 1.02
    lease = single.guest("load-7").dhcp()
    assert lease is not None


@pytest.mark.parametrize("moment", range(6))
def test_a_batch_is_whole_or_not_at_all_when_kea_is_killed_in_its_middle(single: Stage, moment: int) -> None:
    """A batch of 20,000 takes some 400 ms; the kill comes at different moments of it."""
    (host,) = single.hosts
    single.control.kill()
    (state,) = host.status()["subnets"]
    batch = {
        "command": "leasehold-apply",
        "arguments": {
            "subnet-id": state["subnet-id"],
            "epoch": state["epoch"],
            "base": state["revision"],
            "revision": state["revision"] + 20_000,
            "set": [
                {
                    "hw-address": (0x02AA00000000 + number).to_bytes(6, "big").hex(":"),
                    "ip-address": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
                }
                for number in range(20_000)
            ],
        },
    }
    host.send_and_kill(json.dumps(batch).encode(), after_s=0.08 * (moment + 1))
    host.start()
    (after,) = host.status()["subnets"]
    assert (after["count"], after["revision"]) in (
        (0, state["revision"]),
        (20_000, state["revision"] + 20_000),
    )


def _has_acknowledged(host: Host, count: int) -> bool:
    return _acknowledged(host) >= count


def _acknowledged(host: Host) -> int:
    """How many DHCPACKs Kea has sent."""
    name = "pkt4-ack-sent"
    sent: int = host.command("statistic-get", name=name)["arguments"][name][0][0]
    return sent
