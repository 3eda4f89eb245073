"""The control plane as a real process: `leasehold serve` over SQLite, beside the hosts' management network."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from lab.namespace import Namespace
from lab.process import end
from lab.text import tail
from lab.waiting import wait_until

MANAGEMENT_ADDRESS = "10.99.0.1"
_PORT = 8080
_START_S = 30
_REQUEST_S = 30
_LEASEHOLD = Path(sys.executable).with_name("leasehold")


class ControlPlane:
    """Made by `Lab.control_plane`. Its database and log outlive `kill` and `stop`, so that `start` goes on with them.

    `url` is its API here, on loopback; `report_url` is the same API for hosts, over the management network.
    """

    def __init__(self, namespace: Namespace, directory: Path, settings: Mapping[str, object]) -> None:
        self.namespace = namespace
        self.directory = directory
        self.database = directory / "leasehold.sqlite"
        self.log = directory / "leasehold.log"
        self.report_url = f"http://{MANAGEMENT_ADDRESS}:{_PORT}"
        # Made here, in the sandbox's network, and handed down: a listening socket stays where it was made. So the API
        # is at a loopback address of the machine while the control plane lives among its hosts.
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("LEASEHOLD_")}
        self._environment |= {"LEASEHOLD_DATABASE_URL": f"sqlite:///{self.database}"}
        self._environment |= {f"LEASEHOLD_{name.upper()}": str(value) for name, value in settings.items()}
        self._process: subprocess.Popen[bytes] | None = None
        self._admin_token: str | None = None

    @property
    def pid(self) -> int:
        """The process id of `leasehold serve`; raises RuntimeError if it was not started."""
        if self._process is None:
            raise RuntimeError("the control plane does not run")
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it is ready; raises RuntimeError with its last words if it ends instead."""
        descriptor = self._listener.fileno()
        binds = ["--bind", f"fd://{descriptor}", "--bind", f"{MANAGEMENT_ADDRESS}:{_PORT}"]
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.namespace.command([_LEASEHOLD, "serve", *binds]),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=self._environment, cwd=self.directory, pass_fds=[descriptor], start_new_session=True,
            )  # fmt: skip
        wait_until(self._ready, _START_S, "the control plane is ready")

    def stop(self) -> None:
        """SIGTERM, as systemd would; harmless if it does not run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, to all its processes at once; harmless if it does not run."""
        self._end(signal.SIGKILL)

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

    def api(self, token: str | None = None) -> httpx.Client:
        """A client for the API, with the admin's token unless told another. For use as a context manager."""
        headers = {"Authorization": f"Bearer {token or self.admin_token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=_REQUEST_S, trust_env=False)

    def logs(self) -> list[Path]:
        """Its log files."""
        return [self.log]

    def close(self) -> None:
        """End it, and give its address back."""
        self.kill()
        self._listener.close()

    def _ready(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError(f"leasehold serve ended with {self._process.returncode}:\n{tail(self.log)}")
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
