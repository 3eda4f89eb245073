"""Which hosts serve a network: a pure choice from what is wanted and what is there."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from leasehold.domain.values import HostNetwork, ServerState, SubnetSpec

Health = Literal["up", "doubtful", "down"]
"""A host answers (and on one network: hears its guests); has not lately, but not for long enough to act on; or is down.
"""


@dataclass(frozen=True, kw_only=True)
class Served:
    """A network as one host is to serve it: where it is attached, and the network's subnets by id; None for one that
    stays as the host's Kea has it already."""

    network: str
    attachment: HostNetwork
    subnets: tuple[tuple[int, SubnetSpec | None], ...]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A host that could serve the network, or does.

    `health` is its health on this network; `state` is None where it is no server of it; `attached` False where it has
    lost the network, or was declared dead; `refuses` True when its Kea lately refused to serve the network as it is to
    be; `leaving` True when it is to serve nothing more, once others do; `held` True when it came back from being down
    too lately to be relied upon; `load` counts the networks that it serves.
    """

    host: str
    health: Health
    attached: bool
    refuses: bool
    leaving: bool
    held: bool
    state: ServerState | None
    load: int


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What to do: hosts to let begin, and servers to let end. All others stay as they are. Both ascend."""

    start: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()


def place(wanted: int, candidates: Iterable[Candidate]) -> Placement:
    """Keeps `wanted` servers on hosts that are up, changing as little as that takes.

    A server that is well stays. One that is down, whose Kea refuses, or that is leaving, goes when another runs in its
    place, and not before; a leaving one also when others run and nobody is left who could replace it. Hosts that still
    have the network in their configuration are preferred, then the least loaded, then the first by name. One that is
    held back is chosen only where otherwise nobody would serve.
    """
    hosts = sorted(candidates, key=_merit)
    present = [each for each in hosts if _is_present(each)]
    lost = [each for each in present if not each.attached]
    well = [each for each in present if each.attached and _is_well(each)]
    ill = [each for each in present if each.attached and not _is_well(each)]
    running = sum(each.state == "running" for each in well)

    vacant = max(0, wanted - len(well))
    able = [each for each in hosts if each.attached and each.health == "up" and not each.leaving]
    able = [each for each in able if not _is_present(each)]
    ready = [each for each in able if not each.refuses and not each.held]
    held = [each for each in able if not each.refuses and each.held]
    start = ready[:vacant]
    if not start and not well and not any(_serves(each) for each in ill):
        start = held[:vacant]
    # One that refuses is tried again only where no other is left, present or not.
    start += [each for each in able if each.refuses][: max(0, vacant - len(start) - len(held) - len(ill))]

    going = ill[max(0, wanted - running) :]
    if running == len(well) > 0 and not ready and not held:
        going += [each for each in ill if each.leaving and each not in going]
    return Placement(
        start=tuple(sorted(each.host for each in start)),
        stop=tuple(sorted(each.host for each in (*lost, *well[wanted:], *going))),
    )


def reduced(served: Iterable[Served], wanted: Collection[int], kept: Collection[int]) -> tuple[Served, ...]:
    """Of all subnets those that are wanted, and of the others those that are to be kept, as they are."""
    fewer = (
        replace(
            each,
            subnets=tuple(
                (subnet_id, spec if subnet_id in wanted else None)
                for subnet_id, spec in each.subnets
                if subnet_id in wanted or subnet_id in kept
            ),
        )
        for each in served
    )
    return tuple(each for each in fewer if each.subnets)


def halves(served: tuple[Served, ...]) -> list[tuple[Served, ...]]:
    """Two parts of it, or none of a single subnet. A network is parted last: its subnets may need each other."""
    if len(served) > 1:
        middle = len(served) // 2
        return [served[:middle], served[middle:]]
    (only,) = served
    middle = len(only.subnets) // 2
    parts = (only.subnets[:middle], only.subnets[middle:])
    return [(replace(only, subnets=each),) for each in parts] if middle else []


def hold_down_s(falls: int, first_s: float, most_s: float) -> float:
    """Seconds that a host must have been up again before it is chosen anew, after it went down so many times (from 1)
    without a calm time in between: doubled each time."""
    return min(most_s, first_s * float(1 << min(falls - 1, 30)))


def _is_present(candidate: Candidate) -> bool:
    return candidate.state not in (None, "stopping")


def _is_well(server: Candidate) -> bool:
    return server.health != "down" and not server.leaving and not (server.refuses and server.state == "starting")


def _serves(server: Candidate) -> bool:
    return server.state == "running" and server.health != "down"


_BY_STATE: dict[ServerState | None, int] = {"running": 0, "unreachable": 1, "starting": 2, "stopping": 3, None: 4}
_BY_HEALTH: dict[Health, int] = {"up": 0, "doubtful": 1, "down": 2}


def _merit(candidate: Candidate) -> tuple[int, int, bool, int, str]:
    return (
        _BY_STATE[candidate.state],
        _BY_HEALTH[candidate.health],
        candidate.refuses,
        candidate.load,
        candidate.host,
    )
