"""Log lines: one event is one line, whatever a device put into it."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest
import txaio
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.python import log as legacy_log
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from dsmgateway.events import Event, log_event
from dsmgateway.logs import FORMATTERS, LINE, LineObserver, json_line, text_line

txaio.use_twisted()

WHEN = 1795349798.123


def event(name: str = "file.stored", **fields: object) -> dict[str, Any]:
    return {"log_time": WHEN, "log_level": LogLevel.info, "event": name, "fields": fields}


def foreign(message: str, **more: object) -> dict[str, Any]:
    return {"log_time": WHEN, "log_level": LogLevel.warn, "log_namespace": "twisted.web", "log_format": message} | more


def failure() -> Failure:
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        return Failure()


def test_an_event_is_its_time_level_name_and_fields() -> None:
    line = text_line(event(imei="350000000000006", size=4096, duplicate=False, ratio=0.5))
    assert line == "2026-11-22T12:16:38Z info file.stored imei=350000000000006 size=4096 duplicate=false ratio=0.5\n"


def test_an_event_in_json_has_all_its_fields_beside_time_level_and_name() -> None:
    line = json.loads(json_line(event(imei="350000000000006", size=4096, ports=("1", "2"))))
    assert line == {
        "time": "2026-11-22T12:16:38.123Z",
        "level": "info",
        "event": "file.stored",
        "imei": "350000000000006",
        "size": 4096,
        "ports": ["1", "2"],
    }


def test_a_field_cannot_pose_as_time_level_or_event() -> None:
    line = json.loads(json_line(event(time="never", level="x", event="y")))
    assert (line["level"], line["event"]) == ("info", "file.stored")
    assert (line["time_"], line["level_"], line["event_"]) == ("never", "x", "y")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("dsm/picture/231020/231452.jpg", "dsm/picture/231020/231452.jpg"),
        ("", '""'),
        ("two words", '"two words"'),
        ('a"b', r'"a\"b"'),
        ("a=b", '"a=b"'),
        ("C:\\x", r'"C:\\x"'),
        ("line\nlevel=error", r'"line\nlevel=error"'),
        ("\x1b[31m", r"\x1b[31m"),
        ("gpj\u202eexe", r"gpj\u202eexe"),
        ("\u2028", r'"\u2028"'),
        ("Žluťoučký", "Žluťoučký"),
        (b"dsm\xff", r'"dsm\\xff"'),
        ({"lat": 54.7}, '{"lat": 54.7}'),
        (float("nan"), "nan"),
        (Path("/srv"), "/srv"),
        (None, "null"),
    ],
)
def test_values_are_shown_so_that_none_can_be_taken_for_something_else(value: object, shown: str) -> None:
    assert text_line(event(x=value)).rstrip("\n").partition("x=")[2] == shown


@given(st.dictionaries(st.sampled_from(["path", "driver"]), st.text() | st.binary() | st.floats()))
def test_any_fields_make_exactly_one_printable_line_in_either_format(fields: dict[str, object]) -> None:
    for line in (text_line(event(**fields)), json_line(event(**fields))):
        assert line.endswith("\n")
        assert line[:-1].isprintable()
    assert json.loads(json_line(event(**fields)))["event"] == "file.stored"


@given(st.text())
def test_any_message_of_others_makes_one_printable_line(message: str) -> None:
    entry = foreign("{text}", text=message)
    assert text_line(entry)[:-1].isprintable()
    assert json.loads(json_line(entry))["message"] == message


def test_an_event_of_others_is_shown_by_its_message() -> None:
    assert text_line(foreign("went {how}", how="well")) == "2026-11-22T12:16:38Z warn twisted.web: went well\n"
    assert json.loads(json_line(foreign("went {how}", how="well"))) == {
        "time": "2026-11-22T12:16:38.123Z",
        "level": "warn",
        "event": "log",
        "namespace": "twisted.web",
        "message": "went well",
    }


def test_a_traceback_follows_in_indented_lines_as_text_and_within_the_line_as_json() -> None:
    for entry in (event(log_failure=None) | {"log_failure": failure()}, foreign("oh", log_failure=failure())):
        first, *rest = text_line(entry).rstrip("\n").split("\n")
        assert first.startswith("2026-11-22T12:16:38Z ")
        assert rest[0] == "    Traceback (most recent call last):"
        assert all(line.startswith("    ") for line in rest)
        assert json_line(entry).count("\n") == 1
        assert "ValueError: first\nsecond" in json.loads(json_line(entry))["traceback"]


def test_a_failure_without_a_message_is_named() -> None:
    entry = foreign("", log_failure=failure()) | {"log_format": None}
    assert text_line(entry).startswith("2026-11-22T12:16:38Z warn twisted.web: ValueError: first\\nsecond\n")


class ObserverTests(SynchronousTestCase):
    """The observer between Twisted's logging and a stream."""

    def observer(self, log_format: str = "text", level: str = "info") -> tuple[io.StringIO, LogPublisher]:
        stream = io.StringIO()
        return stream, LogPublisher(LineObserver(stream, log_format, level))

    def test_events_below_the_level_are_left_out(self) -> None:
        """Level "warn" shows warnings and errors, but no information."""
        stream, publisher = self.observer(level="warn")
        log = Logger(namespace="n", observer=publisher)
        for level in LogLevel.iterconstants():
            log.emit(level, "{which}", which=level.name)
        shown = [line.partition(" ")[2] for line in stream.getvalue().splitlines()]
        self.assertEqual(shown, ["warn n: warn", "error n: error", "critical n: critical"])

    def test_every_event_of_the_catalogue_can_be_written_in_every_format(self) -> None:
        """What `log_event` emits comes out under its name, with its fields."""
        for log_format in FORMATTERS:
            stream, publisher = self.observer(log_format, "trace")
            log = txaio.make_logger(observer=publisher)
            for one in Event:
                log_event(log, one, imei="350000000000006", left_out=None)
            lines = stream.getvalue().splitlines()
            self.assertEqual(len(lines), len(Event))
            for one, line in zip(Event, lines, strict=True):
                self.assertIn(one.label, line)
                self.assertIn("350000000000006", line)
                self.assertNotIn("left_out", line)

    def test_an_error_in_the_old_logging_shows_its_traceback_once(self) -> None:
        """Twisted's older log.err repeats the traceback in its message; the line has it only once."""
        stream, publisher = self.observer()
        old = legacy_log.LogPublisher(publishPublisher=publisher)
        old.msg(failure=failure(), why="It broke", isError=1)
        self.assertEqual(stream.getvalue().count("Traceback"), 1)
        self.assertTrue(stream.getvalue().split("\n")[0].endswith(" twisted: It broke"))

    def test_a_stream_that_lacks_a_character_gets_it_escaped(self) -> None:
        """An ASCII terminal neither fails nor loses the line."""
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding="ascii")
        LineObserver(stream, "text", "info")(event(driver="Ž"))
        self.assertEqual(raw.getvalue().decode(), "2026-11-22T12:16:38Z info file.stored driver=\\u017d\n")


class Writes(io.StringIO):
    """A stream that counts."""

    count = 0

    def write(self, text: str, /) -> int:
        self.count += 1
        return super().write(text)


def gathering() -> tuple[Writes, MemoryReactorClock, LineObserver]:
    stream, reactor = Writes(), MemoryReactorClock()
    observer = LineObserver(stream, "text", "info")
    observer.gather(reactor)
    return stream, reactor, observer


def test_lines_of_one_turn_of_the_reactor_are_written_in_one_go() -> None:
    """In their order, and the next turn writes only its own."""
    stream, reactor, observer = gathering()
    for number in range(3):
        observer(event(path=f"{number}"))
    assert stream.getvalue() == ""
    reactor.advance(0)
    assert [line.rpartition("=")[2] for line in stream.getvalue().splitlines()] == ["0", "1", "2"]
    assert stream.count == 1
    observer(event(path="3"))
    reactor.advance(0)
    assert stream.getvalue().endswith("path=3\n")
    assert stream.count == 2


def test_a_warning_does_not_wait_nor_does_what_was_before_it() -> None:
    stream, reactor, observer = gathering()
    observer(event(path="before"))
    observer(event(path="now") | {"log_level": LogLevel.warn})
    assert [line.rpartition("=")[2] for line in stream.getvalue().splitlines()] == ["before", "now"]
    reactor.advance(0)
    assert stream.count == 1


def test_a_line_of_another_thread_does_not_wait_for_the_reactor_which_may_hang() -> None:
    stream, _, observer = gathering()
    thread = threading.Thread(target=lambda: observer(event(path="elsewhere")))
    thread.start()
    thread.join()
    assert stream.getvalue().endswith("path=elsewhere\n")


def test_nothing_waits_once_the_reactor_stops() -> None:
    stream, reactor, observer = gathering()
    observer(event(path="last"))
    for call, _, _ in reactor.triggers["before"]["shutdown"]:
        call()
    assert stream.getvalue().endswith("path=last\n")
    observer(event(path="after"))
    assert stream.getvalue().endswith("path=after\n")


def test_a_line_of_one_of_several_processes_says_which() -> None:
    """At the end of its line, where no field can be taken for it."""
    for log_format in ("text", "json"):
        stream = io.StringIO()
        observer = LineObserver(stream, log_format, "info", 3)
        observer(event(path="x worker=9"))
        observer(foreign("oh", log_failure=failure()))
        lines = stream.getvalue().splitlines()
        if log_format == "json":
            assert [json.loads(line)["worker"] for line in lines] == [3, 3]
        else:
            assert lines[0].endswith(' path="x worker=9" worker=3')
            assert lines[1].endswith(" oh worker=3") and lines[2].startswith("    Traceback")


def test_a_line_of_another_process_goes_into_the_log_as_it_is() -> None:
    """Whatever this one would write: its level was looked at there."""
    stream = io.StringIO()
    LineObserver(stream, "json", "critical")({"log_level": LogLevel.debug, LINE: "a line\n    and more\n"})
    assert stream.getvalue() == "a line\n    and more\n"
