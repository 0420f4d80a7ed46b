"""How much one turn of the reactor does: some connections at a time, so that timers and answers come between them.

Twisted's epoll reactor takes all connections that have something before it looks at a timer or at what a thread has
done. When thousands of cameras send and the core is busy, such a turn lasts seconds, and time limits are looked at as
seldom. What is left over is not lost and not late: the kernel hands out ready connections in the order in which they
became ready, those of the last time behind the others.
"""

from __future__ import annotations

import select
from typing import Any

#: Connections with something to read or room to write that are taken in one turn, which takes some milliseconds.
MOST_AT_ONCE = 32


class _SomeAtATime:
    """An epoll object for the reactor, which asks it for all that is ready, and has no other way to be told."""

    def __init__(self, poller: select.epoll) -> None:
        self.register, self.modify, self.unregister = poller.register, poller.modify, poller.unregister
        self.close, self._poll = poller.close, poller.poll

    def poll(self, timeout_s: float, most: int) -> list[tuple[int, int]]:
        """Wait for what is ready, and return no more of it than one turn shall have."""
        return self._poll(timeout_s, min(most, MOST_AT_ONCE))


def bound_turns(reactor: Any) -> None:
    """Have ``reactor`` take no more than `MOST_AT_ONCE` connections in a turn; one without epoll stays as it is."""
    if isinstance(getattr(reactor, "_poller", None), getattr(select, "epoll", ())):
        reactor._poller = _SomeAtATime(reactor._poller)
