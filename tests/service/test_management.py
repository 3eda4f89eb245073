"""What the manager decides from what hosts answer, on a clock that the test turns."""

import uuid

import pytest
from netaddr import IPAddress, IPNetwork

from leasehold.domain.replication import EMPTY_DIGEST, HookStatus, Resync, SubnetState
from leasehold.domain.values import HostNetwork, SubnetSpec
from leasehold.service import hosts, management, networks, replication, subnets
from leasehold.service.context import Context
from leasehold.service.management import Answer, Watch
from leasehold.service.replication import epoch_of
from leasehold.store.tables import FIRST_SUBNET_ID
from service.conftest import Clock

SUBNET = FIRST_SUBNET_ID


@pytest.fixture
def watch(ctx: Context) -> Watch:
    """One host on network blue, which has one subnet and wants one server."""
    networks.put(ctx, "blue", ipam_enabled=True, ipam_servers=1)
    subnets.create(ctx, SubnetSpec(network="blue", cidr=IPNetwork("192.0.2.0/24")))
    hosts.put(
        ctx,
        "host-a",
        control_url="http://198.51.100.1:8000/",
        username="u",
        password="p",
        networks={"blue": HostNetwork(interface="eth0", address=IPAddress("192.0.2.2"))},
    )
    return Watch()


def epoch(ctx: Context) -> str:
    with ctx.db.read() as connection:
        return epoch_of(connection)


def answers(ctx: Context, watch: Watch, *, managed: bool = False, has: SubnetState | None = None) -> None:
    """host-a answers, and the manager decides."""
    status = HookStatus(
        host="host-a",
        boot=str(uuid.UUID(int=1)),
        subnets=() if has is None else (has,),
        managed=frozenset({SUBNET} if managed else ()),
    )
    management.record_answers(ctx, watch, [Answer(host="host-a", asked_ms=ctx.now_ms(), status=status)])
    management.plan(ctx, watch)


def is_silent(ctx: Context, watch: Watch) -> None:
    """host-a is asked in vain, and the manager decides."""
    answer = Answer(host="host-a", asked_ms=ctx.now_ms(), status=None, reason="Connection refused")
    management.record_answers(ctx, watch, [answer])
    management.plan(ctx, watch)


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


def test_a_status_from_before_a_confirmation_takes_nothing_back(ctx: Context, watch: Watch, clock: Clock) -> None:
    run(ctx, watch)
    asked_ms = ctx.now_ms()
    clock.advance(1)
    replication.confirm(ctx, "host-a", SUBNET, epoch(ctx), 0)
    status = HookStatus(host="host-a", boot=str(uuid.UUID(int=1)), subnets=(), managed=frozenset({SUBNET}))
    management.record_answers(ctx, watch, [Answer(host="host-a", asked_ms=asked_ms, status=status)])
    assert replication.lagging(ctx) == {}


def test_an_answer_that_was_overtaken_counts_for_nothing(ctx: Context, watch: Watch, clock: Clock) -> None:
    has = run(ctx, watch)
    before_ms = ctx.now_ms()
    clock.advance(1)
    answers(ctx, watch, managed=True, has=has)
    late = Answer(host="host-a", asked_ms=before_ms, status=None, reason="timed out")
    management.record_answers(ctx, watch, [late])
    assert hosts.get(ctx, "host-a").unreachable_reason is None


def test_a_kea_that_lost_our_subnets_does_not_count_as_running(ctx: Context, watch: Watch, clock: Clock) -> None:
    has = run(ctx, watch)
    clock.advance(1)
    answers(ctx, watch, managed=False, has=has)
    assert (state(ctx), served(ctx, watch)) == ("starting", [SUBNET])
