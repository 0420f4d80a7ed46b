"""The pages in docs/ say what the code does."""

from __future__ import annotations

import ast
import importlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from conftest import IDLE, IMEI, METADATA, PATH, init, load_vectors
from running import environment, eventually, free_port, running_gateway, simulated
from twisted.internet.task import Clock
from videos import as_delivered, clip, ffmpeg

from dsmgateway import commands as c
from dsmgateway.cli import main
from dsmgateway.effects import End
from dsmgateway.events import Event
from dsmgateway.factory import CameraFactory
from dsmgateway.families import Camera, Kind
from dsmgateway.frames import DataRun
from dsmgateway.limits import LINGER_S
from dsmgateway.metadata import Metadata
from dsmgateway.metadata_layouts import PARTS, Layout
from dsmgateway.reception import SessionOptions
from dsmgateway.session import Session
from dsmgateway.settings import OPTIONS, Settings
from dsmgateway.states import LEGAL, State

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PACKAGE = ROOT / "dsmgateway"
MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def page(name: str) -> str:
    """The text of a page."""
    return (DOCS / name).read_text(encoding="utf-8")


def _is_of_docs(module: ModuleType) -> bool:
    return Path(getattr(module, "__file__", None) or "/").parent == DOCS


@pytest.fixture
def docs(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """docs/build.py, imported as it finds its neighbours when it is run."""
    monkeypatch.syspath_prepend(str(DOCS))
    yield importlib.import_module("build")
    for name in [name for name, module in sys.modules.items() if _is_of_docs(module)]:
        sys.modules.pop(name, None)


# -- pages that are made


def build(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``python docs/build.py``, from elsewhere."""
    command = [sys.executable, "-W", "error", str(DOCS / "build.py"), *arguments]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, env=environment(), check=False)


def test_the_pages_that_are_made_are_up_to_date() -> None:
    done = build("--check")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_page_that_is_not_up_to_date_is_told_in_one_line_and_written_anew(tmp_path: Path) -> None:
    for name in ("logs.md", "metadata.md", "protocol.md", "states.md"):
        shutil.copy(DOCS / name, tmp_path)
    (tmp_path / "logs.md").write_text("old")
    done = build("--check", "--folder", str(tmp_path))
    complaint = "not what the code says: logs.md, states.svg (python docs/build.py writes them)\n"
    assert (done.returncode, done.stderr) == (1, complaint)
    assert build("--folder", str(tmp_path)).returncode == 0
    assert (tmp_path / "states.svg").read_text() == page("states.svg")
    assert build("--check", "--folder", str(tmp_path)).returncode == 0


# -- metadata


def section(title: str) -> str:
    """The text of a section of the page on metadata."""
    return page("metadata.md").partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_page_on_metadata_has_every_name_in_a_sidecar_and_no_other(tmp_path: Path) -> None:
    """A file with an identifier has all of them."""
    with running_gateway(tmp_path) as gateway:
        simulated(gateway, "--family=dualcam", "--size=2k")
        (sidecar,) = gateway.sidecars()
    assert re.findall(r"^\| `(\w+)` \|", section("The sidecar"), re.MULTILINE) == list(sidecar)
    assert sidecar["metadata"] and None not in [sidecar[name] for name in ("qualifier", "camera", "kind")]


def test_the_page_on_metadata_has_every_name_and_no_other(docs: ModuleType) -> None:
    shown = [example.read().to_json(docs.metadata_page.RECEIVED_S) for example in docs.metadata_page.EXAMPLES.values()]
    assert set(docs.metadata_page.NAMES) == {name for known in shown for name in known}
    assert {known["layout"] for known in shown} == {layout.value for layout in Layout}
    values = {name: 0 for name in Metadata.__dataclass_fields__ if name not in ("raw", "layout", "kind", "camera")}
    whole = Metadata(b"", Layout.DSM, kind=Kind.PHOTO, camera=Camera.DSM, **values)  # type: ignore[arg-type]
    assert set(whole.to_json(0)) == set(docs.metadata_page.NAMES)


def test_the_examples_of_metadata_have_every_field_of_their_layout(docs: ModuleType) -> None:
    for layout, example in docs.metadata_page.EXAMPLES.items():
        if layout in PARTS:
            assert len(example.body) == sum(part.size_bytes for part in PARTS[layout])


def test_the_page_on_metadata_says_which_layouts_have_a_name(docs: ModuleType) -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", section("What the camera said"), re.MULTILINE))
    assert set(rows) == set(docs.metadata_page.NAMES)
    assert {name for name, layouts in rows.items() if layouts == "all"} >= {"raw", "time", "trigger", "camera"}
    assert (rows["events"], rows["driver"], rows["trigger_time"]) == ("`dsm`", "`dsm`, `json`", "`dualcam`")


def test_the_examples_on_the_page_are_what_the_gateway_reads(docs: ModuleType) -> None:
    shown = [json.loads(text) for kind, text in _BLOCK.findall(page("metadata.md")) if kind == "json"]
    read = [example.read().to_json(docs.metadata_page.RECEIVED_S) for example in docs.metadata_page.EXAMPLES.values()]
    assert shown == read
    assert [bytes.fromhex(known["raw"]) for known in shown] == [
        example.body for example in docs.metadata_page.EXAMPLES.values()
    ]


# -- states


def test_the_diagram_has_an_arrow_for_every_transition_and_no_other(docs: ModuleType) -> None:
    drawn = Counter(
        (arrow.get("data-from"), arrow.get("data-to"), arrow.get("data-kind"))
        for arrow in ElementTree.fromstring(page("states.svg")).iter()
        if arrow.get("data-from")
    )
    commands = {
        (start.name, end.name, "command") for start, legal in LEGAL.items() for ends in legal.values() for end in ends
    }
    others = {(one.start.name, one.end.name, one.cause.value) for one in docs.DRIVEN}
    # What keeps a state is written into its box.
    assert drawn == Counter(edge for edge in commands | others if edge[0] != edge[1])


def test_no_words_of_the_diagram_lie_over_others(docs: ModuleType) -> None:
    spans = []
    for text in ElementTree.fromstring(page("states.svg")).iter("{http://www.w3.org/2000/svg}text"):
        # A generous guess at the width of 12 px Helvetica.
        x, y, width = int(text.get("x", 0)), int(text.get("y", 0)), len(text.text or "") * 6.2
        left = x - {"middle": width / 2, "end": width}.get(text.get("text-anchor", ""), 0)
        spans.append((left, left + width, y - 9, y + 3, text.text))
    for one, other in itertools.combinations(spans, 2):
        apart = one[1] <= other[0] or other[1] <= one[0] or one[3] <= other[2] or other[3] <= one[2]
        assert apart, (one[4], other[4])


def session_in(state: State, repeat: bool = True) -> Session:
    """A session that a device and the store have brought into this state."""
    session = Session(SessionOptions(repeat=repeat, resume_tries=3))
    steps: list[tuple[State, Any]] = [
        (State.AWAIT_INIT, lambda: session.receive(init())),
        (State.AWAIT_PATH, lambda: session.receive(c.Path(PATH))),
        (State.AWAIT_METADATA, lambda: session.receive(c.MetadataResponse(METADATA))),
        (State.AWAIT_START, lambda: session.receive(c.Start(100, 0))),
        (State.OPENING, lambda: session.opened(0, False)),
        (State.AWAIT_SYNC, lambda: session.receive(c.Sync(0))),
        (State.RECEIVING, lambda: session.receive(DataRun(bytes(100), 1))),
        (State.STORING, lambda: session.stored("media/x", 100, False)),
        (State.AWAIT_NEXT_INIT, lambda: session.receive(init(IDLE))),
    ]
    for before, step in steps:
        if session.state is state:
            break
        assert session.state is before or session.state is State.FAREWELL
        step()
    assert session.state is state
    return session


def timed_out(state: State) -> Iterator[State]:
    """Where the time limit of this state leads, time after time, as long as it goes on from this state."""
    session = session_in(state, repeat=state is not State.FAREWELL)
    for _ in range(10):
        session.timed_out()
        yield session.state
        if state is State.RECEIVING and session.state is State.AWAIT_SYNC:
            session.receive(c.Sync(0))
        if session.state is not state:
            return


def answered(state: State) -> Iterator[State]:
    """Where the store's answers lead from this state."""
    for repeat in (True, False):
        for answer in (
            lambda session: session.opened(0, False),
            lambda session: session.stored("media/x", 100, False),
            lambda session: session.turned_away("full"),
            lambda session: session.differs(),
            lambda session: session.other_file(),
        ):
            session = session_in(state, repeat)
            try:
                effects = answer(session)
            except AssertionError:
                continue
            if effects:  # else it came too late to matter
                yield session.state
    failed = session_in(state)
    failed.store_failed("full")
    yield failed.state


LIVE = [state for state in State if state is not State.ENDED]


@pytest.mark.parametrize("state", LIVE)
def test_what_time_does_is_what_the_page_says(docs: ModuleType, state: State) -> None:
    said = {one.end for one in docs.DRIVEN if one.start is state and one.cause.value == "time"}
    assert set(timed_out(state)) == said


@pytest.mark.parametrize("state", [State.OPENING, State.AWAIT_SYNC, State.RECEIVING, State.STORING])
def test_what_the_store_does_is_what_the_page_says(docs: ModuleType, state: State) -> None:
    said = {one.end for one in docs.DRIVEN if one.start is state and one.cause.value == "store"}
    assert set(answered(state)) == said


def test_only_states_with_a_file_open_are_said_to_hear_of_the_store(docs: ModuleType) -> None:
    said = {one.start for one in docs.DRIVEN if one.cause.value == "store"}
    assert said == {State.OPENING, State.AWAIT_SYNC, State.RECEIVING, State.STORING}


def test_the_time_limits_on_the_page_are_those_of_the_gateway(docs: ModuleType) -> None:
    names = {option.field_name: option.name for option in OPTIONS if option.field_name.endswith("_timeout")}
    seconds = {name: float(number) for number, name in enumerate(names, 1)}
    limits_s = CameraFactory(Settings(**seconds), None, Clock()).time_limits.states_s  # type: ignore[arg-type]
    by_seconds = {value: names[name] for name, value in seconds.items()}
    for state in LIVE:
        assert docs.ABOUT[state].limit == by_seconds[limits_s[state]], state
    assert limits_s[State.ENDED] == LINGER_S == 5
    assert not docs.ABOUT[State.ENDED].limit


def test_the_session_ends_as_the_page_says() -> None:
    for state in LIVE:
        for end in (Session.stop, Session.taken_over):
            session = session_in(state, repeat=state is not State.FAREWELL)
            effects = end(session)
            assert session.state is State.ENDED and isinstance(effects[-1], End)


# -- architecture

_MODULE = re.compile(r"(?<![\w/])[a-z_]+(?:/[a-z_]+)*\.py\b")
#: Modules in the order of the page.
ORDER = [line.split()[0] for line in page("architecture.md").splitlines() if re.match(r"    [\w/]+\.py ", line)]


def test_the_architecture_lists_every_module_once_and_no_other() -> None:
    assert sorted(ORDER) == MODULES


def test_the_architecture_speaks_of_no_module_that_is_not_there() -> None:
    assert set(_MODULE.findall(page("architecture.md"))) <= set(MODULES)


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_what_stands_above_it_on_the_page(module: str) -> None:
    above = set(ORDER[: ORDER.index(module)])
    for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dsmgateway."):
            path = str(node.module).removeprefix("dsmgateway.").replace(".", "/")
            whole = (PACKAGE / path).is_dir()
            needed = {one for one in MODULES if one.startswith(f"{path}/")} if whole else {f"{path}.py"}
            assert needed <= above, f"{module} imports {needed - above}"


# -- operating

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_OPERATING = page("operating.md")
COMMANDS = [
    line.removeprefix("$ ")
    for kind, text in _BLOCK.findall(_OPERATING)
    if kind == "console"
    for line in text.splitlines()
]


def test_the_events_that_the_operator_is_told_of_exist() -> None:
    labels = {event.label for event in Event}
    families = {label.partition(".")[0] for label in labels}
    named = {name for name in re.findall(r"`([a-z]+\.[a-z_]+)`", _OPERATING) if name.partition(".")[0] in families}
    assert named - {"gateway.log"} <= labels
    warned = {event.label for event in Event if event.level != "info" and event.fields[:1] == ("imei",)}
    assert warned - named == {"data.beyond", "trace.failed"}


PAGES = sorted([*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"], key=str)


def _anchors(page: Path) -> set[str]:
    """What a heading is called in a link."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        found = page.parent / name if name else page
        assert found.exists(), target
        assert not anchor or anchor in _anchors(found), target


def test_the_settings_that_the_promise_rests_on_exist() -> None:
    named = set(re.findall(r"`([a-z]+(?:-[a-z]+)+|families)`", page("promise.md")))
    assert "part-max-age" in named
    assert named <= {option.name for option in OPTIONS}


def test_the_codes_that_the_operator_is_told_of_mean_what_the_protocol_says() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", _OPERATING, re.MULTILINE)
    assert len(rows) > 10
    assert all(c.STATUS_NAMES[int(code)] == meaning for code, meaning in rows)


def test_the_options_that_the_operator_is_told_of_exist() -> None:
    known = {f"--{option.name}" for option in OPTIONS} | {"--nodaemon", "--pidfile", "--logfile", "--umask"}
    known |= {name for command in main.commands.values() for option in command.params for name in option.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z]+[a-z0-9-]*", _OPERATING)) <= known


def test_the_trace_that_the_operator_is_shown_is_what_decode_prints() -> None:
    (vector,) = (vector for vector in load_vectors() if vector["name"] == "dsm_bad_crc")
    now_ms, lines = 0, []
    for step in vector["connections"][0]["steps"]:
        now_ms += step.get("after_ms", 1)
        if "hex" in step:
            lines.append(f"{now_ms / 1000:.3f} {step['from']} {step['hex']}\n")
    decoded = CliRunner().invoke(main, ["decode", "-"], input="".join(lines)).stdout.splitlines()
    (shown,) = (text.splitlines() for kind, text in _BLOCK.findall(_OPERATING) if kind == "text")
    at = decoded.index(shown[0])
    assert decoded[at : at + len(shown)] == shown


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder in which the commands of the page can be given, and commands of ours first on the path."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, source in (("twistd", "twisted.scripts.twistd import run"), ("dsmgateway", "dsmgateway.cli import main")):
        call = source.split()[-1]
        (commands / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "from {source}; {call}()" "$@"\n')
        (commands / name).chmod(0o755)
    # The journal of a machine that runs systemd: whatever the gateway has written.
    (commands / "journalctl").write_text('#!/bin/sh\n[ "$*" = "-u dsmgateway" ] && cat gateway.out\n')
    (commands / "journalctl").chmod(0o755)
    (commands / "ffmpeg").symlink_to(ffmpeg())
    return tmp_path


def deliver_video(place: Path) -> None:
    """Have a DualCam's video in the data folder, under a name as the store gives it."""
    folder = place / "dsm-data" / "media" / str(IMEI) / "2026" / "11" / "22"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "20261122T121702413Z_dualcam-front-video_3de5db91.h265").write_bytes(as_delivered(clip()))


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until somebody listens."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the gateway did not start")


def say_init(port: int) -> None:
    """Be a device that has nothing to send."""
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(init(IDLE).encode())
        assert connection.recv(100) == c.Close().encode()
        assert connection.recv(100) == b""


def wait_for_ends(place: Path, connections: int) -> None:
    """Wait until the log says of so many connections that they ended; the traces of those are whole, too."""
    log = place / "gateway.out"
    eventually("connections end", lambda: log.read_text().count("device.disconnected") == connections)


def test_every_command_that_the_operator_is_given_runs(place: Path) -> None:
    """A gateway is started as the page says; then every other command of the page is given beside it, in order."""
    (start,) = (command for command in COMMANDS if command.startswith("twistd "))
    port = free_port()
    settings = environment(DSMGATEWAY_PORT=str(port), PATH=f"{place / 'bin'}:{os.environ['PATH']}")
    with (place / "gateway.out").open("wb") as output:
        gateway = subprocess.Popen(["sh", "-c", f"exec {start}"], cwd=place, stdout=output, stderr=output, env=settings)
    try:
        wait_for_port(port, gateway)
        say_init(port)
        wait_for_ends(place, 2)
        for command in COMMANDS:
            if command is start:
                continue
            if "export" in command:
                deliver_video(place)
            given = command.replace("127.0.0.1:10014", f"127.0.0.1:{port}")
            done = subprocess.run(
                ["sh", "-c", given], cwd=place, env=settings, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            assert done.stdout or ">" in command, command
            if "simulate" in command:
                wait_for_ends(place, 3)
            if "printf" in command:
                assert done.stdout.startswith("trace/")
            if "export" in command:
                assert done.stdout.startswith("wrote 20261122T121702413Z_dualcam-front-video_3de5db91.mp4 (")
            if "decode" in command:
                assert f"IMEI {IMEI}, offers nothing" in done.stdout
    finally:
        gateway.send_signal(signal.SIGTERM)
        gateway.wait(20)
    assert gateway.returncode == 0
