"""What the pages and the diagram say of each state beyond the table of what is legal.

The table itself is `dsmgateway.states.LEGAL`. What clocks and the store do to a session is in code, not in a table;
here it is written down, and a test holds it against a real session.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from dsmgateway.states import State


class Cause(enum.Enum):
    """What makes a session go on without a word of the device."""

    STORE = "store"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class Driven:
    """A transition that no command makes."""

    start: State
    end: State
    cause: Cause
    words: str


@dataclass(frozen=True, slots=True)
class About:
    """What a state waits for, the setting that limits it (empty: fixed), and what happens when the time is over."""

    waits_for: str
    limit: str
    time_out: str


S, STORE, TIME = State, Cause.STORE, Cause.TIME
DRIVEN = (
    Driven(S.AWAIT_INIT, S.ENDED, TIME, "silence"),
    Driven(S.AWAIT_PATH, S.ENDED, TIME, "silence"),
    Driven(S.AWAIT_METADATA, S.AWAIT_START, TIME, "no answer"),
    Driven(S.AWAIT_START, S.ENDED, TIME, "silence"),
    Driven(S.OPENING, S.AWAIT_SYNC, STORE, "where the file stands"),
    Driven(S.OPENING, S.ENDED, STORE, "no file is taken, the disk failed"),
    Driven(S.OPENING, S.ENDED, TIME, "too slow"),
    Driven(S.AWAIT_SYNC, S.AWAIT_SYNC, TIME, "silence"),
    Driven(S.AWAIT_SYNC, S.OPENING, STORE, "another file"),
    Driven(S.AWAIT_SYNC, S.ENDED, STORE, "the disk failed"),
    Driven(S.AWAIT_SYNC, S.ENDED, TIME, "no try is left"),
    Driven(S.RECEIVING, S.AWAIT_SYNC, TIME, "silence"),
    Driven(S.RECEIVING, S.OPENING, STORE, "another file"),
    Driven(S.RECEIVING, S.ENDED, STORE, "the disk failed"),
    Driven(S.RECEIVING, S.ENDED, TIME, "no try is left"),
    Driven(S.STORING, S.AWAIT_NEXT_INIT, STORE, "stored (after-file repeat)"),
    Driven(S.STORING, S.FAREWELL, STORE, "stored (after-file complete)"),
    Driven(S.STORING, S.OPENING, STORE, "another file"),
    Driven(S.STORING, S.ENDED, STORE, "the disk failed"),
    Driven(S.STORING, S.ENDED, TIME, "too slow"),
    Driven(S.AWAIT_NEXT_INIT, S.ENDED, TIME, "silence"),
    Driven(S.FAREWELL, S.ENDED, TIME, "silence"),
)

ABOUT: dict[State, About] = {
    S.AWAIT_INIT: About("the device to say who it is", "init-timeout", "the connection ends"),
    S.AWAIT_PATH: About("the path of the file that is ready", "answer-timeout", "the connection ends"),
    S.AWAIT_METADATA: About(
        "what the camera says about the file", "metadata-timeout", "the file is requested without metadata"
    ),
    S.AWAIT_START: About("the file's size and CRC", "answer-timeout", "the connection ends"),
    S.OPENING: About(
        "the store to say where the file stands; nothing is read from the device",
        "store-timeout",
        "the connection ends, nothing is acknowledged",
    ),
    S.AWAIT_SYNC: About(
        "the device to say where its data will begin",
        "sync-timeout",
        "RESUME is sent again, up to resume-tries in a row; then the file is parked and the connection ends",
    ),
    S.RECEIVING: About(
        "file data",
        "data-timeout",
        "RESUME is sent for what is missing, counted as one of resume-tries; while the disk lags behind, store-timeout "
        "applies instead and the connection ends",
    ),
    S.STORING: About(
        "the store to make the whole file durable; nothing is read from the device",
        "store-timeout",
        "the connection ends, nothing is acknowledged",
    ),
    S.AWAIT_NEXT_INIT: About(
        "the INIT that answers REPEAT_INIT; the file is stored and acknowledged",
        "answer-timeout",
        "the connection ends",
    ),
    S.FAREWELL: About(
        "the device to disconnect; the file is stored and acknowledged with STATUS 0",
        "init-timeout",
        "the connection ends",
    ),
    S.ENDED: About("the last bytes to be sent", "", "after 5 s the connection is aborted"),
}
