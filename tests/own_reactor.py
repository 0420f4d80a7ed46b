"""A reactor of a test's own: real sockets, and nothing that another test has left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.epollreactor import EPollReactor

MOST_TURNS = 20_000


class OwnReactor(EPollReactor):
    """A reactor that nobody has installed, turned by the test."""

    def spin_until(self, condition: Callable[[], Any]) -> Any:
        for _ in range(MOST_TURNS):
            if answer := condition():
                return answer
            self.iterate(0.001)
        raise AssertionError("it does not happen")

    def close(self) -> None:
        """Give back what it has opened."""
        self.removeAll()
        for reader in self._internalReaders:
            reader.connectionLost(None)
        self._poller.close()
