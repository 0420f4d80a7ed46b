"""The proxy that does what bad networks do: what it may do, and that it does so."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from chaos import (
    FILE_DATA,
    MAIN,
    MOST_BAD,
    MOST_HELD_BYTES,
    MOST_SAID_BYTES,
    Byte,
    Fault,
    Framer,
    Pause,
    Pipe,
    Plan,
    Said,
    flipped,
    id_of,
)
from conftest import IMEI, METADATA, PATH, content, data_frames, init
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from dsmgateway import commands as c

FROM_DEVICE = [
    init().encode(),
    c.Path(PATH).encode(),
    c.MetadataResponse(METADATA).encode(),
    c.Start(2500, 0).encode(),
    c.Sync(0).encode(),
    *data_frames(content(2500)),
    c.EnhancedData(0, b"abc", 1).encode(),
]
FROM_GATEWAY = [
    c.PathRequest().encode(),
    c.MetadataRequest().encode(),
    c.FileRequest(PATH).encode(),
    c.Resume(0).encode(),
    c.RepeatInit().encode(),
    c.Close().encode(),
]


class Socket(StringTransport):
    """One that remembers each write, and whether it shall wait for more."""

    waits = True

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.waits = not enabled


class Turns(Clock):
    """A clock that, as a reactor does, leaves what a call asks for to the next turn."""

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call.called = 1
            call.func()


def pipe() -> tuple[Pipe, Turns, Socket, Socket]:
    clock, sender, receiver = Turns(), Socket(), Socket()
    made = Pipe(clock, sender)
    made.attach(receiver)
    return made, clock, sender, receiver


# -- what it may do


@pytest.mark.parametrize(("from_device", "frames"), [(True, FROM_DEVICE), (False, FROM_GATEWAY)])
@pytest.mark.parametrize("piece_bytes", [1, 3, 1000, 10_000])
def test_frames_are_found_however_bytes_are_cut(from_device: bool, frames: list[bytes], piece_bytes: int) -> None:
    framer, said = Framer(from_device), b"".join(frames) + b"\0"
    pieces = (said[at : at + piece_bytes] for at in range(0, len(said), piece_bytes))
    assert [frame for piece in pieces for frame in framer.feed(piece)] == frames
    assert framer.rest() == b"\0"


def test_a_flip_changes_one_bit_of_file_data_and_of_nothing_else() -> None:
    chance = random.Random(1)
    for frame in FROM_DEVICE:
        if id_of(frame) in FILE_DATA:
            changed = int.from_bytes(flipped(frame, chance), "big") ^ int.from_bytes(frame, "big")
            assert changed.bit_count() == 1
        else:
            with pytest.raises(AssertionError):
                flipped(frame, chance)


def test_the_same_seed_gives_the_same_plans() -> None:
    keys = [(seed, imei, connection) for seed in (1, 2) for imei in (IMEI, IMEI + 10) for connection in (1, 2)]
    plans = [Plan.drawn(*key) for key in keys]
    assert plans == [Plan.drawn(*key) for key in keys]
    assert len(set(plans)) == len(keys)


def test_first_connections_have_each_fault_in_turn_and_late_ones_none() -> None:
    imeis = range(IMEI, IMEI + 10 * len(MAIN), 10)
    assert {Plan.drawn(1, imei, 1).main for imei in imeis} == set(MAIN)
    assert {Plan.drawn(1, imei, MOST_BAD + 1) for imei in imeis} == {Plan()}


def test_later_connections_have_all_faults_but_long_stalls() -> None:
    plans = [Plan.drawn(1, imei, 2) for imei in range(IMEI, IMEI + 10_000, 10)]
    kinds = Counter(plan.main for plan in plans)
    assert None in kinds and {*kinds} - {None} == {fault for fault in MAIN if "stall" not in fault.value}
    for name in ("flips", "single_frames", "single_commands"):
        assert 0 < sum(bool(getattr(plan, name)) for plan in plans) < len(plans)


def test_what_answers_a_choice_of_the_gateway_is_not_said_again() -> None:
    one_kind, several_kinds = init().encode(), init(0x30000000).encode()
    for spoken, repeated in (([one_kind, b"\0\x0b", one_kind], 3), ([one_kind, several_kinds, b"\0\x0b"], 2)):
        said = Said()
        for frame in spoken:
            said.add(frame)
        assert said.data == b"".join(spoken[:repeated])


def test_what_can_be_said_again_has_a_bound() -> None:
    said, (frame,) = Said(), data_frames(content(c.PACKET_BYTES))
    for _ in range(2 * MOST_SAID_BYTES // len(frame)):
        said.add(frame)
    assert MOST_SAID_BYTES <= len(said.data) < MOST_SAID_BYTES + len(frame)


# -- what a pipe does


def test_single_bytes_are_written_one_in_a_turn_of_the_reactor() -> None:
    held, clock, _, receiver = pipe()
    assert not receiver.waits
    held.put(b"before", Byte(b"a"), Byte(b"b"), b"after")
    assert receiver.writes == [b"before", b"a"]
    clock.turn()
    assert receiver.writes == [b"before", b"a", b"b"]
    clock.turn()
    assert receiver.writes == [b"before", b"a", b"b", b"after"]


def test_what_is_delayed_slowed_down_or_stalled_comes_late_and_in_order() -> None:
    held, clock, _, receiver = pipe()
    happened: list[str] = []
    held.delay_s, held.rate_bytes_s = 1.0, 100
    held.put(b"x" * 50, Pause(10), lambda: happened.append("the pause is over"), b"y")
    assert receiver.writes == []
    clock.advance(1)
    assert receiver.writes == [b"x" * 50]
    clock.advance(0.5)
    clock.advance(9.9)
    assert happened == [] and len(receiver.writes) == 1
    clock.advance(0.1)
    assert happened and receiver.writes[1:] == [b"y"]
    held.stall(5)
    held.put(b"z")
    clock.advance(4.9)
    assert receiver.writes[2:] == []
    clock.advance(0.1)
    assert receiver.writes[2:] == [b"z"]


def test_a_pipe_holds_no_more_than_its_bound() -> None:
    held, clock, sender, receiver = pipe()
    held.stall(5)
    held.put(bytes(MOST_HELD_BYTES))
    assert sender.producerState == "producing"
    held.put(b"x")
    assert sender.producerState == "paused"
    clock.advance(5)
    assert sender.producerState == "producing" and sum(map(len, receiver.writes)) == MOST_HELD_BYTES + 1


def test_a_receiver_that_takes_nothing_stops_the_pipe() -> None:
    held, _, _, receiver = pipe()
    receiver.producer.pauseProducing()
    held.put(b"x")
    assert receiver.writes == []
    receiver.producer.resumeProducing()
    assert receiver.writes == [b"x"]


def test_a_closed_pipe_takes_and_gives_nothing() -> None:
    held, clock, _, receiver = pipe()
    held.stall(1)
    held.put(b"x")
    held.close()
    held.put(b"y")
    clock.advance(10)
    assert (receiver.writes, held.held_bytes, clock.getDelayedCalls()) == ([], 0, [])


def test_every_kind_of_fault_has_a_name_of_its_own() -> None:
    assert len({fault.value for fault in Fault}) == len(Fault)
