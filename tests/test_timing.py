"""How long a connection may stay: only what we do and good data buy time, and none is lost while we do not read."""

from __future__ import annotations

import pytest

from dsmgateway.states import State
from dsmgateway.timing import Overdue, TimeLimits, Timing

S = State
LIMITS = TimeLimits({state: 20.0 for state in State} | {S.STORING: 120.0}, min_rate=100, rate_s=60, max_age_s=1000)
DUE = (S.AWAIT_SYNC, S.RECEIVING)


def sweep(timing: Timing, seconds: range, state: State, paused: bool = False, bytes_a_second: int = 0) -> list[Overdue]:
    """Look once a second; data renews the state's time."""
    found = []
    for now in seconds:
        if bytes_a_second:
            timing.took(bytes_a_second)
            timing.since = now
        verdict = timing.overdue(now, state, paused, False)
        found += [verdict] if verdict else []
    return found


@pytest.mark.parametrize("state", list(State))
def test_a_state_has_its_time_and_then_begins_anew(state: State) -> None:
    timing, limit_s = Timing(LIMITS, 0), int(LIMITS.states_s[state])
    assert timing.limit_s(state, False) == limit_s
    assert sweep(timing, range(1, limit_s), state, paused=True) == []
    assert sweep(timing, range(limit_s, limit_s + 1), state, paused=True) == [Overdue.STATE]
    assert sweep(timing, range(limit_s + 1, 2 * limit_s), state, paused=True) == []


def test_a_disk_that_lags_behind_has_the_time_of_the_store() -> None:
    timing = Timing(LIMITS, 0)
    assert timing.overdue(119, S.RECEIVING, True, True) is None
    assert timing.overdue(120, S.RECEIVING, True, True) is Overdue.DISK


def test_no_time_counts_in_which_the_gateway_stood_still() -> None:
    """Neither for a state nor for the rate; what began meanwhile begins now."""
    timing = Timing(LIMITS, 0)
    assert sweep(timing, range(1, 11), S.RECEIVING) == []
    timing.excuse(100, 110)
    assert (timing.since, timing.heard) == (100, 100)
    assert sweep(timing, range(111, 120), S.RECEIVING) == []
    timing.since = 115
    timing.excuse(100, 119)
    assert (timing.since, timing.heard) == (119, 119)
    assert sweep(timing, range(120, 139), S.RECEIVING) == []
    assert sweep(timing, range(139, 140), S.RECEIVING) == [Overdue.STATE]


@pytest.mark.parametrize("state", DUE)
def test_a_file_that_comes_too_slowly_is_found_out_within_its_time(state: State) -> None:
    timing = Timing(LIMITS, 0)
    assert sweep(timing, range(1, 60), state, bytes_a_second=99) == []
    assert sweep(timing, range(60, 61), state, bytes_a_second=99) == [Overdue.RATE]
    assert timing.rate == 99


def test_a_file_that_comes_at_the_least_rate_goes_on() -> None:
    assert sweep(Timing(LIMITS, 0), range(1, 600), S.RECEIVING, bytes_a_second=100) == []


def test_a_poor_link_with_silences_is_fast_enough() -> None:
    timing = Timing(LIMITS, 0)
    for begin in range(1, 900, 30):
        assert sweep(timing, range(begin, begin + 18), S.RECEIVING, bytes_a_second=2500) == []
        assert sweep(timing, range(begin + 18, begin + 30), S.RECEIVING) == []


def test_time_that_is_paused_is_not_counted() -> None:
    timing = Timing(LIMITS, 0)
    assert sweep(timing, range(1, 50), S.RECEIVING, bytes_a_second=1) == []
    timing.not_counted(50)
    for begin in range(50, 500, 50):
        timing.since = begin
        assert Overdue.RATE not in sweep(timing, range(begin, begin + 50), S.RECEIVING, paused=True)
    timing.not_counted(500)
    timing.since = 500
    assert sweep(timing, range(500, 510), S.RECEIVING, bytes_a_second=1) == []
    assert sweep(timing, range(510, 512), S.RECEIVING, bytes_a_second=1)[0] is Overdue.RATE


@pytest.mark.parametrize("state", sorted(set(State) - set(DUE) - {S.ENDED}, key=str))
def test_where_no_data_is_due_none_is_asked_for(state: State) -> None:
    timing = Timing(LIMITS, 0)
    for now in range(1, 200):
        timing.since = now
        assert timing.overdue(now, state, False, False) is None


def test_files_that_are_begun_again_and_again_are_one_file_too_slow() -> None:
    """Leaving a file for another one does not begin the minute anew."""
    timing, found = Timing(LIMITS, 0), []
    for begin in range(1, 200, 15):
        found += sweep(timing, range(begin, begin + 10), S.RECEIVING, bytes_a_second=1)
        timing.since = begin + 10
        found += sweep(timing, range(begin + 10, begin + 15), S.AWAIT_PATH)
        timing.since = begin + 15
    assert Overdue.RATE in found


def test_a_file_that_is_whole_gives_the_next_one_all_its_time() -> None:
    timing = Timing(LIMITS, 0)
    for begin in range(1, 500, 50):
        assert sweep(timing, range(begin, begin + 50), S.RECEIVING, bytes_a_second=1) == []
        timing.finished(begin + 49)
    assert (timing.since, timing.rate) == (500, 0)


def test_an_old_connection_ends_between_two_files() -> None:
    timing = Timing(LIMITS, 0)
    timing.since = 995
    assert timing.overdue(999, S.AWAIT_NEXT_INIT, False, False) is None
    assert timing.overdue(1000, S.AWAIT_NEXT_INIT, False, False) is Overdue.AGE
    assert timing.age_s(1000) == 1000


@pytest.mark.parametrize("state", [S.OPENING, S.AWAIT_SYNC, S.RECEIVING])
def test_a_file_under_way_may_go_on_to_twice_the_age(state: State) -> None:
    timing = Timing(LIMITS, 0)
    timing.since = 1990
    timing.not_counted(1990)
    assert timing.overdue(1999, state, False, False) is None
    assert timing.overdue(2000, state, False, False) is Overdue.AGE


@pytest.mark.parametrize("state", [S.STORING, S.ENDED])
def test_what_is_being_stored_or_has_ended_is_left_to_end(state: State) -> None:
    timing = Timing(LIMITS, 0)
    timing.since = 4990
    assert timing.overdue(5000, state, False, False) is None
