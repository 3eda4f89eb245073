"""The real parts that a schedule's steps act on: a control plane, hosts behind faulty links, and many light guests.

What is done and what comes of it goes into the history; whether that is right is the checker's business.
"""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import httpx
from sqlalchemy.exc import DBAPIError

from chaos.faults import Faults
from chaos.guests import Guests
from chaos.history import Call, Exchange, Finding, Ground, Heard, History
from chaos.schedule import DEVICES, Cast, Step
from lab.capture import Capture
from lab.control_plane import MANAGEMENT_ADDRESS, ControlPlane
from lab.dhcp import Type
from lab.fault_proxy import FaultProxy
from lab.host import Host
from lab.lab import Lab
from lab.postgres import Postgres
from lab.waiting import wait_until
from leasehold.config import Settings
from leasehold.errors import LeaseholdError
from leasehold.service import doctor
from leasehold.service.context import open_context

SETTINGS = {
    "manage_interval_s": 0.5,
    "sweep_interval_s": 0.2,
    "control_connect_timeout_s": 1,
    "control_timeout_s": 2,
    "host_down_after_s": 3,
    "start_budget_s": 2,
    "cool_down_s": 0.5,
    "host_hold_down_s": 1,
    "host_hold_down_most_s": 2,
    "push_batch": 4,
    "reservation_log_least": 20,
}
_SERVERS = 2
_SUBNETS = {
    "blue": {"cidr": "192.0.2.0/24", "ranges": [{"from": "192.0.2.10", "to": "192.0.2.21"}]},
    "red": {"cidr": "198.51.100.0/24", "ranges": [{"from": "198.51.100.10", "to": "198.51.100.15"}]},
}
_ADDRESS = {"blue": "192.0.2", "red": "198.51.100"}
_SLOTS = ("blue", "blue", "red") * 13
_PROXIED = ("host-a", "host-b")
_HOSTS = (*_PROXIED, "host-c")
_LEASE_S = 120
_CLIENT_S = 60
_LANES = 8
_AHEAD = 2
_OBSERVE_S = 0.4
_EXAMINE_S = 1.5
_LOOK_AGAIN_S = 0.05
_ASK_AGAIN_S = 0.2


class _Lane(queue.Queue[Callable[[httpx.Client], None] | None]):
    """Calls that are made one after the other."""


@dataclass
class _Slot:
    """One vNIC as its engine and its guest know it."""

    name: str
    mac: str | None = None
    leased: str | None = None
    server: str | None = None


@dataclass
class _Device:
    """A device with a reservation of its own, now and then."""

    name: str
    subnet: int
    number: int
    leased: str | None = None

    @property
    def mac(self) -> str:
        """It never changes."""
        return f"02:dd:00:00:00:{self.number:02x}"


class Field:
    """A context manager. `perform` does a step: a vNIC's in one of the lanes, where those of one vNIC keep their order,
    all others at once. `settle` waits until the lanes have done theirs."""

    def __init__(self, lab: Lab, control: ControlPlane, database: Postgres | None = None) -> None:
        """`database` is the control plane's own, which faults may end."""
        self.history = History()
        self._database = database
        self._lab = lab
        self._control = control
        self._stack = ExitStack()
        self._slots = [_Slot(f"v{number:02}") for number in range(len(_SLOTS))]
        self._lanes: list[_Lane] = []
        self._threads: list[threading.Thread] = []
        self._broken: list[BaseException] = []
        self._stopping = threading.Event()
        self._macs: dict[str, dict[str, None]] = {network: {} for network in _SUBNETS}
        """All MACs that vNICs of a network ever had."""
        self.subnets: dict[str, int] = {}
        self._captures: dict[str, Capture] = {}

    def __enter__(self) -> Self:
        with self._stack as stack:
            for network in _SUBNETS:
                self._lab.network(network)
            self._control.start()
            self.api = stack.enter_context(self._client())
            networks = {each: {"ipam_enabled": True, "ipam_servers": _SERVERS} for each in _SUBNETS}
            self._context = open_context(Settings(database_url=self._control.database_url))
            stack.callback(self._context.db.dispose)
            self._faults = Faults(
                self.history, self._control, self._database, networks, stack.enter_context(self._client())
            )
            self._faults.reports = stack.enter_context(self._proxy((MANAGEMENT_ADDRESS, 8080)))
            for number, name in enumerate(_HOSTS):
                self._add_host(stack, number, name)
            for name in ("one", "two"):
                self._must(self.api.put(f"/v1/clusters/{name}", json={}))
            for network, subnet in _SUBNETS.items():
                self._must(self.api.put(f"/v1/networks/{network}", json=networks[network]))
                made = self._must(
                    self.api.post("/v1/subnets", json={"network": network, "lease_time": _LEASE_S, **subnet})
                )
                self.subnets[network] = made["id"]
                self._faults.subnets[network] = f"/v1/subnets/{made['id']}", made["ranges"]
            self._devices = [
                _Device(f"device-{number}", self.subnets[self.networks[number % len(_SUBNETS)]], number)
                for number in range(DEVICES)
            ]
            self._guests = Guests(self._lab, _SUBNETS)
            wait_until(lambda: all(len(self.running(each)) == _SERVERS for each in _SUBNETS), 60, "all servers run")
            self._captures = {network: self._lab.capture(network) for network in _SUBNETS}
            for number in range(_LANES):
                lane = _Lane()
                self._lanes.append(lane)
                self._start(partial(self._work, lane, number), f"lane {number}")
            for network in _SUBNETS:
                self._start(partial(self._observe, network), f"observer of {network}")
                probe = partial(self._guests.probe, network, partial(self._macs_of, network), self._stopping)
                self._start(probe, f"prober of {network}")
            self._start(self._watch_the_books, "doctor")
            self._start(self._faults.administrator.work, "administrator")
            for name, supervisor in self._faults.supervisors.items():
                self._start(partial(supervisor.watch, self._stopping), f"supervisor of {name}")
            stack.callback(self._end)
            for number, slot in enumerate(self._slots):
                put = Step(-1, "put", number, network=_SLOTS[number], options={"cluster": None})
                self._give(number, partial(self._of_vnic, put, slot))
            self.settle()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def hosts(self) -> Mapping[str, Host]:
        """The hosts by their names."""
        return self._faults.hosts

    @property
    def ground(self) -> Ground:
        """What stays as it is."""
        return Ground(
            servers={
                network: {host.addresses[network]: host.id for host in self.hosts.values()} for network in _SUBNETS
            },
            subnets={subnet: network for network, subnet in self.subnets.items()},
        )

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks."""
        return tuple(_SUBNETS)

    def perform(self, step: Step) -> None:
        """Does the step, or has a lane do it; raises what went wrong in the field itself."""
        if self._broken:
            raise self._broken[0]
        if step.slot is not None:
            self._give(step.slot, partial(self._of_vnic, step, self._slots[step.slot]))
        elif step.kind == "stranger":
            self._give(step.number, lambda _: self._stranger(step))
        elif "device" in step.options:
            self._give(step.options["device"], partial(self._of_device, step))
        elif step.kind == "end_fault":
            assert step.ends is not None
            self._faults.end(step.ends)
        else:
            self._faults.begin(step)

    def _give(self, number: int, work: Callable[[httpx.Client], None]) -> None:
        lane = self._lanes[number % _LANES]
        # Not ahead of what is done by more than a little; but a control plane that stands still is not waited for,
        # since it may be a later step that has it go on.
        while lane.qsize() >= _AHEAD and not self._faults.stand_still and not self._broken:
            time.sleep(_LOOK_AGAIN_S)
        lane.put(work)

    def settle(self) -> None:
        """Waits for what the lanes have still to do."""
        for lane in self._lanes:
            lane.join()
        if self._broken:
            raise self._broken[0]

    def heal(self) -> None:
        """Ends all faults that last still, and waits until everything runs."""
        self._faults.end_all()

    def entries(self) -> History:
        """The history, with what was heard on the wire so far."""
        whole = History()
        for entry in self.history.entries():
            whole.add(entry)
        for network, capture in self._captures.items():
            for at, message in capture.timed_messages():
                if not message.request and message.type in (Type.OFFER, Type.ACK):
                    whole.add(
                        Heard(
                            at=at, network=network, kind=message.type.name, mac=message.mac, ip=message.yiaddr,
                            server=message.server or "",
                        )
                    )  # fmt: skip
        return whole

    @property
    def cast(self) -> Cast:
        """Who takes part in a run."""
        return Cast(
            hosts=_HOSTS, networks=self.networks, slots=_SLOTS, proxied=_PROXIED, processes=self.processes,
            without=() if self._database is not None else ("kill_database",),
        )  # fmt: skip

    # ---- what a test asks -------------------------------------------------------------------------------------------

    def get(self, path: str) -> dict[str, Any]:
        """A GET that must succeed."""
        return self._must(self.api.get(path))

    def running(self, network: str) -> list[str]:
        """The hosts whose servers of the network run."""
        return [each["host"] for each in self.servers(network) if each["state"] == "running"]

    def servers(self, network: str) -> list[dict[str, Any]]:
        """The network's servers."""
        listed: list[dict[str, Any]] = self.get(f"/v1/networks/{network}/servers")["items"]
        return listed

    def examine(self) -> list[doctor.Finding]:
        """What the doctor finds in the database."""
        return doctor.examine(self._context)

    def look_at_all(self) -> dict[str, dict[str, Any] | None]:
        """Every vNIC as it is, None where there is none; the answers go into the history."""
        for device in self._devices:
            self._look_at_device(self.api, device)
        return {
            slot.name: self._call(self.api, "get", slot.name, "GET", f"/v1/vnics/{slot.name}") for slot in self._slots
        }

    def start_again(self) -> None:
        """What an engine does about vNICs that were started while there was no IPAM: it starts them again, or stops
        them where no address is left."""
        for name, vnic in self.look_at_all().items():
            if vnic is not None and vnic["running"] and vnic["ip_state"] != "held":
                path = f"/v1/vnics/{name}"
                started = self._call(self.api, "start", name, "POST", f"{path}/start", {"wait": "none"})
                if started is None or started.get("ip") is None:
                    self._call(self.api, "stop", name, "POST", f"{path}/stop")

    def offers(self, network: str, mac: str, silence_s: float, at_most: int) -> dict[str, str]:
        """What a guest of the network is offered: addresses by host."""
        hosts = self.ground.servers[network]
        told = self._guests.offers(network, mac, silence_s, at_most)
        return {hosts[each.server or ""]: each.yiaddr for each in told}

    def offers_to_any(self, macs: Mapping[str, str], silence_s: float) -> list[Heard]:
        """What is offered to guests with these MACs, given with their networks, all asking at once."""
        begin = time.time_ns()
        for mac, network in macs.items():
            self._guests.ask(network, mac)
        time.sleep(silence_s)
        return [
            each
            for each in self.entries().entries()
            if isinstance(each, Heard) and each.at >= begin and macs.get(each.mac) == each.network
        ]

    def boot(self, network: str, mac: str) -> Exchange:
        """A guest that boots; recorded."""
        exchange = self._guests.boot(network, mac, patient=True)
        self.history.add(exchange)
        return exchange

    @property
    def processes(self) -> list[str]:
        """The names of the control plane's programs."""
        return list(self._faults.supervisors)

    def kill_control_plane(self) -> None:
        """SIGKILL to all its programs; returns when they are ready again."""
        for each in self._faults.supervisors.values():
            each.kill()
        for each in self._faults.supervisors.values():
            each.wait()

    # ---- vNICs ------------------------------------------------------------------------------------------------------

    def _of_vnic(self, step: Step, slot: _Slot, api: httpx.Client) -> None:
        assert step.network is not None
        path, options = f"/v1/vnics/{slot.name}", step.options
        call = partial(self._call, api, step.kind, slot.name)
        answer: dict[str, Any] | None = None
        match step.kind:
            case "put":
                body = {"vm": f"vm-{slot.name}", "name": "nic1", "subnet": self.subnets[step.network]}
                answer = call("PUT", path, body | {"cluster": options["cluster"]})
            case "start":
                body = {"wait": options["wait"]}
                if "place" in options:
                    body["ip"] = f"{_ADDRESS[step.network]}.{10 + options['place']}"
                answer = call("POST", f"{path}/start", body)
                if answer is not None and "boot" in options:
                    slot.mac, slot.leased = answer["mac"], None
                    self._boot(step.network, slot, patient=True)
            case "patch":
                answer = call("PATCH", f"{path}?wait={options['wait']}", {"mac": options["mac"]})
                if answer is not None and options["boot"]:
                    slot.mac, slot.leased = answer["mac"], None
                    self._boot(step.network, slot, patient=answer.get("ip") is not None)
            case "stop":
                answer = call("POST", f"{path}/stop")
            case "delete":
                call("DELETE", path)
            case "move":
                answer = call("POST", f"{path}/move", dict(options))
            case "get":
                answer = call("GET", path)
            case "guest":
                self._guest_step(step, slot)
            case _:
                raise ValueError(f"the field does not know {step.kind!r}")
        if answer is not None and "mac" in answer:
            slot.mac = answer["mac"]
            self._macs[step.network][answer["mac"]] = None

    def _of_device(self, step: Step, api: httpx.Client) -> None:
        """A device that is no vNIC gets a reservation, or gives it back."""
        assert step.network is not None
        device = self._devices[step.options["device"]]
        if step.kind == "reserve":
            body = {"mac": device.mac}
            answer = self._ask(
                api, step.kind, device.name, "POST", self._reservations(device), body, {"subnet": device.subnet}
            )
            self._macs[step.network][device.mac] = None
        elif device.leased is not None:
            answer = self._ask(api, step.kind, device.name, "DELETE", f"{self._reservations(device)}/{device.leased}")
        else:
            return
        while answer is None and not self._stopping.wait(_ASK_AGAIN_S):
            answer = self._look_at_device(api, device)
        device.leased = answer["ip"] if answer is not None and _tells(answer) else None

    def _look_at_device(self, api: httpx.Client, device: "_Device") -> dict[str, Any] | None:
        """Its reservation, as an answer to GET would have it if there were one; None without an answer."""
        begin = time.time_ns()
        try:
            response = api.get(f"{self._reservations(device)}?limit=1000")
        except httpx.TransportError:
            return None
        if response.is_error:
            return None
        found = next((each for each in response.json()["items"] if each["mac"] == device.mac), None)
        status, answer = (404, {}) if found is None else (200, {**found, "ip_state": "held"})
        self.history.add(
            Call(begin=begin, end=time.time_ns(), verb="get", subject=device.name, status=status, answer=answer)
        )
        return answer

    def _reservations(self, device: "_Device") -> str:
        return f"/v1/subnets/{device.subnet}/reservations"

    def _call(
        self, api: httpx.Client, verb: str, vnic: str, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Makes a call about a vNIC; what it shows of it, if it succeeded. What became of one without an answer is
        asked for at once, as an engine would."""
        answer = self._ask(api, verb, vnic, method, path, body)
        while answer is None and not self._stopping.wait(_ASK_AGAIN_S):
            answer = self._ask(api, "get", vnic, "GET", f"/v1/vnics/{vnic}")
        return answer if answer is not None and _tells(answer) else None

    def _ask(
        self,
        api: httpx.Client,
        verb: str,
        subject: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> dict[str, Any] | None:
        """Makes a call and records it; its answer, or None where that does not tell what was done."""
        begin = time.time_ns()
        status: int | None = None
        try:
            response = api.request(method, path, json=body)
            status = response.status_code
            answer: dict[str, Any] = response.json() if response.content else {}
        except httpx.TransportError as error:
            answer = {"error": repr(error)}
        asked = {**(body or {}), **(facts or {})}
        self.history.add(
            Call(begin=begin, end=time.time_ns(), verb=verb, subject=subject, asked=asked, status=status, answer=answer)
        )
        if status is None or (status >= 500 and answer.get("code") not in ("not-confirmed", "no-server")):
            return None
        return answer

    # ---- guests -----------------------------------------------------------------------------------------------------

    def _guest_step(self, step: Step, slot: _Slot) -> None:
        assert step.network is not None
        if slot.mac is None:
            return
        way, patient = step.options["way"], step.options["patient"]
        if way == "boot":
            self._boot(step.network, slot, patient=patient)
        elif slot.leased is None or slot.server is None:
            return
        elif way == "release":
            self._guests.release(step.network, slot.mac, slot.leased, slot.server)
            slot.leased = None
        else:
            ask = self._guests.renew if way == "renew" else self._guests.reboot
            self._learn(slot, ask(step.network, slot.mac, slot.leased, patient=patient))

    def _boot(self, network: str, slot: _Slot, *, patient: bool) -> None:
        assert slot.mac is not None
        self._learn(slot, self._guests.boot(network, slot.mac, patient=patient))

    def _learn(self, slot: _Slot, exchange: Exchange) -> None:
        self.history.add(exchange)
        if exchange.outcome == "ack":
            slot.leased, slot.server = exchange.ip, exchange.server
        elif exchange.outcome == "nak":
            slot.leased = None

    def _stranger(self, step: Step) -> None:
        assert step.network is not None
        self.history.add(self._guests.boot(step.network, step.options["mac"], patient=False))

    # ---- the parts --------------------------------------------------------------------------------------------------

    def _add_host(self, stack: ExitStack, number: int, name: str) -> None:
        host = self._lab.host(name, {network: f"{_ADDRESS[network]}.{number + 1}/24" for network in _SUBNETS})
        self._faults.hosts[name] = host
        control_url = host.control_url
        if name in _PROXIED:
            proxy = self._faults.proxies[name] = stack.enter_context(self._proxy((host.mgmt_address, 8000)))
            control_url = f"http://{proxy.address[0]}:{proxy.address[1]}/"
        attached = {
            network: {"interface": host.interfaces[network], "address": host.addresses[network]} for network in _SUBNETS
        }
        self._must(
            self.api.put(
                f"/v1/hosts/{name}",
                json={
                    "control_url": control_url, "username": host.username, "password": host.password,
                    "networks": attached,
                },
            )
        )  # fmt: skip
        assert self._faults.reports is not None
        report_url = f"http://{self._faults.reports.address[0]}:{self._faults.reports.address[1]}"
        token = self._must(self.api.post("/v1/tokens", json={"role": "host", "host": name, "description": ""}))
        host.install(report_url=report_url, token=token["secret"])
        host.start()
        host.start_agent()

    def _proxy(self, target: tuple[str, int]) -> FaultProxy:
        return FaultProxy(self._lab.control, MANAGEMENT_ADDRESS, target)

    def _client(self, number: int = 0) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self._control.admin_token}"}
        apis = self._control.apis
        url = str(apis[number % len(apis)].url)
        return httpx.Client(base_url=url, headers=headers, timeout=_CLIENT_S, trust_env=False)

    def _must(self, response: httpx.Response) -> dict[str, Any]:
        if response.is_error:
            raise RuntimeError(f"{response.request.method} {response.request.url} answered {response.text}")
        answer: dict[str, Any] = response.json()
        return answer

    def _observe(self, network: str) -> None:
        with self._client() as api:
            while not self._stopping.wait(_OBSERVE_S):
                begin = time.time_ns()
                try:
                    response = api.get(f"/v1/networks/{network}/servers")
                except httpx.TransportError:
                    continue
                self.history.add(
                    Call(
                        begin=begin, end=time.time_ns(), verb="servers", subject=network, status=response.status_code,
                        answer=response.json(),
                    )
                )  # fmt: skip

    def _macs_of(self, network: str) -> list[str]:
        return list(self._macs[network])

    def _watch_the_books(self) -> None:
        """What the doctor finds that may not be so even in passing goes into the history."""
        while not self._stopping.wait(_EXAMINE_S):
            try:
                found = self.examine()
            except (DBAPIError, LeaseholdError):
                continue  # the database is away just now
            for each in found:
                if not each.passing:
                    self.history.add(
                        Finding(at=time.time_ns(), code=each.code, subject=each.subject, sentence=each.sentence)
                    )

    def _work(self, lane: _Lane, number: int) -> None:
        with self._client(number) as api:
            while (work := lane.get()) is not None:
                try:
                    self._guarded(partial(work, api))()
                finally:
                    lane.task_done()

    def _guarded(self, work: Callable[[], None]) -> Callable[[], None]:
        """`work`, whose fault is told to whoever performs the next step."""

        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - it is raised again in the test's own thread
                self._broken.append(error)

        return guarded

    def _start(self, work: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=self._guarded(work), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _end(self) -> None:
        self._stopping.set()
        self._control.kill()
        for lane in self._lanes:
            lane.put(None)
        self._faults.administrator.end()
        for thread in self._threads:
            thread.join(_CLIENT_S)


def _tells(answer: Mapping[str, Any]) -> bool:
    """Whether an answer shows what it is about: it is no problem, but for that of a start that is not confirmed yet."""
    return "mac" in answer and answer.get("status") in (None, 503)
