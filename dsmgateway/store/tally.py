"""Numbers that are counted over all processes which share a data folder: one slot for each, the total is the sum.

Each process writes only its own slot, so no lock is needed between them; a process that runs alone counts in a plain
int, by the same code. Knows nothing of what is counted.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import MutableSequence
from typing import cast

#: A slot is written by one store of the processor, so that no other process ever sees half of it.
_SLOT_BYTES = 8


class Tally:
    """One number. Threads may share it."""

    def __init__(self, slots: MutableSequence[int] | None = None, own: int = 0) -> None:
        """Count in slot ``own`` of ``slots``; in an int of its own where there are none."""
        self._slots: MutableSequence[int] = [0] if slots is None else slots
        self._own = own
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """What this process counts."""
        return self._slots[self._own]

    @property
    def total(self) -> int:
        """What all processes count together."""
        return sum(self._slots)

    @property
    def elsewhere(self) -> int:
        """What the other processes count."""
        return self.total - self.count

    def add(self, change: int) -> None:
        """Count so much more in this process."""
        with self._lock:
            self._slots[self._own] += change

    def set(self, count: int) -> None:
        """Let this be what this process counts."""
        with self._lock:
            self._slots[self._own] = count


class SharedSlots:
    """Slots in memory that processes share through a descriptor: for each of ``rows`` numbers one a process."""

    def __init__(self, descriptor: int, rows: int, processes: int) -> None:
        """Map the memory that `shared_memory` has made."""
        self._processes = processes
        self._memory = mmap.mmap(descriptor, rows * processes * _SLOT_BYTES)

    def row(self, number: int) -> MutableSequence[int]:
        """Return the slots of one number."""
        slots = memoryview(self._memory).cast("q")[number * self._processes : (number + 1) * self._processes]
        return cast("MutableSequence[int]", slots)


def shared_memory(rows: int, processes: int) -> int:
    """Make memory for `SharedSlots`, all 0, and return its descriptor; raises `OSError`."""
    descriptor = os.memfd_create("dsmgateway", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, rows * processes * _SLOT_BYTES)
    return descriptor
