"""Has each Python process that finds this on its path write, on SIGUSR2, what lives in it to a file in its folder.

So the worker processes of a gateway do, too, which nobody but the gateway itself can start. `tests/watching.py` is the
test's side of it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

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


def _tell(number: int, frame: object) -> None:
    """Count the objects that the collector knows, by kind, and all blocks of memory that Python has given out."""
    gc.collect()
    heap_kib, sqlite_kib = _heap_kib()
    blocks = sys.getallocatedblocks()
    objects = gc.get_objects()
    kinds = Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in objects)
    told = Path(f"life-{os.getpid()}.json")
    new = told.with_suffix(".new")
    life = {
        "objects": len(objects) + gc.get_freeze_count(),
        "blocks": blocks,
        "kinds": dict(kinds.most_common(_MOST_KINDS)),
    }
    life |= {"heap_kib": heap_kib - sqlite_kib, "sqlite_kib": sqlite_kib}
    new.write_text(json.dumps(life))
    new.replace(told)


signal.signal(signal.SIGUSR2, _tell)
