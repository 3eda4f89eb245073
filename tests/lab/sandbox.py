"""A sandbox for one command: `python -m lab [--net] COMMAND [ARGUMENT…]`.

The command runs in mount, process and (with --net) network namespaces of its own, as root there. An ordinary user gets
a user namespace as well, and so needs no sudo, and every file belongs to that user. /run is empty and private: names of
network namespaces, Unix sockets and temporary files (TMPDIR) live there and go with it. The tree itself is shared.

Nothing outlives the sandbox, also when its outermost process is ended by SIGKILL: the kernel then kills the first
process of the process namespace, and with it all others, and namespaces without processes cease to exist.

The exit status is the command's. SIGINT, SIGTERM and SIGHUP reach the command as one SIGINT.
"""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

from lab import linux

SOCKETS = Path("/run/leasehold-lab")
"""Unix sockets go here: their paths are limited to 107 octets. The folder exists inside a sandbox only."""

_TREE = Path(__file__).resolve().parents[2]
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def inside() -> bool:
    """Whether this process runs in a sandbox."""
    return SOCKETS.is_dir()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lab", description="Run a command in private namespaces.")
    parser.add_argument("--net", action="store_true", help="a private network too, with nothing but loopback")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    parser.add_argument("--owner", type=int, nargs=2, metavar=("UID", "GID"), help="started by sudo for this user")
    arguments = parser.parse_args()
    if not arguments.command:
        parser.error("no command given")
    if _TREE.is_relative_to("/run"):
        parser.error(f"{_TREE} is below /run, which the sandbox replaces. Move it elsewhere.")
    if arguments.owner is not None:
        # sudo stands between us and who started it, and does not take us with it when it is killed.
        linux.die_with_parent()
    try:
        _enter_namespaces(private_network=arguments.net)
    except OSError as error:
        parser.error(
            f"{error}. The laboratory needs namespaces: run this as root (in a container: a privileged one), or allow "
            "users to make them (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone)."
        )
    status = _supervise(arguments.command, private_network=arguments.net)
    if arguments.owner is not None:
        _give_back(*arguments.owner)
    return status


def _give_back(user: int, group: int) -> None:
    """What the command made in the tree, as root, belongs to the user."""
    for directory, directories, files in os.walk(_TREE):
        for name in directories + files:
            path = Path(directory, name)
            if path.lstat().st_uid == 0:
                os.chown(path, user, group, follow_symlinks=False)


def _enter_namespaces(*, private_network: bool) -> None:
    flags = linux.CLONE_NEWNS | linux.CLONE_NEWPID
    if private_network:
        flags |= linux.CLONE_NEWNET
    user, group = os.geteuid(), os.getegid()
    if user != 0:
        flags |= linux.CLONE_NEWUSER
    linux.unshare(flags)
    if user != 0:
        # user_namespaces(7): an unprivileged process may map its own ids only, and must give up setgroups(2) first.
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    linux.mount("none", "/", "none", linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("leasehold-lab", "/run", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755")
    for folder in (SOCKETS, Path("/run/netns"), Path("/run/lock"), Path("/run/tmp")):
        folder.mkdir()
    os.environ["TMPDIR"] = "/run/tmp"


def _supervise(command: list[str], *, private_network: bool) -> int:
    """Start the process namespace's first process, hand signals on to it, and return the command's exit status."""
    # Blocked until the child is known: a signal in between would end us and leave nobody to hear of it.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    child = os.fork()
    if child == 0:
        # The interpreter must end here, and not in the caller's frames.
        os._exit(_init(command, private_network=private_network))
    for number in _ENDING:
        # nohup's wish stands. A shell's script lets what it runs in the background ignore SIGINT: not so here.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: os.kill(child, signal.SIGINT))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    return _exit_status(child)


def _init(command: list[str], *, private_network: bool) -> int:
    """Process 1 of the process namespace: start `command`, reap orphans, hand SIGINT on, return the exit status."""
    linux.die_with_parent()
    # Out of the terminal's foreground group: Ctrl-C comes once, through the supervisor, and not to every Kea as well.
    os.setsid()
    linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV)
    if private_network:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    try:
        # SIGINT stays blocked until we know whom to hand it on to.
        process = subprocess.Popen(command, preexec_fn=_listen_to_signals)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    signal.signal(signal.SIGINT, lambda *_: os.kill(process.pid, signal.SIGINT))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    return _exit_status(process.pid)


def _listen_to_signals() -> None:
    """For the command: no signal is blocked, and SIGINT ends it, also where a shell had it ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


def _exit_status(child: int) -> int:
    """Reap until `child` has ended; its exit status as a shell would give it."""
    while True:
        process, status = os.wait()
        if process == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
