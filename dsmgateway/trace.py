"""One connection's bytes, both directions, in a text file that `dsmgateway decode` reads.

A line is: seconds since the connection began, `device` or `gateway`, the bytes in hex. For looking into one camera's
trouble; a trace that can't be written is given up with a log line and never disturbs the connection.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

_serial = itertools.count(1)


class Trace:
    """An open trace file; ``now`` gives seconds, ``complain`` is told once why tracing ended."""

    def __init__(self, folder: Path, peer: str, now: Callable[[], float], complain: Callable[[str], None]) -> None:
        self._now, self._complain = now, complain
        self._began = now()
        self._file: TextIO | None = None
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        name = "".join(sign if sign.isalnum() or sign in ".-" else "-" for sign in peer)
        path = folder / f"{stamp}_{name}_{next(_serial)}.trace"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = path.open("x", encoding="ascii")
        except OSError as error:
            complain(f"cannot write {path}: {error.strerror}")

    def write(self, direction: str, data: bytes) -> None:
        """Add ``data`` from ``direction`` (``device`` or ``gateway``)."""
        file = self._file
        if file is None:
            return
        try:
            file.write(f"{self._now() - self._began:.3f} {direction} {data.hex()}\n")
        except OSError as error:
            self._give_up(file, error)

    def close(self) -> None:
        """Write what is left and close the file."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.close()
        except OSError as error:
            self._give_up(file, error)

    def discard(self) -> None:
        """Close the file and delete it: the connection is traced elsewhere, from its first byte."""
        file = self._file
        self.close()
        if file is not None:
            with contextlib.suppress(OSError):
                Path(file.name).unlink()

    def _give_up(self, file: TextIO, error: OSError) -> None:
        self._file = None
        with contextlib.suppress(OSError):
            file.close()
        self._complain(f"tracing ended: {error.strerror}")
