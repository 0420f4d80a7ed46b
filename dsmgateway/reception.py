"""The reception of one file in a conversation: from START to its end in the store.

What START, SYNC and file data lead to, and what the store answers. The promise is kept here: REPEAT_INIT or STATUS 0
for a file is an effect of `Reception.stored` and of nothing else, and an end with a file under way parks it. CLOSE is
said only where no RESUME was said since the last acknowledgement: until it hears one, a device has sent nothing that it
could take for delivered. What comes before START, time and the end of the connection are `dsmgateway.session`.
"""

from __future__ import annotations

from dataclasses import dataclass

from dsmgateway.asked import Asked
from dsmgateway.commands import Close, Offer, RepeatInit, Resume, Start, Status, Sync
from dsmgateway.effects import (
    Append,
    DropUntilSync,
    Effects,
    End,
    ExpectData,
    Finish,
    Note,
    Open,
    Park,
    Send,
)
from dsmgateway.events import Event
from dsmgateway.families import Family, Kind, format_of
from dsmgateway.frames import DataRun
from dsmgateway.framing import Damaged, StepFound
from dsmgateway.patience import Patience
from dsmgateway.states import State
from dsmgateway.transfer import SyncVerdict, Transfer

#: STARTs that each tell of another file than the one before, for one request: it cannot be helped by going on.
MAX_OTHER_STARTS = 3
#: States in which a file is open in the store, so that its end must be parked.
_WITH_PART = frozenset({State.AWAIT_SYNC, State.RECEIVING})


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What can be chosen about a conversation; sizes in bytes."""

    metadata: bool = True
    repeat: bool = True
    families: frozenset[Family] = frozenset(Family)
    max_file_size: int = 256 * 1024 * 1024
    max_photo_size: int = 32 * 1024 * 1024
    max_video_size: int = 256 * 1024 * 1024
    #: RESUMEs in a row that bring no data before the session ends.
    resume_tries: int = 3
    #: RESUMEs beyond the first, and steps found again, per file and connection.
    max_resyncs: int = 100


class Reception:
    """The state of a conversation, and what it does with files; a part of `dsmgateway.session.Session`."""

    __slots__ = (
        "_asked",
        "_fruitless_inits",
        "_options",
        "_patience",
        "_resumed",
        "files_stored",
        "state",
        "stuck_on",
        "transfer",
    )

    def __init__(self, options: SessionOptions) -> None:
        self._options = options
        #: What was asked for last.
        self._asked: Asked | None = None
        self._patience = Patience(options.resume_tries, options.max_resyncs)
        #: INITs since the last file data.
        self._fruitless_inits = 0
        #: Whether file data was asked for that is not acknowledged.
        self._resumed = False
        self.state = State.AWAIT_INIT
        self.transfer: Transfer | None = None
        self.files_stored = 0
        #: What the session ended over without getting any of it.
        self.stuck_on = Offer(0)

    # -- what the device sends

    def _took_start(self, start: Start) -> Effects:
        older, asked = self.transfer, self._current_ask
        if self.state in (State.AWAIT_PATH, State.AWAIT_METADATA):
            return []  # it was asked for before the device began again
        if older and (older.size, older.start_crc) == (start.size, start.crc):
            return self._answer_start_again(asked, older)
        effects = self._let_go()
        if older:
            asked.other_starts += 1
            asked.metadata_body = asked.metadata_body if asked.has_path else None  # it was of the file before
        if asked.other_starts > MAX_OTHER_STARTS:
            return [*effects, *self._give_up("START describes another file again and again")]
        self._patience = Patience(self._options.resume_tries, self._options.max_resyncs)
        transfer = Transfer(asked.device_path, start.size, start.crc, asked.unit, qualifier=asked.qualifier)
        return [*effects, *self._begin(transfer)]

    def _begin(self, transfer: Transfer) -> Effects:
        """Begin a transfer unless its size forbids it."""
        refusal = self._refusal(transfer)
        self.transfer = None if refusal else transfer
        if refusal:
            return [self._note(Event.FILE_REFUSED, reason=refusal), *self._end_stuck(refusal)]
        return self._open(compare=True)

    def _answer_start_again(self, asked: Asked, transfer: Transfer) -> Effects:
        """Every START is answered; one that crossed our RESUME is no failed attempt, but buys no time either.

        After data of a file asked for by identifier the identifier may name another one, so the store compares.
        """
        if transfer.taken and not asked.has_path:
            asked.other_starts += 1
            if asked.other_starts > MAX_OTHER_STARTS:
                return self._give_up("START comes again and again")
            return [Park(), *self._open(compare=False)]
        if self.state is State.RECEIVING:
            return self._resume()
        return [Send(Resume(transfer.resume_offset), renews=False)] if self._patience.start_crossed() else []

    def _took_sync(self, sync: Sync) -> Effects:
        transfer = self._current
        asked = transfer.resume_offset
        verdict = transfer.sync(sync.offset)
        if verdict is SyncVerdict.GO_ON:
            again = not self._patience.sync() and self.state is State.RECEIVING
            self.state = State.RECEIVING
            over = self._count_resync() if again else []
            return over or [ExpectData(transfer.remaining_bytes, transfer.in_packets)]
        if verdict is SyncVerdict.NOT_COMPARED:
            return [Park(), *self._open(compare=False)]
        if verdict is SyncVerdict.IN_PACKETS:
            return self._count_packets(transfer)
        transfer.from_start = self._patience.unanswered > 1
        note = self._note(Event.SYNC_HOLE, asked=asked, answered=sync.offset, held=transfer.held_bytes)
        return [note, *self._resume()]

    def _count_packets(self, transfer: Transfer) -> Effects:
        """Open the file anew, as one whose size START told in packets."""
        transfer.count_packets()
        self._patience.sync()
        note = self._note(Event.IN_PACKETS, device_path=shown(transfer.device_path), packets=transfer.size)
        return [note, Park(), *self._begin(transfer)]

    def _took_data(self, run: DataRun) -> Effects:
        transfer = self._current
        if not transfer.fits(len(run.data), run.frames, run.offset_bytes):
            return self._ask_again("data does not fit the size that START told, or the offset")
        offset_bytes = transfer.held_bytes
        transfer.take(len(run.data))
        self._patience.data()
        self._fruitless_inits = 0
        effects: Effects = [Append(offset_bytes, run.data)]
        if transfer.whole:
            self.state = State.STORING
            effects.append(Finish(self._current_ask.protocol_id, self._current_ask.metadata))
        return effects

    def _found_step(self, found: StepFound) -> Effects:
        note = self._note(Event.STEP_FOUND, skipped=found.skipped_bytes, held=self._current.held_bytes)
        return [note, *self._count_resync()]

    def _took_damage(self, damaged: Damaged) -> Effects:
        return self._ask_again(damaged.reason)

    def _took_status(self, status: Status) -> Effects:
        return [self._status_note(status), *self._end_stuck(f"STATUS {status.code}")]

    # -- what the store answers

    def opened(self, offset_bytes: int, comparing: bool) -> Effects:
        """The store says where the file stands (OPENING, or when it comes too late, ENDED)."""
        if self.state is State.ENDED:
            return [Park()]
        self._must_be(State.OPENING)
        transfer = self._current
        follows = transfer.opened(offset_bytes, comparing)
        self._patience.data()
        note = self._note(
            Event.FILE_OPENED,
            device_path=shown(transfer.device_path),
            qualifier=transfer.qualifier or None,
            size=transfer.size_bytes,
            packets=transfer.size if transfer.in_packets else None,
            offset=transfer.resume_bytes,
            comparing=comparing or None,
        )
        if follows:
            self.state = State.RECEIVING
            return [note, ExpectData(transfer.remaining_bytes, transfer.in_packets)]
        return [note, *self._resume()]

    def turned_away(self, reason: str) -> Effects:
        """The store takes no new file now (OPENING, or ENDED): the device keeps it and comes again."""
        if self.state is State.ENDED:
            return []
        self._must_be(State.OPENING)
        self._note_stuck()
        return self._close(reason)

    def stored(self, path: str, size_bytes: int, duplicate: bool, crc_differs: bool = False) -> Effects:
        """The file is durable (STORING, or ENDED): the only place from where the device is told so."""
        if self.state is not State.ENDED:
            self._must_be(State.STORING)
        transfer = self._current
        self.transfer, self._resumed = None, False
        self.files_stored += 1
        event = Event.FILE_KNOWN if duplicate else Event.FILE_STORED
        device_path = shown(transfer.device_path)
        resyncs = self._patience.resyncs
        notes: Effects = [self._note(event, device_path=device_path, size=size_bytes, path=path, resyncs=resyncs)]
        if crc_differs:
            notes.append(self._note(Event.FILE_CRC_DIFFERS, device_path=device_path, path=path))
        if self.state is State.ENDED:
            return notes
        if self._options.repeat:
            self.state = State.AWAIT_NEXT_INIT
            return [*notes, Send(RepeatInit())]
        self.state = State.FAREWELL
        return [*notes, Send(Status(0))]

    def differs(self) -> Effects:
        """The last packet is not that of the stored file (STORING, or ENDED): take the file whole."""
        if self.state is State.ENDED:
            return []
        self._must_be(State.STORING)
        note = self._note(Event.COMPARISON_FAILED, device_path=shown(self._current.device_path))
        return [note, *self._open(compare=False)]

    def other_file(self) -> Effects:
        """What is held is not what the device sends under the same identifier: take the file from its start.

        That can come late, for a file that was let go since; then nothing is to be done.
        """
        if self.state not in (*_WITH_PART, State.STORING):
            return []
        transfer = self._current
        note = self._note(Event.ANOTHER_FILE, device_path=shown(transfer.device_path), qualifier=transfer.qualifier)
        return [note, *self._open(compare=False)]

    def store_failed(self, reason: str) -> Effects:
        """The disk failed, in any state, also after the end (parking): end without a word to the device."""
        note = self._note(Event.STORE_FAILED, reason=reason)
        return [note, *(effect for effect in self._end("the disk failed") if not isinstance(effect, Note))]

    # -- steps

    @property
    def _current_ask(self) -> Asked:
        if self._asked is None:
            raise AssertionError(f"nothing was asked for in state {self.state.value}")
        return self._asked

    @property
    def _current(self) -> Transfer:
        if self.transfer is None:
            raise AssertionError(f"no transfer in state {self.state.value}")
        return self.transfer

    def _must_be(self, state: State) -> None:
        if self.state is not state:
            raise AssertionError(f"the store answered in state {self.state.value}, not {state.value}")

    def _refusal(self, transfer: Transfer) -> str:
        size_bytes, options = transfer.size_bytes, self._options
        if size_bytes == 0:
            return "START says the file has 0 bytes"
        of_kind = {
            Kind.PHOTO: ("max-photo-size", options.max_photo_size),
            Kind.VIDEO: ("max-video-size", options.max_video_size),
        }
        limits = [("max-file-size", options.max_file_size)]
        kind = format_of(transfer.device_path).kind
        for name, most_bytes in [*limits, of_kind[kind]] if kind else limits:
            if size_bytes > most_bytes:
                return f"START says {size_bytes} bytes, more than {name} {most_bytes}"
        return ""

    def _note(self, event: Event, **fields: object) -> Note:
        return Note(event, fields, self.state)

    def _status_note(self, status: Status) -> Note:
        return self._note(Event.DEVICE_STATUS, code=status.code, meaning=status.meaning)

    def _open(self, compare: bool) -> Effects:
        transfer = self._current
        self.state = State.OPENING
        return [
            Open(
                transfer.device_path,
                transfer.size_bytes,
                transfer.start_crc,
                compare,
                transfer.in_packets,
                transfer.qualifier,
            )
        ]

    def _resume(self) -> Effects:
        """Ask for the file from where it stands; every RESUME beyond the first counts as one more attempt."""
        enough = "" if self.state is State.OPENING else self._patience.resync()
        enough = enough or self._patience.resume()
        if enough:
            return self._give_up(enough)
        self.state, self._resumed = State.AWAIT_SYNC, True
        return [DropUntilSync(), Send(Resume(self._current.resume_offset))]

    def _ask_again(self, reason: str) -> Effects:
        offset_bytes = self._current.resume_bytes
        return [self._note(Event.DATA_REFUSED, reason=reason, offset=offset_bytes), *self._resume()]

    def _count_resync(self) -> Effects:
        enough = self._patience.resync()
        return self._give_up(enough) if enough else []

    def _give_up(self, reason: str) -> Effects:
        return [self._note(Event.SESSION_GIVEN_UP, reason=reason), *self._end_stuck(reason)]

    def _end_stuck(self, reason: str) -> Effects:
        """End over what was asked for."""
        self._note_stuck()
        return self._end(reason)

    def _note_stuck(self) -> None:
        """Remember what was asked for; if none of it came, it shall not stand in the way of what else there is."""
        if self._asked and not (self.transfer and self.transfer.taken):
            self.stuck_on = self._asked.offer

    def _let_go(self) -> Effects:
        """Park the file under way, if any."""
        transfer = self.transfer
        if transfer is None or self.state not in _WITH_PART:
            return []
        self.transfer = None
        return [
            self._note(Event.FILE_PARKED, device_path=shown(transfer.device_path), held=transfer.held_bytes),
            Park(),
        ]

    def _close(self, reason: str) -> Effects:
        """Say CLOSE and end; where data was asked for that is not acknowledged, end without a word."""
        return self._end(reason) if self._resumed else [Send(Close()), *self._end(reason)]

    def _end(self, reason: str, abort: bool = False) -> Effects:
        if self.state is State.ENDED:
            return []
        parked = self._let_go()
        self.state = State.ENDED
        return [*parked, End(reason, abort)]


def shown(device_path: bytes) -> str:
    """Return a path as text for the log."""
    return device_path.decode("utf-8", "backslashreplace")
