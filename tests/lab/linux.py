"""The few Linux system calls that Python 3.11 does not offer: unshare(2), setns(2), mount(2) and prctl(2)."""

import ctypes
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_REMOUNT = 0x20
MS_REC = 0x4000
MS_PRIVATE = 0x40000

_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Move this process (with CLONE_NEWPID: its next children) into new namespaces; raises OSError."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(namespace: Path, kind: int) -> None:
    """Move the calling thread into `namespace`; raises OSError."""
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)), f"setns to {namespace}")
    finally:
        os.close(descriptor)


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2); raises OSError."""
    arguments = (source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
    _check(_libc.mount(*arguments), f"mount {kind} on {target}")


def unmount(target: str) -> None:
    """umount(2); raises OSError."""
    _check(_libc.umount(target.encode()), f"unmount {target}")


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def within(namespace: Path, work: Callable[[], T]) -> T:
    """`work()`'s result, done inside the network namespace at path `namespace`; what it raises is raised here.

    Sockets stay in the namespace that made them. setns(2) moves one thread only, so a thread of its own does the work.
    """

    def there() -> T:
        setns(namespace, CLONE_NEWNET)
        return work()

    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(there).result()


def _check(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
