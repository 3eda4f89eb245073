"""Which hosts are chosen to serve a network."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from netaddr import IPAddress, IPNetwork

from leasehold.domain.placement import Candidate, Placement, Served, halves, hold_down_s, place, reduced
from leasehold.domain.values import HostNetwork, SubnetSpec

CALM: dict[str, Any] = {
    "health": "up",
    "attached": True,
    "refuses": False,
    "leaving": False,
    "held": False,
    "state": None,
    "load": 0,
}


def host(name: str, **differences: Any) -> Candidate:
    return Candidate(host=name, **{**CALM, **differences})


@st.composite
def hosts(draw: st.DrawFn) -> list[Candidate]:
    names = draw(st.lists(st.sampled_from("abcdefgh"), unique=True))
    return [
        Candidate(
            host=name,
            health=draw(st.sampled_from(["up", "doubtful", "down"])),
            attached=draw(st.booleans()),
            refuses=draw(st.booleans()),
            leaving=draw(st.booleans()),
            held=draw(st.booleans()),
            state=draw(st.sampled_from([None, "starting", "running", "unreachable", "stopping"])),
            load=draw(st.integers(0, 3)),
        )
        for name in names
    ]


def is_present(candidate: Candidate) -> bool:
    return candidate.state not in (None, "stopping")


def is_well(candidate: Candidate) -> bool:
    return (
        is_present(candidate)
        and candidate.attached
        and candidate.health != "down"
        and not candidate.leaving
        and not (candidate.refuses and candidate.state == "starting")
    )


def serves(candidate: Candidate) -> bool:
    return candidate.state == "running" and candidate.health != "down"


def after(candidates: list[Candidate], placement: Placement) -> list[Candidate]:
    """The hosts once it was done, and those that could have begun to run do."""
    done = []
    for each in candidates:
        if each.host in placement.stop:
            done.append(replace(each, state="stopping"))
        elif each.host in placement.start:
            done.append(replace(each, state="running" if not each.refuses else "starting"))
        else:
            done.append(each)
    return done


def served(*subnets: int) -> Served:
    """A network, called as its first subnet, with these."""
    name = str(subnets[0])
    spec = SubnetSpec(network=name, cidr=IPNetwork("192.0.2.0/24"))
    return Served(
        network=name,
        attachment=HostNetwork(interface="eth0", address=IPAddress("192.0.2.2")),
        subnets=tuple((each, spec) for each in subnets),
    )


def test_networks_are_parted_before_the_subnets_of_one() -> None:
    whole = (served(1, 2, 3), served(4), served(5))
    first, second = halves(whole)
    assert (first, second) == (whole[:1], whole[1:])
    assert [[each for each, _ in part.subnets] for (part,) in halves(first)] == [[1], [2, 3]]
    assert halves((served(4),)) == []


def test_what_is_not_wanted_stays_as_it_is_where_it_is_to_be_kept() -> None:
    found = reduced([served(1, 2, 3), served(4)], {2}, {3, 9})
    assert [each.network for each in found] == ["1"]
    assert [(subnet_id, spec is None) for subnet_id, spec in found[0].subnets] == [(2, False), (3, True)]
    assert reduced([served(1, 2)], {1, 2}, ()) == (served(1, 2),)


def test_the_least_loaded_hosts_begin() -> None:
    assert place(2, [host("a", load=2), host("b", load=0), host("c", load=1)]) == Placement(start=("b", "c"))


def test_of_equal_hosts_the_first_by_name_begins() -> None:
    assert place(1, [host("b"), host("a")]) == Placement(start=("a",))


def test_a_host_that_still_serves_is_preferred() -> None:
    assert place(1, [host("a"), host("b", state="stopping", load=3)]) == Placement(start=("b",))


def test_a_server_on_a_host_that_is_down_stays_while_its_replacement_starts() -> None:
    down = host("a", state="unreachable", health="down")
    assert place(1, [down, host("b")]) == Placement(start=("b",))


def test_a_server_on_a_host_that_is_down_goes_once_its_replacement_runs() -> None:
    down = host("a", state="unreachable", health="down")
    assert place(1, [down, host("b", state="running")]) == Placement(stop=("a",))


def test_a_server_on_a_host_that_is_down_stays_where_no_other_can_replace_it() -> None:
    assert place(1, [host("a", state="unreachable", health="down"), host("b", attached=False)]) == Placement()


def test_a_host_that_came_back_is_not_needed_when_another_runs() -> None:
    returned = host("a", state="unreachable")
    assert place(1, [returned, host("b", state="running")]) == Placement(stop=("a",))


def test_a_host_that_has_not_answered_for_a_moment_is_not_replaced() -> None:
    assert place(1, [host("a", state="running", health="doubtful"), host("b")]) == Placement()


def test_a_server_that_is_down_on_this_network_only_is_replaced_as_on_a_host_that_is_down() -> None:
    """As the hosts `a` and `c`, which serve other networks all the time."""
    deaf = host("a", state="unreachable", health="down", load=3)
    assert place(1, [deaf, host("b", load=9), host("c", health="down")]) == Placement(start=("b",))
    assert place(1, [deaf, host("b", state="starting"), host("c")]) == Placement()
    assert place(1, [deaf, host("b", state="running"), host("c")]) == Placement(stop=("a",))
    assert place(1, [deaf, host("c", health="doubtful")]) == Placement()


def test_a_server_whose_kea_refuses_is_replaced() -> None:
    refusing = host("a", state="starting", refuses=True)
    assert place(1, [refusing, host("b")]) == Placement(start=("b",))
    assert place(1, [refusing, host("b", state="running")]) == Placement(stop=("a",))


def test_a_network_that_wants_none_has_all_its_servers_stopped() -> None:
    servers = [host("a", state="running"), host("b", state="unreachable", health="down"), host("c", state="starting")]
    assert place(0, servers) == Placement(stop=("a", "b", "c"))


def test_a_host_that_lost_the_network_stops() -> None:
    assert place(1, [host("a", state="running", attached=False)]) == Placement(stop=("a",))


def test_a_host_in_maintenance_goes_on_until_its_replacement_runs() -> None:
    leaving = host("a", state="running", leaving=True)
    assert place(1, [leaving, host("b")]) == Placement(start=("b",))
    assert place(1, [leaving, host("b", state="starting")]) == Placement()
    assert place(1, [leaving, host("b", state="running")]) == Placement(stop=("a",))


def test_a_host_in_maintenance_goes_on_where_nobody_else_serves() -> None:
    assert place(1, [host("a", state="running", leaving=True), host("b", health="down")]) == Placement()


def test_a_host_in_maintenance_goes_where_others_serve_and_nobody_is_left_to_replace_it() -> None:
    both = [host("a", state="running", leaving=True), host("b", state="running")]
    assert place(2, both) == Placement(stop=("a",))


def test_a_host_that_came_back_lately_is_not_chosen_where_others_serve() -> None:
    returned = host("c", held=True)
    assert place(2, [host("a", state="running"), host("b", state="unreachable", health="down"), returned]) == (
        Placement()
    )
    assert place(2, [host("a", state="running"), host("b", state="unreachable", health="down"), host("c")]) == (
        Placement(start=("c",))
    )


def test_a_host_that_came_back_lately_is_better_than_none() -> None:
    assert place(2, [host("a", held=True), host("b", state="unreachable", health="down")]) == Placement(start=("a",))


def test_each_fall_doubles_the_hold_down_up_to_the_most() -> None:
    assert [hold_down_s(falls, 30, 200) for falls in range(1, 6)] == [30, 60, 120, 200, 200]


@given(st.integers(0, 5), hosts())
def test_as_many_as_wanted_where_that_can_be(wanted: int, candidates: list[Candidate]) -> None:
    placement = place(wanted, candidates)
    well = sum(is_well(each) for each in candidates if each.host not in placement.stop)
    able = [
        each
        for each in candidates
        if each.attached and each.health == "up" and not each.refuses and not each.leaving and not is_present(each)
    ]
    ready = [each for each in able if not each.held]
    started = [each for each in candidates if each.host in placement.start and not each.refuses]
    least = min(wanted, sum(map(is_well, candidates)) + len(ready))
    if not least and wanted and not any(serves(each) and each.attached for each in candidates):
        least = min(wanted, len(able))
    assert well + len(started) >= least
    assert well + len(started) <= wanted


@given(st.integers(0, 5), hosts())
def test_one_that_is_held_back_begins_only_where_nobody_else_serves(wanted: int, candidates: list[Candidate]) -> None:
    placement = place(wanted, candidates)
    if any(each.held for each in candidates if each.host in placement.start and not each.refuses):
        assert not any(is_well(each) or (serves(each) and each.attached) for each in candidates)
        assert all(each.held or each.refuses for each in candidates if each.host in placement.start)


@given(st.integers(1, 5), hosts())
def test_a_leaving_server_that_serves_goes_only_where_another_runs(wanted: int, candidates: list[Candidate]) -> None:
    placement = place(wanted, candidates)
    gone = [each for each in candidates if each.host in placement.stop and each.attached and serves(each)]
    if any(each.leaving for each in gone):
        assert any(serves(each) and each.host not in placement.stop for each in candidates)


@given(st.integers(0, 5), hosts())
def test_only_hosts_that_are_up_and_attached_begin(wanted: int, candidates: list[Candidate]) -> None:
    placement = place(wanted, candidates)
    begun = [each for each in candidates if each.host in placement.start]
    assert all(each.health == "up" and each.attached and not each.leaving and not is_present(each) for each in begun)


@given(st.integers(0, 5), hosts())
def test_no_running_server_stops_for_one_that_does_not_run_yet(wanted: int, candidates: list[Candidate]) -> None:
    placement = place(wanted, candidates)
    running = [each for each in candidates if is_well(each) and each.state == "running"]
    left = [each for each in running if each.host not in placement.stop]
    assert len(left) == min(wanted, len(running))


@given(st.integers(0, 5), hosts())
def test_what_was_done_is_not_undone(wanted: int, candidates: list[Candidate]) -> None:
    """Whatever is decided, it comes to rest: no swap without cause."""
    placement = Placement(start=("?",))
    for _ in range(4):
        placement = place(wanted, candidates)
        candidates = after(candidates, placement)
    assert place(wanted, candidates) == Placement()


@given(st.integers(0, 5), hosts().flatmap(lambda each: st.tuples(st.just(each), st.permutations(each))))
def test_the_order_of_hosts_does_not_matter(wanted: int, both: tuple[list[Candidate], list[Candidate]]) -> None:
    assert place(wanted, both[0]) == place(wanted, both[1])
