"""Looks for violations of the invariants I1 to I5 and I7 in a history. Pure: it needs no laboratory.

It never guesses: where an outcome is unknown, it assumes what would be right. What it reports cannot have happened in a
system that keeps its promises. The reasoning of each rule stands at it.

A *promise* of an address to a MAC lives from the commit of a start until the last server has confirmed its withdrawal.
Nobody outside sees either instant, but the commit lies between begin and end of a start, the withdrawal begins not
before the call that lets go, and each OFFER and ACK shows a promise alive, since its server had not forgotten it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from chaos.history import FOREVER, Call, Entry, Exchange, Finding, Ground, Heard, Trouble, begin_of
from chaos.lives import UNKNOWN, Moment, address_of, changes, confirming, known, lets_go, lives, macs_of, promises

_REST_NS = 20_000_000_000
"""For so long after a fault servers may still move because of it."""


@dataclass(frozen=True)
class Violation:
    """A broken invariant, at an instant, and what shows it."""

    invariant: str
    at: int
    text: str


@dataclass(frozen=True)
class _Hold:
    """A vNIC certainly held an address for this whole time; `by` is the call after which that was certain, `servers`
    those that had confirmed."""

    begin: int
    end: int
    vnic: str
    mac: str
    network: str
    ip: str
    by: Call
    servers: frozenset[str]


def check(ground: Ground, entries: Iterable[Entry]) -> list[Violation]:
    """All violations in a history, by their instants."""
    checker = _Checker(ground, list(entries))
    return sorted(
        {
            *checker.acknowledged_writes(),
            *checker.addresses_held_twice(),
            *checker.addresses_served_beside_their_holder(),
            *checker.addresses_served_in_turns(),
            *checker.macs_held_twice(),
            *checker.wrong_answers(),
            *checker.silence(),
            *checker.unreserved(),
            *checker.swaps(),
            *checker.accounts(),
        },
        key=lambda each: each.at,
    )


class _Checker:
    def __init__(self, ground: Ground, entries: Sequence[Entry]) -> None:
        self._ground = ground
        self._epoch = min(map(begin_of, entries), default=0)
        self._heard = sorted((each for each in entries if isinstance(each, Heard)), key=lambda each: each.at)
        self._heard_by: dict[tuple[str, str], list[Heard]] = defaultdict(list)
        for heard in self._heard:
            self._heard_by[heard.network, heard.mac].append(heard)
        self._exchanges = [each for each in entries if isinstance(each, Exchange)]
        self._troubles = [each for each in entries if isinstance(each, Trouble)]
        self._findings = [each for each in entries if isinstance(each, Finding)]
        calls = sorted((each for each in entries if isinstance(each, Call)), key=lambda each: each.begin)
        self._lives = lives(calls)
        self._listings: dict[str, list[Call]] = defaultdict(list)
        for call in calls:
            if call.verb == "servers" and call.status == 200:
                self._listings[call.subject].append(call)
        self._holds = [hold for vnic, moments in self._lives.items() for hold in self._held(vnic, moments)]
        # Every vNIC's moments at which it may have had this MAC.
        self._of_mac: dict[str, list[list[Moment]]] = defaultdict(list)
        for moments in self._lives.values():
            macs = {mac for each in moments for mac in macs_of(each.before) | macs_of(each.after)}
            for mac in macs:
                self._of_mac[mac].append(moments)

    # ---- I5, calls ---------------------------------------------------------------------------------------------------

    def acknowledged_writes(self) -> Iterator[Violation]:
        """Every answer fits what was acknowledged before."""
        for vnic, moments in self._lives.items():
            for moment in moments:
                if not moment.fits:
                    call = moment.call
                    yield Violation(
                        "I5",
                        call.end,
                        f"{call.verb} of vNIC {vnic} answered {call.status} {_brief(call)}, "
                        f"but before it could only be {_options(moment)}",
                    )

    # ---- I1 ----------------------------------------------------------------------------------------------------------

    def addresses_held_twice(self) -> Iterator[Violation]:
        """No two vNICs hold an address at one time, by the answers."""
        by_address: dict[tuple[str, str], list[_Hold]] = defaultdict(list)
        for hold in self._holds:
            by_address[hold.network, hold.ip].append(hold)
        for (network, ip), holds in by_address.items():
            for hold, other in _overlapping(holds):
                yield Violation(
                    "I1", other.begin, f"{ip} on {network} was held by {_who(hold)} and {_who(other)} at one time"
                )

    def addresses_served_beside_their_holder(self) -> Iterator[Violation]:
        """While a vNIC certainly holds an address, no server offers it to another MAC: whoever did had not forgotten
        the former promise, and the address was given away in spite of that."""
        by_address: dict[tuple[str, str], list[_Hold]] = defaultdict(list)
        for hold in self._holds:
            by_address[hold.network, hold.ip].append(hold)
        for heard in self._heard:
            for hold in by_address.get((heard.network, heard.ip), ()):
                if hold.begin < heard.at < hold.end and heard.mac != hold.mac:
                    yield Violation(
                        "I1", heard.at, f"{self._told(heard)}, while {_who(hold)} held it since {self._s(hold.begin)}"
                    )

    def addresses_served_in_turns(self) -> Iterator[Violation]:
        """Where a server serves an address to one MAC and later one does to another, the first was let go in between,
        and the second was promised it after the first was last served."""
        by_address: dict[tuple[str, str], list[Heard]] = defaultdict(list)
        for heard in self._heard:
            by_address[heard.network, heard.ip].append(heard)
        for told in by_address.values():
            for before, after in pairwise(told):
                if before.mac == after.mac:
                    continue
                turn = f"{self._told(before)}, and then {self._told(after)}"
                if not self._was_let_go(before.mac, before.ip, after.at):
                    yield Violation("I1", after.at, f"{turn}; nobody had let it go")
                elif not any(begin < after.at and end > before.at for _, begin, end in self._starts_of(after.mac)):
                    yield Violation(
                        "I1", after.at, f"{turn}; it was not promised to the second after the first was last served"
                    )

    def _was_let_go(self, mac: str, ip: str, by: int) -> bool:
        """Whether a call that was begun by then may have withdrawn the last known promise of the address to the MAC."""
        for moments in self._moments_of(mac):
            promised = max(
                (
                    number
                    for number, each in enumerate(moments)
                    if address_of(each.call) == ip and mac in macs_of(each.after) and each.call.end <= by
                ),
                default=-1,
            )
            for moment in moments[promised + 1 :]:
                moved = address_of(moment.call) not in (None, ip) or moment.call.asked.get("ip") not in (None, ip)
                if moment.call.begin < by and (lets_go(moment.call) or moved):
                    return True
        return False

    # ---- I2 ----------------------------------------------------------------------------------------------------------

    def macs_held_twice(self) -> Iterator[Violation]:
        """No two vNICs have a MAC at one time, by the answers."""
        by_mac: dict[str, list[_Hold]] = defaultdict(list)
        for vnic, moments in self._lives.items():
            for moment, following in _with_next(moments):
                states = moment.after
                if None in states or UNKNOWN in (macs := macs_of(states)) or len(macs) != 1:
                    continue
                (mac,) = macs
                until = following.call.begin if following is not None else FOREVER
                by_mac[mac].append(_Hold(moment.call.end, until, vnic, mac, "", "", moment.call, frozenset()))
        for mac, holds in by_mac.items():
            for hold, other in _overlapping(holds):
                yield Violation("I2", other.begin, f"{mac} belonged to vNICs {hold.vnic} and {other.vnic} at one time")

    # ---- I3 ----------------------------------------------------------------------------------------------------------

    def wrong_answers(self) -> Iterator[Violation]:
        """A server that has confirmed a vNIC's address offers its MAC no other, and refuses it this one not."""
        for hold in self._holds:
            for heard in self._heard_of(hold):
                server = self._ground.servers[heard.network].get(heard.server)
                if server in hold.servers and heard.ip != hold.ip:
                    yield Violation("I3", heard.at, f"{self._told(heard)}, which had confirmed {hold.ip} for it")
            for exchange in self._exchanges_of(hold):
                server = self._ground.servers[exchange.network].get(exchange.server or "")
                if exchange.outcome == "nak" and exchange.asked == hold.ip and server in hold.servers:
                    yield Violation("I3", exchange.end, f"{server} refused {hold.ip} to {_who(hold)}, having confirmed")

    def silence(self) -> Iterator[Violation]:
        """A guest is answered, when a server that has confirmed its address lives, and served the network before,
        during and after."""
        for hold in self._holds:
            for exchange in self._exchanges_of(hold):
                if exchange.outcome != "silence":
                    continue
                for server in sorted(hold.servers):
                    if self._served_throughout(server, hold, exchange) and not self._is_hindered(server, exchange):
                        yield Violation(
                            "I3",
                            exchange.end,
                            f"{_who(hold)} with {hold.ip} asked in vain from {self._s(exchange.begin)}; "
                            f"{server} had confirmed and lived",
                        )

    def _served_throughout(self, host: str, hold: _Hold, exchange: Exchange) -> bool:
        """Whether the host ran as a server of the network from the hold's confirmation until after the exchange."""
        listings = self._listings.get(exchange.network, [])
        before = [each for each in listings if each.end <= hold.by.begin][-1:]
        during = [each for each in listings if each.begin >= hold.by.begin and each.end <= exchange.end]
        after = [each for each in listings if each.begin >= exchange.end][:1]
        if not before or not after:
            return False
        since = {_running_since(each, host) for each in (*before, *during, *after)}
        return len(since) == 1 and None not in since

    def _is_hindered(self, host: str, exchange: Exchange) -> bool:
        return any(
            each.dhcp
            and each.host in (None, host)
            and each.network in (None, exchange.network)
            and each.begin < exchange.end
            and each.end > exchange.begin
            for each in self._troubles
        )

    # ---- I4 ----------------------------------------------------------------------------------------------------------

    def unreserved(self) -> Iterator[Violation]:
        """What a server serves was promised; and is not served by one that has confirmed that it no longer is."""
        for heard in self._heard:
            starts = [
                moment
                for moment, begin, _ in self._starts_of(heard.mac)
                if begin < heard.at and self._may_be_on(moment, heard.network)
            ]
            if not starts:
                yield Violation("I4", heard.at, f"{self._told(heard)}, to whom nothing was ever promised")
            elif not any(address_of(each.call) in (None, heard.ip) for each in starts):
                yield Violation("I4", heard.at, f"{self._told(heard)}, to whom it was never promised")
            elif (gone := self._confirmed_gone(heard)) is not None:
                yield Violation(
                    "I4",
                    heard.at,
                    f"{self._told(heard)}; it was withdrawn by {gone.verb} of {gone.subject} at {self._s(gone.end)}, "
                    "which the server had confirmed",
                )

    def _confirmed_gone(self, heard: Heard) -> Call | None:
        """The call that withdrew what the server still serves, if the server has confirmed that since."""
        latest: Call | None = None
        for moments in self._moments_of(heard.mac):
            for moment in moments:
                if moment.call.begin >= heard.at or heard.mac not in macs_of(moment.before) | macs_of(moment.after):
                    continue
                if promises(moment.call):
                    latest = None if latest is None or moment.call.end > latest.begin else latest
                elif moment.call.verb in ("stop", "delete", "unreserve") and moment.call.status in (200, 204):
                    latest = moment.call
        if latest is None or len(self._moments_of(heard.mac)) != 1:
            return None
        server = self._ground.servers[heard.network].get(heard.server)
        for listing in self._listings.get(heard.network, []):
            if listing.begin > latest.end and listing.end < heard.at:
                for each in listing.answer["items"]:
                    told = {row["confirmed_revision"] == row["revision"] for row in each["subnets"]}
                    if each["host"] == server and told == {True}:
                        return latest
        return None

    def _may_be_on(self, moment: Moment, network: str) -> bool:
        return any(
            state is not None and (state.subnet is None or self._ground.subnets.get(state.subnet, network) == network)
            for state in moment.before | moment.after
        )

    # ---- I5, servers -------------------------------------------------------------------------------------------------

    def swaps(self) -> Iterator[Violation]:
        """No server of a network is another from one listing to the next without a cause: a fault of a host, or an
        administrator's measure. The control plane's own end is none."""
        for network, listings in self._listings.items():
            for before, after in pairwise(listings):
                gone, come = _serving(before) - _serving(after), _serving(after) - _serving(before)
                if (gone or come) and not self._has_cause(network, before.begin - _REST_NS, after.end):
                    yield Violation(
                        "I5",
                        after.end,
                        f"the servers of {network} changed without a cause: {sorted(gone)} went, {sorted(come)} came",
                    )

    def _has_cause(self, network: str, begin: int, end: int) -> bool:
        return any(
            each.moves and each.network in (None, network) and each.begin < end and each.end > begin
            for each in self._troubles
        )

    # ---- I7 ----------------------------------------------------------------------------------------------------------

    def accounts(self) -> Iterator[Violation]:
        """The database says of itself that its numbers add up, each held by one."""
        for each in self._findings:
            yield Violation("I7", each.at, f"{each.code}: {each.sentence}")

    # ---- shared ------------------------------------------------------------------------------------------------------

    def _told(self, heard: Heard) -> str:
        server = self._ground.servers[heard.network].get(heard.server, heard.server)
        return f"{server} sent {heard.kind} of {heard.ip} on {heard.network} to {heard.mac} at {self._s(heard.at)}"

    def _s(self, at: int) -> str:
        """Seconds since the history's beginning."""
        return f"{(at - self._epoch) / 1e9:.3f}"

    def _held(self, vnic: str, moments: Sequence[Moment]) -> Iterator[_Hold]:
        confirmed: frozenset[str] = frozenset()
        for number, moment in enumerate(moments):
            if changes(moment.call):
                confirmed = confirming(moment.call)
            state = known(moment.after)
            if state is None or state.held is None or state.subnet is None or state.subnet not in self._ground.subnets:
                continue
            until = next((each.call.begin for each in moments[number + 1 :] if changes(each.call)), FOREVER)
            network = self._ground.subnets[state.subnet]
            yield _Hold(moment.call.end, until, vnic, state.mac, network, state.held, moment.call, confirmed)

    def _moments_of(self, mac: str) -> list[list[Moment]]:
        return self._of_mac.get(mac, []) + self._of_mac.get(UNKNOWN, [])

    def _starts_of(self, mac: str) -> Iterator[tuple[Moment, int, int]]:
        """The calls that may have promised something to the MAC, and between which instants they may have done so."""
        for moments in self._moments_of(mac):
            for moment, following in _with_next(moments):
                if promises(moment.call) and {mac, UNKNOWN} & macs_of(moment.after):
                    end = moment.call.end
                    if any(state is not None and state.pending for state in moment.after):
                        end = following.call.end if following is not None else FOREVER
                    yield moment, moment.call.begin, end

    def _heard_of(self, hold: _Hold) -> Iterator[Heard]:
        for each in self._heard_by[hold.network, hold.mac]:
            if hold.begin < each.at < hold.end:
                yield each

    def _exchanges_of(self, hold: _Hold) -> Iterator[Exchange]:
        for each in self._exchanges:
            if (each.mac, each.network) == (hold.mac, hold.network) and hold.begin < each.begin and each.end < hold.end:
                yield each


def _with_next(moments: Sequence[Moment]) -> Iterator[tuple[Moment, Moment | None]]:
    """Each moment, and the next that may change something."""
    for number, moment in enumerate(moments):
        yield moment, next((each for each in moments[number + 1 :] if changes(each.call)), None)


def _overlapping(holds: Sequence[_Hold]) -> Iterator[tuple[_Hold, _Hold]]:
    """Pairs of different vNICs'."""
    ordered = sorted(holds, key=lambda each: each.begin)
    for number, hold in enumerate(ordered):
        for other in ordered[number + 1 :]:
            if other.begin >= hold.end:
                break
            if other.vnic != hold.vnic:
                yield hold, other


def _serving(listing: Call) -> set[str]:
    return {each["host"] for each in listing.answer["items"] if each["state"] != "stopping"}


def _running_since(listing: Call, host: str) -> str | None:
    return next(
        (str(each["since"]) for each in listing.answer["items"] if (each["host"], each["state"]) == (host, "running")),
        None,
    )


def _who(hold: _Hold) -> str:
    return f"{hold.vnic} ({hold.mac})"


def _brief(call: Call) -> str:
    answer = call.answer
    told = {name: answer[name] for name in ("mac", "ip", "ip_state", "running", "code") if name in answer}
    return str(told)


def _options(moment: Moment) -> str:
    return " or ".join(
        "absent" if state is None else f"there with MAC {state.mac}, holding {state.held or 'nothing'}"
        for state in sorted(moment.before, key=str)
    )
