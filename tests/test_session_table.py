"""Every state with every input: where it leads, and what is refused."""

from typing import get_args

import pytest
from conftest import IDLE, METADATA, OTHER_IMEI, PATH, SIZE, init, session_in, slots_of

from dsmgateway import commands as c
from dsmgateway import effects as fx
from dsmgateway.errors import UnexpectedCommand
from dsmgateway.frames import DataRun
from dsmgateway.framing import Damaged, DeviceEvent, StepFound
from dsmgateway.session import Session, SessionOptions
from dsmgateway.states import EXPECTED, LEGAL, State, spelt

S = State
#: Every kind of event that a device can cause, each in all ways that may lead somewhere else.
VARIANTS: dict[type, list[DeviceEvent]] = {
    c.Init: [init(), init(IDLE), init(0x04000000)],
    c.Path: [c.Path(PATH), c.Path(b""), c.Path(b"\0")],
    c.MetadataResponse: [c.MetadataResponse(METADATA), c.MetadataResponse(b"")],
    c.Start: [c.Start(SIZE, 0), c.Start(SIZE, 7), c.Start(SIZE + 1, 0), c.Start(0, 0), c.Start(0xFFFFFFFF, 0)],
    c.Sync: [c.Sync(0), c.Sync(1024), c.Sync(2048), c.Sync(SIZE + 1)],
    c.Data: [c.Data(b"a", 0)],
    c.EnhancedData: [c.EnhancedData(0, b"a", 0)],
    DataRun: [DataRun(bytes(452), 1), DataRun(bytes(SIZE), 3), DataRun(bytes(SIZE + 1), 3), DataRun(b"a", 1, 7)],
    StepFound: [StepFound(7)],
    Damaged: [Damaged("told by the test")],
    c.Status: [c.Status(0), c.Status(1), c.Status(17), c.Status(99)],
}
OPTIONS = [
    SessionOptions(),
    SessionOptions(metadata=False),
    SessionOptions(resume_tries=1, max_resyncs=0),
    SessionOptions(repeat=False),
]
PAIRS = [(state, kind) for state in State for kind in VARIANTS]
#: States in which the store holds an open file that has to be parked at the end.
WITH_PART = {S.AWAIT_SYNC, S.RECEIVING}


def named(value: object) -> str:
    """A pair's name in the list of tests."""
    return value.value if isinstance(value, State) else getattr(value, "__name__", str(value))


def ways_into(state: State) -> list[Session]:
    """Sessions in this state, under all options that can come to it, with a new, a begun and a known file."""
    reachable = {
        S.AWAIT_METADATA: [OPTIONS[0], OPTIONS[2]],
        S.FAREWELL: [OPTIONS[3]],
        S.AWAIT_NEXT_INIT: OPTIONS[:3],
    }
    return [
        session_in(state, options, held_bytes, comparing)
        for options in reachable.get(state, OPTIONS)
        for held_bytes, comparing in ((0, False), (1024, False), (2048, True))
    ]


def test_every_kind_of_event_is_tried() -> None:
    """No event of a decoder is left out of this table."""
    assert set(VARIANTS) == set(get_args(DeviceEvent))
    assert set(LEGAL) == set(State)


@pytest.mark.parametrize(("state", "kind"), [pair for pair in PAIRS if pair[1] in LEGAL[pair[0]]], ids=named)
def test_legal_pairs_lead_where_the_table_says(state: State, kind: type) -> None:
    """A legal event leads to states that the table lists, and every state that it lists is really reached."""
    reached = set()
    same_path_only = kind is c.Path and state in {S.AWAIT_METADATA, S.AWAIT_START, S.AWAIT_SYNC}
    for variant in VARIANTS[kind][: 1 if same_path_only else None]:
        for session in ways_into(state):
            effects = session.receive(variant)
            reached.add(session.state)
            assert isinstance(effects, list)
    assert reached == set(LEGAL[state][kind])


@pytest.mark.parametrize(("state", "kind"), [pair for pair in PAIRS if pair[1] not in LEGAL[pair[0]]], ids=named)
def test_illegal_pairs_change_nothing(state: State, kind: type) -> None:
    """An illegal event is refused by name and state, and nothing has changed."""
    for variant in VARIANTS[kind]:
        for session in ways_into(state):
            before = slots_of(session)
            with pytest.raises(UnexpectedCommand, match=f"{spelt(kind)} is not legal in state {state.value}"):
                session.receive(variant)
            assert slots_of(session) == before


@pytest.mark.parametrize("state", [S.AWAIT_PATH, S.AWAIT_START, S.AWAIT_SYNC, S.RECEIVING, S.AWAIT_NEXT_INIT])
def test_another_device_changes_nothing(state: State) -> None:
    """A connection speaks for one device: INIT with another IMEI is refused in every state."""
    session = session_in(state)
    before = slots_of(session)
    with pytest.raises(UnexpectedCommand, match=f"INIT of device {OTHER_IMEI} on a connection of device"):
        session.receive(init(imei=OTHER_IMEI))
    assert slots_of(session) == before


@pytest.mark.parametrize("state", list(State), ids=named)
def test_reads_only_where_something_is_legal(state: State) -> None:
    """Nothing is decoded while the store is at work, nor after the end."""
    assert session_in(state).reads == (state not in {S.OPENING, S.STORING, S.ENDED})


@pytest.mark.parametrize("state", list(State), ids=named)
def test_expected_is_legal(state: State) -> None:
    """A log line can say what was expected in every state; where that is a command, it is a legal one."""
    commands = {spelt(kind) for kind in LEGAL[state]}
    assert EXPECTED[state] in commands or EXPECTED[state] in {"the store", "the end of the connection"}


def test_a_row_that_nobody_implements_is_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is put into the table and forgotten in the session is a bug that shows, not one that is silent."""
    monkeypatch.setitem(LEGAL[S.AWAIT_INIT], c.Data, (S.ENDED,))
    with pytest.raises(AssertionError, match="DATA is legal in await_init, but nobody takes it"):
        session_in(S.AWAIT_INIT).receive(c.Data(b"a", 0))


# -- time, the connection and the store


SILENCE = {
    S.AWAIT_INIT: S.ENDED,
    S.AWAIT_PATH: S.ENDED,
    S.AWAIT_METADATA: S.AWAIT_START,
    S.AWAIT_START: S.ENDED,
    S.OPENING: S.ENDED,
    S.AWAIT_SYNC: S.AWAIT_SYNC,
    S.RECEIVING: S.AWAIT_SYNC,
    S.STORING: S.ENDED,
    S.AWAIT_NEXT_INIT: S.ENDED,
    S.FAREWELL: S.ENDED,
    S.ENDED: S.ENDED,
}


@pytest.mark.parametrize(("state", "after"), SILENCE.items(), ids=named)
def test_silence_has_an_outcome_in_every_state(state: State, after: State) -> None:
    """Each state has a time limit that leads on or out; none is waited in for ever."""
    session = session_in(state)
    session.timed_out()
    assert session.state is after


@pytest.mark.parametrize("state", list(State), ids=named)
def test_silence_ends_every_state_at_last(state: State) -> None:
    """Silence alone, again and again, ends every session, without an acknowledgement."""
    session = session_in(state)
    sent = []
    for _ in range(10):
        sent += [effect.command for effect in session.timed_out() if isinstance(effect, fx.Send)]
        if session.state is S.ENDED:
            break
    assert session.state is S.ENDED
    assert {type(command) for command in sent} <= {c.Resume, c.FileRequest}


ENDINGS = {
    "taken_over": lambda session: session.taken_over(),
    "stop": lambda session: session.stop(),
    "lost": lambda session: session.lost(),
    "store_failed": lambda session: session.store_failed("No space left on device"),
    "broke_protocol": lambda session: session.broke_protocol("told by the test"),
}


@pytest.mark.parametrize("state", list(State), ids=named)
@pytest.mark.parametrize("name", ENDINGS)
def test_every_ending_in_every_state(state: State, name: str) -> None:
    """Whatever ends a session parks the file under way, says nothing to the device, and ends the connection once."""
    session = session_in(state)
    effects = ENDINGS[name](session)
    assert session.state is S.ENDED
    assert [effect for effect in effects if isinstance(effect, fx.Send)] == []
    assert effects.count(fx.Park()) == (state in WITH_PART)
    ends = [effect for effect in effects if isinstance(effect, fx.End)]
    assert len(ends) == (state is not S.ENDED and name != "lost")
    told = state in {S.AWAIT_NEXT_INIT, S.FAREWELL}
    assert all(end.abort == (name == "broke_protocol" and not told) for end in ends)
    assert effects[-1:] == ends or not ends
    assert [effect for effect in ENDINGS["stop"](session)] == []


@pytest.mark.parametrize("state", [state for state in State if state not in (S.OPENING, S.ENDED)], ids=named)
def test_opened_out_of_turn_is_a_bug(state: State) -> None:
    """The store says where a file stands when it was asked, and at no other time."""
    with pytest.raises(AssertionError, match=f"the store answered in state {state.value}, not opening"):
        session_in(state).opened(0, False)


@pytest.mark.parametrize("state", [state for state in State if state not in (S.STORING, S.ENDED)], ids=named)
def test_stored_out_of_turn_is_a_bug(state: State) -> None:
    """Nothing is acknowledged that was not to be stored: the answer is refused, and nothing has changed."""
    for answer in (lambda session: session.stored("media/1", SIZE, False), lambda session: session.differs()):
        session = session_in(state)
        before = slots_of(session)
        with pytest.raises(AssertionError, match=f"the store answered in state {state.value}, not storing"):
            answer(session)
        assert slots_of(session) == before


def test_stored_without_a_file_is_a_bug() -> None:
    """After the end, a file that never was cannot have been stored."""
    with pytest.raises(AssertionError, match="no transfer in state ended"):
        session_in(S.ENDED, SessionOptions()).stored("media/1", SIZE, False)
