"""What bounds the attempts to get one file."""

import pytest

from dsmgateway.patience import MOST_SYNCS_DUE, Patience


def test_resumes_in_a_row_that_bring_no_data() -> None:
    """So many are sent; data makes good for them."""
    patience = Patience(resume_tries=3, max_resyncs=100)
    assert [patience.resume() for _ in range(3)] == ["", "", ""]
    assert patience.resume() == "3 RESUMEs in a row brought no data"
    patience.data()
    assert patience.resume() == ""


@pytest.mark.parametrize("most", [0, 1, 5])
def test_breaks_in_the_data_are_never_made_good_for(most: int) -> None:
    """However much data comes between them, there is an end to it."""
    patience = Patience(resume_tries=3, max_resyncs=most)
    for _ in range(most):
        assert patience.resync() == ""
        patience.data()
    assert patience.resync() == f"more than max-resyncs {most} in one file"


def test_a_sync_is_due_for_every_resume() -> None:
    """As many as were sent, and none beyond them."""
    patience = Patience(resume_tries=3, max_resyncs=100)
    patience.resume()
    assert patience.start_crossed()
    assert [patience.sync() for _ in range(3)] == [True, True, False]


def test_starts_are_answered_as_long_as_there_are_not_too_many() -> None:
    """What a device sends without end costs nothing."""
    patience = Patience(resume_tries=100, max_resyncs=100)
    answered = [patience.start_crossed() for _ in range(100)]
    assert answered == [True] * MOST_SYNCS_DUE + [False] * (100 - MOST_SYNCS_DUE)
    patience.resume()
    assert patience.syncs_due == MOST_SYNCS_DUE
    assert patience.sync() and patience.start_crossed()
