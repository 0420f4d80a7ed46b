"""What a store needs to know where several processes use one data folder, each for devices of its own.

The process that was there first has the folder's lock, made the folders and did what a start does; the lock's
descriptor is inherited by the others, so that the folder stays locked for as long as any of them lives. Knows nothing
of how files are stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dsmgateway.store.tally import Tally


@dataclass(frozen=True, slots=True)
class Share:
    """One of several processes.

    ``number`` is its own, ``lock`` the descriptor of the folder's lock; ``needed_bytes`` and ``parts`` are counted over
    all of them, and ``failing`` is how many of them have found out that the disk fails.
    """

    number: int
    lock: int
    needed_bytes: Tally = field(default_factory=Tally)
    parts: Tally = field(default_factory=Tally)
    failing: Tally = field(default_factory=Tally)
