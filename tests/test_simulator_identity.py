"""Who simulated trackers are."""

from datetime import UTC, datetime

import pytest

from dsmgateway.imei import luhn_digit
from dsmgateway.simulator.identity import MAX_CAMERAS, imei_of, taken_at


def test_imei_is_that_of_the_recorded_tracker():
    """The check digit is the one that real IMEIs of this type carry."""
    assert imei_of(1) == "356917000000013"
    assert imei_of(3) == "356917000000039"


def test_luhn_digit_of_the_textbook_number():
    """The Luhn test is the published one."""
    assert luhn_digit("7992739871") == 3


def test_imeis_of_all_cameras_differ_and_have_15_digits():
    """No two cameras share an IMEI, up to the last one."""
    imeis = {imei_of(number) for number in (*range(2000), MAX_CAMERAS - 1)}
    assert len(imeis) == 2001
    assert {len(imei) for imei in imeis} == {15}


@pytest.mark.parametrize("number", [-1, MAX_CAMERAS])
def test_camera_numbers_outside_the_range_are_refused(number):
    """An IMEI never has a sixteenth digit."""
    with pytest.raises(ValueError, match="number of a camera"):
        imei_of(number)


def test_no_two_files_of_a_camera_share_a_second():
    """A camera names each of its files by the time it was taken."""
    times = [taken_at(7, file) for file in range(300)]
    assert len(set(times)) == 300
    assert taken_at(0, 0) == datetime(2025, 11, 2, 8, 16, 1, tzinfo=UTC)
