"""What the manager decides from what hosts answer, on a clock that the test turns."""

import uuid
from collections.abc import Collection
from dataclasses import replace
from typing import cast

import pytest
from netaddr import IPAddress, IPNetwork
from sqlalchemy import Connection, update

from lab.postgres import Postgres
from leasehold.config import Settings
from leasehold.domain.replication import EMPTY_DIGEST, Batch, HookStatus, Resync, SubnetState
from leasehold.domain.values import HostNetwork, SubnetSpec, VnicSpec
from leasehold.errors import DatabaseBusy, HostAnswers, HostFenced, InUse, NotConfirmed, SubnetRecovering
from leasehold.service import (
    events,
    fencing,
    hosts,
    lineage,
    management,
    networks,
    replication,
    reservations,
    sightings,
    subnet_changes,
    subnets,
    vnics,
)
from leasehold.service.bell import News
from leasehold.service.context import Context, open_context
from leasehold.service.replication import epoch_of
from leasehold.service.sightings import Answer, Watch
from leasehold.store.tables import FIRST_SUBNET_ID, server_subnets
from service.conftest import Clock

SUBNET = FIRST_SUBNET_ID


@pytest.fixture
def watch(ctx: Context) -> Watch:
    """One host on network blue, which has one subnet and wants one server."""
    networks.put(ctx, "blue", ipam_enabled=True, ipam_servers=1)
    subnets.create(ctx, SubnetSpec(network="blue", cidr=IPNetwork("192.0.2.0/24")))
    add_host(ctx, "host-a", "192.0.2.2")
    return Watch()


def add_host(ctx: Context, name: str, address: str) -> None:
    hosts.put(
        ctx,
        name,
        control_url="http://198.51.100.1:8000/",
        username="u",
        password="p",
        networks={"blue": HostNetwork(interface="eth0", address=IPAddress(address))},
    )


def epoch(ctx: Context) -> str:
    with ctx.db.read() as connection:
        return epoch_of(connection)


def answers(
    ctx: Context,
    watch: Watch,
    *,
    managed: bool = False,
    has: SubnetState | None = None,
    host: str = "host-a",
    interfaces: dict[str, str | None] | None = None,
) -> None:
    """The host answers, and the manager decides."""
    status = HookStatus(
        host=host,
        boot=str(uuid.UUID(int=1)),
        subnets=() if has is None else (has,),
        managed=frozenset({SUBNET} if managed else ()),
        interfaces=interfaces,
    )
    sightings.record_answers(ctx, watch, [Answer(host=host, asked_ms=ctx.now_ms(), status=status)])
    management.plan(ctx, watch)


def is_silent(ctx: Context, watch: Watch) -> None:
    """host-a is asked in vain, and the manager decides."""
    answer = Answer(host="host-a", asked_ms=ctx.now_ms(), status=None, reason="Connection refused")
    sightings.record_answers(ctx, watch, [answer])
    management.plan(ctx, watch)


def falls(ctx: Context, watch: Watch, clock: Clock) -> None:
    """host-a goes down."""
    is_silent(ctx, watch)
    clock.advance(ctx.settings.host_down_after_s)
    is_silent(ctx, watch)


def state(ctx: Context) -> str | None:
    return next((each.state for each in networks.list_servers(ctx, "blue")), None)


def served(ctx: Context, watch: Watch) -> list[int]:
    """The subnets that host-a is to have in its configuration."""
    assignment = management.assignments(ctx, watch)["host-a"]
    return [subnet_id for network in assignment.served for subnet_id, _ in network.subnets]


def run(ctx: Context, watch: Watch) -> SubnetState:
    """host-a serves; what it has."""
    answers(ctx, watch)
    replication.confirm(ctx, "host-a", SUBNET, epoch(ctx), 0)
    has = SubnetState(subnet=SUBNET, epoch=epoch(ctx), revision=0, count=0, digest=EMPTY_DIGEST)
    answers(ctx, watch, managed=True, has=has)
    assert state(ctx) == "running"
    return has


def test_nobody_serves_before_the_hosts_were_asked(ctx: Context, watch: Watch) -> None:
    management.plan(ctx, watch)
    assert state(ctx) is None


def test_a_subnet_is_configured_only_once_the_host_has_its_reservations(ctx: Context, watch: Watch) -> None:
    """What its journal has of an earlier life would serve addresses that are others' by now."""
    answers(ctx, watch)
    assert (state(ctx), served(ctx, watch)) == ("starting", [])
    replication.confirm(ctx, "host-a", SUBNET, epoch(ctx), 0)
    assert served(ctx, watch) == [SUBNET]


def test_a_server_runs_only_once_its_host_says_that_it_serves(ctx: Context, watch: Watch) -> None:
    answers(ctx, watch)
    replication.confirm(ctx, "host-a", SUBNET, epoch(ctx), 0)
    management.plan(ctx, watch)
    assert state(ctx) == "starting"
    run(ctx, watch)


def test_a_host_that_does_not_answer_once_is_not_down(ctx: Context, watch: Watch, clock: Clock) -> None:
    run(ctx, watch)
    clock.advance(3600)
    is_silent(ctx, watch)
    assert state(ctx) == "running"


def test_a_host_that_does_not_answer_for_long_enough_is_down(ctx: Context, watch: Watch, clock: Clock) -> None:
    run(ctx, watch)
    is_silent(ctx, watch)
    clock.advance(ctx.settings.host_down_after_s)
    is_silent(ctx, watch)
    assert state(ctx) == "unreachable"


def test_a_manager_that_was_away_itself_blames_nobody(ctx: Context, watch: Watch, clock: Clock) -> None:
    run(ctx, watch)
    clock.advance(3600)
    management.plan(ctx, watch)
    assert state(ctx) == "running"


def test_a_host_with_another_digest_is_to_get_everything_again(ctx: Context, watch: Watch, clock: Clock) -> None:
    run(ctx, watch)
    clock.advance(1)
    other = SubnetState(subnet=SUBNET, epoch=epoch(ctx), revision=0, count=1, digest="1" * 16)
    answers(ctx, watch, managed=True, has=other)
    assert isinstance(replication.next_step(ctx, "host-a", SUBNET), Resync)


@pytest.mark.parametrize("managed", [True, False])
def test_a_host_that_forgot_the_subnet_is_to_get_everything_again(
    ctx: Context, watch: Watch, clock: Clock, managed: bool
) -> None:
    """Its journal was lost, or somebody took the subnet out of its configuration."""
    run(ctx, watch)
    clock.advance(1)
    answers(ctx, watch, managed=managed)
    assert isinstance(replication.next_step(ctx, "host-a", SUBNET), Resync)


def test_a_server_that_is_to_stop_gets_changes_and_no_set_any_more(ctx: Context, watch: Watch) -> None:
    """Its hook may have forgotten the subnet by now, and would keep a set for when it comes back."""
    run(ctx, watch)
    held_vnic(ctx, "v")
    networks.put(ctx, "blue", ipam_enabled=False, ipam_servers=None)
    management.plan(ctx, watch)
    assert state(ctx) == "stopping"
    assert isinstance(replication.next_step(ctx, "host-a", SUBNET), Batch)
    replication.forget(ctx, "host-a", SUBNET)
    assert replication.next_step(ctx, "host-a", SUBNET) is None
    assert replication.lagging(ctx) == {}


def test_what_a_server_forgot_as_it_stopped_is_no_surprise(
    ctx: Context, watch: Watch, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    run(ctx, watch)
    networks.put(ctx, "blue", ipam_enabled=False, ipam_servers=None)
    management.plan(ctx, watch)
    clock.advance(1)
    answers(ctx, watch, managed=False)
    assert caplog.messages == []
    management.provided(ctx, watch, "host-a", [])
    assert state(ctx) is None


def test_a_status_from_before_a_confirmation_takes_nothing_back(ctx: Context, watch: Watch, clock: Clock) -> None:
    run(ctx, watch)
    asked_ms = ctx.now_ms()
    clock.advance(1)
    replication.confirm(ctx, "host-a", SUBNET, epoch(ctx), 0)
    status = HookStatus(host="host-a", boot=str(uuid.UUID(int=1)), subnets=(), managed=frozenset({SUBNET}))
    sightings.record_answers(ctx, watch, [Answer(host="host-a", asked_ms=asked_ms, status=status)])
    assert replication.lagging(ctx) == {}


def test_an_answer_that_was_overtaken_counts_for_nothing(ctx: Context, watch: Watch, clock: Clock) -> None:
    has = run(ctx, watch)
    before_ms = ctx.now_ms()
    clock.advance(1)
    answers(ctx, watch, managed=True, has=has)
    late = Answer(host="host-a", asked_ms=before_ms, status=None, reason="timed out")
    sightings.record_answers(ctx, watch, [late])
    assert hosts.get(ctx, "host-a").unreachable_reason is None


def test_a_kea_that_lost_our_subnets_does_not_count_as_running(ctx: Context, watch: Watch, clock: Clock) -> None:
    has = run(ctx, watch)
    clock.advance(1)
    answers(ctx, watch, managed=False, has=has)
    assert (state(ctx), served(ctx, watch)) == ("starting", [SUBNET])


def test_a_subnet_that_goes_while_it_is_decided_who_serves_it_is_no_fault(
    postgres_server: Postgres, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite has one writer at a time."""
    ctx = open_context(Settings(database_url=postgres_server.fresh_database()), clock)
    networks.put(ctx, "blue", ipam_enabled=True, ipam_servers=1)
    for cidr in ("192.0.2.0/24", "198.51.100.0/24"):
        subnets.create(ctx, SubnetSpec(network="blue", cidr=IPNetwork(cidr)))
    add_host(ctx, "host-a", "192.0.2.2")
    expect, decided = replication.expect, []

    def expect_late(connection: Connection, pairs: Collection[tuple[str, int]]) -> None:
        decided.append([subnet_id for _, subnet_id in pairs])
        if len(decided) == 1:
            subnets.delete_subnet(ctx, SUBNET + 1)
        expect(connection, pairs)

    monkeypatch.setattr(replication, "expect", expect_late)
    answers(ctx, Watch())
    assert (decided, states(ctx)) == ([[SUBNET, SUBNET + 1], [SUBNET]], {"host-a": "starting"})
    ctx.db.dispose()


def provides(ctx: Context, watch: Watch) -> None:
    """host-a takes the settings that are there now."""
    assignment = management.assignments(ctx, watch)["host-a"]
    management.provided(ctx, watch, "host-a", assignment.served, assignment.settings)


def confirmed_start(ctx: Context, ip: str) -> tuple[str, str | None]:
    """What host-a says of an address that is promised now, and that it has on disk."""
    name = f"nic-{ip}"
    vnics.put(ctx, VnicSpec(id=name, vm="vm", name="nic", subnet=SUBNET))
    vnics.start(ctx, name, wait="none", ip=IPAddress(ip))
    replication.confirm(ctx, "host-a", SUBNET, epoch(ctx), subnets.get(ctx, SUBNET).revision)
    try:
        (server,) = vnics.start(ctx, name).servers
    except NotConfirmed as error:
        (told,) = cast("list[dict[str, str]]", error.facts["servers"])
        return told["state"], told["detail"]
    return server.state, server.detail


def test_a_start_counts_on_a_server_only_for_addresses_in_the_cidr_that_its_kea_has(ctx: Context, watch: Watch) -> None:
    run(ctx, watch)
    provides(ctx, watch)
    subnet_changes.change(ctx, SUBNET, {"cidr": IPNetwork("192.0.2.0/23")})
    assert confirmed_start(ctx, "192.0.2.7") == ("confirmed", None)
    for outside in ("192.0.3.7", "192.0.2.255"):
        assert confirmed_start(ctx, outside) == ("pending", "Its Kea has not taken the subnet's new CIDR yet.")
    before = ctx.bell.heard(News.PLAN)
    provides(ctx, watch)
    assert ctx.bell.heard(News.PLAN) != before
    assert confirmed_start(ctx, "192.0.3.7") == ("confirmed", None)


def test_a_start_does_not_count_on_what_a_kea_had_before_the_cidr_became_smaller(ctx: Context, watch: Watch) -> None:
    """It may have taken the smaller one, and the answer be lost or late."""
    run(ctx, watch)
    subnet_changes.change(ctx, SUBNET, {"cidr": IPNetwork("192.0.2.0/23")})
    provides(ctx, watch)
    large = management.assignments(ctx, watch)["host-a"]
    subnet_changes.change(ctx, SUBNET, {"cidr": IPNetwork("192.0.2.0/24")})
    small = management.assignments(ctx, watch)["host-a"]
    management.provided(ctx, watch, "host-a", large.served, large.settings)
    subnet_changes.change(ctx, SUBNET, {"cidr": IPNetwork("192.0.2.0/23")})
    assert confirmed_start(ctx, "192.0.2.7")[0] == "confirmed"
    assert confirmed_start(ctx, "192.0.3.7")[0] == "pending"
    management.provided(ctx, watch, "host-a", small.served, small.settings)
    assert confirmed_start(ctx, "192.0.3.7")[0] == "pending"
    provides(ctx, watch)
    assert confirmed_start(ctx, "192.0.3.7")[0] == "confirmed"


def test_a_start_does_not_wait_for_settings_that_no_address_depends_on(ctx: Context, watch: Watch) -> None:
    run(ctx, watch)
    provides(ctx, watch)
    subnet_changes.change(ctx, SUBNET, {"dns": (IPAddress("192.0.2.53"),), "gateway": IPAddress("192.0.2.1")})
    assert confirmed_start(ctx, "192.0.2.7") == ("confirmed", None)


def test_a_server_tells_which_settings_its_kea_took(ctx: Context, watch: Watch) -> None:
    def told() -> tuple[int | None, int]:
        ((each,),) = [server.subnets for server in networks.list_servers(ctx, "blue")]
        return each.provided_revision, each.settings_revision

    run(ctx, watch)
    assert told() == (None, 1)
    provides(ctx, watch)
    asked = management.assignments(ctx, watch)["host-a"]
    subnet_changes.change(ctx, SUBNET, {"mtu": 1400})
    assert told() == (1, 2)
    management.provided(ctx, watch, "host-a", asked.served, asked.settings)
    assert told() == (1, 2)
    provides(ctx, watch)
    assert told() == (2, 2)
    management.provided(ctx, watch, "host-a", [])
    assert told() == (None, 2)


def refuses(ctx: Context, watch: Watch, *network_ids: str) -> None:
    """host-a's Kea does not take these networks as they are to be."""
    management.refused(ctx, watch, "host-a", network_ids, "Kea refused config-test: no")
    management.plan(ctx, watch)


def test_a_server_that_runs_says_what_its_kea_refuses_and_is_told_of_once(ctx: Context, watch: Watch) -> None:
    has = run(ctx, watch)
    provides(ctx, watch)
    since = networks.list_servers(ctx, "blue")[0].since
    refuses(ctx, watch, "blue")
    refuses(ctx, watch, "blue")
    assert serving(ctx, "blue") == {"host-a": ("running", "Kea refused config-test: no")}
    again = Watch()
    answers(ctx, again, managed=True, has=has)
    refuses(ctx, again, "blue")
    assert told(ctx) == ["started host-a", "refused host-a"]
    assert events.list_events(ctx, limit=100)[-1].data["detail"] == "Kea refused config-test: no"
    provides(ctx, again)
    assert serving(ctx, "blue") == {"host-a": ("running", None)}
    assert networks.list_servers(ctx, "blue")[0].since == since
    refuses(ctx, again, "blue")
    assert told(ctx)[2:] == ["refused host-a"]


def test_a_server_that_comes_back_still_says_what_its_kea_refuses(ctx: Context, watch: Watch, clock: Clock) -> None:
    has = run(ctx, watch)
    provides(ctx, watch)
    refuses(ctx, watch, "blue")
    falls(ctx, watch, clock)
    assert serving(ctx, "blue") == {"host-a": ("unreachable", "Connection refused")}
    clock.advance(1)
    answers(ctx, watch, managed=True, has=has)
    assert serving(ctx, "blue") == {"host-a": ("running", "Kea refused config-test: no")}
    assert told(ctx) == ["started host-a", "refused host-a", "unreachable host-a", "recovered host-a"]


def test_what_is_refused_while_no_guest_is_heard_is_told_too(ctx: Context, watch: Watch, clock: Clock) -> None:
    run(ctx, watch)
    loses_its_link(ctx, watch, clock)
    refuses(ctx, watch, "blue")
    assert serving(ctx, "blue") == {"host-a": ("unreachable", "interface eth0 has no link")}
    assert told(ctx) == ["started host-a", "unreachable host-a", "refused host-a"]


def test_a_host_that_refuses_one_network_is_chosen_for_others(ctx: Context, watch: Watch, clock: Clock) -> None:
    networks.put(ctx, "green", ipam_enabled=True, ipam_servers=1)
    subnets.create(ctx, SubnetSpec(network="green", cidr=IPNetwork("198.51.100.0/24")))
    on_both(ctx, "host-a", "192.0.2.2")
    answers(ctx, watch)
    assert [list(serving(ctx, name)) for name in ("blue", "green")] == [["host-a"], ["host-a"]]
    refuses(ctx, watch, "blue")
    on_both(ctx, "host-b", "192.0.2.3")
    answers(ctx, watch, host="host-b")
    assert [list(serving(ctx, name)) for name in ("blue", "green")] == [["host-a", "host-b"], ["host-a"]]


def second_subnet(ctx: Context, watch: Watch) -> int:
    """The network gets another subnet, which host-a, that runs, is to have too."""
    added = subnets.create(ctx, SubnetSpec(network="blue", cidr=IPNetwork("198.51.100.0/24"))).id
    management.plan(ctx, watch)
    return added


def test_a_server_that_runs_goes_on_while_a_subnet_is_added(ctx: Context, watch: Watch, clock: Clock) -> None:
    has = run(ctx, watch)
    provides(ctx, watch)
    before = networks.list_servers(ctx, "blue")[0].since
    clock.advance(1)
    added = second_subnet(ctx, watch)
    for _ in range(3):
        answers(ctx, watch, managed=True, has=has)
        assert (state(ctx), confirmed_start(ctx, "192.0.2.7")[0]) == ("running", "confirmed")
    vnics.put(ctx, VnicSpec(id="late", vm="vm", name="nic", subnet=added))
    vnics.start(ctx, "late", wait="none")
    replication.confirm(ctx, "host-a", added, epoch(ctx), 1)
    with pytest.raises(NotConfirmed):
        vnics.start(ctx, "late")
    provides(ctx, watch)
    vnics.start(ctx, "late")
    assert networks.list_servers(ctx, "blue")[0].since == before
    assert told(ctx) == ["started host-a"]


def test_a_server_that_loses_one_of_two_subnets_serves_the_other(ctx: Context, watch: Watch, clock: Clock) -> None:
    run(ctx, watch)
    lost = second_subnet(ctx, watch)
    replication.confirm(ctx, "host-a", lost, epoch(ctx), 0)
    provides(ctx, watch)
    clock.advance(1)
    has = SubnetState(subnet=SUBNET, epoch=epoch(ctx), revision=0, count=0, digest=EMPTY_DIGEST)
    answers(ctx, watch, managed=True, has=has)
    (server,) = networks.list_servers(ctx, "blue")
    assert [(each.subnet, each.provided_revision) for each in server.subnets] == [(SUBNET, 1), (lost, None)]
    assert (server.state, confirmed_start(ctx, "192.0.2.7")[0]) == ("running", "confirmed")


def test_a_server_that_was_down_runs_again_with_what_it_had(ctx: Context, watch: Watch, clock: Clock) -> None:
    """A subnet that was added since, and that its Kea may refuse, does not keep it from that."""
    has = run(ctx, watch)
    provides(ctx, watch)
    falls(ctx, watch, clock)
    second_subnet(ctx, watch)
    clock.advance(1)
    answers(ctx, watch, managed=True, has=has)
    assert state(ctx) == "running"
    assert told(ctx) == ["started host-a", "unreachable host-a", "recovered host-a"]


def second_host(ctx: Context, watch: Watch) -> None:
    """host-b is there too, up and idle."""
    add_host(ctx, "host-b", "192.0.2.3")
    answers(ctx, watch, host="host-b")


def states(ctx: Context) -> dict[str, str]:
    return {each.host: each.state for each in networks.list_servers(ctx, "blue")}


def held_vnic(ctx: Context, name: str) -> IPAddress:
    """A vNIC on the subnet that was started, without waiting; its address."""
    vnics.put(ctx, VnicSpec(id=name, vm="vm", name="nic", subnet=SUBNET))
    ip = vnics.start(ctx, name, wait="none").ip
    assert ip is not None
    return ip


def test_a_host_that_came_back_is_not_chosen_at_once(ctx: Context, watch: Watch, clock: Clock) -> None:
    second_host(ctx, watch)
    networks.put(ctx, "blue", ipam_enabled=False, ipam_servers=2)
    answers(ctx, watch)
    falls(ctx, watch, clock)
    clock.advance(1)
    answers(ctx, watch)
    networks.put(ctx, "blue", ipam_enabled=True, ipam_servers=2)
    answers(ctx, watch, host="host-b")
    assert states(ctx) == {"host-b": "starting"}
    until = hosts.show(ctx, "host-a").held_back_until
    assert until is not None
    replication.confirm(ctx, "host-b", SUBNET, epoch(ctx), 0)
    has = SubnetState(subnet=SUBNET, epoch=epoch(ctx), revision=0, count=0, digest=EMPTY_DIGEST)
    answers(ctx, watch, host="host-b", managed=True, has=has)
    assert states(ctx) == {"host-b": "running"}
    clock.advance((until - clock.now).total_seconds())
    management.plan(ctx, watch)
    assert states(ctx) == {"host-a": "starting", "host-b": "running"}


def test_a_host_that_never_answered_before_is_not_held_back(ctx: Context, watch: Watch, clock: Clock) -> None:
    networks.put(ctx, "blue", ipam_enabled=False, ipam_servers=1)
    falls(ctx, watch, clock)
    answers(ctx, watch)
    assert hosts.show(ctx, "host-a").held_back_until is None


def test_a_host_that_keeps_falling_is_held_back_for_longer(ctx: Context, watch: Watch, clock: Clock) -> None:
    networks.put(ctx, "blue", ipam_enabled=False, ipam_servers=1)
    answers(ctx, watch)
    held_s = []
    for pause_s in (0, 60, 60, ctx.settings.host_calm_s):
        clock.advance(pause_s)
        falls(ctx, watch, clock)
        answers(ctx, watch)
        until = hosts.show(ctx, "host-a").held_back_until
        assert until is not None
        held_s.append((until - clock.now).total_seconds())
    first_s = ctx.settings.host_hold_down_s
    assert held_s == [first_s, 2 * first_s, 4 * first_s, first_s]


def test_a_restarted_manager_holds_back_whom_it_held_back(ctx: Context, watch: Watch, clock: Clock) -> None:
    networks.put(ctx, "blue", ipam_enabled=False, ipam_servers=1)
    answers(ctx, watch)
    falls(ctx, watch, clock)
    answers(ctx, watch)
    before = hosts.show(ctx, "host-a").held_back_until
    answers(ctx, Watch())
    assert hosts.show(ctx, "host-a").held_back_until == before is not None


def test_a_manager_that_finds_a_host_down_holds_it_back_when_it_returns(
    ctx: Context, watch: Watch, clock: Clock
) -> None:
    """Also where it asked in vain for a moment only."""
    networks.put(ctx, "blue", ipam_enabled=False, ipam_servers=1)
    answers(ctx, watch)
    falls(ctx, watch, clock)
    again = Watch()
    is_silent(ctx, again)
    assert hosts.show(ctx, "host-a").state == "down"
    clock.advance(1)
    answers(ctx, again)
    until = hosts.show(ctx, "host-a").held_back_until
    assert until is not None
    assert (until - clock.now).total_seconds() == ctx.settings.host_hold_down_s


def test_a_host_that_is_down_falls_no_further_with_each_new_manager(ctx: Context, watch: Watch, clock: Clock) -> None:
    networks.put(ctx, "blue", ipam_enabled=False, ipam_servers=1)
    for _ in range(2):
        answers(ctx, watch)
        falls(ctx, watch, clock)
    for _ in range(3):
        again = Watch()
        falls(ctx, again, clock)
    answers(ctx, again)
    until = hosts.show(ctx, "host-a").held_back_until
    assert until is not None
    assert (until - clock.now).total_seconds() == 2 * ctx.settings.host_hold_down_s


def test_maintenance_moves_servers_away_first(ctx: Context, watch: Watch, clock: Clock) -> None:
    run(ctx, watch)
    second_host(ctx, watch)
    clock.advance(1)
    assert fencing.begin_maintenance(ctx, "host-a", by="test").state == "leaving"
    management.plan(ctx, watch)
    assert states(ctx) == {"host-a": "running", "host-b": "starting"}
    replication.confirm(ctx, "host-b", SUBNET, epoch(ctx), 0)
    has = SubnetState(subnet=SUBNET, epoch=epoch(ctx), revision=0, count=0, digest=EMPTY_DIGEST)
    answers(ctx, watch, host="host-b", managed=True, has=has)
    management.plan(ctx, watch)
    assert states(ctx) == {"host-a": "stopping", "host-b": "running"}
    with pytest.raises(InUse):
        hosts.delete_host(ctx, "host-a")
    answers(ctx, watch)
    management.provided(ctx, watch, "host-a", [])
    assert hosts.show(ctx, "host-a").state == "maintenance"
    assert fencing.activate(ctx, "host-a", by="test").state == "up"
    management.plan(ctx, watch)
    assert states(ctx) == {"host-b": "running"}


def test_a_dry_run_of_maintenance_and_fencing_changes_nothing(ctx: Context, watch: Watch, clock: Clock) -> None:
    run(ctx, watch)
    falls(ctx, watch, clock)
    before = hosts.show(ctx, "host-a")
    assert fencing.begin_maintenance(ctx, "host-a", by="test", dry_run=True).state == "leaving"
    assert fencing.fence(ctx, "host-a", by="test", dry_run=True).state == "fenced"
    hosts.change(ctx, "host-a", values={"username": "other"}, dry_run=True)
    assert hosts.show(ctx, "host-a") == before


def test_a_host_that_answers_cannot_be_fenced(ctx: Context, watch: Watch) -> None:
    with pytest.raises(HostAnswers):
        fencing.fence(ctx, "host-a", by="test")
    run(ctx, watch)
    with pytest.raises(HostAnswers):
        fencing.fence(ctx, "host-a", by="test")


def test_what_a_dead_host_holds_up_is_free_once_it_is_fenced(ctx: Context, watch: Watch, clock: Clock) -> None:
    run(ctx, watch)
    address = held_vnic(ctx, "v")
    replication.confirm(ctx, "host-a", SUBNET, epoch(ctx), 1)
    falls(ctx, watch, clock)
    vnics.stop(ctx, "v")
    reservations.sweep(ctx)
    shown = hosts.show(ctx, "host-a")
    assert (shown.state, shown.holds_up.count, [each.ip for each in shown.holds_up.first]) == ("down", 1, [address])
    with pytest.raises(InUse):
        hosts.delete_host(ctx, "host-a")
    fencing.fence(ctx, "host-a", by="test")
    assert hosts.show(ctx, "host-a").holds_up.count == 0
    assert states(ctx) == {}
    reservations.sweep(ctx)
    assert subnets.get(ctx, SUBNET).usage.cooling == 1
    hosts.delete_host(ctx, "host-a")


def test_a_fenced_host_counts_only_when_it_serves_nothing(ctx: Context, watch: Watch, clock: Clock) -> None:
    has = run(ctx, watch)
    falls(ctx, watch, clock)
    fencing.fence(ctx, "host-a", by="test")
    clock.advance(1)
    answers(ctx, watch, managed=True, has=has)
    assert (hosts.show(ctx, "host-a").state, states(ctx), served(ctx, watch)) == ("fenced", {"host-a": "stopping"}, [])
    with pytest.raises(HostFenced):
        fencing.activate(ctx, "host-a", by="test")
    clock.advance(1)
    answers(ctx, watch, managed=False, has=has)
    management.provided(ctx, watch, "host-a", [])
    management.plan(ctx, watch)
    assert hosts.show(ctx, "host-a").state == "up"
    management.plan(ctx, watch)
    assert states(ctx) == {"host-a": "starting"}
    told = [each.type for each in events.list_events(ctx, limit=100)]
    assert [each for each in told if each.startswith("host.")] == ["host.fenced", "host.returned"]


def test_a_fenced_host_that_shows_up_and_dies_for_good_is_fenced_again(
    ctx: Context, watch: Watch, clock: Clock
) -> None:
    """What it said that it serves would hold up addresses for ever."""
    has = run(ctx, watch)
    held_vnic(ctx, "v")
    falls(ctx, watch, clock)
    fencing.fence(ctx, "host-a", by="test")
    clock.advance(1)
    answers(ctx, watch, managed=True, has=has)
    fencing.fence(ctx, "host-a", by="test")
    vnics.stop(ctx, "v")
    falls(ctx, watch, clock)
    assert hosts.show(ctx, "host-a").holds_up.count == 1
    fencing.fence(ctx, "host-a", by="test")
    assert (hosts.show(ctx, "host-a").holds_up.count, states(ctx)) == (0, {})
    hosts.delete_host(ctx, "host-a")


def test_a_host_that_knows_more_than_the_database_shows_that_it_was_restored(
    ctx: Context, watch: Watch, clock: Clock
) -> None:
    run(ctx, watch)
    before = epoch(ctx)
    address = held_vnic(ctx, "known")
    clock.advance(1)
    ahead = SubnetState(subnet=SUBNET, epoch=before, revision=9, count=1, digest="1" * 16)
    answers(ctx, watch, managed=True, has=ahead)
    drawn = epoch(ctx)
    assert drawn != before
    assert isinstance(replication.next_step(ctx, "host-a", SUBNET), Resync)
    assert vnics.start(ctx, "known", wait="none").ip == address
    vnics.put(ctx, VnicSpec(id="new", vm="vm", name="nic", subnet=SUBNET))
    with pytest.raises(SubnetRecovering) as refusal:
        vnics.start(ctx, "new", wait="none")
    assert refusal.value.facts["hosts"] == ["host-a"]
    clock.advance(1)
    answers(ctx, watch, managed=True, has=ahead)
    assert epoch(ctx) == drawn
    replication.confirm(ctx, "host-a", SUBNET, drawn, 1)
    management.plan(ctx, watch)
    vnics.start(ctx, "new", wait="none")


def test_after_a_restore_a_host_that_was_not_heard_of_is_waited_for(ctx: Context, watch: Watch, clock: Clock) -> None:
    """It may serve although the database does not know that it does."""
    run(ctx, watch)
    second_host(ctx, watch)
    is_silent(ctx, watch)
    clock.advance(1)
    lineage.begin_new_history(ctx)
    clock.advance(1)
    answers(ctx, watch, host="host-b")
    replication.confirm(ctx, "host-a", SUBNET, epoch(ctx), 0)
    management.plan(ctx, watch)
    with pytest.raises(SubnetRecovering) as refusal:
        held_vnic(ctx, "v")
    assert refusal.value.facts["hosts"] == ["host-a"]
    fencing.fence(ctx, "host-a", by="test")
    management.plan(ctx, watch)
    held_vnic(ctx, "v")


def test_another_set_at_a_revision_of_ours_means_a_restore_only_at_first_sight(
    ctx: Context, watch: Watch, clock: Clock
) -> None:
    has = run(ctx, watch)
    before = epoch(ctx)
    for name in ("a", "b"):
        held_vnic(ctx, name)
    clock.advance(1)
    other = replace(has, revision=1, digest="1" * 16)
    answers(ctx, watch, managed=True, has=other)
    assert epoch(ctx) == before
    assert isinstance(replication.next_step(ctx, "host-a", SUBNET), Resync)
    clock.advance(1)
    answers(ctx, Watch(), managed=True, has=other)
    assert epoch(ctx) != before


def test_a_first_sight_that_could_not_be_kept_is_one_again(
    ctx: Context, watch: Watch, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manager began anew on a restored database, which was busy when the first host answered."""
    has = run(ctx, watch)
    before = epoch(ctx)
    for name in ("a", "b"):
        held_vnic(ctx, name)
    clock.advance(1)
    other = replace(has, revision=1, digest="1" * 16)
    again = Watch()

    def fail(*_: object) -> None:
        raise DatabaseBusy("Another writer did not finish in time.")

    with monkeypatch.context() as busy:
        busy.setattr(events, "append", fail)
        with pytest.raises(DatabaseBusy):
            answers(ctx, again, managed=True, has=other)
    assert epoch(ctx) == before
    clock.advance(1)
    answers(ctx, again, managed=True, has=other)
    assert epoch(ctx) != before


def foreign(subnet_id: int = SUBNET, count: int = 3) -> SubnetState:
    """What a host has of another history."""
    return SubnetState(subnet=subnet_id, epoch="another history", revision=9, count=count, digest="1" * 16)


def refused_for(ctx: Context, subnet_id: int = SUBNET) -> object:
    """The hosts because of which nothing is promised anew on the subnet; None where it is."""
    name = str(uuid.uuid4())
    vnics.put(ctx, VnicSpec(id=name, vm="vm", name="nic", subnet=subnet_id))
    try:
        vnics.start(ctx, name, wait="none")
    except SubnetRecovering as refusal:
        return refusal.facts["hosts"]
    return None


def test_a_host_that_serves_another_history_has_nothing_promised_anew(ctx: Context, watch: Watch, clock: Clock) -> None:
    """The database was lost, and the engine has filled a new one."""
    second_host(ctx, watch)
    answers(ctx, watch, managed=True, has=foreign())
    assert refused_for(ctx) == ["host-a"]
    clock.advance(1)
    answers(ctx, watch, managed=True, has=foreign())
    assert refused_for(ctx) == ["host-a"]
    replication.confirm(ctx, "host-a", SUBNET, epoch(ctx), 0)
    management.plan(ctx, watch)
    assert refused_for(ctx) is None
    (told_of,) = [each for each in events.list_events(ctx, limit=100) if each.type == "subnet.recovering"]
    assert (told_of.data["subnet"], told_of.data["host"]) == (SUBNET, "host-a")


def test_a_database_from_before_an_earlier_restore_promises_nothing_anew(
    ctx: Context, watch: Watch, clock: Clock
) -> None:
    """Its hosts are in an epoch that it does not know. Another one was not heard of since, and may be, too."""
    second_host(ctx, watch)
    run(ctx, watch)
    clock.advance(1)
    again = Watch()
    is_silent(ctx, again)
    answers(ctx, again, host="host-b", managed=True, has=foreign())
    assert refused_for(ctx) == ["host-a", "host-b"]
    replication.confirm(ctx, "host-b", SUBNET, epoch(ctx), 0)
    management.plan(ctx, again)
    assert refused_for(ctx) == ["host-a"]
    fencing.fence(ctx, "host-a", by="test")
    management.plan(ctx, again)
    assert refused_for(ctx) is None


def test_what_a_host_brings_along_is_no_matter_of_one_that_this_manager_heard_before(
    ctx: Context, watch: Watch, clock: Clock
) -> None:
    """A host of another installation is attached while another one is down: that one said what it serves, since nobody
    puts another database in place below a manager that goes on."""
    run(ctx, watch)
    falls(ctx, watch, clock)
    add_host(ctx, "host-b", "192.0.2.3")
    answers(ctx, watch, host="host-b", managed=True, has=foreign())
    assert refused_for(ctx) == ["host-b"]


@pytest.mark.parametrize(
    ("managed", "has"),
    [
        (False, foreign()),
        (True, foreign(count=0)),
        (True, replace(foreign(), epoch="")),
        (True, replace(foreign(), epoch="OURS being mended")),
    ],
    ids=["not served", "none", "by hand", "ours, being mended"],
)
def test_what_is_served_to_nobody_or_known_does_not_keep_addresses_back(
    ctx: Context, watch: Watch, managed: bool, has: SubnetState
) -> None:
    answers(ctx, watch, managed=managed, has=replace(has, epoch=has.epoch.replace("OURS", epoch(ctx))))
    assert refused_for(ctx) is None


def test_a_foreign_id_may_be_another_network_of_the_host(ctx: Context, watch: Watch, clock: Clock) -> None:
    """A new database gives its subnets the same ids in another order."""
    networks.put(ctx, "green", ipam_enabled=True, ipam_servers=1)
    green = subnets.create(ctx, SubnetSpec(network="green", cidr=IPNetwork("198.51.100.0/24")))
    on_both(ctx, "host-a", "192.0.2.2")
    answers(ctx, watch, managed=True, has=foreign())
    replication.confirm(ctx, "host-a", green.id, epoch(ctx), 0)
    management.plan(ctx, watch)
    assert refused_for(ctx, green.id) == ["host-a"]
    replication.confirm(ctx, "host-a", SUBNET, epoch(ctx), 0)
    management.plan(ctx, watch)
    assert refused_for(ctx, green.id) is None


def strays(ctx: Context, watch: Watch, *subnet_ids: int) -> None:
    """host-a answers that it serves these subnets, and the manager decides."""
    states = tuple(foreign(each) for each in subnet_ids)
    status = HookStatus(host="host-a", boot=str(uuid.UUID(int=1)), subnets=states, managed=frozenset(subnet_ids))
    sightings.record_answers(ctx, watch, [Answer(host="host-a", asked_ms=ctx.now_ms(), status=status)])
    management.plan(ctx, watch)


def test_a_host_that_serves_a_subnet_that_is_not_here_is_waited_for(ctx: Context, watch: Watch, clock: Clock) -> None:
    for again in (watch, Watch()):
        strays(ctx, again, SUBNET + 7)
        replication.confirm(ctx, "host-a", SUBNET, epoch(ctx), 0)
        management.plan(ctx, again)
        assert refused_for(ctx) == ["host-a"]
        clock.advance(1)
    strays(ctx, again)
    replication.confirm(ctx, "host-a", SUBNET, epoch(ctx), 0)
    management.plan(ctx, again)
    assert refused_for(ctx) is None


def test_a_host_that_served_a_subnet_that_is_not_here_and_is_dead_can_be_fenced(
    ctx: Context, watch: Watch, clock: Clock
) -> None:
    strays(ctx, watch, SUBNET + 7)
    falls(ctx, watch, clock)
    assert refused_for(ctx) == ["host-a"]
    fencing.fence(ctx, "host-a", by="test")
    management.plan(ctx, watch)
    assert refused_for(ctx) is None


def test_the_log_is_pruned_to_what_servers_and_settings_need(ctx: Context, watch: Watch) -> None:
    ctx = replace(ctx, settings=replace(ctx.settings, reservation_log_least=2, reservation_log_most=6))
    run(ctx, watch)
    for number in range(5):
        held_vnic(ctx, f"v{number}")
    replication.confirm(ctx, "host-a", SUBNET, epoch(ctx), 1)
    assert replication.prune(ctx) == 1
    replication.confirm(ctx, "host-a", SUBNET, epoch(ctx), 5)
    assert replication.prune(ctx) == 2
    for number in range(10):
        held_vnic(ctx, f"w{number}")
    assert replication.prune(ctx) == 6
    assert isinstance(replication.next_step(ctx, "host-a", SUBNET), Resync)


def on_both(ctx: Context, name: str, address: str) -> None:
    """A host that is attached to blue and to green."""
    attached = {
        network: HostNetwork(interface=f"eth-{network}", address=IPAddress(address)) for network in ("blue", "green")
    }
    hosts.put(ctx, name, control_url="http://h", username="u", password="p", networks=attached)


def serving(ctx: Context, network: str) -> dict[str, tuple[str, str | None]]:
    return {each.host: (each.state, each.detail) for each in networks.list_servers(ctx, network)}


def all_confirm(ctx: Context) -> None:
    with ctx.db.write() as connection:
        connection.execute(update(server_subnets).values(confirmed_revision=0))


def test_a_host_serves_one_of_several_networks_that_share_addresses(ctx: Context, watch: Watch) -> None:
    """Kea keeps one lease for each address, whatever the subnet."""
    networks.put(ctx, "green", ipam_enabled=True, ipam_servers=1)
    subnets.create(ctx, SubnetSpec(network="green", cidr=IPNetwork("192.0.2.0/25")))
    on_both(ctx, "host-a", "192.0.2.2")
    answers(ctx, watch)
    assert (list(serving(ctx, "blue")), list(serving(ctx, "green"))) == (["host-a"], [])
    on_both(ctx, "host-b", "192.0.2.3")
    answers(ctx, watch, host="host-b")
    assert (list(serving(ctx, "blue")), list(serving(ctx, "green"))) == (["host-a"], ["host-b"])


def test_a_network_that_comes_to_share_addresses_moves_to_another_host(ctx: Context, watch: Watch) -> None:
    networks.put(ctx, "green", ipam_enabled=True, ipam_servers=1)
    first = subnets.create(ctx, SubnetSpec(network="green", cidr=IPNetwork("198.51.100.0/24")))
    on_both(ctx, "host-a", "192.0.2.2")
    answers(ctx, watch)
    all_confirm(ctx)
    assert served(ctx, watch) == [SUBNET, first.id]
    subnets.create(ctx, SubnetSpec(network="green", cidr=IPNetwork("192.0.2.128/25")))
    management.plan(ctx, watch)
    all_confirm(ctx)
    assert served(ctx, watch) == [SUBNET]
    ((state, detail),) = serving(ctx, "green").values()
    assert (state, "shares addresses" in str(detail)) == ("starting", True)
    before = serving(ctx, "green")
    management.plan(ctx, watch)
    assert serving(ctx, "green") == before
    on_both(ctx, "host-b", "192.0.2.3")
    answers(ctx, watch, host="host-b")
    assert serving(ctx, "green").keys() == {"host-a", "host-b"}


LINK: dict[str, str | None] = {"eth0": None}
NO_LINK: dict[str, str | None] = {"eth0": "no-link", "eth9": None}


def runs(ctx: Context, watch: Watch, host: str, interfaces: dict[str, str | None] | None = None) -> None:
    """The host has all that is wanted of it, and says so."""
    replication.confirm(ctx, host, SUBNET, epoch(ctx), 0)
    has = SubnetState(subnet=SUBNET, epoch=epoch(ctx), revision=0, count=0, digest=EMPTY_DIGEST)
    answers(ctx, watch, host=host, managed=True, has=has, interfaces=interfaces or LINK)


def loses_its_link(ctx: Context, watch: Watch, clock: Clock) -> None:
    """host-a answers all the time, and says for long enough that it hears no guests."""
    for pause_s in (1, ctx.settings.host_down_after_s):
        clock.advance(pause_s)
        runs(ctx, watch, "host-a", NO_LINK)


def told(ctx: Context) -> list[str]:
    """The events of servers, without `server.`, and the hosts."""
    every = events.list_events(ctx, limit=100)
    return [f"{each.type[7:]} {each.data['host']}" for each in every if each.type.startswith("server.")]


def test_a_host_that_hears_no_guests_for_a_moment_is_not_replaced(ctx: Context, watch: Watch, clock: Clock) -> None:
    run(ctx, watch)
    second_host(ctx, watch)
    for interfaces in 3 * (NO_LINK, NO_LINK, LINK):
        clock.advance(ctx.settings.host_down_after_s - 1)
        runs(ctx, watch, "host-a", interfaces)
    assert states(ctx) == {"host-a": "running"}


def test_one_answer_that_comes_late_is_one_look(ctx: Context, watch: Watch, clock: Clock) -> None:
    run(ctx, watch)
    second_host(ctx, watch)
    clock.advance(1)
    status = HookStatus(
        host="host-a", boot=str(uuid.UUID(int=1)), subnets=(), managed=frozenset({SUBNET}), interfaces=NO_LINK
    )
    answer = Answer(host="host-a", asked_ms=ctx.now_ms(), status=status)
    clock.advance(ctx.settings.host_down_after_s)
    sightings.record_answers(ctx, watch, [answer])
    management.plan(ctx, watch)
    assert "host-b" not in states(ctx)


@pytest.mark.parametrize(
    ("interfaces", "why"),
    [
        ({"eth0": "no-link"}, "interface eth0 has no link"),
        ({"eth0": "down"}, "interface eth0 is down"),
        ({"eth0": "no-socket"}, "interface eth0 has no socket of Kea's: config-reload opens it"),
        ({"eth9": None}, "interface eth0 does not exist, or has no IPv4 address"),
        ({"eth0": "of-tomorrow"}, "interface eth0 is told to have 'of-tomorrow'"),
    ],
)
def test_a_server_that_hears_no_guests_for_long_enough_says_why(
    ctx: Context, watch: Watch, clock: Clock, interfaces: dict[str, str | None], why: str
) -> None:
    run(ctx, watch)
    for pause_s in (1, ctx.settings.host_down_after_s):
        clock.advance(pause_s)
        runs(ctx, watch, "host-a", interfaces)
    assert serving(ctx, "blue") == {"host-a": ("unreachable", why)}
    assert told(ctx) == ["started host-a", "unreachable host-a"]
    assert events.list_events(ctx, limit=100)[-1].data["detail"] == why
    shown = hosts.show(ctx, "host-a")
    assert (shown.state, shown.detail) == ("up", f"It does not hear the guests of network blue ({why}).")


def test_a_hook_that_does_not_tell_of_interfaces_hears_guests(ctx: Context, watch: Watch, clock: Clock) -> None:
    """One of an older release."""
    has = run(ctx, watch)
    loses_its_link(ctx, watch, clock)
    assert states(ctx) == {"host-a": "unreachable"}
    clock.advance(1)
    answers(ctx, watch, managed=True, has=has, interfaces=None)
    assert states(ctx) == {"host-a": "running"}


def test_a_server_without_link_goes_once_its_replacement_runs_and_nobody_is_swapped_back(
    ctx: Context, watch: Watch, clock: Clock
) -> None:
    run(ctx, watch)
    second_host(ctx, watch)
    loses_its_link(ctx, watch, clock)
    assert states(ctx) == {"host-a": "unreachable", "host-b": "starting"}
    assert served(ctx, watch) == [SUBNET]
    runs(ctx, watch, "host-b")
    management.plan(ctx, watch)
    assert states(ctx) == {"host-a": "stopping", "host-b": "running"}
    clock.advance(1)
    answers(ctx, watch, interfaces=NO_LINK)
    management.provided(ctx, watch, "host-a", [])
    clock.advance(1)
    answers(ctx, watch, interfaces=LINK)
    for _ in range(3):
        clock.advance(ctx.settings.host_hold_down_most_s)
        answers(ctx, watch, interfaces=LINK)
    assert states(ctx) == {"host-b": "running"}
    assert told(ctx) == ["started host-a", "unreachable host-a", "started host-b", "stopped host-a"]


def test_a_server_without_link_stays_where_no_other_can_replace_it(ctx: Context, watch: Watch, clock: Clock) -> None:
    run(ctx, watch)
    second_host(ctx, watch)
    for pause_s in (1, ctx.settings.host_down_after_s):
        clock.advance(pause_s)
        answers(ctx, watch, host="host-b", interfaces=NO_LINK)
    loses_its_link(ctx, watch, clock)
    assert states(ctx) == {"host-a": "unreachable"}
    assert served(ctx, watch) == [SUBNET]
    clock.advance(1)
    runs(ctx, watch, "host-a")
    assert states(ctx) == {"host-a": "running"}
    assert told(ctx) == ["started host-a", "unreachable host-a", "recovered host-a"]


def test_a_link_that_is_lost_on_one_network_changes_nothing_on_another(
    ctx: Context, watch: Watch, clock: Clock
) -> None:
    networks.put(ctx, "green", ipam_enabled=True, ipam_servers=1)
    subnets.create(ctx, SubnetSpec(network="green", cidr=IPNetwork("198.51.100.0/24")))
    on_both(ctx, "host-a", "192.0.2.2")
    on_both(ctx, "host-b", "192.0.2.3")
    for pause_s in (1, ctx.settings.host_down_after_s):
        clock.advance(pause_s)
        answers(ctx, watch, interfaces={"eth-blue": "no-link", "eth-green": None})
        answers(ctx, watch, host="host-b", interfaces={"eth-blue": None, "eth-green": "no-link"})
    assert (list(serving(ctx, "blue")), list(serving(ctx, "green"))) == (["host-b"], ["host-a"])


def test_a_host_whose_link_came_back_is_held_back_also_by_a_restarted_manager(
    ctx: Context, watch: Watch, clock: Clock
) -> None:
    run(ctx, watch)
    second_host(ctx, watch)
    loses_its_link(ctx, watch, clock)
    runs(ctx, watch, "host-b")
    management.plan(ctx, watch)
    clock.advance(1)
    answers(ctx, watch, interfaces=LINK)
    management.provided(ctx, watch, "host-a", [])
    networks.put(ctx, "blue", ipam_enabled=True, ipam_servers=2)
    again = Watch()
    answers(ctx, again, interfaces=LINK)
    runs(ctx, again, "host-b")
    assert states(ctx) == {"host-b": "running"}
    clock.advance(ctx.settings.host_hold_down_s)
    runs(ctx, again, "host-b")
    assert states(ctx) == {"host-a": "starting", "host-b": "running"}


def test_a_host_without_link_falls_no_further_with_each_new_manager(ctx: Context, watch: Watch, clock: Clock) -> None:
    """Nor is it forgotten that it fell, where the last of them heard of it for a moment only."""
    networks.put(ctx, "blue", ipam_enabled=False, ipam_servers=1)
    for again in (watch, Watch(), Watch()):
        for pause_s in (1, ctx.settings.host_down_after_s):
            clock.advance(pause_s)
            answers(ctx, again, interfaces=NO_LINK)
    again = Watch()
    for interfaces in (NO_LINK, LINK):
        clock.advance(1)
        answers(ctx, again, interfaces=interfaces)
    add_host(ctx, "host-b", "192.0.2.3")
    networks.put(ctx, "blue", ipam_enabled=True, ipam_servers=2)
    answers(ctx, again, host="host-b", interfaces=LINK)
    runs(ctx, again, "host-b")
    assert states(ctx) == {"host-b": "running"}
    clock.advance(ctx.settings.host_hold_down_s)
    runs(ctx, again, "host-b")
    assert states(ctx) == {"host-a": "starting", "host-b": "running"}


def test_a_start_is_not_confirmed_by_a_server_without_link(ctx: Context, watch: Watch, clock: Clock) -> None:
    """Although it has the reservation: it may serve it any time."""
    run(ctx, watch)
    loses_its_link(ctx, watch, clock)
    vnics.put(ctx, VnicSpec(id="v", vm="vm", name="nic", subnet=SUBNET))
    vnics.start(ctx, "v", wait="none")
    replication.confirm(ctx, "host-a", SUBNET, epoch(ctx), 1)
    with pytest.raises(NotConfirmed) as refusal:
        vnics.start(ctx, "v", wait="one")
    assert "host-a (interface eth0 has no link)" in str(refusal.value)


def test_addresses_wait_for_a_server_without_link(ctx: Context, watch: Watch, clock: Clock) -> None:
    run(ctx, watch)
    held_vnic(ctx, "v")
    replication.confirm(ctx, "host-a", SUBNET, epoch(ctx), 1)
    loses_its_link(ctx, watch, clock)
    vnics.stop(ctx, "v")
    reservations.sweep(ctx)
    assert subnets.get(ctx, SUBNET).usage.draining == 1
    assert SUBNET in replication.lagging(ctx)["host-a"]


def test_a_server_that_loses_its_link_and_then_its_host_says_the_one_that_lasts(
    ctx: Context, watch: Watch, clock: Clock
) -> None:
    run(ctx, watch)
    loses_its_link(ctx, watch, clock)
    since = networks.list_servers(ctx, "blue")[0].since
    clock.advance(1)
    falls(ctx, watch, clock)
    clock.advance(3600)
    is_silent(ctx, watch)
    assert serving(ctx, "blue") == {"host-a": ("unreachable", "Connection refused")}
    assert networks.list_servers(ctx, "blue")[0].since == since
    assert told(ctx) == ["started host-a", "unreachable host-a"]
