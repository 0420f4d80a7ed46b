"""One camera's conversation: what every input leads to, in every state (the table is in `dsmgateway.states`).

Inputs are the device's events, the store's answers, time limits, takeover and the end of the connection; each returns
the effects it asks for, in order. No clock, no socket, no disk, no Twisted: who performs the effects owns those. While
the store is at work (OPENING, STORING) no device event may be given in, see `Session.reads`.

Here are INIT, what is offered and asked for, and how a conversation ends; files are received in
`dsmgateway.reception`. A session that ends with a file under way ends without CLOSE, so that the camera keeps its copy.
"""

from __future__ import annotations

from dsmgateway.asked import Asked, in_order
from dsmgateway.commands import (
    FileRequest,
    Init,
    MetadataResponse,
    Offer,
    Path,
    PathRequest,
    Start,
    Status,
    Sync,
)
from dsmgateway.effects import Claim, Effects, End, Note, Send
from dsmgateway.errors import UnexpectedCommand
from dsmgateway.events import Event
from dsmgateway.frames import DataRun
from dsmgateway.framing import Damaged, DeviceEvent, StepFound
from dsmgateway.reception import Reception, SessionOptions, shown
from dsmgateway.states import LEGAL, State, spelt

#: INITs on one connection with no file data between them: a device that begins again and again gets nowhere.
MAX_FRUITLESS_INITS = 10


class Session(Reception):
    """A conversation from the connection's first byte to its end."""

    __slots__ = ("_noted_late", "_offers", "imei", "last_resort")

    def __init__(self, options: SessionOptions) -> None:
        super().__init__(options)
        #: What the last INIT offered and was not asked for yet.
        self._offers: tuple[Offer, ...] = ()
        self._noted_late: frozenset[type] = frozenset()
        self.imei: str | None = None
        #: What to ask for only when nothing else is offered, to be set before INIT is given in.
        self.last_resort = Offer(0)

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
        offers = init.offers
        self._offers = in_order(offers, self.last_resort)
        names = [offer.name for offer in in_order(offers, Offer(0))]
        unknown = f"{init.unknown_settings:08x}" if init.unknown_settings else None
        if names or event is Event.CONNECTED:
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
        return self._note(Event.OFFER_REFUSED, device_path=shown(asked.device_path), family=asked.family.value)

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

    def _request_file(self) -> Effects:
        self.state = State.AWAIT_START
        return [Send(FileRequest(self._current_ask.path))]

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
