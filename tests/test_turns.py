"""Turns of a real reactor with many sockets that have something: a few at a time, each in its order, timers between."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.pollreactor import PollReactor
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from dsmgateway.turns import MOST_AT_ONCE, bound_turns
from tests.own_reactor import OwnReactor

SOCKETS = 3 * MOST_AT_ONCE + 5


@implementer(IReadDescriptor)
class Reader:
    """A socket that always has something, and notes when it is asked to read."""

    def __init__(self, number: int, turns: list[list[int]]) -> None:
        self.number, self._turns = number, turns
        self._ours, self._theirs = socket.socketpair()
        self._theirs.send(b"something")

    def fileno(self) -> int:
        return self._ours.fileno()

    def logPrefix(self) -> str:
        return "test"

    def doRead(self) -> None:
        self._turns[-1].append(self.number)

    def connectionLost(self, reason: object) -> None:
        self.close()

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


class TurnTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = OwnReactor()
        self.addCleanup(self.reactor.close)
        self.turns: list[list[int]] = [[]]

    def add_readers(self, count: int = SOCKETS) -> None:
        for number in range(count):
            reader = Reader(number, self.turns)
            self.addCleanup(reader.close)
            self.reactor.addReader(reader)
        self.addCleanup(self.reactor.removeAll)

    def turn(self, count: int = 1) -> list[list[int]]:
        """Turn the reactor so often, and return who was read in each turn."""
        self.turns.clear()
        for _ in range(count):
            self.turns.append([])
            self.reactor.iterate(0)
        return self.turns

    def test_without_it_a_turn_takes_all_that_have_something(self) -> None:
        """What it is there for; when Twisted no longer does so, it is needed no longer."""
        self.add_readers()
        self.assertEqual([len(one) for one in self.turn(2)], [SOCKETS, SOCKETS])

    def test_a_turn_takes_a_few_and_all_come_in_their_order_before_any_comes_again(self) -> None:
        bound_turns(self.reactor)
        self.add_readers()
        turns = self.turn(8)
        self.assertEqual([len(one) for one in turns], [MOST_AT_ONCE] * 8)
        in_order = [number for one in turns for number in one]
        self.assertEqual(in_order, [number % SOCKETS for number in range(len(in_order))])

    def test_a_timer_that_is_due_comes_after_a_few_of_them(self) -> None:
        bound_turns(self.reactor)
        self.add_readers()
        read_before: list[int] = []
        self.reactor.callLater(0, lambda: self.reactor.callLater(0, lambda: read_before.append(len(self.turns[0]))))
        self.turn(2)
        self.assertEqual(read_before, [MOST_AT_ONCE])

    def test_few_sockets_are_all_taken(self) -> None:
        bound_turns(self.reactor)
        self.add_readers(3)
        self.assertEqual(self.turn(2), [[0, 1, 2], [0, 1, 2]])

    def test_sockets_that_were_there_before_are_taken_a_few_at_a_time_too(self) -> None:
        self.add_readers()
        bound_turns(self.reactor)
        self.assertEqual([len(one) for one in self.turn(2)], [MOST_AT_ONCE] * 2)

    def test_it_is_bound_once_and_a_reactor_of_another_kind_stays_as_it_is(self) -> None:
        bound_turns(self.reactor)
        poller = self.reactor._poller
        bound_turns(self.reactor)
        self.assertIs(self.reactor._poller, poller)
        other: Any = PollReactor()
        self.addCleanup(_closed, other)
        poller = other._poller
        bound_turns(other)
        self.assertIs(other._poller, poller)


def _closed(reactor: Any) -> None:
    for reader in reactor._internalReaders:
        reader.connectionLost(None)
