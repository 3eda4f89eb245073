"""Faults of a site, and an administrator's measures: each begins with a step, most of them end with a later one, and
each goes into the history with what it may excuse."""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import httpx

from chaos.history import FOREVER, History, Trouble
from chaos.schedule import Step
from lab.control_plane import ControlPlane, Program
from lab.fault_proxy import BLACK_HOLE, DEAF, MUTE, REFUSE, Fault, FaultProxy, cut, slow
from lab.host import Host
from lab.postgres import Postgres
from lab.waiting import wait_until

_PATIENCE_S = 60
_SUPERVISE_S = 0.1
_ASK_AGAIN_S = 0.2
# A host that lost its journal serves nothing until it has been given everything anew.
_RESYNC_S = 10
_DISTURBANCES: Mapping[str, Fault] = {
    "refuse": REFUSE,
    "black hole": BLACK_HOLE,
    "deaf": DEAF,
    "mute": MUTE,
    "slow": slow(0.3),
}
_STANDSTILLS = ("stall_control", "kill_database")


@dataclass(frozen=True, kw_only=True)
class _Effect:
    """What a fault that was begun does. `dhcp` and `moves` as in Trouble. `undo` ends it; None where it is over, but
    for its consequences, which go on for `lasts_s` seconds. The administrator ends what `administers`."""

    undo: Callable[[], None] | None = None
    dhcp: bool = False
    moves: bool = True
    lasts_s: float = 0
    administers: bool = False


class Supervisor:
    """Starts a program again whenever it has ended, as systemd would."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._lock = threading.Lock()

    def kill(self) -> None:
        """SIGKILL."""
        with self._lock:
            self.program.kill()

    def watch(self, stopping: threading.Event) -> None:
        """Until it is stopping."""
        while not stopping.wait(_SUPERVISE_S):
            with self._lock:
                if not self.program.runs:
                    self.program.begin()

    def wait(self) -> None:
        """Until the program is ready."""

        def is_ready() -> bool:
            try:
                self.program.wait()
            except RuntimeError:
                return False  # it ended instead, and is started again
            return True

        wait_until(is_ready, _PATIENCE_S, f"leasehold {self.program.command} is ready")


class Administrator:
    """Does one thing after the other, each until the control plane has taken it: it may be away just now."""

    def __init__(self, api: httpx.Client) -> None:
        self._api = api
        self._work: queue.Queue[Callable[[], None] | None] = queue.Queue()

    def give(self, work: Callable[[], None]) -> None:
        """To be done after all that was given before."""
        self._work.put(work)

    def work(self) -> None:
        """Until `end`."""
        while (work := self._work.get()) is not None:
            try:
                work()
            finally:
                self._work.task_done()

    def end(self) -> None:
        """What was given before is still done."""
        self._work.put(None)

    def wait(self) -> None:
        """Until all is done."""
        self._work.join()

    def insist(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, enough: threading.Event | None = None
    ) -> None:
        """Repeats a call until it is taken, or it is enough. For use as, or in, what is given."""
        enough = enough or threading.Event()

        def is_taken() -> bool:
            try:
                if enough.is_set() or self._api.request(method, path, json=body).is_success:
                    return True
            except httpx.TransportError:
                return False
            return enough.wait(_ASK_AGAIN_S)

        wait_until(is_taken, _PATIENCE_S, f"the control plane takes {method} {path} {body or ''}")

    def wait_until_cleared(self, host: str) -> None:
        """Until a host is not fenced, any more or at all."""

        def is_cleared() -> bool:
            try:
                answer = self._api.get(f"/v1/hosts/{host}")
            except httpx.TransportError:
                return False
            return answer.is_success and answer.json()["state"] != "fenced"

        wait_until(is_cleared, _PATIENCE_S, f"{host} serves nothing any more, and is let in again")


class Faults:
    """Begins and ends them. `database` is the control plane's own, which can be killed; `networks` gives the body that
    each network is created with."""

    def __init__(
        self,
        history: History,
        control: ControlPlane,
        database: Postgres | None,
        networks: Mapping[str, Mapping[str, Any]],
        api: httpx.Client,
    ) -> None:
        self._history = history
        self._database = database
        self._networks = networks
        self.hosts: dict[str, Host] = {}
        self.proxies: dict[str, FaultProxy] = {}
        self.reports: FaultProxy | None = None
        self.subnets: dict[str, tuple[str, list[dict[str, str]]]] = {}
        """Path and ranges of each network's subnet."""
        self.administrator = Administrator(api)
        self.supervisors = {
            f"{each.command}-{number}": Supervisor(each) for number, each in enumerate(control.programs, start=1)
        }
        self._lasting: dict[int, tuple[Trouble, _Effect]] = {}
        self._stopped_asking: dict[str, threading.Event] = {}
        self._coming_back: set[str] = set()

    def begin(self, step: Step) -> None:
        """The step's fault; left out on a host that is still being brought back from the last one."""
        if step.host in self._coming_back:
            return
        trouble = Trouble(
            begin=time.time_ns(),
            end=FOREVER,
            what=f"{step.kind} {dict(step.options) or ''}".strip(),
            host=step.host,
            network=step.network,
        )
        method: Callable[[Step], _Effect] = getattr(self, f"_{step.kind}")
        effect = method(step)
        trouble = replace(trouble, dhcp=effect.dhcp, moves=effect.moves)
        if effect.undo is None:
            self._record(trouble, effect.lasts_s)
        else:
            self._lasting[step.number] = trouble, effect

    def end(self, number: int) -> None:
        """Of the fault that began with the step of this number."""
        if number not in self._lasting:
            return
        trouble, effect = self._lasting.pop(number)
        assert effect.undo is not None
        if effect.administers:
            self.administrator.give(effect.undo)
            self.administrator.give(partial(self._record, trouble, 0))
            if trouble.host is not None and (asking := self._stopped_asking.pop(trouble.host, None)) is not None:
                asking.set()
                self._coming_back.add(trouble.host)
        else:
            effect.undo()
            self._record(trouble, 0)

    def end_all(self) -> None:
        """Of all that last; returns when all programs run and the administrator has done everything."""
        for number in list(self._lasting):
            self.end(number)
        for each in self.supervisors.values():
            each.wait()
        self.administrator.wait()

    @property
    def stand_still(self) -> bool:
        """Whether the control plane, or a part of it, waits for a fault's end."""
        return any(trouble.what.startswith(_STANDSTILLS) for trouble, _ in self._lasting.values())

    def _record(self, trouble: Trouble, lasts_s: float) -> None:
        self._history.add(replace(trouble, end=time.time_ns() + round(lasts_s * 1e9)))

    # ---- hosts ------------------------------------------------------------------------------------------------------

    def _host(self, step: Step) -> Host:
        assert step.host is not None
        return self.hosts[step.host]

    def _kill_kea(self, step: Step) -> _Effect:
        self._host(step).kill()
        return _Effect(undo=self._host(step).start, dhcp=True)

    def _restart_kea(self, step: Step) -> _Effect:
        self._host(step).kill()
        self._host(step).start()
        return _Effect(dhcp=True)

    def _lose_journal(self, step: Step) -> _Effect:
        host = self._host(step)
        host.kill()
        for part in host.state_directory.glob("journal.sqlite*"):
            part.unlink()
        host.start()
        return _Effect(dhcp=True, lasts_s=_RESYNC_S)

    def _kill_agent(self, step: Step) -> _Effect:
        self._host(step).stop_agent()
        return _Effect(undo=self._host(step).start_agent)

    def _cut_management(self, step: Step) -> _Effect:
        self._host(step).cut_management()
        return _Effect(undo=self._host(step).mend_management)

    def _cut_network(self, step: Step) -> _Effect:
        assert step.network is not None
        self._host(step).cut(step.network)
        return _Effect(undo=partial(self._host(step).mend, step.network), dhcp=True)

    def _take_host_down(self, step: Step) -> _Effect:
        host = self._host(step)
        self._take_down(host)

        def bring_up() -> None:
            self._boot(host)
            self._plug_in(host)

        return _Effect(undo=bring_up, dhcp=True)

    def _disturb(self, step: Step) -> _Effect:
        proxy = self.proxies[self._host(step).id]
        octets = step.options.get("octets")
        proxy.set(_DISTURBANCES[step.options["how"]] if octets is None else cut(octets))
        return _Effect(undo=partial(proxy.heal, step.options.get("linger_s", 0)))

    def _disturb_reports(self, step: Step) -> _Effect:
        assert self.reports is not None
        self.reports.set(_DISTURBANCES[step.options["how"]])
        return _Effect(undo=self.reports.heal, moves=False)

    # ---- the control plane ------------------------------------------------------------------------------------------

    def _kill_control(self, step: Step) -> _Effect:
        self.supervisors[step.options["process"]].kill()
        return _Effect(moves=False)

    def _stall_control(self, step: Step) -> _Effect:
        program = self.supervisors[step.options["process"]].program
        if not program.runs:
            return _Effect(moves=False)
        program.stall()
        return _Effect(undo=program.go_on, moves=False)

    def _kill_database(self, step: Step) -> _Effect:
        assert self._database is not None
        self._database.kill()
        return _Effect(undo=self._database.start, moves=False)

    # ---- the administrator ------------------------------------------------------------------------------------------

    def _disable_ipam(self, step: Step) -> _Effect:
        return self._network_changed(step, ipam_enabled=False)

    def _want_servers(self, step: Step) -> _Effect:
        return self._network_changed(step, ipam_servers=step.options["servers"])

    def _network_changed(self, step: Step, **changes: Any) -> _Effect:
        assert step.network is not None
        path, body = f"/v1/networks/{step.network}", self._networks[step.network]
        insist = self.administrator.insist
        self.administrator.give(partial(insist, "PUT", path, {**body, **changes}))
        return _Effect(undo=partial(insist, "PUT", path, body), administers=True)

    def _shrink(self, step: Step) -> _Effect:
        """The subnet hands out only half of its addresses meanwhile; those in use stay with their holders."""
        assert step.network is not None
        path, ranges = self.subnets[step.network]
        middle = ranges[0]["from"].rpartition(".")[0] + ".13"
        insist = self.administrator.insist
        self.administrator.give(partial(insist, "PATCH", path, {"ranges": [{**ranges[0], "to": middle}]}))
        return _Effect(undo=partial(insist, "PATCH", path, {"ranges": ranges}), administers=True, moves=False)

    def _maintain(self, step: Step) -> _Effect:
        insist = self.administrator.insist
        self.administrator.give(partial(insist, "POST", f"/v1/hosts/{step.host}/maintenance"))
        return _Effect(undo=partial(insist, "POST", f"/v1/hosts/{step.host}/activate"), administers=True)

    def _fence(self, step: Step) -> _Effect:
        """A host that is really dead is declared so, and let on its networks again only when it serves nothing: what it
        served before is others' by then."""
        host = self._host(step)
        self._take_down(host)
        enough = self._stopped_asking[host.id] = threading.Event()

        def bring_up() -> None:
            self._boot(host)
            self.administrator.wait_until_cleared(host.id)
            self._plug_in(host)
            self._coming_back.remove(host.id)

        path = f"/v1/hosts/{host.id}/fence"
        self.administrator.give(partial(self.administrator.insist, "POST", path, enough=enough))
        return _Effect(undo=bring_up, dhcp=True, administers=True)

    def _take_down(self, host: Host) -> None:
        host.kill()
        host.stop_agent()
        host.cut_management()
        for network in host.interfaces:
            host.cut(network)

    def _boot(self, host: Host) -> None:
        host.mend_management()
        host.start()
        host.start_agent()

    def _plug_in(self, host: Host) -> None:
        for network in host.interfaces:
            host.mend(network)
