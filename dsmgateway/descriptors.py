"""How many files and sockets this process may have open: daemon and simulator take all that they are allowed."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress

#: Descriptors that belong to no camera, generously.
OTHER_DESCRIPTORS = 64


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one; return what the limit is now."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # the system may no longer grant what the hard limit says
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
