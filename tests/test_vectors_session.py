"""The recorded conversations, replayed against decoder and session alone, with a store in memory."""

import hashlib
from collections.abc import Callable
from itertools import groupby
from typing import Any

import pytest
from conftest import Conversation, MemoryStore, bytewise, cut, load_vectors
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dsmgateway.reception import SessionOptions
from dsmgateway.states import State

VECTORS = load_vectors()
Cutter = Callable[[bytes], list[bytes]]

each_vector = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])


def as_recorded(segment: bytes) -> list[bytes]:
    """The segment as it is."""
    return [segment]


def bursts(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The steps with a device's segments joined wherever no answer lies between them."""
    joined: list[dict[str, Any]] = []
    for (sender, is_bytes), group in groupby(steps, key=lambda step: (step["from"], "hex" in step)):
        if sender == "device" and is_bytes:
            joined.append({"from": sender, "hex": "".join(step["hex"] for step in group)})
        else:
            joined += group
    return joined


def replay_connection(steps: list[dict[str, Any]], talk: Conversation, cutter: Cutter) -> None:
    """Give in what the device sent and hold each answer, as far as it is due, to the recorded one."""
    due = b""
    for step in steps:
        if "end" in step and step["from"] == "gateway":
            assert talk.end is not None and not talk.end.abort
        elif "end" in step:
            assert talk.end is None
            talk.perform(talk.session.lost())
        elif step["from"] == "gateway":
            due += bytes.fromhex(step["hex"])
            assert talk.sent == due
        else:
            for piece in cutter(bytes.fromhex(step["hex"])):
                talk.feed(piece)
    assert talk.sent == due
    assert talk.session.state is State.ENDED


def replay(vector: dict[str, Any], cutter: Cutter, joined: bool = False) -> MemoryStore:
    """Replay all connections of a vector over one store."""
    store = MemoryStore()
    for connection in vector["connections"]:
        steps = bursts(connection["steps"]) if joined else connection["steps"]
        talk = Conversation(store, SessionOptions(metadata=vector["options"]["metadata"]))
        replay_connection(steps, talk, cutter)
    return store


def check(vector: dict[str, Any], store: MemoryStore) -> None:
    """Hold the stored files to the recorded ones, and the parts to nothing."""
    assert store.parts == {}
    assert len(store.stored) == len(vector["stored"])
    for stored, expected in zip(store.stored, vector["stored"], strict=True):
        content = stored["content"]
        assert isinstance(content, bytes)
        assert hashlib.sha256(content).hexdigest() == expected["sha256"]
        assert len(content) == expected["size"]
        assert stored["imei"] == expected["imei"]
        assert stored["device_path"] == expected["device_path"].encode()
        assert stored["family"] == "dsm"
        metadata = stored["metadata"]
        assert isinstance(metadata, dict)
        assert expected.get("metadata", {}).items() <= metadata.items()


def test_vectors_are_there() -> None:
    """The recorded conversations have not been lost on the way."""
    assert len(VECTORS) >= 8


@each_vector
def test_in_its_own_segments(vector: dict[str, Any]) -> None:
    """Segments as they were recorded give the recorded answers and files."""
    check(vector, replay(vector, as_recorded))


@each_vector
def test_byte_by_byte(vector: dict[str, Any]) -> None:
    """One byte at a time gives the same."""
    check(vector, replay(vector, bytewise))


@each_vector
def test_in_one_burst(vector: dict[str, Any]) -> None:
    """All that a device sends before the next answer, in one piece, gives the same."""
    check(vector, replay(vector, as_recorded, joined=True))


@each_vector
@given(places=st.lists(st.integers(0, 45_000), max_size=60))
@hypothesis_settings(max_examples=25)
def test_cut_at_random_places(vector: dict[str, Any], places: list[int]) -> None:
    """Bursts that are cut anywhere give the same."""
    check(vector, replay(vector, lambda burst: cut(burst, places), joined=True))
