"""Network namespaces, the cables between them, and programs inside them."""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from lab import linux

T = TypeVar("T")

_NAMES = Path("/run/netns")


class Namespace:
    """A named network namespace with loopback up."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = _NAMES / name
        # As `ip netns add` makes it, which however cannot return to a network that belongs to another user namespace:
        # an ordinary user's demo is in the machine's own network.
        self.path.touch(exist_ok=False)
        _run("unshare", f"--net={self.path}", "ip", "link", "set", "lo", "up")

    def ip(self, *arguments: str) -> str:
        """What `ip ARGUMENTS` prints in here; raises RuntimeError with what ip said."""
        return _run("ip", "-netns", self.name, *arguments)

    def bridge(self, name: str) -> None:
        """Make a bridge that forwards at once (without spanning tree there is no learning phase)."""
        self.ip("link", "add", name, "type", "bridge")
        self.ip("link", "set", name, "up")

    def plug(self, port: str, bridge: str, guest: "Namespace", interface: str, mac: str | None = None) -> None:
        """A cable from `port` of `bridge` in here to `interface` in `guest`; `mac` is the guest's end's."""
        peer = ["peer", "name", interface, "netns", guest.name]
        if mac is not None:
            peer += ["address", mac]
        self.ip("link", "add", port, "type", "veth", *peer)
        self.ip("link", "set", port, "master", bridge, "up")
        guest.ip("link", "set", interface, "up")

    def within(self, work: Callable[[], T]) -> T:
        """`work()` done in here: a socket that it makes stays in here."""
        return linux.within(self.path, work)

    def command(self, command: Sequence[str | Path]) -> list[str]:
        """`command` as a command that runs in here."""
        # nsenter and not `ip netns exec`, which makes a mount namespace each time and mounts /sys anew.
        return ["nsenter", f"--net={self.path}", "--", *map(str, command)]

    def start(
        self,
        command: Sequence[str | Path],
        log: Path,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program in here, from `directory`, its output appended to `log`. Its process id is its own."""
        with log.open("ab") as output:
            return subprocess.Popen(
                self.command(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                cwd=directory,
            )

    def delete(self) -> None:
        """Give the name back. The namespace ends with its last process, and its cables with it."""
        _run("ip", "netns", "delete", self.name)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
