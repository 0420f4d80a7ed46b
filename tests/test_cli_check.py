"""The command ``dsmgateway check`` as an operator meets it, on data folders that the real store made."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import content
from running import DSMGATEWAY, environment

from dsmgateway.check_command import MEANINGS
from dsmgateway.cli import main
from dsmgateway.errors import StoreError
from dsmgateway.store import FileStore, NoRoom, Offered
from dsmgateway.store.check import State

IMEI = "356917000000013"


def run(*arguments: str) -> Result:
    """Run ``dsmgateway check`` in this process."""
    return CliRunner().invoke(main, ["check", *arguments])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with two finished files and one that is half received."""
    store = FileStore(tmp_path / "data")
    store.start(86400.0)
    for name in (b"a", b"b"):
        upload = store.open(Offered(IMEI, b"dsm/picture/%b.jpg" % name, 5000, 0), "10.0.0.7:40112")
        upload.write(0, [content(5000, ord(name))])
        store.finish([(upload, {})])
    half = store.open(Offered(IMEI, b"dsm/picture/c.jpg", 9000, 0), "10.0.0.7:40112")
    half.write(0, [content(3000)])
    half.park()
    store.stop()
    return tmp_path / "data"


def media(data: Path, stem: str, ending: str = ".jpg") -> Path:
    """The finished file that was ``stem`` on the device, or its sidecar."""
    (path,) = (path for path in (data / "media").rglob(f"*{ending}") if f"_dsm-{stem}_" in path.name)
    return path


def test_a_good_folder_is_told_in_one_line(data: Path) -> None:
    result = run(str(data))
    room, summary = result.stdout.splitlines()
    assert (result.exit_code, summary) == (0, "3 files: 2 ok, 1 resumable; all is well")
    words = r"[0-9.]+ GiB free, of which unfinished files still need 5.9 KiB; no gateway is running here"
    assert re.fullmatch(words, room)


@pytest.mark.parametrize(
    ("free_bytes", "shown"), [(999, "999 bytes"), (1024, "1.0 KiB"), (5 << 20, "5.0 MiB"), (12_300 << 20, "12.0 GiB")]
)
def test_room_is_told_in_a_unit_that_can_be_read(
    data: Path, monkeypatch: pytest.MonkeyPatch, free_bytes: int, shown: str
) -> None:
    monkeypatch.setattr("dsmgateway.store.files.Disk.free_bytes", lambda disk, path: free_bytes)
    assert run(str(data)).stdout.startswith(f"{shown} free, of which")


def test_a_gateway_that_runs_is_told(data: Path) -> None:
    store = FileStore(data)
    store.start(86400.0)
    assert "; a gateway is running here\n" in run(str(data)).stdout
    assert json.loads(run(str(data), "--json").stdout.splitlines()[-1])["running"] is True
    store.stop()


def test_a_gateway_that_takes_no_new_files_is_told(data: Path) -> None:
    """It shows it by locks on bytes of the lock file, which is all that a bad disk allows."""
    store = FileStore(data, min_free_bytes=1 << 62)
    store.start(86400.0)
    with pytest.raises(NoRoom):
        store.open(Offered(IMEI, b"dsm/picture/d.jpg", 9000, 0), "10.0.0.7:40112")
    store.volume.failed(StoreError("fsync: Input/output error"))
    command = [*DSMGATEWAY, "check", str(data)]
    said = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60).stdout
    assert (
        "a gateway is running here; its disk is failing, so it takes no new files;"
        " the last new file was turned away for lack of room\n" in said
    )
    store.stop()
    said = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60).stdout
    assert "no gateway is running here\n" in said


def test_what_a_damaged_part_needs_is_not_known(data: Path) -> None:
    (journal,) = (data / "spool").glob("*.journal")
    journal.write_text("damaged")
    assert "still need 0 bytes;" in run(str(data)).stdout


def test_free_space_that_cannot_be_asked_for_is_one_line_and_exit_code_2(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(disk: object, path: Path) -> int:
        raise StoreError(f"ask for free space of {path}: Input/output error")

    monkeypatch.setattr("dsmgateway.store.files.Disk.free_bytes", fail)
    result = run(str(data))
    assert (result.exit_code, result.stderr) == (2, f"Error: ask for free space of {data}: Input/output error\n")


def test_all_rows_can_be_shown(data: Path) -> None:
    result = run(str(data), "--all")
    assert result.exit_code == 0
    assert f"{media(data, 'a').relative_to(data)}" in result.stdout
    assert "resumable at 2048   3000  spool/" in result.stdout
    assert "resumable: goes on where it stands when the device comes back\n" in result.stdout


def test_a_changed_file_is_found_and_the_others_are_not_shown(data: Path) -> None:
    path = media(data, "a")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    result = run(str(data))
    assert result.exit_code == 1
    assert f"sha256 differs   5000  {path.relative_to(data)}" in result.stdout
    assert "_dsm-b_" not in result.stdout
    assert result.stdout.endswith("3 files: 1 ok, 1 resumable, 1 sha256 differs; 1 need a look\n")


def test_every_kind_of_trouble_has_its_row_and_its_meaning(data: Path) -> None:
    media(data, "a", ".json").write_text("{")
    media(data, "b").unlink()
    (data / "media" / "notes.txt").write_text("mine")
    (data / "spool" / "aside" / "x.1.part").write_bytes(b"1")
    result = run(str(data))
    assert result.exit_code == 1
    for state in (State.BAD_SIDECAR, State.MISSING_FILE, State.NOT_OURS, State.SET_ASIDE):
        assert f"{state.value}: {MEANINGS[state]}\n" in result.stdout


def test_every_state_has_a_meaning() -> None:
    assert set(MEANINGS) == set(State)


def test_json_is_a_row_a_line_and_the_counts(data: Path) -> None:
    media(data, "b", ".json").unlink()
    result = run(str(data), "--json")
    *rows, counts = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 1
    free_bytes = counts.pop("free")
    assert counts == {
        "files": 3,
        "states": {"ok": 1, "missing sidecar": 1, "resumable": 1},
        "good": False,
        "unfinished": 1,
        "missing": 6000,
        "running": False,
        "failing": False,
        "full": False,
    }
    assert free_bytes > 1 << 20
    assert {row["state"]: row["good"] for row in rows} == {"ok": True, "missing sidecar": False, "resumable": True}
    (part,) = (row for row in rows if row["kind"] == "part")
    assert (part["offset"], part["size"], part["missing"]) == (2048, 3000, 6000)


def test_names_that_others_put_there_cannot_play_with_the_terminal(data: Path) -> None:
    (data / "media" / "\x1b[2J\u202ex").write_text("")
    result = run(str(data))
    assert "media/\\x1b[2J\\u202ex" in result.stdout


def test_a_path_stays_in_one_piece_in_a_pipe(data: Path) -> None:
    path = data / "media" / ("deep" * 50)
    path.write_text("")
    assert str(path.relative_to(data)) in run(str(data)).stdout


def test_an_empty_data_folder_is_right(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.start(86400.0)
    store.stop()
    assert re.fullmatch(r"[0-9.]+ GiB free; no gateway is running here\nno files\n", run(str(tmp_path)).stdout)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_what_is_no_data_folder_is_one_line_and_exit_code_2(tmp_path: Path, options: list[str]) -> None:
    result = run(str(tmp_path), *options)
    complaint = f"Error: {tmp_path}: no data folder, it has neither media/ nor spool/\n"
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", complaint)


def test_what_cannot_be_read_is_one_line_and_exit_code_2(data: Path) -> None:
    (data / "spool").rename(data / "other")
    (data / "spool").write_text("")
    result = run(str(data))
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1


def test_the_check_changes_nothing(data: Path) -> None:
    def everything() -> dict[str, tuple[int, int]]:
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in data.rglob("*")}

    before = everything()
    run(str(data))
    assert everything() == before


def test_progress_is_shown_on_a_terminal_only(data: Path) -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [*DSMGATEWAY, "check", str(data)],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=environment(TERM="xterm"),
        check=False,
    )
    os.close(theirs)
    assert b"3 files" in os.read(ours, 65536)
    os.close(ours)
    assert done.stdout.endswith(b"\n3 files: 2 ok, 1 resumable; all is well\n")
    quiet = subprocess.run([*DSMGATEWAY, "check", str(data)], capture_output=True, env=environment(), check=False)
    assert quiet.stderr == b""
