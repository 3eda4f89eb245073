"""Any sequence of commands and crashes, against a model of what must be in force."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hook.stand_in import StandIn
from leasehold_hook.hook import Hook
from leasehold_hook.reservations import address_text, digest_of, digest_text, mac_text

SUBNETS = st.sampled_from([7, 8])
MACS = st.integers(1, 6)
ADDRESSES = st.integers(0xC0000201, 0xC0000206)
ENTRIES = st.lists(
    st.tuples(MACS, ADDRESSES, st.sampled_from(["", "a", "b.example.org"])), max_size=5, unique_by=lambda row: row[0]
)

Set = dict[int, tuple[int, str]]


def clashes(reservations: Set) -> bool:
    return len({address for address, _ in reservations.values()}) < len(reservations)


def as_json(rows: list[tuple[int, int, str]]) -> list[dict[str, str]]:
    return [
        {"hw-address": mac_text(mac), "ip-address": address_text(address)} | ({"hostname": name} if name else {})
        for mac, address, name in rows
    ]


class Commands(RuleBasedStateMachine):
    """Applies, resyncs and single reservations, with a crash or a clean restart anywhere in between."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.generation = 0
        self.state = self.directory / "0"
        self.sets: dict[int, Set] = {7: {}, 8: {}}
        self.versions: dict[int, tuple[str, int]] = {7: ("", 0), 8: ("", 0)}
        self.withdrawn: dict[int, set[int]] = {7: set(), 8: set()}
        self.resyncs: dict[int, tuple[int, Set]] = {}
        self.load()

    def teardown(self) -> None:
        self.hook.close()
        shutil.rmtree(self.directory)

    def load(self) -> None:
        self.border = StandIn()
        self.hook = Hook(self.border)
        assert self.hook.load(json.dumps({"host-id": "h", "state-directory": str(self.state)})) is None

    def run(self, name: str, **arguments: object) -> dict[str, Any]:
        spelled = {argument.rstrip("_").replace("_", "-"): value for argument, value in arguments.items()}
        answer: dict[str, Any] = json.loads(
            self.hook.command(json.dumps({"command": name, "arguments": spelled}).encode())
        )
        return answer

    def put(self, subnet: int, wanted: Set) -> None:
        self.withdrawn[subnet] |= self.sets[subnet].keys()
        self.withdrawn[subnet] -= wanted.keys()
        self.sets[subnet] = wanted

    @rule(subnet=SUBNETS, rows=ENTRIES, unset=st.lists(MACS, unique=True, max_size=4), step=st.integers(1, 3))
    def apply(self, subnet: int, rows: list[tuple[int, int, str]], unset: list[int], step: int) -> None:
        epoch, revision = self.versions[subnet]
        wanted = {mac: held for mac, held in self.sets[subnet].items() if mac not in unset}
        wanted |= {mac: (address, name) for mac, address, name in rows}
        answer = self.run(
            "leasehold-apply",
            subnet_id=subnet,
            epoch=epoch or "e1",
            base=revision,
            revision=revision + step,
            set=as_json(rows),
            unset=[mac_text(mac) for mac in unset],
        )
        self.resyncs.pop(subnet, None)
        assert answer["result"] == (1 if clashes(wanted) else 0)
        if not clashes(wanted):
            self.put(subnet, wanted)
            self.versions[subnet] = (epoch or "e1", revision + step)

    @rule(subnet=SUBNETS, rows=ENTRIES, off=st.sampled_from([-1, 1]))
    def apply_on_a_wrong_base(self, subnet: int, rows: list[tuple[int, int, str]], off: int) -> None:
        epoch, revision = self.versions[subnet]
        base = max(0, revision + off) if revision else 1
        answer = self.run(
            "leasehold-apply", subnet_id=subnet, epoch=epoch or "e1", base=base, revision=base + 1, set=as_json(rows)
        )
        assert answer["result"] == 4

    @rule(subnet=SUBNETS, rows=ENTRIES, first=st.booleans(), last=st.booleans())
    def resync_page(self, subnet: int, rows: list[tuple[int, int, str]], first: bool, last: bool) -> None:
        page, staged = self.resyncs.pop(subnet, (0, {}))
        if first:
            page, staged = 0, {}
        answer = self.run(
            "leasehold-apply",
            subnet_id=subnet,
            epoch="e2",
            revision=5,
            replace=True,
            page=page + 1,
            last=last,
            set=as_json(rows),
        )
        whole = staged | {mac: (address, name) for mac, address, name in rows}
        epoch, revision = self.versions[subnet]
        if epoch == "e2" and revision > 5 and answer["result"] == 4:
            return  # it came late, and drops what it was part of
        assert epoch != "e2" or revision <= 5 or answer["result"] == 1
        if clashes(whole) or len(whole) < len(staged) + len(rows):
            assert answer["result"] == 1
            self.resyncs[subnet] = (page, staged)
        elif last:
            assert answer["result"] == 0
            self.put(subnet, whole)
            self.versions[subnet] = ("e2", 5)
        else:
            assert answer["result"] == 0
            self.resyncs[subnet] = (page + 1, whole)

    @rule(subnet=SUBNETS, mac=MACS, address=ADDRESSES)
    def add(self, subnet: int, mac: int, address: int) -> None:
        (entry,) = as_json([(mac, address, "")])
        answer = self.run("reservation-add", reservation={"subnet-id": subnet} | entry)
        wanted = self.sets[subnet] | {mac: (address, "")}
        possible = mac not in self.sets[subnet] and not clashes(wanted)
        assert answer["result"] == (0 if possible else 1)
        if possible:
            self.put(subnet, wanted)

    @rule(subnet=SUBNETS, mac=MACS)
    def delete(self, subnet: int, mac: int) -> None:
        answer = self.run("reservation-del", subnet_id=subnet, identifier_type="hw-address", identifier=mac_text(mac))
        assert answer["result"] == (0 if mac in self.sets[subnet] else 3)
        self.put(subnet, {held: kept for held, kept in self.sets[subnet].items() if held != mac})

    @rule()
    def restart(self) -> None:
        self.hook.close()
        self.resyncs.clear()
        self.load()

    @rule()
    def crash(self) -> None:
        """Goes on with the files as they are on disk, as after SIGKILL: nothing of the process comes along."""
        self.generation += 1
        left = self.directory / str(self.generation)
        shutil.copytree(self.state, left)
        self.hook.close()
        self.state = left
        self.resyncs.clear()
        self.load()

    @invariant()
    def the_store_has_what_was_promised(self) -> None:
        assert {subnet: held for subnet, held in self.border.held.items() if held} == {
            subnet: held for subnet, held in self.sets.items() if held
        }

    @invariant()
    def the_store_knows_who_was_withdrawn(self) -> None:
        assert {subnet: set(macs) for subnet, macs in self.border.withdrawn.items() if macs} == {
            subnet: macs for subnet, macs in self.withdrawn.items() if macs
        }

    @invariant()
    def the_status_is_what_one_works_out_from_scratch(self) -> None:
        found = {each.pop("subnet-id"): each for each in self.run("leasehold-status")["arguments"]["subnets"]}
        for subnet, (epoch, revision) in self.versions.items():
            rows = [(mac, *held) for mac, held in self.sets[subnet].items()]
            state = {
                "epoch": epoch,
                "revision": revision,
                "count": len(rows),
                "digest": digest_text(digest_of(rows)),
            }
            assert found.get(subnet, state) == state

    @precondition(lambda self: not self.resyncs)
    @invariant()
    def pages_list_what_is_in_force(self) -> None:
        answer = self.run("reservation-get-page", limit=100)
        listed = [(host["subnet-id"], host["ip-address"], host["hw-address"]) for host in answer["arguments"]["hosts"]]
        assert listed == [
            (subnet, address_text(address), mac_text(mac))
            for subnet, held in self.sets.items()
            for address, mac in sorted((address, mac) for mac, (address, _) in held.items())
        ]


TestCommands = Commands.TestCase
TestCommands.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
