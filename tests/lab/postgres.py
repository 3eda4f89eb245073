"""A PostgreSQL server of our own, from Debian's package: on a Unix socket only, in a temporary folder."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

from lab.process import children, end
from lab.text import tail
from lab.waiting import wait_until

_PROGRAMS = Path("/usr/lib/postgresql/15/bin")
_USER = "leasehold"
_START_S = 30
_NOBODY = "65534"
_LOG = "log"
_DEADLOCK_LINES = 12


class Postgres:
    """A server. `socket` is the folder of its Unix socket. It can be killed, and started again on the same data."""

    def __init__(self, socket: Path, command: Sequence[str]) -> None:
        self.socket = socket
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers; raises RuntimeError with its last words if it ends instead."""
        log = self.socket / _LOG
        with log.open("ab") as output:
            process = self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                start_new_session=True,
            )
        wait_until(lambda: self.is_ready() or process.poll() is not None, _START_S, "PostgreSQL answers")
        if process.poll() is not None:
            raise RuntimeError(f"PostgreSQL ended with {process.returncode}: {tail(log)}")

    def stop(self) -> None:
        """SIGINT, its "fast shutdown": it does not wait for clients. Harmless if it does not run."""
        if self._process is not None:
            end(self._process, signal.SIGINT)
            self._process = None

    def kill(self) -> None:
        """SIGKILL, to all its processes at once: each backend is a session of its own, so that they are told one by
        one. Harmless if it does not run."""
        if self._process is not None:
            for pid in (self._process.pid, *children(self._process.pid)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def fresh_database(self) -> str:
        """Makes an empty database; its SQLAlchemy URL."""
        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql+psycopg://{_USER}@/{name}?host={self.socket}"

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            psycopg.connect(self._dsn("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True

    def deadlocks(self) -> list[str]:
        """What its log says of each deadlock that it had to break since it started."""
        _, *after = (self.socket / _LOG).read_text().split("deadlock detected")
        return ["\n".join(text.splitlines()[:_DEADLOCK_LINES]) for text in after]

    def _dsn(self, database: str) -> str:
        return f"host={self.socket} user={_USER} dbname={database}"


@contextmanager
def postgres(*, durable: bool = False) -> Iterator[Postgres]:
    """A server for the block. Unless it is `durable`, a commit does not wait for the disk: for tests that do not stop
    the machine. Killed processes lose nothing either way."""
    # Unix sockets have short paths (107 octets), which a test's own temporary folder may exceed.
    folder = Path(tempfile.mkdtemp(prefix="lh-pg-"))
    try:
        as_user = _as_ordinary_user(folder)
        data = folder / "data"
        made = subprocess.run(
            [
                *(*as_user, str(_PROGRAMS / "initdb"), "--pgdata", str(data), "--username", _USER, "--auth", "trust"),
                *("--encoding", "UTF8", "--no-locale", "--no-sync"),
            ],
            capture_output=True,
            text=True,
            cwd="/",
            check=False,
        )
        if made.returncode != 0:
            raise RuntimeError(f"initdb failed: {made.stderr or made.stdout}")
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(folder),
            "max_connections": "200",
            "deadlock_timeout": "200ms",
            **({} if durable else {"fsync": "off", "full_page_writes": "off"}),
        }
        options = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
        # It ends with us, also when we are killed.
        command = [*as_user, "setpriv", "--pdeathsig", "INT", str(_PROGRAMS / "postgres"), "-D", str(data), *options]
        server = Postgres(folder, command)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def _as_ordinary_user(folder: Path) -> list[str]:
    """What to put before a command that refuses to run as root, so that it owns the folder and is another."""
    if os.geteuid() != 0:
        return []
    if _is_mapped(user := pwd.getpwnam("postgres")):
        os.chown(folder, user.pw_uid, user.pw_gid)
        return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]
    # An ordinary user's sandbox knows no user but root. One more namespace gives that root another number.
    return ["unshare", "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}", "--"]


def _is_mapped(user: pwd.struct_passwd) -> bool:
    """Whether the user exists in this user namespace (user_namespaces(7))."""
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        first, _, count = map(int, line.split())
        if first <= user.pw_uid < first + count:
            return True
    return False
