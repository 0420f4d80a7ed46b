"""The states of a session and the one table of what a device may send in each.

Behaviour is in `dsmgateway.session`; the diagram in docs/ is drawn from `LEGAL`.
"""

from __future__ import annotations

import enum

from dsmgateway.commands import Init, MetadataResponse, Path, Start, Status, Sync
from dsmgateway.frames import DataRun
from dsmgateway.framing import Damaged, StepFound


class State(enum.Enum):
    """What the session waits for."""

    AWAIT_INIT = "await_init"
    AWAIT_PATH = "await_path"
    AWAIT_METADATA = "await_metadata"
    AWAIT_START = "await_start"
    #: The store is asked where the file stands.
    OPENING = "opening"
    AWAIT_SYNC = "await_sync"
    RECEIVING = "receiving"
    #: The file is whole; the store makes it durable.
    STORING = "storing"
    AWAIT_NEXT_INIT = "await_next_init"
    #: STATUS 0 is sent; the device disconnects.
    FAREWELL = "farewell"
    ENDED = "ended"

    #: States are looked up for every packet, and there is one object of each: `enum.Enum` goes by the name, in Python.
    __hash__ = object.__hash__


S = State
#: What each state waits for, in the protocol's words; some of what else is legal is only put up with.
EXPECTED: dict[State, str] = {
    S.AWAIT_INIT: "INIT",
    S.AWAIT_PATH: "PATH",
    S.AWAIT_METADATA: "METADATA",
    S.AWAIT_START: "START",
    S.OPENING: "the store",
    S.AWAIT_SYNC: "SYNC",
    S.RECEIVING: "DATA",
    S.STORING: "the store",
    S.AWAIT_NEXT_INIT: "INIT",
    S.FAREWELL: "the end of the connection",
    S.ENDED: "the end of the connection",
}

#: Where an INIT leads: to the first of what it offers, by its path or its identifier.
_BEGINS = (S.AWAIT_PATH, S.AWAIT_METADATA, S.ENDED)
#: What a device may send in each state, and the states it can lead to. Anything else is an `UnexpectedCommand`.
LEGAL: dict[State, dict[type, tuple[State, ...]]] = {
    S.AWAIT_INIT: {Init: _BEGINS, Status: (S.ENDED,)},
    S.AWAIT_PATH: {
        Init: _BEGINS,
        Path: (S.AWAIT_METADATA, S.AWAIT_START, S.ENDED),
        MetadataResponse: (S.AWAIT_PATH,),
        Start: (S.AWAIT_PATH,),
        Status: (S.ENDED,),
    },
    S.AWAIT_METADATA: {
        Init: _BEGINS,
        Path: (S.AWAIT_METADATA,),
        MetadataResponse: (S.AWAIT_START,),
        Start: (S.AWAIT_METADATA,),
        Status: (S.ENDED,),
    },
    S.AWAIT_START: {
        Init: _BEGINS,
        Path: (S.AWAIT_START,),
        MetadataResponse: (S.AWAIT_START,),
        Start: (S.OPENING, S.ENDED),
        Status: (S.ENDED,),
    },
    S.OPENING: {},
    S.AWAIT_SYNC: {
        Init: _BEGINS,
        Path: (S.AWAIT_SYNC,),
        MetadataResponse: (S.AWAIT_SYNC,),
        Start: (S.AWAIT_SYNC, S.OPENING, S.ENDED),
        Sync: (S.RECEIVING, S.AWAIT_SYNC, S.OPENING, S.ENDED),
        Status: (S.ENDED,),
    },
    S.RECEIVING: {
        Init: _BEGINS,
        MetadataResponse: (S.RECEIVING,),
        Start: (S.AWAIT_SYNC, S.OPENING, S.ENDED),
        Sync: (S.RECEIVING, S.AWAIT_SYNC, S.OPENING, S.ENDED),
        DataRun: (S.RECEIVING, S.STORING, S.AWAIT_SYNC, S.ENDED),
        StepFound: (S.RECEIVING, S.ENDED),
        Damaged: (S.AWAIT_SYNC, S.ENDED),
        Status: (S.ENDED,),
    },
    S.STORING: {},
    S.AWAIT_NEXT_INIT: {
        Init: _BEGINS,
        Path: (S.AWAIT_NEXT_INIT,),
        Status: (S.AWAIT_NEXT_INIT,),
        MetadataResponse: (S.AWAIT_NEXT_INIT,),
        Start: (S.AWAIT_NEXT_INIT,),
        Sync: (S.AWAIT_NEXT_INIT,),
        DataRun: (S.AWAIT_NEXT_INIT,),
        StepFound: (S.AWAIT_NEXT_INIT,),
        Damaged: (S.AWAIT_NEXT_INIT,),
    },
    S.FAREWELL: {
        Init: (S.FAREWELL,),
        Path: (S.FAREWELL,),
        Status: (S.FAREWELL,),
        MetadataResponse: (S.FAREWELL,),
        Start: (S.FAREWELL,),
        Sync: (S.FAREWELL,),
        DataRun: (S.FAREWELL,),
        StepFound: (S.FAREWELL,),
        Damaged: (S.FAREWELL,),
    },
    S.ENDED: {},
}


def spelt(kind: type) -> str:
    """A command's name as the protocol spells it, or what the decoder found."""
    command_id = getattr(kind, "id", None)
    return command_id.name if command_id is not None else _FOUND[kind]


_FOUND = {DataRun: "DATA", StepFound: "a cut frame", Damaged: "damaged DATA"}
