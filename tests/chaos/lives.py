"""What each vNIC can be, after every call that was made about it: a model of one register for each vNIC. A device with
a reservation of its own is one that is there while it has it.

Calls about one vNIC do not overlap. A call without an answer leaves two possibilities, and later answers decide between
them; an answer that fits none of them means that an acknowledged write was lost, or done twice.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from chaos.history import Call

UNKNOWN = "?"


@dataclass(frozen=True, kw_only=True)
class State:
    """A vNIC that exists. `mac` and `held`, its address, may be UNKNOWN; `held` is None while it holds none. While one
    is `pending`, it may get one by itself."""

    mac: str
    subnet: int | None
    held: str | None = None
    pending: bool = False


Possible = frozenset[State | None]
"""What a vNIC may be; None: it does not exist."""

ABSENT: Possible = frozenset([None])
_MISSING = ("vnic-not-found", "reservation-not-found")


@dataclass(frozen=True)
class Moment:
    """A call, and what the vNIC can be before and after it. `fits` is False for an answer that nothing explains."""

    call: Call
    before: Possible
    after: Possible
    fits: bool


def lives(calls: Iterable[Call]) -> dict[str, list[Moment]]:
    """The calls about each vNIC, in their order."""
    possible: dict[str, Possible] = {}
    told: dict[str, list[Moment]] = {}
    for call in sorted(calls, key=lambda each: each.begin):
        if call.verb == "servers":
            continue
        before = possible.get(call.subject, ABSENT)
        after = frozenset(state for each in before for state in _after(call, each))
        fits = bool(after)
        if not fits:
            after = _as_answered(call)
        possible[call.subject] = after
        told.setdefault(call.subject, []).append(Moment(call, before, after, fits))
    return {vnic: _resolved(moments) for vnic, moments in told.items()}


def promises(call: Call) -> bool:
    """Whether the call may have promised an address, or had one promised later."""
    return call.verb in ("start", "patch", "reserve") and (
        _is_unknown(call) or call.status in (200, 201) or _is_unconfirmed(call)
    )


def lets_go(call: Call) -> bool:
    """Whether the call may have withdrawn a promise."""
    return call.verb in ("stop", "delete", "patch", "put", "move", "unreserve") and (
        _is_unknown(call) or call.status in (200, 204) or _is_unconfirmed(call)
    )


def changes(call: Call) -> bool:
    """Whether the call may have changed anything."""
    return call.verb != "get"


def address_of(call: Call) -> str | None:
    """The address that a call is known to have promised."""
    if not promises(call) or _is_unknown(call):
        return None
    ip = call.answer.get("ip")
    return None if ip is None else str(ip)


def confirming(call: Call) -> frozenset[str]:
    """The hosts that a start's answer names as having confirmed."""
    if call.verb not in ("start", "patch") or call.status != 200:
        return frozenset()
    return frozenset(each["host"] for each in call.answer.get("servers", ()) if each["state"] == "confirmed")


def known(possible: Possible) -> State | None:
    """The one thing that a vNIC can be, whole; None while that is open, or it does not exist."""
    if len(possible) != 1:
        return None
    (state,) = possible
    return None if state is None or UNKNOWN in (state.mac, state.held) else state


def macs_of(possible: Possible) -> set[str]:
    """The MACs that a vNIC may have, UNKNOWN perhaps among them."""
    return {state.mac for state in possible if state is not None}


def _is_unconfirmed(call: Call) -> bool:
    return call.status == 503 and call.answer.get("code") in ("not-confirmed", "no-server")


def _is_unknown(call: Call) -> bool:
    return call.status is None or (call.status >= 500 and not _is_unconfirmed(call))


def _after(call: Call, state: State | None) -> Iterator[State | None]:
    """What a vNIC in `state` is after the call; nothing, where the call could not be answered so."""
    if _is_unknown(call):
        yield state
        yield from _effects(call, state)
    elif call.status == 404:
        # What is missing may be another thing than the vNIC.
        if state is None or call.answer.get("code", _MISSING[0]) not in _MISSING:
            yield state
    elif call.status is not None and call.status >= 400 and not _is_unconfirmed(call):
        if state is not None or call.verb in ("put", "reserve"):
            yield state
    else:
        for each in _effects(call, state):
            yield from _seen(call, state, each)


def _effects(call: Call, state: State | None) -> Iterator[State | None]:
    asked = call.asked
    if call.verb == "reserve":
        yield state or State(mac=asked["mac"], subnet=asked["subnet"], held=asked.get("ip") or UNKNOWN)
        return
    if call.verb == "put":
        if state is None:
            yield State(mac=asked.get("mac") or UNKNOWN, subnet=asked.get("subnet"))
        else:
            yield replace(state, mac=asked.get("mac") or state.mac, subnet=asked.get("subnet", state.subnet))
        return
    if state is None:
        return
    match call.verb:
        case "get":
            yield state
        case "start":
            yield replace(state, held=asked.get("ip") or state.held or UNKNOWN, pending=False)
        case "move":
            yield state
            if asked.get("new_mac"):
                yield replace(state, mac=UNKNOWN)
        case "stop":
            yield replace(state, held=None, pending=False)
        case "delete" | "unreserve":
            yield None
        case "patch":
            mac = asked["mac"] or UNKNOWN if "mac" in asked else state.mac
            changed = replace(state, mac=mac, subnet=asked.get("subnet", state.subnet))
            if changed == state or (state.held is None and not state.pending):
                yield changed
            else:
                yield replace(changed, held=UNKNOWN, pending=True)
        case _:
            raise ValueError(f"the model does not know {call.verb!r}")


def _seen(call: Call, before: State | None, after: State | None) -> Iterator[State | None]:
    """`after`, with what the answer shows; nothing, where it shows something else."""
    if after is None:
        yield None
        return
    if call.verb in ("put", "reserve") and (call.status == 201) != (before is None):
        return
    shown = _shown(call)
    if shown.get("held", UNKNOWN) is None and (after.pending or call.verb == "start"):
        # It runs, and waits for an address.
        after = replace(after, held=UNKNOWN, pending=True) if after.held == UNKNOWN else after
        if after.pending:
            del shown["held"]
    for name, value in shown.items():
        expected = getattr(after, name)
        if UNKNOWN not in (expected, value) and expected != value:
            return
    if shown.get("held"):
        after = replace(after, pending=False)
    yield replace(after, **{name: value for name, value in shown.items() if value != UNKNOWN})


def _shown(call: Call) -> dict[str, Any]:
    """What an answer shows of the vNIC."""
    answer = call.answer
    inner = answer.get("vnic")
    vnic: Mapping[str, Any] = inner if isinstance(inner, Mapping) else answer
    if vnic is answer and call.verb in ("start", "patch", "reserve"):
        # A reservation, or a problem's facts.
        return {"held": answer["ip"]} | ({"mac": answer["mac"]} if "mac" in answer else {})
    shown = {"mac": vnic["mac"]} if "mac" in vnic else {}
    if "ip_state" in vnic:
        shown |= {"held": vnic["ip"] if vnic["ip_state"] == "held" else None}
    return shown


def _as_answered(call: Call) -> Possible:
    """Where the model was wrong: the answer's word, so that one violation is not told over and over."""
    if call.verb in ("delete", "unreserve") or call.status == 404:
        return ABSENT
    shown = {"mac": UNKNOWN, "held": UNKNOWN} | _shown(call) if call.status in (200, 201) else {}
    return frozenset([State(mac=shown.get("mac", UNKNOWN), subnet=None, held=shown.get("held", UNKNOWN))])


def _resolved(moments: list[Moment]) -> list[Moment]:
    """MACs that were open get the name that a later answer of the same life gave them."""
    mac = UNKNOWN
    resolved = []
    for moment in reversed(moments):
        after = _named(moment.after, mac)
        named = macs_of(after)
        mac = next(iter(named)) if len(named) == 1 else UNKNOWN
        if moment.call.verb in ("delete", "patch", "move") or moment.call.asked.get("mac"):
            mac = UNKNOWN
        before = _named(moment.before, mac)
        if None in moment.before:
            mac = UNKNOWN
        resolved.append(replace(moment, before=before, after=after))
    return resolved[::-1]


def _named(possible: Possible, mac: str) -> Possible:
    return frozenset(replace(each, mac=mac) if each is not None and each.mac == UNKNOWN else each for each in possible)
