"""The recorded conversations against the real daemon: real sockets, real segments, answers equal to the byte."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import cut, load_vectors
from running import AT_ONCE, RunningGateway, checked, running_gateway

Chunks = Callable[[bytes], list[bytes]]
Chunked = tuple[RunningGateway, Chunks]
VECTORS = load_vectors()
#: What a vector tells of each file that is stored.
TOLD = ("imei", "device_path", "size", "sha256")


def as_recorded(data: bytes) -> list[bytes]:
    return [data]


def anywhere(data: bytes) -> list[bytes]:
    """Cut at random places, the same at every run."""
    chance = random.Random(len(data))
    return cut(data, {chance.randrange(len(data)) for _ in range(1 + len(data) // 400)})


def gathered(data: bytes) -> list[bytes]:
    """Leave it to the system how much of it the gateway reads at once."""
    return [data]


@pytest.fixture(scope="module", params=[as_recorded, anywhere, gathered])
def chunked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chunked]:
    """A gateway for all the vectors, with nothing stored yet, and how their segments are cut."""
    options = [] if request.param is gathered else [AT_ONCE]
    with running_gateway(tmp_path_factory.mktemp("vectors"), *options) as gateway:
        yield gateway, request.param
        assert not gateway.troubles()
        assert gateway.stop() == 0
        checked(gateway)


def replay(gateway: RunningGateway, steps: list[dict[str, Any]], chunks: Chunks) -> None:
    """Play one connection: each chunk is read by the gateway before the next one is sent, unless it gathers them."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as camera:
        camera.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for step in steps:
            if step.get("end") == "lost":
                return
            if step.get("end") == "close":
                assert camera.recv(1) == b""
                return
            data = bytes.fromhex(step["hex"])
            if step["from"] == "device":
                for chunk in chunks(data):
                    camera.sendall(chunk)
                    if chunks is not gathered:
                        gateway.has_read()
            else:
                heard = camera.recv(len(data), socket.MSG_WAITALL)
                assert heard == data, f"{heard.hex()} instead of {data.hex()}"
    raise AssertionError("the vector has no end")


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_a_recorded_conversation(chunked: Chunked, vector: dict[str, Any]) -> None:
    """The daemon says what was recorded, no byte more, and stores what was sent."""
    gateway, chunks = chunked
    assert vector["options"] == {"metadata": True}
    before = {row["path"] for row in gateway.sidecars()}
    for connection in vector["connections"]:
        replay(gateway, connection["steps"], chunks)
    stored = [row for row in gateway.sidecars() if row["path"] not in before]
    assert [[row[name] for name in TOLD] for row in stored] == [
        [row[name] for name in TOLD] for row in vector["stored"]
    ]
