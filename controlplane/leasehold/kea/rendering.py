"""A host's Kea configuration with what Leasehold serves there: pure, from the configuration that runs.

Leasehold owns the subnets whose user-context carries its mark, and the interfaces that it added, of which it keeps a
note in the user-context of the server. All else is the administrator's and comes back as it was.
Source of the names: Kea 2.2 Administrator Reference Manual, "The DHCPv4 Server".
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from netaddr import IPAddress

from leasehold.domain.placement import Served
from leasehold.domain.values import SubnetSpec

MARK = "leasehold"

Json = dict[str, Any]


def render(running: Mapping[str, Any], served: Sequence[Served]) -> Json:
    """The `Dhcp4` part that serves these networks and no others of ours. It equals `running` where nothing changes."""
    configuration = dict(running)
    subnets = _subnets(
        running.get("subnet4", []),
        {subnet_id: _subnet(subnet_id, spec, each) for each in served for subnet_id, spec in each.subnets},
    )
    if subnets != running.get("subnet4", []):
        configuration["subnet4"] = subnets

    context = dict(running.get("user-context", {}))
    before = running.get("interfaces-config", {}).get("interfaces", [])
    own = context.pop(MARK, {}).get("interfaces", [])
    interfaces, own = _interfaces(before, own, [each.attachment.interface for each in served])
    if interfaces != before:
        configuration["interfaces-config"] = {**running.get("interfaces-config", {}), "interfaces": interfaces}

    if own:
        context[MARK] = {"interfaces": own}
    if context:
        configuration["user-context"] = context
    else:
        configuration.pop("user-context", None)
    return configuration


def _subnets(running: Sequence[Json], wanted: Mapping[int, Json]) -> list[Json]:
    """Ours replaced in their places or taken out, new ones at the end, the administrator's as they are."""
    rendered = []
    missing = dict(wanted)
    for subnet in running:
        if MARK not in subnet.get("user-context", {}):
            rendered.append(subnet)
        elif (ours := missing.pop(subnet["id"], None)) is not None:
            rendered.append(subnet if _has_all_of(subnet, ours) else ours)
    return [*rendered, *missing.values()]


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
        "option-data": [
            {"name": name, "data": data}
            for name, data in (
                ("routers", "" if spec.gateway is None else str(spec.gateway)),
                ("domain-name-servers", _list(spec.dns)),
                ("domain-name", spec.domain or ""),
                ("ntp-servers", _list(spec.ntp)),
            )
            if data
        ],
        "user-context": {MARK: {"network": served.network}},
    }


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


def _interfaces(running: Sequence[str], own: Sequence[str], wanted: Iterable[str]) -> tuple[list[str], list[str]]:
    """The interfaces to listen on, and those of them that are listed because of us."""
    wanted = list(dict.fromkeys(wanted))
    listed = [each for each in running if each not in own or each in wanted]
    added = [each for each in wanted if not _is_listed(each, listed)]
    return [*listed, *added], [*(each for each in own if each in listed), *added]


def _is_listed(interface: str, listed: Iterable[str]) -> bool:
    """True when Kea listens on the interface: by name, by name and address, or because it does so on all."""
    return any(each in (interface, "*") or each.startswith(f"{interface}/") for each in listed)
