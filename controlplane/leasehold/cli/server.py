"""The server process of `leasehold serve` and `leasehold api`: gunicorn's threads for the API, and loops beside them.

With `serve` one process does everything, so that a commit wakes those who wait for it without a detour; gunicorn's
parent process only holds the sockets, and starts another one when it dies.
"""

import ctypes
import logging
import math
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, Protocol

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from leasehold.errors import LeaseholdError
from leasehold.web.events import IS_ENDING

THREADS = 128
_CONNECTIONS = 4096 + THREADS
_KEEP_ALIVE_S = 75
_STALLED_S = 10
_LOOPS_END_S = 20
_PR_SET_PDEATHSIG = 1  # prctl(2)
_log = logging.getLogger(__name__)


class Loops(Protocol):
    """What runs beside the API."""

    def start(self) -> None:
        """Returns once they run."""

    def stop(self) -> None:
        """Returns once they ended."""


class Server(BaseApplication):
    """The app on sockets that listen already.

    `make_loops` is called in the process that serves. They start before the first request, and stop after the last:
    requests that wait for a confirmation still get it while the server shuts down, for which it leaves them
    `longest_request_s` seconds and some more.

    A request that waits in `start` has a thread for itself, so that there are many; an idle connection, as hooks keep
    one each, has none.
    """

    def __init__(
        self,
        app: Flask,
        sockets: list[socket.socket],
        make_loops: Callable[[], Loops],
        *,
        longest_request_s: float,
        log_config: dict[str, Any],
    ) -> None:
        self._app = app
        self._sockets = sockets
        self._make_loops = make_loops
        self._longest_request_s = longest_request_s
        self._log_config = log_config
        self._loops: Loops | None = None
        super().__init__()

    def load_config(self) -> None:
        """gunicorn's settings."""
        for each in self._sockets:
            # Accepted sockets inherit it (socket(7)); gunicorn itself would wait for ever for the rest of a request.
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _STALLED_S, 0))
            # Nor does a client that takes no more of a stream hold its thread.
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _STALLED_S, 0))
        settings = {
            # Sockets that gunicorn opens itself would be ignored beside ones that it is given.
            "bind": [f"fd://{each.detach()}" for each in self._sockets],
            "workers": 1,
            "worker_class": "gthread",
            "threads": THREADS,
            "worker_connections": _CONNECTIONS,
            "keepalive": _KEEP_ALIVE_S,
            "graceful_timeout": math.ceil(self._longest_request_s) + _LOOPS_END_S,
            "logconfig_dict": self._log_config,
            "control_socket_disable": True,
            "post_fork": self._die_with_parent,
            "post_worker_init": self._begin,
            "worker_exit": self._end,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Callable[..., Any]:
        """The WSGI application."""
        return self._app

    def _die_with_parent(self, _arbiter: object, _worker: object) -> None:
        # Otherwise a parent that was killed leaves a process behind that holds the sockets, and the next one cannot
        # listen. To be killed is safe at any time: what is committed is kept, what is not was not answered.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def _begin(self, worker: Any) -> None:
        # Streams must not hold up the shutdown.
        self._app.config[IS_ENDING] = lambda: not worker.alive
        try:
            self._loops = self._make_loops()
            self._loops.start()
        except LeaseholdError as error:
            _log.critical("%s", error)
            # gunicorn does not try again then, and ends with this code too: it is also ours for Invalid.
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    def _end(self, _arbiter: object, _worker: object) -> None:
        if self._loops is not None:
            self._loops.stop()


def listen(bind: str, *, shared: bool = False) -> socket.socket:
    """A listening socket for `HOST:PORT`, `[IPV6]:PORT`, or the inherited `fd://N`. Where it is `shared`, other
    processes may listen there too, and Linux shares the connections out among them (SO_REUSEPORT in socket(7)).

    Raises ValueError for another form, OSError when it cannot be had.
    """
    if bind.startswith("fd://"):
        number = bind.removeprefix("fd://")
        if not number.isdecimal():
            raise ValueError("it does not name a file descriptor by its number")
        inherited = socket.socket(fileno=int(number))
        if inherited.type != socket.SOCK_STREAM:
            raise ValueError("it is no stream socket")
        return inherited
    host, separator, port = bind.rpartition(":")
    if not separator or not host or not port.isdecimal():
        raise ValueError("it is neither HOST:PORT nor fd://N")
    host = host.removeprefix("[").removesuffix("]")
    family, _, _, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=family, backlog=2048, reuse_port=shared)
