"""The real parts that a schedule's steps act on: a control plane, hosts behind faulty links, and many light guests.

What is done and what comes of it goes into the history; whether that is right is the checker's business.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import httpx
from sqlalchemy.exc import DBAPIError

from chaos.faults import Faults
from chaos.history import Call, Exchange, Finding, Ground, Heard, History
from chaos.schedule import Cast, Step
from lab.capture import Capture
from lab.control_plane import MANAGEMENT_ADDRESS, ControlPlane
from lab.dhcp import RawClient, Type
from lab.fault_proxy import FaultProxy
from lab.host import Host
from lab.lab import Lab
from lab.postgres import Postgres
from lab.vm import INTERFACE, Vm
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
_ANSWER_S = 1.0
_IMPATIENT_S = 0.3
_OBSERVE_S = 0.4
_PROBE_S = 0.03
_EXAMINE_S = 1.5
_LOOK_AGAIN_S = 0.05


class _Lane(queue.Queue[Callable[[httpx.Client], None] | None]):
    """Calls that are made one after the other."""


@dataclass
class _Slot:
    """One vNIC as its engine and its guest know it."""

    name: str
    mac: str | None = None
    leased: str | None = None
    server: str | None = None


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
            self._guests: dict[str, Vm] = {
                network: self._lab.vm(f"guests-{network}", network, "02:ee:00:00:00:01") for network in _SUBNETS
            }
            wait_until(lambda: all(len(self.running(each)) == _SERVERS for each in _SUBNETS), 60, "all servers run")
            self._captures = {network: self._lab.capture(network) for network in _SUBNETS}
            for number in range(_LANES):
                lane = _Lane()
                self._lanes.append(lane)
                self._start(partial(self._work, lane, number), f"lane {number}")
            for network in _SUBNETS:
                self._start(partial(self._observe, network), f"observer of {network}")
                self._start(partial(self._probe, network), f"prober of {network}")
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
        return {
            slot.name: self._call(self.api, "get", slot.name, "GET", f"/v1/vnics/{slot.name}") for slot in self._slots
        }

    def offers(self, network: str, mac: str, silence_s: float, at_most: int) -> dict[str, str]:
        """What a guest of the network is offered: addresses by host."""
        hosts = self.ground.servers[network]
        with self._guest(network, mac) as client:
            discover = client.message(Type.DISCOVER)
            client.send(discover)
            return {hosts[each.server or ""]: each.yiaddr for each in client.answers(discover, silence_s, at_most)}

    def offers_to_any(self, macs: Mapping[str, str], silence_s: float) -> list[Heard]:
        """What is offered to guests with these MACs, given with their networks, all asking at once."""
        begin = time.time_ns()
        for mac, network in macs.items():
            with self._guest(network, mac) as client:
                client.send(client.message(Type.DISCOVER))
        time.sleep(silence_s)
        return [
            each
            for each in self.entries().entries()
            if isinstance(each, Heard) and each.at >= begin and macs.get(each.mac) == each.network
        ]

    def boot(self, network: str, mac: str) -> Exchange:
        """A guest that boots; recorded."""
        exchange = self._exchange(network, mac, "boot", None, patient=True)
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
                    self._boot(step.network, slot, "boot", patient=True)
            case "patch":
                answer = call("PATCH", f"{path}?wait={options['wait']}", {"mac": options["mac"]})
                if answer is not None and options["boot"]:
                    slot.mac, slot.leased = answer["mac"], None
                    self._boot(step.network, slot, "boot", patient=answer.get("ip") is not None)
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

    def _call(
        self, api: httpx.Client, verb: str, vnic: str, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Makes a call and records it; the answer to one that succeeded. What became of one without an answer is asked
        for at once, as an engine would."""
        begin = time.time_ns()
        status: int | None = None
        answer: dict[str, Any] = {}
        try:
            response = api.request(method, path, json=body)
            status = response.status_code
            answer = response.json() if response.content else {}
        except httpx.TransportError as error:
            answer = {"error": repr(error)}
        self.history.add(
            Call(
                begin=begin, end=time.time_ns(), verb=verb, subject=vnic, asked=body or {}, status=status, answer=answer
            )
        )
        if status is None or (status >= 500 and answer.get("code") not in ("not-confirmed", "no-server")):
            self._stopping.wait(0.2)
            return self._call(api, "get", vnic, "GET", f"/v1/vnics/{vnic}")
        return answer if status < 300 or "mac" in answer else None

    # ---- guests -----------------------------------------------------------------------------------------------------

    def _guest_step(self, step: Step, slot: _Slot) -> None:
        assert step.network is not None
        if slot.mac is None:
            return
        way = step.options["way"]
        if slot.leased is None and way != "boot":
            return
        if way == "release":
            with self._guest(step.network, slot.mac) as client:
                client.release(slot.leased or "", slot.server or "")
            slot.leased = None
            return
        self._boot(step.network, slot, way, patient=step.options["patient"])

    def _boot(self, network: str, slot: _Slot, way: str, *, patient: bool) -> None:
        assert slot.mac is not None
        exchange = self._exchange(network, slot.mac, way, slot.leased, patient=patient)
        self.history.add(exchange)
        if exchange.outcome == "ack":
            slot.leased, slot.server = exchange.ip, exchange.server
        elif exchange.outcome == "nak":
            slot.leased = None

    def _stranger(self, step: Step) -> None:
        assert step.network is not None
        self.history.add(self._exchange(step.network, step.options["mac"], "boot", None, patient=False))

    def _exchange(self, network: str, mac: str, way: str, leased: str | None, *, patient: bool) -> Exchange:
        begin = time.time_ns()
        asked = None if way == "boot" else leased
        silence_s, tries = (_ANSWER_S, 3) if patient else (_IMPATIENT_S, 1)
        answer = None
        with self._guest(network, mac) as client:
            for _ in range(tries):
                if way == "boot":
                    offer = client.discover(silence_s)
                    answer = None if offer is None else client.select(offer, silence_s)
                elif way == "renew":
                    answer = client.renew(leased or "", silence_s)
                else:
                    answer = client.request(leased or "", silence_s=silence_s)
                if answer is not None:
                    break
        outcome = {Type.ACK: "ack", Type.NAK: "nak"}[answer.type] if answer is not None else "silence"
        return Exchange(
            begin=begin, end=time.time_ns(), network=network, mac=mac, asked=asked, outcome=outcome,
            ip=answer.yiaddr if answer is not None and outcome == "ack" else None,
            server=answer.server if answer is not None else None,
        )  # fmt: skip

    @contextmanager
    def _guest(self, network: str, mac: str) -> Iterator[RawClient]:
        with RawClient(self._guests[network].namespace, INTERFACE, mac) as client:
            yield client

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

    def _probe(self, network: str) -> None:
        """Asks in turn for every MAC that a vNIC ever had, so that the wire shows what each server would serve."""
        with self._guest(network, "") as client:
            while not self._stopping.is_set():
                for mac in list(self._macs[network]):
                    client.mac = mac
                    client.send(client.message(Type.DISCOVER))
                    if self._stopping.wait(_PROBE_S):
                        return
                self._stopping.wait(_PROBE_S)

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
