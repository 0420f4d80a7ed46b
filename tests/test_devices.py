"""The database of devices, the list of the known ones on the disk, the thread that looks at both, and the command."""

from __future__ import annotations

import json
import os
import queue
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from dsmgateway.admission import APPROVE, KNOWN, Admission, Roll, Sighting
from dsmgateway.cli import main
from dsmgateway.devices import APPROVED, BLOCKED, FILE_NAME, UNKNOWN, Device, Devices
from dsmgateway.errors import ConfigError, StoreError
from dsmgateway.lookout import KnownFile, Lookout, Watcher
from dsmgateway.settings import Settings

ONE, TWO, THREE = "356917000000013", "356917000000021", "356917000000039"


def seen(first_s: float, last_s: float | None = None, count: int = 1, address: str = "192.0.2.1") -> Sighting:
    return Sighting(first_s, first_s if last_s is None else last_s, address, count)


@pytest.fixture
def book(tmp_path: Path) -> Devices:
    return Devices(tmp_path / FILE_NAME, create=True, max_unknown=3)


# -- the database


def test_a_device_that_was_refused_is_written_down_and_counted(book: Devices) -> None:
    book.write_down({ONE: seen(10), TWO: seen(20, 30, 5)})
    book.write_down({ONE: seen(40, 41, 2, "198.51.100.1")})
    assert book.rows() == [
        Device(ONE, UNKNOWN, "", 10, 41, 3, "198.51.100.1"),
        Device(TWO, UNKNOWN, "", 20, 30, 5, "192.0.2.1"),
    ]


def test_unknown_devices_are_bounded_and_the_one_longest_away_goes(book: Devices) -> None:
    book.decide([ONE], APPROVED)
    book.write_down({f"{number:015d}": seen(number) for number in range(1, 6)})
    assert [row.imei for row in book.rows() if row.state == UNKNOWN] == [f"{number:015d}" for number in (5, 4, 3)]
    book.write_down({f"{3:015d}": seen(9), f"{7:015d}": seen(8)})
    assert [row.imei for row in book.rows() if row.state == UNKNOWN] == [f"{number:015d}" for number in (3, 7, 5)]
    assert ONE in [row.imei for row in book.rows()]


def test_a_flood_from_few_addresses_pushes_out_its_own(tmp_path: Path) -> None:
    book = Devices(tmp_path / FILE_NAME, create=True, max_unknown=20)
    book.write_down({ONE: seen(1, address="198.51.100.1"), TWO: seen(2, address="198.51.100.1")})
    for at in range(3, 60):
        book.write_down({f"{at:014d}{number}": seen(at, address=f"192.0.2.{number % 2}") for number in range(9)})
    rows = book.rows()
    assert len(rows) == 20
    assert {ONE, TWO} <= {row.imei for row in rows}
    assert {row.last_seen_s for row in rows if row.address == "192.0.2.0"} == {58, 59}


def test_what_is_decided_stays_and_is_told_once(book: Devices) -> None:
    assert book.roll() == Roll()
    assert book.roll() is None
    other = Devices(book.path, create=False)
    other.decide([ONE, TWO], APPROVED)
    other.decide([THREE], BLOCKED, "stolen")
    assert book.roll() == Roll(frozenset({ONE, TWO}), frozenset({THREE}))
    assert book.roll() is None
    book.write_down({THREE: seen(5)})
    assert [(row.state, row.refused, row.name) for row in book.rows() if row.imei == THREE] == [(BLOCKED, 1, "stolen")]
    other.forget([ONE, THREE])
    assert book.roll() == Roll(frozenset({TWO}))
    other.close()


def test_a_name_stays_unless_another_is_given(book: Devices) -> None:
    book.decide([ONE], APPROVED, "Bus 12")
    book.decide([ONE], BLOCKED)
    assert book.rows()[0].name == "Bus 12"
    book.decide([ONE], BLOCKED, "")
    assert book.rows()[0].name == ""


def test_a_device_that_was_approved_before_it_came_has_times_once_it_came(book: Devices) -> None:
    book.decide([ONE], BLOCKED)
    assert book.rows() == [Device(ONE, BLOCKED, "", None, None, 0, "")]
    book.write_down({ONE: seen(7, 8)})
    assert book.rows() == [Device(ONE, BLOCKED, "", 7, 8, 1, "192.0.2.1")]


def test_where_there_is_no_database_none_is_made_unless_it_is_wanted(tmp_path: Path) -> None:
    book = Devices(tmp_path / FILE_NAME, create=False)
    book.write_down({ONE: seen(1)})
    book.forget([ONE])
    assert (book.roll(), book.roll(), book.rows()) == (Roll(), None, [])
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_comes_goes_or_is_replaced_is_followed(tmp_path: Path) -> None:
    book, path = Devices(tmp_path / FILE_NAME, create=False), tmp_path / FILE_NAME
    assert book.roll() == Roll()
    Devices(path, create=True).decide([ONE], BLOCKED)
    assert book.roll() == Roll(blocked=frozenset({ONE}))
    Devices(tmp_path / "new", create=True).decide([TWO], BLOCKED)
    (tmp_path / "new").rename(path)
    assert book.roll() == Roll(blocked=frozenset({TWO}))
    path.unlink()
    assert book.roll() == Roll()
    assert book.roll() is None


def test_a_state_that_somebody_wrote_by_hand_is_an_error_and_shown(tmp_path: Path) -> None:
    book = Devices(tmp_path / FILE_NAME, create=True)
    book.decide([ONE, TWO], BLOCKED)
    with sqlite3.connect(book.path) as database:
        database.execute("UPDATE devices SET state = 'Blocked' WHERE imei = ?", [TWO])
    database.close()
    with pytest.raises(StoreError, match=f"{TWO} is neither approved nor blocked: 'Blocked'$"):
        book.roll()
    done = run(tmp_path)
    assert done.exit_code == 0
    assert f"{TWO}  Blocked" in done.stdout
    assert run(tmp_path, "--block", TWO).exit_code == 0
    assert book.roll() == Roll(blocked=frozenset({ONE, TWO}))


def test_nobody_else_can_read_it(book: Devices) -> None:
    before = os.umask(0)
    try:
        book.rows()
    finally:
        os.umask(before)
    assert stat.S_IMODE(book.path.stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_makes_belongs_to_the_gateway(tmp_path: Path) -> None:
    """An operator who blocks a device as root would else keep the gateway from reading that, and from starting."""
    os.chown(tmp_path, 65534, 65533)
    assert run(tmp_path, "--block", ONE).exit_code == 0
    status = (tmp_path / FILE_NAME).stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (65534, 65533, 0o640)


def test_a_file_that_is_no_database_or_of_another_version_is_an_error_and_can_be_repaired(book: Devices) -> None:
    book.path.write_bytes(b"not a database, but long enough to be taken for one" * 50)
    for call in (book.roll, book.rows, lambda: book.write_down({ONE: seen(1)})):
        with pytest.raises(StoreError, match=r"^database of devices .*: file is not a database$"):
            call()
    book.path.unlink()
    with sqlite3.connect(book.path) as database:
        database.execute("PRAGMA user_version = 7")
    database.close()
    with pytest.raises(StoreError, match="made by another version of the gateway"):
        book.roll()
    book.path.unlink()
    assert book.roll() == Roll()


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r": No such file or directory$"):
        Devices(tmp_path / "none" / FILE_NAME, create=True).roll()


def test_a_link_to_nowhere_is_an_error(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=r": File exists$"):
        Devices(tmp_path / FILE_NAME, create=True).roll()
    assert not (tmp_path / "elsewhere").exists()


def test_a_commit_that_fails_leaves_nothing_behind(book: Devices) -> None:
    book.write_down({ONE: seen(1)})
    with pytest.raises(StoreError):
        book.write_down({TWO: seen(2), THREE: seen(object())})  # type: ignore[arg-type]
    assert [row.imei for row in book.rows()] == [ONE]


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["see", "approve", "block", "forget"]),
        st.lists(st.integers(1, 9), min_size=1, max_size=5, unique=True),
    ),
    max_size=12,
)


@given(_STEPS)
def test_whatever_happens_unknown_devices_are_bounded_and_decisions_are_kept(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, list[int]]]
) -> None:
    book = Devices(tmp_path_factory.mktemp("devices") / FILE_NAME, create=True, max_unknown=3)
    decided: dict[str, str] = {}
    for at, (step, numbers) in enumerate(steps):
        imeis = [f"{number:015d}" for number in numbers]
        if step == "see":
            book.write_down({imei: seen(at) for imei in imeis})
        elif step == "forget":
            book.forget(imeis)
            decided = {imei: state for imei, state in decided.items() if imei not in imeis}
        else:
            state = APPROVED if step == "approve" else BLOCKED
            book.decide(imeis, state)
            decided |= dict.fromkeys(imeis, state)
        rows = book.rows()
        assert {row.imei: row.state for row in rows if row.state != UNKNOWN} == decided
        assert sum(row.state == UNKNOWN for row in rows) <= 3
        assert all(row.refused >= 0 for row in rows)
    book.close()


# -- the list on the disk


def test_a_list_that_has_changed_is_seen_once_it_is_settled(tmp_path: Path) -> None:
    path = tmp_path / "known"
    path.write_text(f"{ONE}\n")
    known = KnownFile(path)
    assert known.read() == {ONE: ""}
    assert not known.changed()
    path.write_text(f"{ONE}\n{TWO}\n")
    assert [known.changed(), known.changed()] == [False, True]
    assert list(known.read()) == [ONE, TWO]
    assert not known.changed()
    path.unlink()
    assert [known.changed(), known.changed()] == [False, True]


def test_a_list_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "known"
    path.write_text(f"{ONE}\n")
    known = KnownFile(path)
    known.read()
    for number in range(1, 9):
        path.write_text("#" * number)
        assert not known.changed()
    assert known.changed()


def test_a_list_that_cannot_be_read_is_told_with_its_path(tmp_path: Path) -> None:
    for path, problem in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError) as caught:
            KnownFile(path).read()
        assert str(caught.value) == f"known devices {path}: {problem}"


def test_a_list_that_has_become_empty_is_none_unless_it_says_so(tmp_path: Path) -> None:
    """A copy that failed leaves no byte, and would shut out everybody."""
    path = tmp_path / "known"
    path.touch()
    known = KnownFile(path)
    assert known.read() == {}
    path.write_text(f"{ONE}\n")
    assert known.read() == {ONE: ""}
    path.write_bytes(b"")
    with pytest.raises(ConfigError) as caught:
        known.read()
    problem = "empty, with 1 in it before; to let in nobody, write a comment into it"
    assert str(caught.value) == f"known devices {path}: {problem}"
    path.write_text("# nobody\n")
    assert known.read() == {}
    path.write_bytes(b"")
    assert known.read() == {}


@pytest.mark.parametrize("name", ["pipe", "/dev/zero"])
def test_a_list_that_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError) as caught:
        KnownFile(path).read()
    assert str(caught.value) == f"known devices {path}: no regular file, and so cannot be read again"


def test_a_list_that_has_become_a_pipe_does_not_end_the_looks(tmp_path: Path) -> None:
    path = tmp_path / "known"
    path.write_text(f"{ONE}\n")
    watcher = Watcher(Settings(data=tmp_path, admission=KNOWN, known_devices=path))
    watcher.first_look()
    path.unlink()
    os.mkfifo(path)
    Devices(tmp_path / FILE_NAME, create=True).decide([ONE], BLOCKED)
    first, second, third = (watcher.look({}) for _ in range(3))
    assert first.roll == Roll(blocked=frozenset({ONE}))
    assert [bool(found.list_problem) for found in (first, second, third)] == [False, True, False]
    watcher.close()


# -- the lookout


class HandThread:
    """A thread that runs when the test says so."""

    def __init__(self, *, target: Callable[[], object], name: str, daemon: bool) -> None:
        assert daemon, "a hung disk does not keep the process"

    def start(self) -> None:
        """The test does what the thread would do."""

    def join(self) -> None:
        """Nothing to wait for."""


class LookoutTests(SynchronousTestCase):
    """A lookout whose thread is the test."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.log = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)
        self.known = self.folder / "known"
        self.known.write_text(f"{ONE}\n")
        self.now = 0.0
        self.book = Devices(self.folder / "data" / FILE_NAME, create=True)
        self.addCleanup(self.book.close)

    def lookout(self, mode: str = APPROVE, known: bool = True) -> Lookout:
        settings = Settings(data=self.folder / "data", admission=mode, known_devices=self.known if known else None)
        self.admission = Admission(mode)
        self.returned: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()

        def call_in_reactor(call: Callable[..., object], *arguments: object) -> None:
            self.returned.put(lambda: call(*arguments))

        return Lookout(settings, self.admission, call_in_reactor, clock=lambda: self.now, thread=HandThread)

    def started(self, mode: str = APPROVE, known: bool = True) -> Lookout:
        lookout = self.lookout(mode, known)
        lookout.start()
        self.addCleanup(lookout._watcher.close)
        return lookout

    def step(self, lookout: Lookout) -> None:
        """What the thread does with one look, and what comes of it in the reactor thread."""
        lookout.look()
        jobs = lookout._jobs
        jobs.put(None)
        lookout.run()
        self.returned.get_nowait()()

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        return [(event["event"], event["fields"]) for event in self.log if "event" in event]

    def test_all_is_read_before_anybody_comes(self) -> None:
        """The data folder is made where it is missing."""
        (self.folder / "data").mkdir()
        self.book.decide([TWO], BLOCKED)
        self.started()
        self.assertEqual(self.admission.known, {ONE: ""})
        self.assertEqual(self.admission.roll, Roll(blocked=frozenset({TWO})))
        self.assertEqual([name for name, _ in self.events()], ["devices.known", "devices.decided"])

    def test_without_approval_nothing_is_made(self) -> None:
        """In the other modes the database is only read, if there is one."""
        lookout = self.started(KNOWN)
        self.step(lookout)
        self.assertFalse((self.folder / "data").exists())

    def test_what_is_decided_meanwhile_is_taken_over(self) -> None:
        """And said; a look that brings nothing new says nothing."""
        lookout = self.started(known=False)
        self.step(lookout)
        self.assertEqual(self.events(), [])
        self.book.decide([ONE], APPROVED)
        self.step(lookout)
        self.assertEqual(self.admission.refusal(ONE, "", 1), "")
        self.assertEqual(self.events(), [("devices.decided", {"approved": 1, "blocked": 0})])

    def test_who_was_refused_is_written_down(self) -> None:
        """Once, also when the lookout stops."""
        lookout = self.started(known=False)
        self.admission.refusal(ONE, "192.0.2.1", 5)
        self.step(lookout)
        self.step(lookout)
        self.assertEqual(self.book.rows(), [Device(ONE, UNKNOWN, "", 5, 5, 1, "192.0.2.1")])
        self.admission.refusal(ONE, "192.0.2.1", 6)
        lookout.stop()
        lookout.stop()
        lookout.look()
        lookout.run()
        self.assertEqual(self.book.rows()[0].refused, 2)

    def test_while_a_look_is_under_way_no_other_is_begun(self) -> None:
        """A disk that hangs costs the looks; nothing piles up."""
        lookout = self.started()
        for _ in range(5):
            lookout.look()
        self.assertEqual(lookout._jobs.qsize(), 1)

    def test_a_look_that_does_not_end_is_said_once_a_minute(self) -> None:
        """Nothing that is decided meanwhile is noticed, which nobody would guess."""
        lookout = self.started()
        for self.now in range(100):
            lookout.look()
        self.assertEqual(
            self.events()[1:],
            [("devices.unreadable", {"reason": f"no answer from the disk for {seconds} s"}) for seconds in (30, 90)],
        )

    def test_a_broken_list_is_said_and_the_one_before_holds(self) -> None:
        """With the line, once; a good one is taken again."""
        lookout = self.started(KNOWN)
        self.known.write_text(f"{TWO}\nnonsense\n")
        for _ in range(10):
            self.step(lookout)
        self.assertEqual(self.admission.known, {ONE: ""})
        problem = f"known devices {self.known}: line 2: 'nonsense' is not an IMEI of 15 digits"
        self.assertEqual(self.events()[1:], [("devices.unreadable", {"reason": problem})])
        self.known.write_text(f"{TWO} a name\n")
        self.step(lookout)
        self.step(lookout)
        self.assertEqual(self.admission.known, {TWO: "a name"})

    def test_a_list_that_is_still_broken_is_said_again_when_an_operator_asks(self) -> None:
        """Silence within the same minute would tell him that it has been mended."""
        lookout = self.started(KNOWN)
        self.known.write_text("nonsense\n")
        for _ in range(3):
            lookout.read_again()
            lookout._jobs.put(None)
            lookout.run()
            self.returned.get_nowait()()
            self.step(lookout)
        self.assertEqual([name for name, _ in self.events()[1:]], ["devices.unreadable"] * 3)

    def test_a_list_is_read_again_when_an_operator_asks(self) -> None:
        """At once, and though nothing seems to have changed; a question during a look is answered by the next."""
        lookout = self.started(KNOWN)
        lookout.look()
        lookout.read_again()
        lookout._jobs.put(None)
        lookout.run()
        self.returned.get_nowait()()
        self.assertEqual(len(self.events()), 1)
        self.step(lookout)
        self.step(lookout)
        self.assertEqual([name for name, _ in self.events()], ["devices.known"] * 2)

    def test_a_database_that_fails_is_said_once_a_minute_and_what_was_read_holds(self) -> None:
        """And is used again when it is good."""
        (self.folder / "data").mkdir()
        self.book.decide([TWO], BLOCKED)
        lookout = self.started(known=False)
        self.book.close()
        self.book.path.write_bytes(b"no database at all, by any means" * 99)
        for self.now in range(1, 100):
            self.step(lookout)
        self.assertEqual(self.admission.refusal(TWO, "", 1), "blocked")
        self.assertEqual([name for name, _ in self.events()[1:]], ["devices.unreadable"] * 2)
        self.book.path.unlink()
        self.step(lookout)
        self.assertEqual(self.admission.roll, Roll())

    def test_a_bug_in_a_look_is_logged_and_the_next_look_is_made(self) -> None:
        """Else nothing that is decided would ever be noticed again."""
        lookout = self.started(known=False)
        self.admission._sightings = {ONE: None}  # type: ignore[dict-item]
        self.step(lookout)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        self.book.decide([ONE], APPROVED)
        self.step(lookout)
        self.assertEqual(self.admission.refusal(ONE, "", 1), "")

    def test_what_cannot_be_read_at_the_start_is_an_error(self) -> None:
        """Nobody can be let in without knowing who may."""
        self.known.write_text("x")
        self.assertRaises(ConfigError, self.lookout(KNOWN).start)
        (self.folder / "data").write_text("in the way")
        self.assertRaises(StoreError, self.lookout(known=False).start)


# -- the command


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(main, ["devices", *map(str, arguments)])


def test_the_command_shows_a_table(tmp_path: Path) -> None:
    book = Devices(tmp_path / FILE_NAME, create=True)
    book.write_down({ONE: seen(1_700_000_000, 1_700_000_060, 3)})
    book.decide([TWO], BLOCKED, "lost [red] one")
    done = run(tmp_path)
    assert done.exit_code == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["imei", "state", "name", "first", "seen", "last", "seen", "refused", "address"]
    assert lines[1] == [ONE, "unknown", "2023-11-14T22:13:20Z", "2023-11-14T22:14:20Z", "3", "192.0.2.1"]
    assert lines[2] == [TWO, "blocked", "lost", "[red]", "one", "-", "-", "0"]


def test_the_columns_of_the_table_are_straight_whatever_is_in_them(tmp_path: Path) -> None:
    book = Devices(tmp_path / FILE_NAME, create=True)
    book.write_down({f"{number:015d}": seen(number, count=10**number) for number in range(4)})
    book.decide([ONE], APPROVED, "\u8eca\u8f1b 12")
    book.decide([TWO], BLOCKED, "turned \u202earound")
    lines = run(tmp_path).stdout.splitlines()
    assert len(lines) == 7 and r"turned \u202earound" in lines[6]
    begin, end = lines[0].index("address"), lines[0].index("refused") + len("refused")
    for line, count in zip(lines[1:5], (1000, 100, 10, 1), strict=True):
        assert line[begin:] == "192.0.2.1" and line[:end].endswith(f" {count}")
    # Two letters of this name take two places each.
    assert [line[end - 3 : end] for line in lines[5:]] == ["0", "  0"] and lines[5].endswith(" 0")


def test_a_terminal_is_shown_the_states_in_colours(tmp_path: Path) -> None:
    Devices(tmp_path / FILE_NAME, create=True).decide([TWO], BLOCKED)
    shown = CliRunner().invoke(main, ["devices", str(tmp_path)], color=True).stdout
    assert "\x1b[31m\x1b[1mblocked\x1b[0m" in shown


def test_the_command_gives_an_object_a_line(tmp_path: Path) -> None:
    Devices(tmp_path / FILE_NAME, create=True).write_down({ONE: seen(1_700_000_000), TWO: seen(5)})
    (line,) = run(tmp_path, ONE, "--json").stdout.splitlines()
    assert json.loads(line) == {
        "imei": ONE,
        "state": "unknown",
        "name": "",
        "refused": 1,
        "address": "192.0.2.1",
        "first_seen": "2023-11-14T22:13:20Z",
        "last_seen": "2023-11-14T22:13:20Z",
    }


def test_the_command_decides_and_takes_back(tmp_path: Path) -> None:
    assert run(tmp_path, "--approve", ONE, TWO).exit_code == 0
    assert run(tmp_path, "--block", TWO, "--name", "Köln 7").exit_code == 0
    book = Devices(tmp_path / FILE_NAME, create=False)
    assert book.roll() == Roll(frozenset({ONE}), frozenset({TWO}))
    assert run(tmp_path, "--forget", ONE, TWO).stdout == "no devices\n"
    assert book.roll() == Roll()


def test_the_command_warns_of_a_slip_of_the_pen(tmp_path: Path) -> None:
    done = run(tmp_path, "--approve", "356917000000014")
    assert (done.exit_code, done.stderr) == (0, "356917000000014: the check digit is wrong, is it mistyped?\n")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--approve"], "say which devices: one IMEI or more"),
        (["--block", "12"], "'12' is not an IMEI of 15 digits"),
        (["--approve", ONE, TWO, "--name", "x"], "--name goes with --approve or --block of one device"),
        (["--name", "x"], "--name goes with --approve or --block of one device"),
        (["--forget", ONE, "--name", "x"], "--name goes with --approve or --block of one device"),
        (["--approve", ONE, "--name", "a\nb"], "a name has up to 60 letters, and none that cannot be shown"),
        (["--approve", ONE, "--name", "x" * 61], "a name has up to 60 letters, and none that cannot be shown"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(tmp_path: Path, arguments: list[str], problem: str) -> None:
    done = run(tmp_path, *arguments)
    assert (done.exit_code, done.stderr) == (2, f"Error: {problem}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_data_folder_that_is_none_is_told_in_one_line(tmp_path: Path) -> None:
    done = run(tmp_path / "none")
    assert (done.exit_code, done.stderr) == (2, f"Error: {tmp_path}/none: no such folder\n")
    done = run("x" * 300)
    assert (done.exit_code, done.stderr) == (2, f"Error: {'x' * 300}: File name too long\n")
    (tmp_path / FILE_NAME).write_bytes(b"no database at all, by any means" * 99)
    done = run(tmp_path)
    assert done.exit_code == 2
    assert done.stderr == f"Error: database of devices {tmp_path / FILE_NAME}: file is not a database\n"
