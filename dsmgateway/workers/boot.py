"""What the supervisor and a worker process say to each other on the socket between them.

All that the process needs to know (`Boot`) is in memory that it inherits; on the socket either side says words, one a
line. The end of the socket is the end of the other side. Only processes of one gateway talk so, of the same program.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from dsmgateway.settings import Settings
from dsmgateway.store.tally import SharedSlots, Tally, shared_memory

#: What the supervisor says: read anew what can be; end in good order.
RELOAD, STOP = "reload", "stop"
#: What a worker process says: its ports are open; it cannot start, and why.
READY, FAILED = "ready", "failed"
#: Numbers that all processes count together, by their rows in the memory that they share; the last one has heartbeats.
CONNECTIONS, NEEDED_BYTES, PARTS, FAILING, HEARTBEATS = range(5)
_COUNTED = 5
#: Those of a process that has ended are nothing; what it leaves on the disk is still there.
COUNTED_WHILE_ALIVE = (CONNECTIONS, NEEDED_BYTES, FAILING)


@dataclass(frozen=True, slots=True)
class Boot:
    """Everything a worker process needs; numbers of descriptors are those that it inherits.

    ``ports`` has a listening socket for each port of the settings, plain ones first; ``outboxes`` one a process.
    ``tls_files`` is what is in the files of TLS that all use: those on the disk may be new and not whole yet.
    """

    number: int
    settings: Settings
    lock: int
    memory: int
    inbox: int
    outboxes: tuple[int, ...]
    ports: tuple[int, ...]
    log: int
    tls_files: Mapping[Path, bytes] | None = field(default=None, repr=False)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All that is inherited."""
        return (self.lock, self.memory, self.inbox, *self.outboxes, *self.ports, self.log)

    def in_memory(self) -> BinaryIO:
        """Put all of it into memory, to be inherited; raises `OSError`. A socket would hold less than it may be."""
        memory = os.fdopen(os.memfd_create("dsmgateway", os.MFD_CLOEXEC), "w+b")
        pickle.dump(self, memory)
        memory.seek(0)
        return memory


def memory_of_counts(processes: int) -> int:
    """Make the memory of those numbers and return its descriptor; raises `OSError`."""
    return shared_memory(_COUNTED, _slots(processes))


def counts_in(memory: int, processes: int, own: int) -> list[Tally]:
    """Return those numbers as process ``own`` counts them; the one beyond the last is the supervisor."""
    slots = SharedSlots(memory, _COUNTED, _slots(processes))
    return [Tally(slots.row(number), own) for number in range(_COUNTED)]


def _slots(processes: int) -> int:
    """One for each, and one for what the supervisor found at the start."""
    return processes + 1


def read_boot(descriptor: int) -> Boot:
    """Read it from the memory that `Boot.in_memory` has made."""
    with open(descriptor, "rb") as memory:
        boot = pickle.load(memory)
    assert isinstance(boot, Boot)
    return boot
