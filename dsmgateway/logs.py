"""How log events look: one line of text, or one line of JSON, an event; whatever a device put into its fields.

Events of ours carry ``event`` (their name) and ``fields``, see `dsmgateway.events`; all others (Twisted's own) are
shown by their message. Knows nothing of where the lines go: see `dsmgateway.tap`.
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Protocol

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure
from zope.interface import implementer

from dsmgateway.escape import one_line

#: What `log-level` says, in Twisted's terms; it has no trace, that goes out as debug.
LEVELS: Mapping[str, Any] = {
    "critical": LogLevel.critical,
    "error": LogLevel.error,
    "warn": LogLevel.warn,
    "info": LogLevel.info,
    "debug": LogLevel.debug,
    "trace": LogLevel.debug,
}
#: A text that needs no quotes: nothing in it could be taken for the end of the value.
_BARE = re.compile(r"[^\s\"'=\\]+")
#: One in ASCII that needs no escapes either, as nearly all are.
_AS_IT_IS = re.compile(r"[!#-&(-<>-\[\]-~]+")
_AS_JSON = json.JSONEncoder(ensure_ascii=False).encode
#: Names in a JSON line that are never a field's.
_OWN_NAMES = frozenset({"time", "level", "event"})

#: Which of several processes an event comes from.
_WORKER = "dsmgateway_worker"
#: An event that has this is a line already, made by another process with the same settings.
LINE = "dsmgateway_line"

Formatter = Callable[[LogEvent], str]


class Stream(Protocol):
    """Where lines go."""

    def write(self, text: str, /) -> object:
        """Take one line, with its newline."""

    def flush(self) -> object:
        """Let it go out."""


def _plain(value: object) -> Any:
    """``value`` in terms that JSON has."""
    if type(value) is str or type(value) is int:
        return value
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case bytes() | bytearray() | memoryview():
            return bytes(value).decode("utf-8", "backslashreplace")
        case Mapping():
            return {str(key): _plain(one) for key, one in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_plain(one) for one in value]
        case _:
            return str(value)


def _shown(value: object) -> str:
    if type(value) is str and _AS_IT_IS.fullmatch(value):
        return value
    if type(value) is int:
        return str(value)
    plain = _plain(value)
    if not isinstance(plain, str):
        return one_line(_AS_JSON(plain))
    if _BARE.fullmatch(plain):
        return one_line(plain)
    quoted = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{one_line(quoted)}"'


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    """``2026-11-22T12:16:38``, which many lines have in common."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def _time(event: LogEvent) -> float:
    return float(event.get("log_time", 0.0))


@lru_cache(maxsize=256)
def _name(name: str) -> str:
    """The name of a field, of which there are few."""
    return one_line(name)


def _level(event: LogEvent) -> str:
    return str(event.get("log_level", LogLevel.info).name)


def _fields(event: LogEvent) -> Mapping[str, object]:
    fields = event.get("fields")
    return fields if type(fields) is dict or isinstance(fields, Mapping) else {}


def _failure(event: LogEvent) -> Failure | None:
    """The failure an event is about; Twisted's older events have it under another name."""
    failure = event.get("log_failure", event.get("failure"))
    return failure if isinstance(failure, Failure) else None


def _traceback(event: LogEvent) -> str | None:
    failure = _failure(event)
    return None if failure is None else failure.getTraceback()


def _namespace(event: LogEvent) -> str:
    namespace = str(event.get("log_namespace", "-"))
    return "twisted" if namespace == "log_legacy" else namespace


def _message(event: LogEvent) -> str:
    """The message of an event that is not ours; without the traceback that Twisted's older events repeat in it."""
    message = formatEvent(event)
    failure = _failure(event)
    if failure is None:
        return message
    return message.partition("\n")[0] or f"{type(failure.value).__name__}: {failure.getErrorMessage()}"


def text_line(event: LogEvent) -> str:
    """``2026-11-22T12:16:38Z info file.stored imei=350000000000006 size=4096`` and, below it, indented, a traceback."""
    parts = [f"{_second(int(_time(event)))}Z", _level(event)]
    if "event" in event:
        parts.append(one_line(str(event["event"])))
        parts += [f"{_name(name)}={_shown(value)}" for name, value in _fields(event).items()]
    else:
        parts.append(f"{one_line(_namespace(event))}: {one_line(_message(event))}")
    lines = [" ".join(parts)]
    if _WORKER in event:
        lines[0] += f" worker={event[_WORKER]}"
    traceback = _traceback(event)
    if traceback is not None:
        lines += [f"    {one_line(line)}" for line in traceback.rstrip("\n").split("\n")]
    return "\n".join(lines) + "\n"


def json_line(event: LogEvent) -> str:
    """One JSON object: ``time`` (ISO 8601, UTC, milliseconds), ``level``, ``event`` and all its fields.

    An event that is not ours has ``event`` "log", ``namespace`` and ``message``; one with a failure has ``traceback``.
    """
    milliseconds = int(_time(event) * 1000)
    line: dict[str, object] = {
        "time": f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z",
        "level": _level(event),
        "event": str(event.get("event", "log")),
    }
    if "event" in event:
        fields = _fields(event).items()
        line |= {f"{name}_" if name in _OWN_NAMES else name: _plain(value) for name, value in fields}
    else:
        line |= {"namespace": _namespace(event), "message": _message(event)}
    if _WORKER in event:
        line["worker"] = event[_WORKER]
    traceback = _traceback(event)
    if traceback is not None:
        line["traceback"] = traceback
    return json.dumps(line) + "\n"


FORMATTERS: Mapping[str, Formatter] = {"text": text_line, "json": json_line}


@implementer(ILogObserver)
class LineObserver:
    """Writes each event of ``level`` or above as one piece, whichever thread it comes from.

    While a reactor runs, what its thread logs below a warning is gathered and written at the end of the reactor's turn:
    where thousands of cameras are served, a line would cost less than to write it.
    """

    def __init__(self, stream: Stream, log_format: str, level: str, worker: int | None = None) -> None:
        """``log_format`` and ``level`` as in `Settings`; ``worker`` is the number of this one of several processes."""
        self._stream = stream
        self._worker = worker
        self._format = FORMATTERS[log_format]
        self._level = LEVELS[level]
        # Reentrant: a signal or a finalizer may log while this thread is writing.
        self._lock = threading.RLock()
        self._gathered: list[str] = []
        self._reactor: Any = None
        self._reactor_thread = 0

    def __call__(self, event: LogEvent) -> None:
        """Write one event, now or at the end of the reactor's turn."""
        line = event.get(LINE) or self._line(event)
        if not line:
            return
        with self._lock:
            self._gathered.append(line)
            if self._reactor is None or not self._can_wait(event):
                self.flush()
            elif len(self._gathered) == 1:
                self._reactor.callLater(0, self.flush)

    def gather(self, reactor: Any) -> None:
        """Gather from now on until ``reactor`` (IReactorCore, IReactorTime) stops; to be called in its thread."""
        self._reactor, self._reactor_thread = reactor, threading.get_ident()
        reactor.addSystemEventTrigger("before", "shutdown", self._gather_no_more)

    def flush(self) -> None:
        """Write what was gathered."""
        with self._lock:
            text, self._gathered = "".join(self._gathered), []
            if text:
                encoding = getattr(self._stream, "encoding", None) or "utf-8"
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
                self._stream.flush()

    def _can_wait(self, event: LogEvent) -> bool:
        level = event.get("log_level", LogLevel.info)
        return level < LogLevel.warn and threading.get_ident() == self._reactor_thread

    def _gather_no_more(self) -> None:
        self._reactor = None
        self.flush()

    def _line(self, event: LogEvent) -> str:
        """The line of an event, empty where it is not important enough."""
        if event.get("log_level", LogLevel.info) < self._level:
            return ""
        return self._format(event if self._worker is None else {**event, _WORKER: self._worker})
