"""What a device path tells."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmgateway.commands import ALL_OFFERS, Offer
from dsmgateway.families import (
    H265,
    IDENTIFIERS,
    JPEG,
    MP4,
    ROWS,
    UNKNOWN_FORMAT,
    Camera,
    Family,
    Format,
    Kind,
    Unit,
    family_of,
    format_of,
    row_of,
    stem_of,
    unit_of,
)


@pytest.mark.parametrize(
    ("path", "family"),
    [
        (b"dsm/picture/231020/231452.jpg", Family.DSM),
        (b"DSM/PICTURE/231020/231452.JPG", Family.DSM),
        (b"mdas9/video/231020/231452.mp4", Family.ADAS),
        (b"dsm_mdas9/1.mp4", Family.ADAS),
        (b"dualcam_front/1.h265", Family.DUALCAM),
        (b"dualcam_rear/1.h265", Family.DUALCAM),
        (b"dashcam/1.mp4", Family.DASHCAM),
        (b"picture/1.jpg", Family.UNKNOWN),
        (b"", Family.UNKNOWN),
    ],
)
def test_family(path: bytes, family: Family) -> None:
    """The path alone tells the camera's family."""
    assert family_of(path) is family


@pytest.mark.parametrize(
    ("path", "camera"),
    [
        (b"dsm/picture/1.jpg", Camera.DSM),
        (b"mdas9/video/1.mp4", Camera.ADAS),
        (b"dualcam_front/1.h265", Camera.FRONT),
        (b"dualcam_rear/1.h265", Camera.REAR),
        (b"%photof", Camera.FRONT),
        (b"%videor", Camera.REAR),
        (b"dashcam/1.mp4", None),
        (b"picture/1.jpg", None),
    ],
)
def test_camera(path: bytes, camera: Camera | None) -> None:
    """Path or identifier tell which camera of the vehicle it was, where they do."""
    assert row_of(path).camera is camera


def test_every_offer_is_in_the_table() -> None:
    """Each settings bit is either asked for by path or has an identifier of 7 bytes."""
    assert {row.offer for row in ROWS} == set(ALL_OFFERS)
    assert set(IDENTIFIERS) == set(ALL_OFFERS & ~Offer.FILE)
    assert {len(identifier) for identifier in IDENTIFIERS.values()} == {7}


def test_an_identifier_is_only_itself() -> None:
    """A path that has an identifier in it is a path."""
    assert row_of(b"/%photof").family is Family.UNKNOWN
    assert row_of(b"%PHOTOF").family is Family.UNKNOWN


@pytest.mark.parametrize(
    ("offer", "protocol_id", "unit"),
    [
        (Offer.FILE, 5, Unit.BYTES),
        (Offer.FILE, 6, Unit.BYTES),
        (Offer.FRONT_PHOTO, 5, Unit.PACKETS),
        (Offer.REAR_VIDEO, 1, Unit.PACKETS),
        (Offer.REAR_VIDEO, 6, Unit.BYTES),
    ],
)
def test_unit(offer: Offer, protocol_id: int, unit: Unit) -> None:
    """What is counted is told by how the file is asked for, and by the protocol id."""
    assert unit_of(offer, protocol_id) is unit


@pytest.mark.parametrize(
    ("path", "form"),
    [
        (b"dsm/picture/231020/231452.jpg", JPEG),
        (b"dsm/picture/231020/231452.JPEG", JPEG),
        (b"dsm/picture/231020/231452", JPEG),
        (b"dsm/video/231020/231452.MP4", MP4),
        (b"dsm/picture/231020/231452.mp4", MP4),
        (b"dualcam_rear/1.h265", H265),
        (b"%photor", JPEG),
        (b"%videof", H265),
        (b"dsm/unheard/1.of", UNKNOWN_FORMAT),
        (b"", UNKNOWN_FORMAT),
    ],
)
def test_format(path: bytes, form: Format) -> None:
    """A stored file gets an extension of ours, never one that the device made up."""
    assert format_of(path) == form


def test_kinds() -> None:
    """What a file shows goes with its format."""
    assert [form.kind for form in (JPEG, MP4, H265, UNKNOWN_FORMAT)] == [Kind.PHOTO, Kind.VIDEO, Kind.VIDEO, None]


@pytest.mark.parametrize(
    ("path", "stem"),
    [
        (b"dsm/picture/231020/231452.jpg", "dsm-231452"),
        (b"231452.jpg", "unknown-231452"),
        (b"a\\b\\231452.tar.gz", "unknown-231452-tar"),
        (b"../../etc/passwd", "unknown-passwd"),
        (b"mdas9/..", "adas-file"),
        (b"dashcam/.jpg", "dashcam-file"),
        (b"dualcam_front/231020/231452.jpg", "dualcam-front-231452"),
        (b"%photor", "dualcam-rear-photo"),
        (b"%videof", "dualcam-front-video"),
        (b"", "unknown-file"),
        (b"dsm/\xff\xfe\0.jpg", "dsm-file"),
        (b"dsm/a b_c.jpg", "dsm-a-b-c"),
        (b"dsm/" + b"9" * 300 + b".jpg", "dsm-" + "9" * 36),
        (b"dsm/" + b"9" * 35 + b" 8.jpg", "dsm-" + "9" * 35),
    ],
)
def test_stem(path: bytes, stem: str) -> None:
    """The family leads; a file name of the device follows only as far as it is harmless and short."""
    assert stem_of(path) == stem


@given(st.binary(max_size=200))
def test_stem_of_anything_is_harmless(path: bytes) -> None:
    """No device path makes a stem that is empty, long, or more than letters, digits and hyphens."""
    assert re.fullmatch(r"[A-Za-z0-9-]{1,40}", stem_of(path))


@given(st.binary(max_size=64))
def test_any_path_has_a_family_and_a_format(path: bytes) -> None:
    """No device path fails."""
    assert family_of(path) in Family
    assert format_of(path) in {JPEG, MP4, H265, UNKNOWN_FORMAT}
