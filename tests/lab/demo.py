"""The demo: Leasehold's main job, told as it happens, on real parts. `./dev demo` runs it in a sandbox.

Ends with 0 if every step of the story was true, else with 1 at the first that was not.
"""

import argparse
import signal
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from lab.host import Host
from lab.lab import Lab
from lab.receiver import WebhookReceiver
from lab.stage import NETWORK, SUBNET, Stage
from lab.vm import Lease, Vm
from lab.waiting import wait_until

T = TypeVar("T")
_SETTINGS = {
    "webhook_allowed_networks": "10.99.0.0/24",
    "cool_down_s": 5,
    "manage_interval_s": 1,
    "host_down_after_s": 3,
}
_STRANGER = "02:ff:00:00:00:01"
_EVENT_S = 15


class Untrue(Exception):
    """A step of the story did not come true."""


class Teller:
    """Prints the story. Chapters are numbered, facts get a tick once they were seen."""

    def __init__(self) -> None:
        self._bold, self._green, self._dim, self._plain = (
            ("\033[1m", "\033[32m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "", "")
        )
        self._chapters = 0
        self._begun = time.monotonic()

    def chapter(self, title: str) -> None:
        """A new part of the story."""
        self._chapters += 1
        print(f"\n{self._bold}{self._chapters}. {title}{self._plain}", flush=True)

    def tell(self, text: str) -> None:
        """What happens."""
        print(f"   {text}", flush=True)

    def fact(self, text: str, held: bool) -> None:
        """What was seen; raises Untrue if it was not."""
        if not held:
            raise Untrue(text)
        print(f"   {self._green}✓{self._plain} {text}", flush=True)

    def event(self, event: dict[str, object]) -> None:
        """A webhook that arrived."""
        data = event["data"]
        assert isinstance(data, dict)
        facts = "  ".join(
            f"{name}={data[name]}" for name in ("ip", "mac", "vnic", "host", "reason", "count") if data.get(name)
        )
        of_subject = f"{event['subject']} #{int(str(event['sequence']))}"
        print(f"   webhook {event['type']:<16} {facts}  {self._dim}{of_subject}{self._plain}", flush=True)

    def end(self) -> None:
        """The last line."""
        print(f"\n{self._green}Every step was true.{self._plain} ({time.monotonic() - self._begun:.0f} s)", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev demo", description="Show Leasehold at work, on real parts.")
    parser.add_argument("--once", action="store_true", help="end after the story, and do not stay up")
    once = parser.parse_args().once
    teller = Teller()
    try:
        with Lab("demo") as lab:
            control = lab.control_plane(**_SETTINGS)
            teller.chapter("Three hosts on one network, and a control plane")
            control.start()
            with control.api() as api:
                stage = Stage(lab, control, api)
                _story(teller, stage)
                teller.end()
                if not once:
                    _stay(stage)
    except (Untrue, TimeoutError) as untrue:
        print(f"\n✗ not true: {untrue}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; everything was taken down.", file=sys.stderr)
        return 130
    return 0


def _story(teller: Teller, stage: Stage) -> None:
    _build(teller, stage)
    receiver = stage.subscribe()
    guests = _start_two(teller, stage)
    _await_assigned(teller, receiver, guests)
    _refuse_stranger(teller, stage, receiver)
    _stop_one(teller, stage, guests["web-0"])
    _kill(teller, stage, guests["web-1"])
    _show_events(teller, receiver)


def _build(teller: Teller, stage: Stage) -> None:
    stage.add_hosts(3)
    for host in stage.hosts:
        teller.tell(f"{host.id}: kea-dhcp4 {host.addresses[NETWORK]}, Control Agent {host.control_url}")
    (pool,) = stage.get("/v1/mac-pools")["items"]
    (drawn,) = pool["ranges"]
    teller.tell(f"MAC pool {pool['name']}, drawn at random: {drawn['from']} to {drawn['to']}")
    stage.serve(servers=2)
    teller.tell(f"network {NETWORK} wants 2 IPAM servers; subnet {SUBNET['cidr']}, gateway {SUBNET['gateway']}")
    chosen = stage.running()
    teller.fact(f"the manager chose {' and '.join(chosen)}, and they serve", len(chosen) == 2)


def _start_two(teller: Teller, stage: Stage) -> dict[str, Vm]:
    teller.chapter("Two vNICs are created and started, and their guests ask by DHCP")
    guests = {}
    for name in ("web-0", "web-1"):
        stage.vnic(name)
        started, took_s = _timed(lambda name=name: stage.start(name))  # type: ignore[misc]
        confirmed = ", ".join(each["host"] for each in started["servers"] if each["state"] == "confirmed")
        teller.tell(
            f"start {name}: {started['ip']} for {started['mac']}, on disk at {confirmed} after {took_s * 1000:.0f} ms"
        )
        guests[name] = stage.guest(name)
        guests[name].start_client()
        lease = guests[name].wait_for_lease()
        teller.fact(
            f"{name}'s guest was promised {started['ip']} and got {_told(lease)}", lease.address == started["ip"]
        )
    return guests


def _await_assigned(teller: Teller, receiver: WebhookReceiver, guests: dict[str, Vm]) -> None:
    for name, guest in guests.items():
        event = receiver.wait_for(
            lambda event, mac=guest.mac: event["type"] == "lease.assigned" and event["data"]["mac"] == mac,  # type: ignore[misc]
            _EVENT_S,
            f"a webhook about {name}'s lease",
        )
        teller.event(event)


def _refuse_stranger(teller: Teller, stage: Stage, receiver: WebhookReceiver) -> None:
    teller.chapter("A client that nobody promised anything asks as well")
    stranger = stage.lab.vm("stranger", NETWORK, _STRANGER)
    teller.fact(f"{_STRANGER} asked for 3 s and got nothing", stranger.dhcp(timeout_s=3) is None)
    event = receiver.wait_for(
        lambda event: event["type"] == "client.rejected" and event["data"]["mac"] == _STRANGER,
        _EVENT_S,
        "a webhook about the rejected client",
    )
    teller.event(event)


def _stop_one(teller: Teller, stage: Stage, guest: Vm) -> None:
    teller.chapter("A vNIC is stopped while its guest still runs")
    address = stage.stop("web-0")["ip"]
    wait_until(lambda: stage.get("/v1/vnics/web-0")["ip_state"] != "draining", 10, f"all servers gave {address} up")
    teller.tell(f"stop web-0: {address} is withdrawn from every server, and cools down")
    before = len(guest.events())
    guest.renew()
    guest.wait_for("nak", after=before)
    teller.fact(f"its next renewal was refused (NAK), and the guest gave {address} up", True)


def _kill(teller: Teller, stage: Stage, guest: Vm) -> None:
    teller.chapter("Kea is killed and comes back while the control plane is down")
    promised = stage.start("web-1")["ip"]
    servers = stage.serving()
    for host in servers:
        host.kill()
    stage.control.kill()
    teller.tell(f"SIGKILL: control plane, kea-dhcp4 on {' and '.join(host.id for host in servers)}")
    guest.stop_client()
    for host in servers:
        _, took_s = _timed(host.start)
        teller.tell(f"kea-dhcp4 on {host.id} runs again after {took_s * 1000:.0f} ms, and has heard from nobody")
    lease = guest.dhcp()
    teller.fact(
        f"web-1's guest booted again and got {'nothing' if lease is None else _told(lease)}",
        lease is not None and lease.address == promised,
    )
    spooled = [host for host in servers if _spooled(host) > 0]
    teller.fact(f"what happened is spooled on disk at {' and '.join(host.id for host in spooled)}", bool(spooled))
    stage.control.start()
    wait_until(lambda: len(stage.running()) == 2, 20, "both IPAM servers run")
    teller.fact(
        f"the control plane is back, with the same servers: {' and '.join(stage.running())}", stage.serving() == servers
    )
    wait_until(lambda: all(_spooled(host) == 0 for host in servers), _EVENT_S, "the spooled events are reported")


def _show_events(teller: Teller, receiver: WebhookReceiver) -> None:
    teller.chapter("What monitoring heard, each with a signature that standardwebhooks verified")
    receiver.wait_for(
        lambda event: (
            event["type"].startswith("lease.") and event["data"].get("vnic") == "web-1" and int(event["sequence"]) > 1
        ),
        _EVENT_S,
        "a webhook about web-1's second lease",
    )
    for event in receiver.events:
        teller.event(event)
    teller.fact(f"{len(receiver.events)} events, {len(receiver.refused)} with a bad signature", not receiver.refused)


def _stay(stage: Stage) -> None:
    control = stage.control
    print(
        f"\nThe laboratory stays up. In another terminal:\n\n"
        f"  export API={control.url} TOKEN={control.admin_token}\n"
        f'  curl -s -H "Authorization: Bearer $TOKEN" $API/v1/vnics\n'
        f'  curl -s -H "Authorization: Bearer $TOKEN" $API/v1/networks/{NETWORK}/servers\n'
        f"  curl -s $API/openapi.json\n\nCtrl-C ends it.",
        flush=True,
    )
    signal.pause()


def _spooled(host: Host) -> int:
    events = host.status()["events"]
    return int(events["queued"]) + int(events["spooled"])


def _told(lease: Lease) -> str:
    return (
        f"{lease.address}/{lease.prefix_length} from {lease.server}, router {lease.router}, DNS {' '.join(lease.dns)}"
    )


def _timed(act: Callable[[], T]) -> tuple[T, float]:
    begun = time.monotonic()
    return act(), time.monotonic() - begun


if __name__ == "__main__":
    sys.exit(main())
