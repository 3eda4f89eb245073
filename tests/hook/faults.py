"""Faults of the machine."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def disk_full(octets: int = 1_000) -> Iterator[None]:
    """Writes past so many octets of any file fail."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
