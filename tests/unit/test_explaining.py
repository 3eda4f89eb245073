"""What stands between a client and its address, in the order in which it goes its way."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from netaddr import IPAddress

from leasehold.domain.addresses import Mac
from leasehold.domain.explaining import Cause, Evidence, Heard, LeaseSeen, Rejected, Witness, judge
from leasehold.domain.values import Vnic

MAC, OTHER = Mac(0x02_00_00_00_00_01), Mac(0x02_00_00_00_00_02)
IP = IPAddress("192.0.2.10")
SUBNET, ELSEWHERE = 7, 8
NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
EARLIER = NOW - timedelta(minutes=1)

VNIC = Vnic(
    id="nic1",
    vm="web-1",
    name="eth0",
    cluster=None,
    vm_pool=None,
    network="blue",
    subnet=SUBNET,
    mac=MAC,
    mac_pool="default",
    in_range=True,
    twins=(),
    running=True,
    ip=IP,
    ip_state="held",
    revision=1,
    missing_since=None,
)
SERVER = Witness(host="host-a", state="running", detail=None, confirmed=True, lag=0)
READY = Evidence(
    mac=MAC,
    vnic=VNIC,
    network="blue",
    ipam_enabled=True,
    subnet=SUBNET,
    cidr="192.0.2.0/24",
    promised=IP,
    address_state="held",
    hosts_attached=1,
    witnesses=(SERVER,),
)


def lease(mac: Mac = MAC, state: str = "assigned", ip: IPAddress = IP) -> LeaseSeen:
    return LeaseSeen(subnet=SUBNET, ip=ip, mac=mac, state=state, expires_at=NOW)


def rejected(subnet: int = SUBNET, reason: str = "unknown", at: datetime = NOW) -> Rejected:
    return Rejected(subnet=subnet, reason=reason, count=3, at=at)


def heard(at: datetime = NOW, answer: str | None = "OFFER") -> Heard:
    return Heard(subnet=SUBNET, message="DISCOVER", at=at, answer=answer)


def with_server(**fields: object) -> Evidence:
    return replace(READY, witnesses=(replace(SERVER, **fields),))  # type: ignore[arg-type]


CASES: list[tuple[Cause, Evidence, list[str]]] = [
    ("mac-unknown", Evidence(mac=MAC), [str(MAC)]),
    ("mac-unknown", Evidence(mac=MAC, former="nic9", rejected=(rejected(),)), ["nic9", "12:00:00"]),
    ("no-subnet", replace(READY, vnic=replace(VNIC, subnet=None), subnet=None, promised=None), ["nic1", "no subnet"]),
    ("ipam-off", replace(READY, ipam_enabled=False), ["blue"]),
    ("stopped", replace(READY, vnic=replace(VNIC, running=False), promised=None, address_state=None), ["stopped"]),
    ("stopped", replace(READY, vnic=replace(VNIC, running=False), address_state="draining"), [str(IP), "draining"]),
    ("not-promised", replace(READY, promised=None, address_state=None), ["192.0.2.0/24"]),
    ("no-servers", replace(READY, witnesses=()), ["blue", "1 hosts"]),
    ("no-servers", with_server(state="stopping"), ["blue"]),
    ("no-servers", replace(READY, witnesses=(), link_faults=("host-a (no link)",)), ["guests: host-a (no link)"]),
    ("no-servers", replace(READY, witnesses=(), hosts_attached=0), ["no host is attached"]),
    ("hosts-down", with_server(state="unreachable", detail="timed out"), ["host-a", "timed out"]),
    ("hosts-down", with_server(failure="connection refused"), ["host-a", "connection refused"]),
    ("not-confirmed", with_server(state="starting", confirmed=False, lag=4, detail="resync"), ["host-a", "resync"]),
    ("declined", with_server(leases=(lease(state="declined"),)), [str(IP), "another machine"]),
    ("stale-lease", with_server(leases=(lease(OTHER),)), [str(OTHER), "host-a"]),
    ("leased", with_server(leases=(lease(),)), [str(IP), "host-a"]),
    ("leased", with_server(leases=(lease(),), rejected=(rejected(at=EARLIER),)), [str(IP)]),
    ("other-subnet", with_server(rejected=(rejected(ELSEWHERE),)), [str(ELSEWHERE), str(IP)]),
    ("other-subnet", with_server(rejected=(rejected(reason="other-subnet"),)), [str(IP)]),
    ("other-subnet", replace(READY, rejected=(rejected(ELSEWHERE),)), [str(ELSEWHERE)]),
    ("refused", with_server(rejected=(rejected(),)), ["turned away", "3 packets"]),
    ("refused", with_server(rejected=(rejected(),), heard=(heard(EARLIER),)), ["turned away"]),
    ("not-taken", with_server(heard=(heard(),), rejected=(rejected(at=EARLIER),)), ["DISCOVER", str(IP)]),
    ("not-taken", with_server(heard=(heard(),), leases=(lease(state="expired"),)), ["DISCOVER"]),
    ("unanswered", with_server(heard=(heard(answer=None),)), ["not", "DISCOVER"]),
    ("silent", READY, ["no DISCOVER", "host-a"]),
    ("silent", with_server(leases=(lease(ip=IPAddress("192.0.2.99")),)), ["no DISCOVER"]),
    ("silent", replace(READY, vnic=None), [f"MAC {MAC}"]),
]


@pytest.mark.parametrize(("cause", "known", "said"), CASES)
def test_the_first_obstacle_is_told(cause: Cause, known: Evidence, said: list[str]) -> None:
    verdict = judge(known)
    assert verdict.cause == cause
    assert verdict.has_address == (cause == "leased")
    assert all(each in verdict.sentence for each in said), verdict.sentence


@pytest.mark.parametrize("known", [known for _, known, _ in CASES])
def test_it_is_one_sentence_and_says_what_to_do(known: Evidence) -> None:
    verdict = judge(known)
    assert verdict.sentence.endswith(".")
    assert ". " not in verdict.sentence
    assert verdict.advice.endswith(".")


def test_one_server_that_is_well_is_enough() -> None:
    down = replace(SERVER, host="host-b", state="unreachable", confirmed=False, failure="timed out")
    assert judge(replace(READY, witnesses=(down, SERVER))).cause == "silent"
    assert judge(replace(READY, witnesses=(down, replace(SERVER, leases=(lease(),))))).cause == "leased"
