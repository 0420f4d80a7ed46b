"""A reactor whose timers come whatever the time of day is; see also `tests.test_e2e_admission`."""

from __future__ import annotations

import time

from twisted.trial.unittest import SynchronousTestCase

from dsmgateway.monotonic import use_monotonic_clock
from tests.own_reactor import OwnReactor


class MonotonicTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = OwnReactor()
        self.addCleanup(self.reactor.close)
        self.came: list[str] = []

    def test_without_it_time_is_that_of_day(self) -> None:
        """What it is there for; when Twisted no longer does so, it is needed no longer."""
        self.assertIs(OwnReactor.seconds, time.time)

    def test_timers_come_by_the_clock_that_nobody_sets(self) -> None:
        use_monotonic_clock(self.reactor)
        self.reactor.callLater(0.01, self.came.append, "timer")
        self.assertIs(self.reactor.seconds, time.monotonic)
        self.reactor.spin_until(lambda: self.came)

    def test_a_timer_that_runs_already_still_comes(self) -> None:
        self.reactor.callLater(0.01, self.came.append, "timer")
        use_monotonic_clock(self.reactor)
        self.reactor.spin_until(lambda: self.came)
