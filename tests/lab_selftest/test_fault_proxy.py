"""The fault proxy does to connections what it says."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from lab import Lab
from lab.fault_proxy import BLACK_HOLE, DEAF, MUTE, REFUSE, FaultProxy, cut, slow
from lab.waiting import wait_until

_SILENCE_S = 0.2


class Echo:
    """Answers every octet that it hears in upper case, and keeps it."""

    def __init__(self, lab: Lab) -> None:
        self.heard = b""
        self._listener = lab.control.within(lambda: socket.create_server(("127.0.0.1", 0)))
        self.address = self._listener.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(link,), daemon=True).start()

    def _answer(self, link: socket.socket) -> None:
        with link:
            try:
                while octets := link.recv(100):
                    self.heard += octets
                    link.sendall(octets.upper())
            except OSError:
                return

    def close(self) -> None:
        # close(2) alone does not end the accept(2) that another thread waits in.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def echo(lab: Lab) -> Iterator[Echo]:
    echo = Echo(lab)
    yield echo
    echo.close()


@pytest.fixture
def proxy(lab: Lab, echo: Echo) -> Iterator[FaultProxy]:
    with FaultProxy(lab.control, "127.0.0.1", echo.address) as proxy:
        yield proxy


def _connect(lab: Lab, proxy: FaultProxy) -> socket.socket:
    link = lab.control.within(lambda: socket.create_connection(proxy.address, 5))
    link.settimeout(5)
    return link


def _is_silent(link: socket.socket) -> bool:
    link.settimeout(_SILENCE_S)
    try:
        link.recv(1)
    except TimeoutError:
        return True
    finally:
        link.settimeout(5)
    return False


def test_without_a_fault_both_ways_are_open_and_an_end_is_handed_on(lab: Lab, proxy: FaultProxy) -> None:
    with _connect(lab, proxy) as link:
        link.sendall(b"hello")
        assert link.recv(5) == b"HELLO"
        link.shutdown(socket.SHUT_WR)
        assert link.recv(5) == b""


def test_refused_connections_come_back_at_the_same_place_when_healed(lab: Lab, proxy: FaultProxy) -> None:
    with _connect(lab, proxy) as before:
        before.sendall(b"a")
        assert before.recv(1) == b"A"
        proxy.set(REFUSE)
        with pytest.raises(ConnectionResetError):
            before.recv(1)
        with pytest.raises(ConnectionRefusedError):
            _connect(lab, proxy)
    proxy.heal()
    with _connect(lab, proxy) as link:
        link.sendall(b"b")
        assert link.recv(1) == b"B"


def test_a_black_hole_takes_connections_and_gives_nothing(lab: Lab, proxy: FaultProxy, echo: Echo) -> None:
    proxy.set(BLACK_HOLE)
    with _connect(lab, proxy) as link:
        link.sendall(b"lost")
        assert _is_silent(link)
        assert echo.heard == b""


def test_deaf_what_was_asked_arrives_late_although_the_caller_has_gone(lab: Lab, proxy: FaultProxy, echo: Echo) -> None:
    proxy.set(DEAF)
    with _connect(lab, proxy) as link:
        link.sendall(b"late")
        assert _is_silent(link)
    assert echo.heard == b""
    proxy.heal()
    wait_until(lambda: echo.heard == b"late", 5, "what was held")


def test_what_was_held_can_be_overtaken_by_new_connections(lab: Lab, proxy: FaultProxy, echo: Echo) -> None:
    proxy.set(DEAF)
    with _connect(lab, proxy) as link:
        link.sendall(b"old")
        assert _is_silent(link)
        proxy.heal(linger_s=_SILENCE_S)
        with _connect(lab, proxy) as new:
            new.sendall(b"new")
            assert new.recv(3) == b"NEW"
        wait_until(lambda: echo.heard == b"newold", 5, "what was held")


def test_mute_what_was_asked_is_done_and_not_heard_of(lab: Lab, proxy: FaultProxy, echo: Echo) -> None:
    proxy.set(MUTE)
    with _connect(lab, proxy) as link:
        link.sendall(b"done")
        wait_until(lambda: echo.heard == b"done", 5, "what was asked")
        assert _is_silent(link)
        proxy.heal()
        assert link.recv(4) == b"DONE"


def test_severed_connections_lose_what_was_held(lab: Lab, proxy: FaultProxy, echo: Echo) -> None:
    proxy.set(DEAF)
    with _connect(lab, proxy) as link:
        link.sendall(b"lost")
        assert _is_silent(link)
        proxy.sever()
        with pytest.raises(ConnectionResetError):
            link.recv(1)
    proxy.heal()
    with _connect(lab, proxy) as link:
        link.sendall(b"b")
        assert link.recv(1) == b"B"
    assert echo.heard == b"b"


def test_an_answer_is_cut_in_its_middle(lab: Lab, proxy: FaultProxy, echo: Echo) -> None:
    proxy.set(cut(3))
    with _connect(lab, proxy) as link:
        link.sendall(b"answer")
        heard = b""
        with contextlib.suppress(ConnectionResetError):
            while octet := link.recv(1):
                heard += octet
    assert b"ANS".startswith(heard)
    assert echo.heard == b"answer"


def test_a_slow_answer_comes_all_the_same(lab: Lab, proxy: FaultProxy) -> None:
    proxy.set(slow(_SILENCE_S * 2))
    with _connect(lab, proxy) as link:
        link.sendall(b"slow")
        assert _is_silent(link)
        assert link.recv(4) == b"SLOW"


def test_a_target_that_is_away_shows_as_a_reset(lab: Lab, echo: Echo) -> None:
    echo.close()
    with (
        FaultProxy(lab.control, "127.0.0.1", echo.address) as proxy,
        _connect(lab, proxy) as link,
        pytest.raises(ConnectionResetError),
    ):
        link.recv(1)
