"""A process that lives a day of the store and is killed by a real SIGKILL; says on its output what was acknowledged.

``python dying.py FOLDER KIND CALL``: it kills itself before system call number CALL of the store, or, for 0, lives days
until somebody else does. Each line of the output is the path on the device and the one in the data folder, in hex.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from store_faults import Camera, Kind, a_day

from dsmgateway.store import Disk, FileStore, Stored
from dsmgateway.store.files import StrPath


class DyingDisk(Disk):
    """A disk that does everything, syncs too, until its process is killed before call number ``kill_at``."""

    def __init__(self, kill_at: int) -> None:
        self._left = kill_at

    def run(self, operation: str, path: StrPath, call: Callable[..., Any], /, *arguments: Any, **options: Any) -> Any:
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run(operation, path, call, *arguments, **options)


class TellingCamera(Camera):
    """A camera that says at once what it was told."""

    def answered(self, path: bytes, answer: object) -> Stored:
        stored = super().answered(path, answer)
        os.write(1, f"{path.hex()} {stored.path.encode().hex()}\n".encode())
        return stored


def main(folder: str, kind: str, call: str) -> None:
    """Live a day; where nobody said when to die, a day after the other, each in a folder of its own."""
    os.write(1, b"\n")
    number = 0
    while True:
        a_day(FileStore(Path(folder, str(number)), disk=DyingDisk(int(call))), TellingCamera(Kind(kind)))
        if int(call):
            return
        number += 1
        os.write(1, b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
