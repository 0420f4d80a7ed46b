"""One camera's conversation: what every input leads to, in every state (the table is in `dsmgateway.states`).

Inputs are the device's events, the store's answers, time limits, takeover and the end of the connection; each returns
the effects it asks for, in order. No clock, no socket, no disk, no Twisted: who performs the effects owns those. While
the store is at work (OPENING, STORING) no device event may be given in, see `Session.reads`.

The promise is kept here: REPEAT_INIT or STATUS 0 for a file is an effect of `Session.stored` and of nothing else, and a
session that ends with a file under way parks it and ends without CLOSE, so that the camera keeps its copy.
"""

from __future__ import annotations

from dataclasses import dataclass

from dsmgateway.asked import Asked, in_order
from dsmgateway.commands import (
    Close,
    FileRequest,
    Init,
    MetadataResponse,
    Offer,
    Path,
    PathRequest,
    RepeatInit,
    Resume,
    Start,
    Status,
    Sync,
)
from dsmgateway.effects import (
    Append,
    Claim,
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
from dsmgateway.errors import UnexpectedCommand
from dsmgateway.events import Event
from dsmgateway.families import Family, Kind, format_of
from dsmgateway.frames import DataRun
from dsmgateway.framing import Damaged, DeviceEvent, StepFound
from dsmgateway.patience import Patience
from dsmgateway.states import LEGAL, State, spelt
from dsmgateway.transfer import SyncVerdict, Transfer

#: STARTs that each tell of another file than the one before, for one request: it cannot be helped by going on.
MAX_OTHER_STARTS = 3
#: INITs on one connection with no file data between them: a device that begins again and again gets nowhere.
MAX_FRUITLESS_INITS = 10
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


class Session:
    """A conversation from the connection's first byte to its end."""

    __slots__ = (
        "_asked",
        "_fruitless_inits",
        "_noted_late",
        "_offers",
        "_options",
        "_patience",
        "files_stored",
        "imei",
        "last_resort",
        "state",
        "stuck_on",
        "transfer",
    )

    def __init__(self, options: SessionOptions) -> None:
        self._options = options
        #: What the last INIT offered and was not asked for yet, and what was asked for last.
        self._offers: tuple[Offer, ...] = ()
        self._asked: Asked | None = None
        self._patience = Patience(options.resume_tries, options.max_resyncs)
        self._noted_late: frozenset[type] = frozenset()
        self._fruitless_inits = 0
        self.state = State.AWAIT_INIT
        self.imei: str | None = None
        self.transfer: Transfer | None = None
        self.files_stored = 0
        #: What to ask for only when nothing else is offered, to be set before INIT is given in.
        self.last_resort = Offer(0)
        #: What the session ended over without getting any of it.
        self.stuck_on = Offer(0)

    @property
    def reads(self) -> bool:
        """Whether device events may be given in: not while the store is at work nor after the end."""
        return bool(LEGAL[self.state])

    # -- what the device sends

    def receive(self, event: DeviceEvent) -> Effects:
        """Take what the device sent; raises `UnexpectedCommand`, and then nothing has changed."""
        if type(event) not in LEGAL[self.state]:
            raise UnexpectedCommand(f"{spelt(type(event))} is not legal in state {self.state.value}")
        if self.state is State.FAREWELL:
            return []
        if self.state is State.AWAIT_NEXT_INIT and not isinstance(event, Init):
            return self._after_whole(event)
        match event:
            case Init():
                return self._init(event)
            case Path():
                return self._took_path(event)
            case MetadataResponse():
                return self._took_metadata(event)
            case Start():
                return self._took_start(event)
            case Sync():
                return self._took_sync(event)
            case DataRun():
                return self._took_data(event)
            case StepFound():
                return self._found_step(event)
            case Damaged():
                return self._took_damage(event)
            case Status():
                return self._took_status(event)
            case _:
                raise AssertionError(f"{spelt(type(event))} is legal in {self.state.value}, but nobody takes it")

    def _after_whole(self, event: DeviceEvent) -> Effects:
        """A file that is whole stays whole, whatever the device sends after its last byte."""
        if type(event) in self._noted_late:
            return []
        self._noted_late |= {type(event)}
        if isinstance(event, Status):
            return [self._status_note(event)]
        return [self._note(Event.DATA_BEYOND, command=spelt(type(event)))]

    def _init(self, init: Init) -> Effects:
        if self.imei not in (None, init.imei_digits):
            raise UnexpectedCommand(f"INIT of device {init.imei_digits} on a connection of device {self.imei}")
        self._fruitless_inits += 1
        if self._fruitless_inits > MAX_FRUITLESS_INITS:
            return self._give_up(f"{MAX_FRUITLESS_INITS} INITs brought no file data")
        effects: Effects = []
        parked = self._let_go()
        if self.state not in (State.AWAIT_INIT, State.AWAIT_NEXT_INIT):
            effects += [self._note(Event.DEVICE_BEGAN_AGAIN), *parked]
        event = Event.CONNECTED if self.imei is None else Event.OFFERS
        if self.imei is None:
            self.imei = init.imei_digits
            effects.append(Claim(self.imei))
        self._asked, self._noted_late = None, frozenset()
        self._offers = tuple(in_order(init.offers, self.last_resort))
        names = [offer.name for offer in init.offers]
        unknown = f"{init.unknown_settings:08x}" if init.unknown_settings else None
        effects.append(self._note(event, protocol_id=init.protocol_id, offers=names, unknown_settings=unknown))
        effects += self._ask_next(init.protocol_id)
        if self._asked:
            return effects
        if parked:
            return [*effects, *self._end("the device began again without a file")]
        return [*effects, *self._close("nothing to send")]

    def _ask_next(self, protocol_id: int) -> Effects:
        """Ask for the first of what is offered and accepted, if there is any."""
        self._asked = None
        effects: Effects = []
        while self._offers and self._asked is None:
            asked, self._offers = Asked.by(self._offers[0], protocol_id), self._offers[1:]
            if asked.has_path:
                self._asked, self.state = asked, State.AWAIT_PATH
                effects.append(Send(PathRequest()))
            elif asked.family in self._options.families:
                self._asked = asked
                effects += self._request_metadata()
            else:
                effects.append(self._refused(asked))
        return effects

    def _pass_over(self, asked: Asked, why: Note, reason: str) -> Effects:
        """Ask for what else is offered, or say CLOSE: no file is under way."""
        effects = [why, *self._ask_next(asked.protocol_id)]
        return effects if self._asked else [*effects, *self._close(reason)]

    def _refused(self, asked: Asked) -> Note:
        return self._note(Event.OFFER_REFUSED, device_path=_shown(asked.device_path), family=asked.family.value)

    def _took_path(self, path: Path) -> Effects:
        asked = self._current_ask
        if self.state is not State.AWAIT_PATH:
            return self._same_path(asked, path)
        asked.path = path.path
        if not asked.device_path:
            return self._pass_over(asked, self._note(Event.NO_FILE), "empty path")
        if asked.family not in self._options.families:
            return self._pass_over(asked, self._refused(asked), f"family {asked.family.value} is not accepted")
        return self._request_metadata()

    def _same_path(self, asked: Asked, path: Path) -> Effects:
        """Ignore a PATH that comes twice, as it does when INIT came twice."""
        if asked.has_path and path.path != asked.path:
            raise UnexpectedCommand(f"PATH of another file in state {self.state.value}")
        return []

    def _request_metadata(self) -> Effects:
        """Ask for metadata, also where it is not wanted if nothing else tells which file an identifier names."""
        if not self._options.metadata and self._current_ask.has_path:
            return self._request_file()
        self.state = State.AWAIT_METADATA
        return [Send(self._current_ask.metadata_request)]

    def _took_metadata(self, response: MetadataResponse) -> Effects:
        """Keep what is said before START; what comes later may be about another file, and is better than nothing."""
        asked = self._current_ask
        if self.state is State.AWAIT_PATH:
            return []  # it was asked for before the device began again
        if self.transfer is None or asked.metadata_body is None:
            asked.metadata_body = response.body
        return self._request_file() if self.state is State.AWAIT_METADATA else []

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
        if verdict is SyncVerdict.NOT_THE_LAST_PACKET:
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
        note = self._note(Event.IN_PACKETS, device_path=_shown(transfer.device_path), packets=transfer.size)
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
            device_path=_shown(transfer.device_path),
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

    def stored(self, path: str, size_bytes: int, duplicate: bool) -> Effects:
        """The file is durable (STORING, or ENDED): the only place from where the device is told so."""
        if self.state is not State.ENDED:
            self._must_be(State.STORING)
        transfer = self._current
        self.transfer = None
        self.files_stored += 1
        event = Event.FILE_KNOWN if duplicate else Event.FILE_STORED
        note = self._note(
            event,
            device_path=_shown(transfer.device_path),
            size=size_bytes,
            path=path,
            resyncs=self._patience.resyncs,
        )
        if self.state is State.ENDED:
            return [note]
        if self._options.repeat:
            self.state = State.AWAIT_NEXT_INIT
            return [note, Send(RepeatInit())]
        self.state = State.FAREWELL
        return [note, Send(Status(0))]

    def differs(self) -> Effects:
        """The last packet is not that of the stored file (STORING, or ENDED): take the file whole."""
        if self.state is State.ENDED:
            return []
        self._must_be(State.STORING)
        note = self._note(Event.COMPARISON_FAILED, device_path=_shown(self._current.device_path))
        return [note, *self._open(compare=False)]

    def other_file(self) -> Effects:
        """What is held is not what the device sends under the same identifier: take the file from its start.

        That can come late, for a file that was let go since; then nothing is to be done.
        """
        if self.state not in (*_WITH_PART, State.STORING):
            return []
        transfer = self._current
        note = self._note(Event.ANOTHER_FILE, device_path=_shown(transfer.device_path), qualifier=transfer.qualifier)
        return [note, *self._open(compare=False)]

    def store_failed(self, reason: str) -> Effects:
        """The disk failed, in any state, also after the end (parking): end without a word to the device."""
        note = self._note(Event.STORE_FAILED, reason=reason)
        return [note, *(effect for effect in self._end("the disk failed") if not isinstance(effect, Note))]

    # -- time and the connection

    def timed_out(self) -> Effects:
        """The state's time limit has passed."""
        match self.state:
            case State.AWAIT_METADATA:
                return [self._note(Event.METADATA_MISSING), *self._request_file()]
            case State.AWAIT_SYNC | State.RECEIVING:
                note = self._note(Event.DATA_SILENT, offset=self._current.resume_bytes)
                return [note, *self._resume()]
            case State.OPENING | State.STORING:
                return [self._note(Event.STORE_SLOW), *self._end("the disk did not answer in time")]
            case State.AWAIT_NEXT_INIT | State.FAREWELL:
                return self._end("nothing more came")
            case State.ENDED:
                return []
            case _:
                return [self._note(Event.SESSION_SILENT), *self._end_stuck("silence")]

    def broke_protocol(self, reason: str) -> Effects:
        """The device sent what is no command, or none that is legal here."""
        note = self._note(Event.PEER_ERROR, reason=reason)
        told = self.state in (State.AWAIT_NEXT_INIT, State.FAREWELL)  # an abort would take back what is on its way
        return [note, *self._end(reason, abort=not told)]

    def taken_over(self) -> Effects:
        """The device has opened a newer connection."""
        return [self._note(Event.TAKEN_OVER), *self._end("taken over by a newer connection")]

    def stop(self, reason: str = "the gateway stops") -> Effects:
        """The gateway stops, or will not have the device any longer."""
        return self._end(reason)

    def lost(self) -> Effects:
        """The connection is gone; keep what it brought."""
        return [effect for effect in self._end("connection lost") if not isinstance(effect, End)]

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
            Kind.PHOTO: ("max_photo_size", options.max_photo_size),
            Kind.VIDEO: ("max_video_size", options.max_video_size),
        }
        limits = [("max_file_size", options.max_file_size)]
        kind = format_of(transfer.device_path).kind
        for name, most_bytes in [*limits, of_kind[kind]] if kind else limits:
            if size_bytes > most_bytes:
                return f"START says {size_bytes} bytes, more than {name} {most_bytes}"
        return ""

    def _note(self, event: Event, **fields: object) -> Note:
        return Note(event, fields, self.state)

    def _status_note(self, status: Status) -> Note:
        return self._note(Event.DEVICE_STATUS, code=status.code, meaning=status.meaning)

    def _request_file(self) -> Effects:
        self.state = State.AWAIT_START
        return [Send(FileRequest(self._current_ask.path))]

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
        self.state = State.AWAIT_SYNC
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
        """End over what was asked for; if none of it came, it shall not stand in the way of what else there is."""
        if self._asked and not (self.transfer and self.transfer.taken):
            self.stuck_on = self._asked.offer
        return self._end(reason)

    def _let_go(self) -> Effects:
        """Park the file under way, if any."""
        transfer = self.transfer
        if transfer is None or self.state not in _WITH_PART:
            return []
        self.transfer = None
        return [
            self._note(Event.FILE_PARKED, device_path=_shown(transfer.device_path), held=transfer.held_bytes),
            Park(),
        ]

    def _close(self, reason: str) -> Effects:
        """Say CLOSE; only where no file is under way."""
        return [Send(Close()), *self._end(reason)]

    def _end(self, reason: str, abort: bool = False) -> Effects:
        if self.state is State.ENDED:
            return []
        parked = self._let_go()
        self.state = State.ENDED
        return [*parked, End(reason, abort)]


def _shown(device_path: bytes) -> str:
    return device_path.decode("utf-8", "backslashreplace")
