"""``twistd`` as a user starts it, which on SIGUSR2 writes what lives in the process to a file.

The first argument names the file; all others are twistd's. `watched` and `Life` are the test's side of it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from running import PYTHON, RunningGateway, eventually

#: What mallinfo2 tells, see its manual page.
_OF_MALLINFO2 = (
    "arena",
    "ordblks",
    "smblks",
    "hblks",
    "hblkhd",
    "usmblks",
    "fsmblks",
    "uordblks",
    "fordblks",
    "keepcost",
)
#: Kinds of objects that are told by name.
_MOST_KINDS = 400


@dataclass(frozen=True, slots=True)
class Life:
    """What lives in a gateway at a moment at which it has nothing to do."""

    objects: int
    blocks: int
    #: What C libraries and large objects hold, without SQLite's caches; 0 where the C library does not tell.
    heap_kib: int
    #: What SQLite holds, most of it pages of the index.
    sqlite_kib: int
    memory_kib: int
    descriptors: int
    kinds: Counter[str] = field(repr=False)


def watched(folder: Path, *options: str) -> RunningGateway:
    """A gateway, not started yet, that `life_of` can be asked of."""
    told = folder / "life.json"
    return RunningGateway(folder, *options, twistd=(*PYTHON, __file__, str(told), "--nodaemon", "--pidfile="))


def life_of(gateway: RunningGateway) -> Life:
    """Ask a gateway that was made by `watched` what lives in it, once nobody is connected."""
    told = gateway.folder / "life.json"
    eventually("everybody has gone", lambda: not gateway.connections)
    told.unlink(missing_ok=True)
    os.kill(gateway.pid, signal.SIGUSR2)
    eventually("it tells what lives in it", told.exists)
    row = json.loads(told.read_text())
    kinds = Counter(row.pop("kinds"))
    return Life(**row, memory_kib=gateway.memory_kib(), descriptors=gateway.descriptors, kinds=kinds)


class _Mallinfo2(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_size_t) for name in _OF_MALLINFO2)


def _heap_kib() -> tuple[int, int]:
    """Return what malloc has given out in all, and what of it SQLite holds."""
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
        loaded = Path("/proc/self/maps").read_text().split()
        sqlite = ctypes.CDLL(next(name for name in loaded if "/libsqlite3" in name)).sqlite3_memory_used
    except (AttributeError, OSError, StopIteration):
        return 0, 0
    mallinfo2.restype, sqlite.restype = _Mallinfo2, ctypes.c_int64
    info = mallinfo2()
    return (info.uordblks + info.hblkhd) // 1024, sqlite() // 1024


def _tell(told: Path) -> None:
    """Count the objects that the collector knows, by kind, and all blocks of memory that Python has given out."""
    gc.collect()
    heap_kib, sqlite_kib = _heap_kib()
    blocks = sys.getallocatedblocks()
    objects = gc.get_objects()
    kinds = Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in objects)
    new = told.with_suffix(".new")
    life = {
        "objects": len(objects) + gc.get_freeze_count(),
        "blocks": blocks,
        "kinds": dict(kinds.most_common(_MOST_KINDS)),
    }
    life |= {"heap_kib": heap_kib - sqlite_kib, "sqlite_kib": sqlite_kib}
    new.write_text(json.dumps(life))
    new.replace(told)


def main() -> None:
    from twisted.scripts.twistd import run

    told = Path(sys.argv.pop(1))

    def asked(number: int, frame: FrameType | None) -> None:
        _tell(told)

    signal.signal(signal.SIGUSR2, asked)
    run()


if __name__ == "__main__":
    main()
