"""The order of system calls for one file, as the kernel saw them: durable first, acknowledged then."""

from __future__ import annotations

import re
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import IDLE, content, init
from faults import Call, calls, quoted, traced
from hand_camera import HandCamera, Picture
from running import children, eventually, running_gateway

from dsmgateway import commands as c
from dsmgateway.turns import MOST_AT_ONCE

WRITES = ("write", "writev", "pwritev", "pwritev2", "pwrite64")
SYNCS = ("fsync", "fdatasync")
RENAMES = ("rename", "renameat", "renameat2")
LINKS = ("link", "linkat")
SENDS = ("sendto", "sendmsg", "write", "writev")
WATCHED = ",".join(dict.fromkeys(WRITES + SYNCS + RENAMES + LINKS + SENDS))


class Trace:
    """The calls of one transfer."""

    def __init__(self, path: Path) -> None:
        self.calls = [call for call in calls(path) if " = -1 " not in call.text and "= ?" not in call.text]

    def of(self, names: tuple[str, ...], *parts: str) -> list[Call]:
        """The calls with one of these names whose arguments have all these parts."""
        return [call for call in self.calls if call.name in names and all(part in call.text for part in parts)]

    def only(self, names: tuple[str, ...], *parts: str) -> Call:
        """The one call of this kind."""
        (call,) = self.of(names, *parts)
        return call

    def on(self, names: tuple[str, ...], path: Path) -> list[Call]:
        """The calls with one of these names on a descriptor of this path."""
        return [call for call in self.of(names) if call.text.partition("<")[2].startswith(f"{path}>")]

    def sent(self) -> list[tuple[bytes, Call]]:
        """What went out on TCP sockets, a call each."""
        found = [call for call in self.of(SENDS) if call.text.partition("<")[2].startswith(("socket:", "TCP:"))]
        return [(quoted(call.text), call) for call in found]


@pytest.mark.parametrize(("after_file", "acknowledgement"), [("repeat", "0009"), ("complete", "0005")])
def test_a_file_is_durable_before_it_is_acknowledged(tmp_path: Path, after_file: str, acknowledgement: str) -> None:
    """All written < fsync(part) < rename < fsync(day folder) < commit of the index < acknowledgement; none before."""
    picture, trace_path = Picture(content(60_000)), tmp_path / "trace"
    with running_gateway(tmp_path, f"--after-file={after_file}", "--checkpoint-bytes=16KiB") as gateway:
        with (
            traced(gateway.pid, trace_path, "-y", "-s", "64", "-e", f"trace={WATCHED}"),
            HandCamera(gateway.port, picture) as camera,
        ):
            camera.begin()
            camera.say(*picture.frames())
            camera.hear(c.RepeatInit if after_file == "repeat" else c.Status)
            if after_file == "repeat":
                camera.say(init(IDLE))
                camera.hear(c.Close)
        (media,) = gateway.media()
        spool, tree, index = gateway.data / "spool", gateway.data / "media", gateway.data / "index.sqlite3-wal"
        assert gateway.sidecars()
    trace = Trace(trace_path)
    part, sidecar, day = spool / f"{picture.key}.part", spool / f"{picture.key}.sidecar", media.parent

    written = trace.on(WRITES, part)
    checkpoints = trace.on(("fdatasync",), part)
    sealed = trace.on(("fsync",), part)[-1]
    renamed = trace.only(RENAMES, f'"{part}"', f'"{media}"')
    linked = trace.only(LINKS, f'"{sidecar}"', f'"{media.with_suffix(".json")}"')
    recorded = trace.on(("fsync",), sidecar)[-1]
    spool_syncs = trace.on(("fsync",), spool)
    day_synced = trace.on(SYNCS, day)[-1]
    committed = trace.on(SYNCS, index)[-1]

    assert checkpoints, "checkpoints were asked for"
    for checkpoint in checkpoints:
        journal = next(call for call in trace.on(WRITES, part.with_suffix(".journal")) if checkpoint < call)
        assert any(journal < call for call in trace.on(("fdatasync",), part.with_suffix(".journal")))
    assert written and all(call < sealed for call in written), "bytes were written after the last fsync"
    assert trace.on(WRITES, sidecar)[-1] < recorded < renamed
    assert any(recorded < call < renamed for call in spool_syncs), "the record of the finish has no durable name"
    assert sealed < renamed < day_synced < committed
    assert linked < day_synced
    assert any(linked < call < committed for call in spool_syncs)
    for above in [folder for folder in day.parents if folder.is_relative_to(tree)]:
        assert any(renamed < call < committed for call in trace.on(SYNCS, above)), f"{above} is new and was not synced"
    index_written = trace.on(WRITES, index)
    assert index_written and all(call < committed for call in index_written), "the index was written after its sync"

    end = next(call for data, call in trace.sent() if data.hex().startswith(acknowledgement))
    assert committed < end
    assert not [call for call in trace.of(SYNCS + RENAMES + LINKS) if end < call], "something came after the promise"
    ends = [data.hex()[:4] for data, call in trace.sent() if not end < call and call != end]
    assert ends == ["000c", "000a", "0008", "0002"], "the acknowledgement was not the first word after RESUME"
    steps = sorted([sealed, recorded, renamed, linked, day_synced, committed, end], key=lambda call: call.begin)
    print("", *(f"{call.name}({call.text[:150]}" for call in steps), sep="\n")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_turn_of_the_reactor_takes_few_of_many_connections(tmp_path: Path, workers: int) -> None:
    """However many there are: timers and the store's answers would have to wait for all of them."""
    trace_path = tmp_path / "trace"
    with running_gateway(tmp_path, f"--workers={workers}") as gateway, ExitStack() as cameras:
        for _ in range(100 * workers):
            cameras.enter_context(socket.create_connection(("127.0.0.1", gateway.port)))
        pid = gateway.pid if workers == 1 else children(gateway.pid)[0]
        eventually("it has taken them", lambda: len(list(Path(f"/proc/{pid}/fd").iterdir())) > 2 * MOST_AT_ONCE)
        with traced(pid, trace_path, "-e", "trace=epoll_wait"):
            eventually("it turns, at its sweep at the latest", lambda: trace_path.read_text().count(" = ") > 3)
    asked = [re.search(r"\], (\d+), -?\d+\) += \d", call.text) for call in calls(trace_path)]
    assert {int(one[1]) for one in asked if one} == {MOST_AT_ONCE}, "Twisted does not ask as it did: see turns.py"
