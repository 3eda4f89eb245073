"""When all faults have ended: everything comes to what is wanted, by itself, and guests get what was promised."""

from chaos.field import Field
from lab.waiting import wait_until

_CONVERGE_S = 90
_SILENCE_S = 1.0
_PATIENCE_S = 2.0
_TRIES = 3
_STRANGERS = ("02:ff:00:00:01:00", "02:ff:00:00:01:01")


def converge(field: Field) -> list[str]:
    """Waits until every network has its servers, each at the present revision and with the digest of what is promised,
    and no address drains. What is missing then, in words."""
    try:
        wait_until(lambda: not _lacking(field), _CONVERGE_S, "everything is as it is wanted")
    except TimeoutError:
        return [f"not converged: {each}" for each in _lacking(field)]
    return []


def _lacking(field: Field) -> list[str]:
    lacking = []
    for network, subnet in field.subnets.items():
        servers = field.servers(network)
        running = [each for each in servers if each["state"] == "running"]
        if len(running) != 2 or len(servers) != 2:
            lacking.append(f"{network} has the servers {[(each['host'], each['state']) for each in servers]}")
        promised = _promised(field, subnet)
        for server in running:
            for row in server["subnets"]:
                if row["confirmed_revision"] != row["revision"]:
                    lacking.append(f"{server['host']} confirmed {row['confirmed_revision']} of {row['revision']}")
            served = _reserved(field, server["host"], subnet)
            if served != promised:
                lacking.append(f"{server['host']} has {served} on {network} where {promised} is promised")
        usage = field.get(f"/v1/subnets/{subnet}")["usage"]
        if usage["draining"]:
            lacking.append(f"{usage['draining']} addresses of {network} drain")
    for host in field.hosts.values():
        managed = set(host.status()["managed-subnets"])
        wanted = {
            field.subnets[network]
            for network in field.networks
            if host.id in [each["host"] for each in field.servers(network)]
        }
        if managed != wanted:
            lacking.append(f"{host.id} serves subnets {sorted(managed)} where {sorted(wanted)} are wanted")
    return lacking


def _promised(field: Field, subnet: int) -> dict[str, str]:
    items = field.get(f"/v1/subnets/{subnet}/reservations?limit=1000")["items"]
    return {each["mac"]: each["ip"] for each in items}


def _reserved(field: Field, host: str, subnet: int) -> dict[str, str]:
    page = field.hosts[host].command("reservation-get-page", subnet_id=subnet, limit=1000)
    return {each["hw-address"]: each["ip-address"] for each in page.get("arguments", {}).get("hosts", [])}


def guests_are_served(field: Field) -> list[str]:
    """Every vNIC that holds an address gets it from each server, and nobody else gets any. What is otherwise."""
    wrong = []
    networks = {subnet: network for network, subnet in field.subnets.items()}
    idle = dict.fromkeys(_STRANGERS, next(iter(field.networks)))
    for name, vnic in field.look_at_all().items():
        if vnic is None:
            continue
        mac, network = vnic["mac"], networks[vnic["subnet"]]
        if vnic["ip_state"] != "held":
            idle[mac] = network
            continue
        wanted = dict.fromkeys(field.running(network), vnic["ip"])
        offers: dict[str, str] = {}
        for _ in range(_TRIES):
            offers |= field.offers(network, mac, _PATIENCE_S, len(wanted))
            if offers.keys() == wanted.keys():
                break
        if offers != wanted:
            wrong.append(f"{name} ({mac}) is offered {offers} where {wanted} is promised")
        exchange = field.boot(network, mac)
        if (exchange.outcome, exchange.ip) != ("ack", vnic["ip"]):
            wrong.append(f"{name} ({mac}), which holds {vnic['ip']}, got {exchange}")
    wrong += [f"{each.mac}, which holds nothing, got {each}" for each in field.offers_to_any(idle, _SILENCE_S)]
    return wrong


def servers_stay(field: Field) -> list[str]:
    """The control plane's end and new start moves no server. What moved."""
    before = {network: _since(field, network) for network in field.networks}
    field.kill_control_plane()
    wait_until(
        lambda: all(len(field.running(network)) == 2 for network in field.networks), _CONVERGE_S, "the servers run"
    )
    after = {network: _since(field, network) for network in field.networks}
    return [] if before == after else [f"servers moved when the control plane was killed: {before} became {after}"]


def _since(field: Field, network: str) -> dict[str, str]:
    return {each["host"]: each["since"] for each in field.servers(network)}


def examined(field: Field) -> list[str]:
    """What the doctor finds now that all is quiet, also of what may be so in passing."""
    try:
        wait_until(lambda: not field.examine(), _CONVERGE_S, "nothing is found")
    except TimeoutError:
        return [f"the doctor found {each.code}: {each.sentence}" for each in field.examine()]
    return []
