"""How many files and sockets this process may have open: daemon and simulator take all that they are allowed."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress

#: Descriptors that belong to no camera, generously.
OTHER_DESCRIPTORS = 64


def most_connections(limit: int, traced: bool = False) -> int:
    """Return how many cameras can send at a time: each has a socket and a part file, and its trace where wanted."""
    return max(0, limit - OTHER_DESCRIPTORS) // (3 if traced else 2)


def descriptor_limit() -> int:
    """Return how many descriptors this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one; return what the limit is now."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # the system may no longer grant what the hard limit says
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return descriptor_limit()
