"""What goes wrong on simulated links."""

from collections import Counter
from itertools import pairwise

import pytest

from dsmgateway.errors import ConfigError
from dsmgateway.simulator.faults import Fate, Faults, FaultSource

ALL = Faults(corrupt=0.1, truncate=0.2, cut_every=10, stall_s=1.5, silent_cut=True, rewind=0.5, swap=0.5)
FRAME = bytes(range(256)) * 4 + b"123456"


def drawn(source: FaultSource) -> list[object]:
    """Everything that a source decides, one after the other."""
    decisions: list[object] = [source.fate() for _ in range(500)]
    decisions += [source.flipped(FRAME), source.beginning(FRAME), source.resets(), source.in_flight()]
    return [*decisions, source.queued(), source.rewound_packets(), *(source.swaps() for _ in range(20))]


def test_same_seed_gives_the_same_faults():
    """A run that failed can be repeated."""
    assert drawn(FaultSource(ALL, "1 a")) == drawn(FaultSource(ALL, "1 a"))


def test_each_camera_has_faults_of_its_own():
    """Cameras do not fail in step."""
    assert drawn(FaultSource(ALL, "1 a")) != drawn(FaultSource(ALL, "1 b"))


def test_without_faults_every_frame_is_clean():
    """A good link stays good."""
    source = FaultSource(Faults(), "")
    assert {source.fate() for _ in range(2000)} == {Fate.CLEAN}
    assert source.rewound_packets() == 0
    assert not source.swaps()


def test_faults_come_about_as_often_as_asked_for():
    """Probabilities are those of a frame, cuts come every so many frames on average."""
    source = FaultSource(ALL, "often")
    counts = Counter(source.fate() for _ in range(20_000))
    assert 1800 < counts[Fate.CUT] < 2200
    assert 1600 < counts[Fate.CORRUPT] < 2000
    assert 3200 < counts[Fate.TRUNCATE] < 4000
    assert 100 < counts[Fate.STALL] < 300


@pytest.mark.parametrize(("every", "shortest", "longest"), [(1, 1, 1), (2, 1, 3), (10, 5, 15)])
def test_cuts_are_spread_around_their_mean(every, shortest, longest):
    """The frames between two cuts vary by half, and there is always one frame at least."""
    source = FaultSource(Faults(cut_every=every), "cuts")
    cuts = [number for number in range(1, 3000) if source.fate() is Fate.CUT]
    gaps = {after - before for before, after in pairwise(cuts)}
    assert (min(gaps), max(gaps)) == (shortest, longest)


def test_flipped_frame_differs_in_one_bit_anywhere():
    """A flipped bit is one bit, of header, data or CRC."""
    source = FaultSource(ALL, "bits")
    places = set()
    for _ in range(3000):
        changed = source.flipped(FRAME)
        difference = int.from_bytes(changed, "big") ^ int.from_bytes(FRAME, "big")
        assert difference.bit_count() == 1
        places.add(next(place for place, (a, b) in enumerate(zip(changed, FRAME, strict=True)) if a != b))
    assert min(places) < 4 < 1026 < max(places)


def test_beginning_is_never_empty_and_never_all():
    """A cut frame is cut."""
    source = FaultSource(ALL, "beginnings")
    lengths = {len(source.beginning(b"abcd")) for _ in range(200)}
    assert lengths == {1, 2, 3}


@pytest.mark.parametrize(
    "wrong",
    [
        {"corrupt": 1.1},
        {"truncate": -0.1},
        {"rewind": 2},
        {"swap": -1},
        {"corrupt": 0.6, "truncate": 0.6},
        {"cut_every": -1},
    ],
)
def test_numbers_out_of_range_are_refused(wrong):
    """A probability is one, and all of them leave room for each other."""
    with pytest.raises(ConfigError, match="must"):
        Faults(**wrong)
