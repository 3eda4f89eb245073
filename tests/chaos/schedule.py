"""What a run does: a list of steps that follows from a seed and nothing else.

Deterministic are the steps, their order, and the order of those about one vNIC. Not deterministic is what the machine
decides: how the steps of different vNICs interleave, at which instant of a transaction a kill comes, and so also which
MAC and address a vNIC gets. A seed that showed a race may have to be replayed a few times.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ABSENT, STOPPED, RUNNING = "absent", "stopped", "running"

_FAULT_SHARE = 0.16
_MOST_FAULTS = 3
_LONGEST = 60
_LONGEST_OF_ALL = 12
_STRANGERS = 0.03
_DEVICES = 0.06
DEVICES = 6


@dataclass(frozen=True)
class Step:
    """One step. `kind` is a method of the field's; `slot` the vNIC that it is about; `ends` the number of the step
    whose fault ends with it."""

    number: int
    kind: str
    slot: int | None = None
    host: str | None = None
    network: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    ends: int | None = None

    def __str__(self) -> str:
        parts = [f"{self.number:4} {self.kind}"]
        parts += [f"v{self.slot:02}"] if self.slot is not None else []
        parts += [each for each in (self.host, self.network) if each is not None]
        parts += [f"{name}={value}" for name, value in self.options.items() if value is not None]
        parts += [f"(ends {self.ends})"] if self.ends is not None else []
        return " ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Cast:
    """Who takes part. `slots` gives the network of each vNIC, `proxied` the hosts whose connection can be disturbed,
    `without` the kinds of faults that cannot happen."""

    hosts: Sequence[str]
    networks: Sequence[str]
    slots: Sequence[str]
    proxied: Sequence[str]
    processes: Sequence[str]
    without: Sequence[str] = ()


@dataclass(frozen=True)
class _Kind:
    """A kind of fault. It takes these parts of a host (or of all) for itself while it lasts."""

    weight: float
    takes: tuple[str, ...]
    lasts: bool = True
    proxied: bool = False


_EVERYTHING = ("kea", "agent", "management", "links", "proxy")
_SHARED = {"network", "ranges", "control", "database", "reports"}
_FAULTS: Mapping[str, _Kind] = {
    "kill_kea": _Kind(3, ("kea",)),
    "restart_kea": _Kind(2, ("kea",), lasts=False),
    "lose_journal": _Kind(1, ("kea",), lasts=False),
    "kill_agent": _Kind(1, ("agent",)),
    "take_host_down": _Kind(2, _EVERYTHING),
    "cut_management": _Kind(3, ("management",)),
    "cut_network": _Kind(2, ("links",)),
    "disturb": _Kind(5, ("proxy",), proxied=True),
    "disturb_reports": _Kind(1, ("reports",)),
    "kill_control": _Kind(4, ("control",), lasts=False),
    "stall_control": _Kind(1.5, ("control",)),
    "kill_database": _Kind(1.5, ("database",)),
    "disable_ipam": _Kind(0.7, ("network",)),
    "want_servers": _Kind(1, ("network",)),
    "shrink": _Kind(1.5, ("ranges",)),
    "maintain": _Kind(1.5, ("maintenance",)),
    "fence": _Kind(1.5, (*_EVERYTHING, "maintenance")),
}
_DISTURBANCES = ("refuse", "black hole", "deaf", "mute", "slow", "cut")


def schedule(seed: int, steps: int, cast: Cast) -> list[Step]:
    """So many steps, beginning with vNICs that are all there and stopped."""
    return list(_Writer(random.Random(seed), cast).steps(steps))


class _Writer:
    def __init__(self, dice: random.Random, cast: Cast) -> None:
        self._dice = dice
        self._cast = cast
        self._kinds = {name: kind for name, kind in _FAULTS.items() if name not in cast.without}
        self._intended = [STOPPED] * len(cast.slots)
        self._reserved: set[int] = set()
        self._taken: dict[tuple[str | None, str], int] = {}
        self._ending: dict[int, Step] = {}
        """Faults that last, by the number of the step before which they end."""

    def steps(self, count: int) -> Iterator[Step]:
        for number in range(count):
            due = min((at for at in self._ending if at <= number), default=None)
            if due is not None:
                begun = self._ending.pop(due)
                self._taken = {key: owner for key, owner in self._taken.items() if owner != begun.number}
                yield Step(
                    number, "end_fault", host=begun.host, network=begun.network, options={"of": begun.kind},
                    ends=begun.number,
                )  # fmt: skip
            elif self._dice.random() < _FAULT_SHARE and (fault := self._fault(number)) is not None:
                yield fault
            elif self._dice.random() < _STRANGERS:
                mac = f"02:ff:00:00:00:{self._dice.randrange(256):02x}"
                yield Step(number, "stranger", network=self._dice.choice(self._cast.networks), options={"mac": mac})
            elif self._dice.random() < _DEVICES:
                device = self._dice.randrange(DEVICES)
                self._reserved ^= {device}
                kind = "reserve" if device in self._reserved else "unreserve"
                network = self._cast.networks[device % len(self._cast.networks)]
                yield Step(number, kind, network=network, options={"device": device})
            else:
                yield self._of_vnic(number, self._dice.randrange(len(self._cast.slots)))

    def _fault(self, number: int) -> Step | None:
        name = self._dice.choices(list(self._kinds), [each.weight for each in self._kinds.values()])[0]
        kind = self._kinds[name]
        host: str | None = self._dice.choice(self._cast.proxied if kind.proxied else self._cast.hosts)
        network: str | None = self._dice.choice(self._cast.networks)
        # What stops every call stops the run as well.
        longest = _LONGEST_OF_ALL if {"control", "database"} & {*kind.takes} else _LONGEST
        lasts = round(longest ** self._dice.uniform(0.2, 1))
        options = self._options(name)
        if _SHARED & {*kind.takes}:
            host = None
        if name not in ("cut_network", "disable_ipam", "want_servers", "shrink"):
            network = None
        keys = [(host or network, each) for each in kind.takes]
        if any(key in self._taken for key in keys) or (kind.lasts and len(self._ending) >= _MOST_FAULTS):
            return None
        step = Step(number, name, host=host, network=network, options=options)
        if kind.lasts:
            self._taken |= dict.fromkeys(keys, number)
            at = number + lasts
            while at in self._ending:
                at += 1
            self._ending[at] = step
        return step

    def _options(self, name: str) -> dict[str, Any]:
        # Drawn for each kind alike, so that leaving a kind out changes as little as can be.
        disturbance, octets = self._dice.choice(_DISTURBANCES), self._dice.choice((0, 20, 300))
        linger_s, process, wanted = self._dice.choice((0, 0, 2)), self._dice.randrange(64), self._dice.choice((1, 3))
        match name:
            case "disturb":
                cut_after = {"octets": octets} if disturbance == "cut" else {}
                linger = {"linger_s": linger_s} if disturbance in ("black hole", "deaf", "mute") and linger_s else {}
                return {"how": disturbance, **cut_after, **linger}
            case "disturb_reports":
                return {"how": disturbance if disturbance != "cut" else "refuse"}
            case "kill_control" | "stall_control":
                return {"process": self._cast.processes[process % len(self._cast.processes)]}
            case "want_servers":
                return {"servers": wanted}
            case _:
                return {}

    def _of_vnic(self, number: int, slot: int) -> Step:
        dice, intended = self._dice, self._intended[slot]
        choices: dict[str, float] = {
            ABSENT: {"put": 10, "start": 0.1, "get": 0.1},
            STOPPED: {"start": 8, "delete": 1.2, "put": 0.5, "move": 0.7, "guest": 0.7, "stop": 0.2, "patch": 0.2},
            RUNNING: {
                "guest": 4,
                "stop": 4,
                "start": 1,
                "delete": 0.7,
                "put": 0.3,
                "move": 0.3,
                "get": 0.3,
                "patch": 0.8,
            },
        }[intended]
        kind = dice.choices(list(choices), list(choices.values()))[0]
        options: dict[str, Any] = {}
        match kind:
            case "put":
                self._intended[slot] = STOPPED if intended == ABSENT else intended
                options = {"cluster": dice.choice((None, "one", "two"))}
            case "start":
                self._intended[slot] = RUNNING if intended != ABSENT else ABSENT
                options = {"wait": dice.choices(("one", "all", "none"), (5, 3, 2))[0]}
                options |= {"boot": True} if dice.random() < 0.7 else {}
                options |= {"place": dice.randrange(12)} if dice.random() < 0.2 else {}
            case "patch":
                options = {"wait": dice.choices(("one", "all", "none"), (5, 3, 2))[0], "boot": intended == RUNNING}
                options["mac"] = f"02:aa:00:00:{slot:02x}:{dice.randrange(4):02x}" if dice.random() < 0.5 else None
            case "stop":
                self._intended[slot] = STOPPED
            case "delete":
                self._intended[slot] = ABSENT
            case "move":
                options = {
                    "cluster": dice.choice(("one", "two")),
                    "new_mac": intended == STOPPED and dice.random() < 0.5,
                }
            case "guest":
                way = dice.choices(("boot", "renew", "reboot", "release"), (5, 4, 2, 1))[0]
                options = {"way": way, "patient": intended == RUNNING}
        return Step(number, kind, slot=slot, network=self._cast.slots[slot], options=options)
