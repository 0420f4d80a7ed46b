"""Who simulated cameras are."""

import struct
from datetime import UTC, datetime, timedelta

import pytest

from dsmgateway.families import Family, family_of
from dsmgateway.imei import luhn_digit
from dsmgateway.simulator.identity import MAX_CAMERAS, dsm_metadata, imei_of, path_at, taken_at


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


def test_paths_are_those_of_dsm_pictures_and_never_the_same_twice():
    """A camera names each of its pictures by its own second."""
    paths = [path_at(taken_at(7, file)) for file in range(300)]
    assert len(set(paths)) == 300
    assert path_at(datetime(2023, 10, 20, 23, 14, 52, tzinfo=UTC)) == b"dsm/picture/231020/231452.jpg"
    assert {family_of(path) for path in paths} == {Family.DSM}


def test_metadata_is_the_26_bytes_of_a_recorded_one():
    """Time, type, trigger, signed position, events and the reversed driver stand where a real DSM camera puts them."""
    when = datetime(2025, 11, 22, 8, 26, 40, tzinfo=UTC)
    body = dsm_metadata(when, 54.687157, 25.279652, 9, "JONAS K")
    assert body.hex() == "692173c0010d034275b50181bca400092020204b2053414e4f4a"


def test_metadata_south_and_west_is_negative_and_long_names_are_cut():
    """Coordinates are signed; a name never makes the body longer."""
    body = dsm_metadata(datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=1), -33.5, -70.25, 0, "ALEKSANDRAS Ž")
    assert struct.unpack(">ii", body[6:14]) == (-33_500_000, -70_250_000)
    assert len(body) == 26
    assert body[-10:] == b"ARDNASKELA"
