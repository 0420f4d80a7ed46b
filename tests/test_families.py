"""What a device path tells."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmgateway.families import Family, extension_of, family_of, stem_of


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
    ("path", "extension"),
    [
        (b"dsm/picture/231020/231452.jpg", "jpg"),
        (b"dsm/picture/231020/231452.JPEG", "jpg"),
        (b"dsm/picture/231020/231452", "jpg"),
        (b"dsm/video/231020/231452.MP4", "mp4"),
        (b"dsm/picture/231020/231452.mp4", "mp4"),
        (b"dualcam_rear/1.h265", "h265"),
        (b"dsm/unheard/1.of", "bin"),
        (b"", "bin"),
    ],
)
def test_extension(path: bytes, extension: str) -> None:
    """A stored file gets an extension of ours, never one that the device made up."""
    assert extension_of(path) == extension


@pytest.mark.parametrize(
    ("path", "stem"),
    [
        (b"dsm/picture/231020/231452.jpg", "231452"),
        (b"231452.jpg", "231452"),
        (b"a\\b\\231452.tar.gz", "231452-tar"),
        (b"../../etc/passwd", "passwd"),
        (b"dsm/..", "file"),
        (b"dsm/.jpg", "file"),
        (b"dsm/", "file"),
        (b"", "file"),
        (b"dsm/\xff\xfe\0.jpg", "file"),
        (b"dsm/a b_c.jpg", "a-b-c"),
        (b"dsm/" + b"9" * 300 + b".jpg", "9" * 40),
    ],
)
def test_stem(path: bytes, stem: str) -> None:
    """A file name of the device is taken over only as far as it is harmless and short."""
    assert stem_of(path) == stem


@given(st.binary(max_size=200))
def test_stem_of_anything_is_harmless(path: bytes) -> None:
    """No device path makes a stem that is empty, long, or more than letters, digits and hyphens."""
    assert re.fullmatch(r"[A-Za-z0-9-]{1,40}", stem_of(path))


@given(st.binary(max_size=64))
def test_any_path_has_a_family_and_an_extension(path: bytes) -> None:
    """No device path fails."""
    assert family_of(path) in Family
    assert extension_of(path) in {"jpg", "mp4", "h265", "bin"}
