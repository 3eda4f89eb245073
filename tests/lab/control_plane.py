"""The control plane as real processes beside the hosts' management network: `leasehold serve` over SQLite, or any
number of `leasehold api` and `leasehold worker` over PostgreSQL."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from lab.namespace import Namespace
from lab.process import children, end
from lab.text import tail
from lab.waiting import wait_until

MANAGEMENT_ADDRESS = "10.99.0.1"
_PORT = 8080
_START_S = 30
_REQUEST_S = 30
_LEASEHOLD = Path(sys.executable).with_name("leasehold")


class Program:
    """One program of a control plane, `serve`, `api` or `worker`: with its own log, to be ended and started alone.

    `url` is where its API is reached from the tests; a worker has none.
    """

    def __init__(
        self,
        command: str,
        namespace: Namespace,
        log: Path,
        environment: Mapping[str, str],
    ) -> None:
        self.command = command
        self.log = log
        self._namespace = namespace
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        # Made here, in the sandbox's network, and handed down: a listening socket stays where it was made. So the API
        # is at a loopback address of the machine while the control plane lives among its hosts.
        self._listener = None if command == "worker" else socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = None if self._listener is None else f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def pid(self) -> int:
        """Its process id; raises RuntimeError if it does not run."""
        if self._process is None:
            raise RuntimeError(f"leasehold {self.command} does not run")
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended, by itself or otherwise."""
        return self._process is not None and self._process.poll() is None

    @property
    def pids(self) -> list[int]:
        """Its process id, and those of the processes that serve for it."""
        return [] if self._process is None else [self._process.pid, *children(self._process.pid)]

    def begin(self) -> None:
        """Starts it, and does not wait for it."""
        descriptors = [] if self._listener is None else [self._listener.fileno()]
        binds = ["--bind", f"fd://{descriptors[0]}", "--bind", f"{MANAGEMENT_ADDRESS}:{_PORT}"] if descriptors else []
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._namespace.command([_LEASEHOLD, self.command, *binds]),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=self._environment, cwd=self.log.parent, pass_fds=descriptors, start_new_session=True,
            )  # fmt: skip
        self._began_at = self.log.stat().st_size

    def start(self) -> None:
        """Starts it and waits until it is ready; raises RuntimeError with its last words if it ends instead."""
        self.begin()
        self.wait()

    def wait(self) -> None:
        """Waits until it is ready, as `start` does."""
        wait_until(self._is_ready, _START_S, f"leasehold {self.command} is ready")

    def stop(self) -> None:
        """SIGTERM, as systemd would; harmless if it does not run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, to all its processes at once; harmless if it does not run."""
        self._end(signal.SIGKILL)

    def stall(self) -> None:
        """It stands still until `go_on`, with all that it holds."""
        os.killpg(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Ends a stall; harmless without one."""
        os.killpg(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it, and give its address back."""
        self.kill()
        if self._listener is not None:
            self._listener.close()

    def _is_ready(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError(f"leasehold {self.command} ended with {self._process.returncode}:\n{tail(self.log)}")
        if self.url is None:
            with self.log.open() as log:
                log.seek(self._began_at)
                return '"Working."' in log.read()
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2, trust_env=False).is_success
        except httpx.TransportError:
            return False

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        if number == signal.SIGKILL:
            # The workers too, at the same instant: a session of their own makes them one process group.
            os.killpg(self._process.pid, number)
        end(self._process, number)
        self._process = None


class ControlPlane:
    """Made by `Lab.control_plane` or `Lab.cluster`. Its database and logs outlive `kill` and `stop`, so that `start`
    goes on with them.

    `programs` are what it consists of: one `serve`, or `apis` and `workers`. `url` is the API of the first of them
    here, on loopback; `report_url` is the API for hosts, over the management network, where whichever runs answers.
    """

    def __init__(
        self,
        namespace: Namespace,
        directory: Path,
        settings: Mapping[str, object],
        commands: Sequence[str] = ("serve",),
    ) -> None:
        self.namespace = namespace
        self.directory = directory
        self.report_url = f"http://{MANAGEMENT_ADDRESS}:{_PORT}"
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("LEASEHOLD_")}
        settings = {"database_url": f"sqlite:///{directory / 'leasehold.sqlite'}", **settings}
        self._environment |= {f"LEASEHOLD_{name.upper()}": str(value) for name, value in settings.items()}
        self.database_url = str(settings["database_url"])
        self.programs = [
            Program(
                command,
                namespace,
                directory / ("leasehold.log" if len(commands) == 1 else f"{command}-{number}.log"),
                self._environment,
            )
            for number, command in enumerate(commands, start=1)
        ]
        self._admin_token: str | None = None

    @property
    def apis(self) -> list[Program]:
        """Those that answer requests."""
        return [each for each in self.programs if each.url is not None]

    @property
    def workers(self) -> list[Program]:
        """Those that work."""
        return [each for each in self.programs if each.command != "api"]

    @property
    def url(self) -> str:
        """The first API's."""
        return str(self.apis[0].url)

    @property
    def pid(self) -> int:
        """The process id of the first program; raises RuntimeError if it was not started."""
        return self.programs[0].pid

    def start(self) -> None:
        """Start all and wait until they are ready; raises RuntimeError with the last words of one that ends instead."""
        for program in self.programs:
            program.begin()
        for program in self.programs:
            program.wait()

    def stop(self) -> None:
        """SIGTERM, as systemd would; harmless if it does not run."""
        for program in self.programs:
            program.stop()

    def kill(self) -> None:
        """SIGKILL, to all processes; harmless if it does not run."""
        for program in self.programs:
            program.kill()

    def manager(self) -> Program | None:
        """Which of the workers manages, as the database says; None while that is one of an earlier life."""
        holders = {each["duty"]: each["pid"] for each in self.cli("duties")}
        return next((each for each in self.workers if holders.get("manage all networks") in each.pids), None)

    def cli(self, *arguments: str) -> Any:
        """What `leasehold ARGUMENTS --json` prints, decoded; raises RuntimeError with what it said if it failed."""
        done = subprocess.run(
            self.namespace.command([_LEASEHOLD, *arguments, "--json"]),
            capture_output=True, text=True, check=False, env=self._environment, cwd=self.directory,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"leasehold {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)

    def token(self, role: str, host: str | None = None) -> str:
        """A new bearer token of a role; for the role `host`, of that host. The host must be known then."""
        of_host = [] if host is None else ["--host", host]
        secret: str = self.cli("token", "create", "--role", role, *of_host)["secret"]
        return secret

    @property
    def admin_token(self) -> str:
        """A bearer token of the role admin, made at the first use."""
        if self._admin_token is None:
            self._admin_token = self.token("admin")
        return self._admin_token

    def api(self, token: str | None = None, *, index: int = 0) -> httpx.Client:
        """A client for the API that has this index, with the admin's token unless told another. For use as a context
        manager."""
        headers = {"Authorization": f"Bearer {token or self.admin_token}"}
        url = str(self.apis[index].url)
        return httpx.Client(base_url=url, headers=headers, timeout=_REQUEST_S, trust_env=False)

    def logs(self) -> list[Path]:
        """Its log files."""
        return [each.log for each in self.programs]

    def close(self) -> None:
        """End it, and give its addresses back."""
        for program in self.programs:
            program.close()
