"""What the cameras of each family take."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime

import pytest

from dsmgateway.commands import MAX_METADATA_BYTES, Offer
from dsmgateway.families import IDENTIFIERS, Camera, Family, Kind, format_of, row_of
from dsmgateway.simulator.cameras import View, views_of

WHEN = datetime(2023, 10, 20, 23, 14, 52, tzinfo=UTC)
FAMILIES = [Family.DSM, Family.ADAS, Family.DUALCAM, Family.DASHCAM]
EVERY = [(family, protocol_id) for family in FAMILIES for protocol_id in (5, 6)]


def paths(family: Family, protocol_id: int) -> set[bytes]:
    return {view.path_at(WHEN) for view in views_of(family, protocol_id)}


@pytest.mark.parametrize("protocol_id", [0, 5, 6, 7])
def test_paths(protocol_id: int) -> None:
    """Folder, day and second are where real cameras have them."""
    name = b"231020/231452"
    assert paths(Family.DSM, protocol_id) == {b"dsm/picture/" + name + b".jpg"}
    assert paths(Family.ADAS, protocol_id) == {
        b"mdas9/video/" + name + b".mp4",
        b"mdas9/picture/" + name + b".jpg",
    }
    assert paths(Family.DASHCAM, protocol_id) == {
        b"dashcam/video/" + name + b".mp4",
        b"dashcam/picture/" + name + b".jpg",
    }


def test_dualcam_has_identifiers_up_to_protocol_5_and_paths_from_6_on() -> None:
    """Front and rear, photos and videos, in both generations."""
    assert paths(Family.DUALCAM, 5) == set(IDENTIFIERS.values())
    assert paths(Family.DUALCAM, 6) == {
        b"dualcam_front/picture/231020/231452.jpg",
        b"dualcam_front/video/231020/231452.h265",
        b"dualcam_rear/picture/231020/231452.jpg",
        b"dualcam_rear/video/231020/231452.h265",
    }


@pytest.mark.parametrize(("family", "protocol_id"), EVERY)
def test_paths_and_identifiers_lead_back_to_what_they_came_from(family: Family, protocol_id: int) -> None:
    """The gateway's table reads of each path just what the camera meant."""
    for view in views_of(family, protocol_id):
        path = view.path_at(WHEN)
        assert row_of(path) is view.row
        assert row_of(path).family is family
        assert format_of(path).kind is view.kind
        assert view.is_identified == (family is Family.DUALCAM and protocol_id == 5)


def said_of(view: View, protocol_id: int, seed: int = 1) -> bytes:
    shot = view.shot_at(WHEN, random.Random(seed), random.Random(seed))
    return view.metadata(shot, protocol_id)


@pytest.mark.parametrize(
    ("family", "lengths"),
    [(Family.DSM, {26}), (Family.ADAS, {15}), (Family.DUALCAM, {32, 40}), (Family.DASHCAM, {26})],
)
def test_each_family_has_its_layout_up_to_protocol_5(family: Family, lengths: set[int]) -> None:
    """The length of METADATA tells the layout."""
    said = {len(said_of(view, 5, seed)) for view in views_of(family, 5) for seed in range(20)}
    assert said == lengths


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_speaks_json_from_protocol_6_on(family: Family) -> None:
    """One layout for all, which fits into METADATA."""
    for view in views_of(family, 6):
        body = said_of(view, 6)
        assert len(body) <= MAX_METADATA_BYTES
        about = json.loads(body)
        assert about["file"]["file_type"] == view.file_type
        assert bool(about["file"]["duration"]) == bool(about["file"]["framerate"]) == (view.kind is Kind.VIDEO)


def test_file_types() -> None:
    """DualCam's are the bits of its offers, in both generations; those of the others tell videos from pictures."""
    dualcam = {(Camera.FRONT, Kind.PHOTO): 4, (Camera.REAR, Kind.PHOTO): 8}
    dualcam |= {(Camera.FRONT, Kind.VIDEO): 16, (Camera.REAR, Kind.VIDEO): 32}
    for protocol_id in (5, 6):
        views = views_of(Family.DUALCAM, protocol_id)
        assert {(view.row.camera, view.kind): view.file_type for view in views} == dualcam
    assert {(view.kind, view.file_type) for view in views_of(Family.ADAS, 5)} == {(Kind.PHOTO, 1), (Kind.VIDEO, 0)}
    assert {said_of(view, 5)[1] for view in views_of(Family.DUALCAM, 5)} == {4, 8, 16, 32}
    assert {view.row.offer for view in views_of(Family.DUALCAM, 6)} == {Offer.FILE}
