"""A hypervisor host: a network namespace with a real kea-dhcp4 and a real Control Agent."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from lab.namespace import Namespace
from lab.process import end
from lab.text import tail
from lab.waiting import wait_until

TREE = Path(__file__).resolve().parents[2]
HOOK = TREE / "build" / "hook" / "libdhcp_leasehold.so"
"""The hook library under test."""

_CONFIGURATIONS = TREE / "kea-configs"
_HOOK_NAME = HOOK.name
_KEA_PROGRAMS = ("kea-dhcp4", "kea-ctrl-agent", "kea-lfc")
_AGENT_PORT = 8000
_START_S = 20


class KeaPrograms:
    """Copies of Kea's programs in a folder of the laboratory's.

    Copies, because Debian confines /usr/sbin/kea-dhcp4 and its companions with AppArmor, by path: under those profiles
    they may read and write Debian's own places only, and not this tree. A copy elsewhere runs unconfined.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir()
        for program in _KEA_PROGRAMS:
            installed = shutil.which(program, path="/usr/sbin:/usr/local/sbin")
            if installed is None:
                raise RuntimeError(f"{program} is not installed; ./dev installs it")
            shutil.copy(installed, directory / program)

    def path(self, program: str) -> Path:
        return self._directory / program


class Host:
    """Made by `Lab.host`. It has `mgmt`, an interface towards the control plane, and one interface for each network.

    `id` is its name at the control plane, `interfaces` maps networks to interface names, `addresses` networks to the
    host's own addresses there. `control_url`, `username` and `password` are what the control plane needs to reach it.
    """

    def __init__(
        self,
        id: str,
        namespace: Namespace,
        programs: KeaPrograms,
        *,
        directory: Path,
        sockets: Path,
        mgmt_address: str,
        networks: Mapping[str, str],
        switch_port: Callable[[str, bool], None],
    ) -> None:
        """`networks` maps networks to addresses with prefix lengths; `switch_port(network, up)` is a cable's end."""
        self.id = id
        self.namespace = namespace
        self.directory = directory
        self.mgmt_address = mgmt_address
        self.interfaces = {network: interface_name(network) for network in networks}
        self.addresses = {network: address.partition("/")[0] for network, address in networks.items()}
        self.control_url = f"http://{mgmt_address}:{_AGENT_PORT}/"
        self.username = "leasehold"
        self.password = secrets.token_urlsafe()
        self.state_directory = directory / "state"
        self.log = directory / "kea-dhcp4.log"
        self.configuration = directory / "kea-dhcp4.conf"
        self._programs = programs
        self._socket = sockets / "kea4-ctrl-socket"
        self._switch_port = switch_port
        self._kea: subprocess.Popen[bytes] | None = None
        self._agent: subprocess.Popen[bytes] | None = None

    def install(
        self,
        *,
        hook: bool = True,
        report_url: str | None = None,
        token: str | None = None,
        parameters: Mapping[str, object] | None = None,
        subnets: Sequence[Mapping[str, object]] = (),
        change: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """Write the configurations of kea-configs/ with this host's paths, addresses, credentials and parameters.

        `hook=False` leaves our hook out. `report_url` and `token` make the hook report; `parameters` are further
        parameters of the hook. `subnets` go in as they are, and Kea then listens on all networks; without them the
        control plane brings subnets and interfaces. `change` has the last word on the `Dhcp4` map.
        """
        configuration = _load("kea-dhcp4.conf")
        dhcp4 = configuration["Dhcp4"]
        dhcp4["control-socket"]["socket-name"] = str(self._socket)
        # Relative to where Kea is started: it cannot read an absolute path that has a space in it.
        dhcp4["lease-database"]["name"] = Path(dhcp4["lease-database"]["name"]).name
        for library in [*dhcp4["hooks-libraries"]]:
            if not library["library"].endswith(_HOOK_NAME):
                continue
            if not hook:
                dhcp4["hooks-libraries"].remove(library)
                continue
            library["library"] = str(HOOK)
            library["parameters"] |= {"host-id": self.id, "state-directory": str(self.state_directory)}
            if report_url is not None and token is not None:
                token_file = self.directory / "report-token"
                _write_secret(token_file, token)
                library["parameters"] |= {"report-url": report_url, "report-token-file": str(token_file)}
            library["parameters"] |= dict(parameters or {})
        if subnets:
            dhcp4["subnet4"] = list(subnets)
            dhcp4["interfaces-config"]["interfaces"] = list(self.interfaces.values())
        if change is not None:
            change(dhcp4)
        self.configuration.write_text(json.dumps(configuration, indent=4))
        self._install_agent()

    def start(self, *, under: Sequence[str] = (), patience_s: float = _START_S) -> None:
        """Start kea-dhcp4 and wait until it answers commands; raises RuntimeError with its last words if it ends.

        `under` is a command, a profiler's, that Kea is the last arguments of.
        """
        self._kea = self._start("kea-dhcp4", self.configuration, under)
        wait_until(self._kea_answers, patience_s, f"kea-dhcp4 on {self.id} answers commands")

    def start_agent(self) -> None:
        """Start the Control Agent and wait until it listens."""
        self._agent = self._start("kea-ctrl-agent", self.directory / "kea-ctrl-agent.conf")
        wait_until(self._agent_listens, _START_S, f"the Control Agent on {self.id} listens")

    def stop(self) -> None:
        """Stop kea-dhcp4 as systemd would, with SIGTERM; harmless if it does not run."""
        _end(self._kea, signal.SIGTERM)
        self._kea = None

    def kill(self) -> None:
        """SIGKILL kea-dhcp4; harmless if it does not run."""
        _end(self._kea, signal.SIGKILL)
        self._kea = None

    def stop_agent(self) -> None:
        """SIGKILL the Control Agent; harmless if it does not run."""
        _end(self._agent, signal.SIGKILL)
        self._agent = None

    def restart(self) -> None:
        """Stop and start kea-dhcp4."""
        self.stop()
        self.start()

    @property
    def kea_pid(self) -> int:
        """kea-dhcp4's process id; raises RuntimeError if it was not started."""
        if self._kea is None:
            raise RuntimeError(f"kea-dhcp4 on {self.id} does not run")
        return self._kea.pid

    @property
    def kea_runs(self) -> bool:
        """Whether kea-dhcp4 was started and has not ended, by itself or otherwise."""
        return self._kea is not None and self._kea.poll() is None

    def command(self, command: str, /, **arguments: object) -> dict[str, Any]:
        """One command on Kea's Unix socket, and its answer: `result`, `text`, `arguments`. OSError if Kea is away.

        Underscores in the names of arguments become hyphens.
        """
        request: dict[str, object] = {"command": command}
        if arguments:
            request["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self.raw_command(json.dumps(request).encode())

    def raw_command(self, octets: bytes, timeout_s: float = 60) -> dict[str, Any]:
        """As `command`, with octets that need not be JSON."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(self._socket))
            connection.sendall(octets)
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        decoded: dict[str, Any] = json.loads(answer)
        return decoded

    def send_and_kill(self, octets: bytes, after_s: float) -> None:
        """Send a command on Kea's Unix socket, and SIGKILL Kea so many seconds later, in the middle of it with luck."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._socket))
            connection.sendall(octets)
            connection.shutdown(socket.SHUT_WR)
            time.sleep(after_s)
            self.kill()

    def kill_once_answered(self, octets: bytes) -> bytes:
        """Send a command on Kea's Unix socket, and SIGKILL Kea as soon as its answer begins; what was heard of it."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._socket))
            connection.sendall(octets)
            heard = connection.recv(65536)
            self.kill()
        return heard

    def status(self) -> dict[str, Any]:
        """The arguments of `leasehold-status`' answer."""
        answer = self.command("leasehold-status")
        if answer["result"] != 0:
            raise RuntimeError(f"leasehold-status on {self.id}: {answer}")
        arguments: dict[str, Any] = answer["arguments"]
        return arguments

    @contextmanager
    def agent_client(self) -> Iterator[httpx.Client]:
        """A client of the Control Agent, from within the host, that keeps its connection."""
        headers = {"Content-Type": "application/json"}
        credentials = (self.username, self.password)
        with httpx.Client(
            base_url=self.control_url, auth=credentials, headers=headers, timeout=60, trust_env=False
        ) as client:
            # The connection is made here, inside of the host, and kept.
            self.namespace.within(lambda: client.post("/", content=b'{"command": "list-commands"}'))
            yield client

    def post_to_agent(self, body: bytes, *, username: str | None = None, password: str | None = None) -> httpx.Response:
        """POST to the Control Agent from within the host, with this host's credentials unless told others.

        For tests of the Control Agent itself; the control plane has a client of its own.
        """
        auth = (username or self.username, password or self.password)
        headers = {"Content-Type": "application/json"}
        return self.namespace.within(
            lambda: httpx.post(self.control_url, content=body, auth=auth, headers=headers, trust_env=False)
        )

    def cut_management(self) -> None:
        """Cut the host off the control plane: the cable's far end goes down, packets are lost without an error."""
        self._switch_port("mgmt", False)

    def mend_management(self) -> None:
        """The cable to the control plane again."""
        self._switch_port("mgmt", True)

    def cut(self, network: str) -> None:
        """Cut the host off a network, as by `cut_management`."""
        self._switch_port(network, False)

    def mend(self, network: str) -> None:
        """The cable to a network again."""
        self._switch_port(network, True)

    def resident_memory(self) -> int:
        """Octets of kea-dhcp4's memory that are resident."""
        pages = int(Path(f"/proc/{self.kea_pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def logs(self) -> list[Path]:
        """The log files of this host, also those that do not exist yet."""
        return [self.log, self.directory / "kea-ctrl-agent.log"]

    def _install_agent(self) -> None:
        configuration = _load("kea-ctrl-agent.conf")
        agent = configuration["Control-agent"]
        agent["http-host"] = self.mgmt_address
        agent["http-port"] = _AGENT_PORT
        agent["control-sockets"]["dhcp4"]["socket-name"] = str(self._socket)
        agent["authentication"]["directory"] = str(self.directory)
        (client,) = agent["authentication"]["clients"]
        _write_secret(self.directory / client["user-file"], self.username)
        _write_secret(self.directory / client["password-file"], self.password)
        (self.directory / "kea-ctrl-agent.conf").write_text(json.dumps(configuration, indent=4))

    def _start(self, program: str, configuration: Path, under: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        # Names of Kea's own: getenv in daemon.cc, interprocess_sync_file.cc and memfile_lease_mgr.cc of Kea 2.2.0.
        environment = os.environ | {
            "KEA_PIDFILE_DIR": str(self.directory),
            "KEA_LOCKFILE_DIR": str(self.directory),
            "KEA_LFC_EXECUTABLE": str(self._programs.path("kea-lfc")),
        }
        # A killed Kea leaves its pid file, and would refuse to start if another process had got that id meanwhile.
        for left in self.directory.glob(f"*.{program}.pid"):
            left.unlink()
        command: list[str | Path] = [*under, self._programs.path(program), "-c", configuration]
        return self.namespace.start(command, self.directory / f"{program}.log", environment, self.directory)

    def _kea_answers(self) -> bool:
        self._check_running(self._kea, "kea-dhcp4")
        try:
            return bool(self.command("version-get")["result"] == 0)
        except (FileNotFoundError, ConnectionError):
            return False

    def _agent_listens(self) -> bool:
        self._check_running(self._agent, "kea-ctrl-agent")
        try:
            self.namespace.within(lambda: socket.create_connection((self.mgmt_address, _AGENT_PORT), 1).close())
        except ConnectionError:
            return False
        return True

    def _check_running(self, process: subprocess.Popen[bytes] | None, program: str) -> None:
        code = process.poll() if process is not None else None
        if code is not None:
            words = "\n".join(tail(path) for path in self.logs() if path.name.startswith(program))
            raise RuntimeError(f"{program} on {self.id} ended with {code}. Its last words:\n{words}")


def _end(process: subprocess.Popen[bytes] | None, number: int) -> None:
    if process is not None:
        end(process, number)


def interface_name(network: str) -> str:
    """A host's interface on a network; raises ValueError for a name that Linux could not bear (15 octets)."""
    name = f"eth-{network}"
    if len(name) > 15:
        raise ValueError(f"network {network!r}: a laboratory's networks have names of at most 11 letters")
    return name


def _load(name: str) -> dict[str, Any]:
    configuration: dict[str, Any] = json.loads((_CONFIGURATIONS / name).read_text())
    return configuration


def _write_secret(path: Path, secret: str) -> None:
    path.touch(mode=0o600)
    path.write_text(secret)
