"""Opening files that an operator names while the gateway runs."""

from __future__ import annotations

import os


def open_without_waiting(path: str, flags: int) -> int:
    """Open a file, as the ``opener`` of `open`; of a pipe, do not wait for somebody to write to it, maybe for ever."""
    return os.open(path, flags | os.O_NONBLOCK)
