"""A host's Kea configuration with what Leasehold serves there: pure, from the configuration that runs.

Leasehold owns the subnets and shared networks whose user-context carries its mark, and of the interfaces and their
settings those that it added, of which it keeps a note in the user-context of the server. All else is the
administrator's and comes back as it was.

Of the subnets on an interface Kea would look for a client's reservation in the first one only. Several of one network
are therefore a shared network, in all of whose subnets it looks.
Source: Kea 2.2 Administrator Reference Manual, "The DHCPv4 Server" and "Shared Networks in DHCPv4".
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netaddr import IPAddress

from leasehold.domain.options import encode_routes
from leasehold.domain.placement import Served
from leasehold.domain.values import SubnetSpec

MARK = "leasehold"

Json = dict[str, Any]

_CLASSLESS_STATIC_ROUTE = 121

# Otherwise an interface whose link is down while Kea is configured is never listened on: Kea says so in its log only,
# and does not look again. An interface of a hypervisor may well come up after Kea.
# Source: Kea 2.2 Administrator Reference Manual, "Interface Configuration".
_OPENING_RETRIES = {"service-sockets-max-retries": 2**31 - 1, "service-sockets-retry-wait-time": 1000}


def render(running: Mapping[str, Any], served: Sequence[Served]) -> Json:
    """The `Dhcp4` part that serves these networks and no others of ours. It equals `running` where nothing changes."""
    configuration = dict(running)
    present = {each["id"]: each for each in _all_subnets(running)}
    subnets = [(each.network, _subnets(each, present)) for each in served]
    for key, name, wanted in (
        ("subnet4", "id", [only for _, own in subnets if len(own) == 1 for only in own]),
        ("shared-networks", "name", [_shared_network(network, own) for network, own in subnets if len(own) > 1]),
    ):
        before = running.get(key, [])
        after = _merged(before, name, wanted)
        if after != before:
            configuration[key] = after

    context = dict(running.get("user-context", {}))
    interfaces = [own[0]["interface"] for _, own in subnets if own]
    listening, note = _listening(_listens(running), context.pop(MARK, {}), interfaces)
    if listening != _listens(running):
        configuration["interfaces-config"] = listening
    if note:
        context[MARK] = note
    if context:
        configuration["user-context"] = context
    else:
        configuration.pop("user-context", None)
    return configuration


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What of a configuration is not as wanted, in Kea's words; None for what is not there."""

    what: str
    runs: object
    wanted: object


def differences(running: Mapping[str, Any], rendered: Mapping[str, Any]) -> list[Difference]:
    """What `render` changed, setting by setting."""
    before, after = dict(_ours(running)), dict(_ours(rendered))
    pairs: list[tuple[str, object, object]] = []
    for name in dict.fromkeys([*before, *after]):
        runs, wanted = before.get(name), after.get(name)
        if runs is None or wanted is None:
            pairs.append((name, runs, wanted))
            continue
        changed = [key for key, value in wanted.items() if not _has_all_of(runs.get(key), value)]
        pairs += [(f"{key} of {name}", runs.get(key), wanted[key]) for key in changed]
    for name, of in (("interfaces-config", _listens), (f"{MARK} of user-context", _note)):
        if of(running) != of(rendered):
            pairs.append((name, of(running), of(rendered)))
    return [Difference(what=what, runs=runs, wanted=wanted) for what, runs, wanted in pairs]


def _ours(configuration: Mapping[str, Any]) -> Iterator[tuple[str, Json]]:
    """Our subnets and shared networks by name; the latter with the ids of their subnets in these' place."""
    subnets = list(configuration.get("subnet4", []))
    for network in configuration.get("shared-networks", []):
        if MARK in network.get("user-context", {}):
            inside = network["subnet4"]
            subnets += inside
            yield f"shared network {network['name']}", network | {"subnet4": [each["id"] for each in inside]}
    for subnet in subnets:
        if MARK in subnet.get("user-context", {}):
            yield f"subnet {subnet['id']}", subnet


def _merged(running: Sequence[Json], name: str, wanted: Sequence[Json]) -> list[Json]:
    """Ours replaced in their places or taken out, new ones at the end, the administrator's as they are; `name` is the
    key by which they are known."""
    rendered = []
    missing = {each[name]: each for each in wanted}
    for present in running:
        if MARK not in present.get("user-context", {}):
            rendered.append(present)
        elif (ours := missing.pop(present[name], None)) is not None:
            rendered.append(present if _has_all_of(present, ours) else ours)
    return [*rendered, *missing.values()]


def _all_subnets(running: Mapping[str, Any]) -> Iterator[Json]:
    yield from running.get("subnet4", [])
    for network in running.get("shared-networks", []):
        yield from network.get("subnet4", [])


def _shared_network(network: str, subnets: Sequence[Json]) -> Json:
    return {
        "name": f"{MARK}:{network}",
        # Kea wants the same for all of them.
        "interface": subnets[0]["interface"],
        "authoritative": True,
        "subnet4": subnets,
        "user-context": {MARK: {"network": network}},
    }


def _subnets(served: Served, present: Mapping[int, Json]) -> list[Json]:
    rendered = (
        present.get(subnet_id) if spec is None else _subnet(subnet_id, spec, served)
        for subnet_id, spec in served.subnets
    )
    return [each for each in rendered if each is not None]


def _subnet(subnet_id: int, spec: SubnetSpec, served: Served) -> Json:
    return {
        "id": subnet_id,
        "subnet": str(spec.cidr),
        "interface": served.attachment.interface,
        "valid-lifetime": spec.lease_time_s,
        "min-valid-lifetime": spec.lease_time_s,
        "max-valid-lifetime": spec.lease_time_s,
        # A client id would outlive a change of MAC, and a withdrawn address be refused by silence instead of NAK.
        "match-client-id": False,
        "authoritative": True,
        "reservations-global": False,
        "reservations-in-subnet": True,
        "reservations-out-of-pool": True,
        "reservations": [],
        "pools": [],
        "option-data": _options(spec),
        "user-context": {MARK: {"network": served.network}},
    }


def _options(spec: SubnetSpec) -> list[Json]:
    """By code, as Kea tells them again."""
    named = {
        3: ("routers", "" if spec.gateway is None else str(spec.gateway)),
        6: ("domain-name-servers", _list(spec.dns)),
        15: ("domain-name", spec.domain or ""),
        26: ("interface-mtu", "" if spec.mtu is None else str(spec.mtu)),
        42: ("ntp-servers", _list(spec.ntp)),
    }
    rendered: dict[int, Json] = {code: {"name": name, "data": data} for code, (name, data) in named.items() if data}
    octets = {option.code: option.octets for option in spec.options}
    if spec.routes:
        octets[_CLASSLESS_STATIC_ROUTE] = encode_routes(spec.routes, spec.gateway)
    rendered |= {
        code: {"code": code, "csv-format": False, "data": value.hex().upper()} for code, value in octets.items()
    }
    return [rendered[code] for code in sorted(rendered)]


def _list(addresses: Iterable[IPAddress]) -> str:
    return ", ".join(map(str, addresses))


def _has_all_of(running: Any, wanted: Any) -> bool:
    """True when `running` is `wanted`, or that and defaults that Kea filled in."""
    if isinstance(wanted, dict):
        return isinstance(running, dict) and all(
            key in running and _has_all_of(running[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(running, list)
            and len(running) == len(wanted)
            and all(_has_all_of(*pair) for pair in zip(running, wanted, strict=True))
        )
    return bool(running == wanted)


def _listens(configuration: Mapping[str, Any]) -> Json:
    return dict(configuration.get("interfaces-config", {}))


def _note(configuration: Mapping[str, Any]) -> Json:
    return dict(configuration.get("user-context", {}).get(MARK, {}))


def _listening(running: Json, note: Json, wanted: Sequence[str]) -> tuple[Json, Json]:
    """Where and how to listen, given the interfaces that are wanted, and the note of what of that is ours."""
    ours = note.get("settings", [])
    listening = {name: value for name, value in running.items() if name not in ours}
    own: Json = {}
    if wanted:
        own = {name: value for name, value in _OPENING_RETRIES.items() if name not in listening}
    before = running.get("interfaces", [])
    interfaces, added = _interfaces(before, note.get("interfaces", []), wanted)
    if interfaces != before:
        listening["interfaces"] = interfaces
    return listening | own, {name: value for name, value in (("interfaces", added), ("settings", sorted(own))) if value}


def _interfaces(running: Sequence[str], own: Sequence[str], wanted: Iterable[str]) -> tuple[list[str], list[str]]:
    """The interfaces to listen on, and those of them that are listed because of us."""
    wanted = list(dict.fromkeys(wanted))
    listed = [each for each in running if each not in own or each in wanted]
    added = [each for each in wanted if not _is_listed(each, listed)]
    return [*listed, *added], [*(each for each in own if each in listed), *added]


def _is_listed(interface: str, listed: Iterable[str]) -> bool:
    """True when Kea listens on the interface: by name, by name and address, or because it does so on all."""
    return any(each in (interface, "*") or each.startswith(f"{interface}/") for each in listed)
