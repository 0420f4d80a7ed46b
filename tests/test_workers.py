"""What several processes agree on, as values: whose a device is, what a hand-over says; pauses, pieces, ports."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import zlib
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dsmgateway.errors import ConfigError
from dsmgateway.framing import FIRST_READ_BYTES
from dsmgateway.simulator.identity import imei_of
from dsmgateway.store.tally import SharedSlots, Tally, shared_memory
from dsmgateway.workers.backoff import GOOD_RUN_S, MOST_S, Backoff
from dsmgateway.workers.handover import MAX_BYTES, Handover, parse
from dsmgateway.workers.owners import owner_of
from dsmgateway.workers.pieces import Pieces
from dsmgateway.workers.ports import SharedPort, bind_shared, shared_port

TEXTS = st.text(st.characters(codec="utf-8"), max_size=60)

# -- whose a device is


def test_a_device_has_one_owner_and_a_fleet_is_spread() -> None:
    for workers in range(1, 33):
        owners = Counter(owner_of(imei_of(number), workers) for number in range(3200))
        assert set(owners) == set(range(workers))
        assert max(owners.values()) < 2 * min(owners.values())


@pytest.mark.parametrize("workers", [2, 3, 4, 8])
def test_the_devices_of_one_process_are_spread_over_its_lanes(workers: int) -> None:
    """`dsmgateway.worker` takes the same CRC for that."""
    mine = [imei for imei in map(imei_of, range(3200)) if owner_of(imei, workers) == workers - 1]
    lanes = Counter(zlib.crc32(imei.encode()) % 4 for imei in mine)
    assert len(lanes) == 4 and max(lanes.values()) < 2 * min(lanes.values())


# -- hand-overs


@given(TEXTS, TEXTS, st.binary(max_size=200))
@example("192.0.2.1:40000", "192.0.2.1", b"")
def test_a_hand_over_is_read_as_it_was_written(peer: str, source: str, said: bytes) -> None:
    handover = Handover(peer, source, said)
    assert parse(handover.encode()) == handover


@given(st.binary(max_size=100))
@example(b"")
@example(b"\0\0\0")
@example(b"\0\1\0\0")
@example(b"\0\1\0\0\xff")
def test_any_bytes_are_a_hand_over_or_a_value_error(message: bytes) -> None:
    try:
        handover = parse(message)
    except ValueError:
        return
    assert handover.encode() == message


def test_the_longest_hand_over_fits() -> None:
    """A read that begins with the last byte of a PROXY header, and one after an INIT that is not whole by then."""
    handover = Handover("[2001:db8:1:2:3:4:5:6]:65535", "2001:db8:1:2::/64", bytes(2 * FIRST_READ_BYTES))
    assert len(handover.encode()) < MAX_BYTES


# -- pauses


def test_pauses_grow_and_end() -> None:
    backoff = Backoff()
    assert [backoff.pause_s(1) for _ in range(8)] == [0, 1, 2, 4, 8, 16, MOST_S, MOST_S]
    assert backoff.pause_s(GOOD_RUN_S) == 0
    assert backoff.pause_s(GOOD_RUN_S - 1) == 1


# -- pieces


@given(st.lists(st.binary(max_size=20).map(lambda piece: piece.replace(b"\0", b"")), max_size=20), st.data())
def test_pieces_are_whole_wherever_the_bytes_were_cut(pieces: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(piece + b"\0" for piece in pieces)
    cut, found, at = Pieces(b"\0"), [], 0
    while at < len(whole):
        step = data.draw(st.integers(1, 30))
        found += cut.feed(whole[at : at + step])
        at += step
    assert found == pieces
    assert cut.take_rest() == b""


def test_what_has_no_end_is_handed_out_in_parts() -> None:
    cut = Pieces(b"\n", 10)
    assert list(cut.feed(b"a" * 10)) == []
    assert list(cut.feed(b"a")) == [b"a" * 11]
    assert list(cut.feed(b"b\nc")) == [b"b"]
    assert cut.take_rest() == b"c"
    assert cut.take_rest() == b""


# -- ports


@pytest.mark.parametrize(
    ("written", "host", "number", "backlog"),
    [
        ("10014", "", 10014, 7),
        ("tcp:10014", "", 10014, 7),
        ("tls:10014", "", 10014, 7),
        ("tcp:0:interface=127.0.0.1", "127.0.0.1", 0, 7),
        (r"tls:1:interface=\:\:1:backlog=9", "::1", 1, 9),
    ],
)
def test_ports_that_can_be_shared(written: str, host: str, number: int, backlog: int) -> None:
    assert shared_port(written, 7) == SharedPort(written, host, number, backlog)


@pytest.mark.parametrize(
    "written",
    [
        "unix:socket",
        r"tcp:1:interface\=127.0.0.1",
        "ssl:10014",
        "tcp6:10014",
        "systemd:domain=INET:index=0",
        "tcp:",
        "tcp:name",
        "tcp:65536",
        "tcp:1:50",
        "tcp:1:interface=localhost",
        "tcp:1:backlog=many",
        "tcp:1:other=1",
    ],
)
def test_ports_that_cannot_be_shared(written: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"endpoint {written!r}: several processes")):
        shared_port(written, 7)


@pytest.mark.parametrize("host", ["", "127.0.0.1", "::1"])
def test_each_process_has_a_socket_of_the_port(host: str) -> None:
    """All connections come in somewhere, and with many of them at each."""
    made = bind_shared(SharedPort("0", host, 0, 100), 2)
    clients = []
    try:
        number = made[0].getsockname()[1]
        assert [one.getsockname()[1] for one in made] == [number] * 2
        target = host or "127.0.0.1"
        clients = [socket.create_connection((target, number), timeout=5) for _ in range(40)]
        accepted = [_accepted(one) for one in made]
        assert sum(accepted) == 40 and min(accepted) > 0
        with pytest.raises(ConfigError, match=rf"^port {number}: Address already in use$"):
            bind_shared(SharedPort(str(number), host, number, 100), 2)
    finally:
        for one in (*made, *clients):
            one.close()


def _accepted(listening: socket.socket) -> int:
    count = 0
    while True:
        try:
            connection, _ = listening.accept()
        except BlockingIOError:
            return count
        connection.close()
        count += 1


def test_a_port_that_cannot_be_had_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^endpoint 'tcp:0:interface=192.0.2.1': Cannot assign requested address$"):
        bind_shared(shared_port("tcp:0:interface=192.0.2.1", 7), 2)


# -- what is counted over all


def test_a_process_that_is_alone_counts_for_itself() -> None:
    tally = Tally()
    tally.add(5)
    tally.add(-2)
    assert (tally.total, tally.elsewhere) == (3, 0)
    tally.set(9)
    assert tally.total == 9


def test_processes_count_together_each_in_its_own_slot() -> None:
    """A successor finds what its predecessor counted, and takes back what is not there any more."""
    memory = shared_memory(2, 3)
    try:
        row = SharedSlots(memory, 2, 3).row(1)
        here = Tally(row, 0)
        here.add(10)
        program = (
            "import sys; from dsmgateway.store.tally import *\n"
            "tally = Tally(SharedSlots(int(sys.argv[1]), 2, 3).row(1), 2)\n"
            "tally.add(-4); tally.add(1 << 40); print(tally.total, tally.elsewhere)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(memory)], pass_fds=[memory], capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == [str((1 << 40) + 6), "10"]
        assert (here.total, here.elsewhere) == ((1 << 40) + 6, (1 << 40) - 4)
        Tally(row, 2).set(0)
        assert (here.total, Tally(SharedSlots(memory, 2, 3).row(0), 0).total) == (10, 0)
    finally:
        os.close(memory)


def test_nobody_else_can_start_a_worker_process() -> None:
    """It is told what it needs by the supervisor, and by nobody else."""
    command = [sys.executable, "-m", "dsmgateway.workers.child", "0"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
