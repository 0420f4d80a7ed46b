"""The command ``dsmgateway export`` as an operator meets it, with a real ffmpeg and real H.265."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from running import DSMGATEWAY, environment, eventually
from videos import FRAMES, as_delivered, clip, codec, ffmpeg, frames

from dsmgateway.cli import main

NAME = "20261122T121702413Z_dualcam-front-video_3de5db91"
ASSUMED = (
    "no frame rate is recorded beside the file: 30 frames/s are taken, the camera's default; "
    "--frame-rate says another\n"
)

Fake = Callable[[str], str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder we are in; it has nothing but a video as it was stored."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stored").mkdir()
    (tmp_path / "stored" / f"{NAME}.h265").write_bytes(as_delivered(clip()))
    return tmp_path


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """What makes a script that stands in for ffmpeg where a real one cannot be brought to do such a thing."""

    def made(script: str) -> str:
        path = tmp_path / "stored" / "fake"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    return made


def stored(place: Path) -> Path:
    """The video."""
    return place / "stored" / f"{NAME}.h265"


def left_in(place: Path) -> list[str]:
    """What has been put into the folder."""
    return sorted(path.name for path in place.iterdir() if path.name != "stored")


def run(*arguments: str) -> Result:
    """Run ``dsmgateway export`` in this process, with the ffmpeg of the tests unless told otherwise."""
    return CliRunner().invoke(main, ["export", "--ffmpeg", ffmpeg(), *arguments])


def run_it(*arguments: str | bytes) -> subprocess.CompletedProcess[bytes]:
    """Run it as a program of its own, without any ffmpeg but the one that is said."""
    command = [*DSMGATEWAY, "export", *arguments]
    return subprocess.run(command, capture_output=True, env=environment(PATH="/nonexistent"), check=False)


def pictures(path: Path) -> list[str]:
    """The pixels of each picture."""
    return [pixels for _, pixels in frames(path)]


def times(path: Path) -> list[Fraction]:
    """When each picture is shown."""
    return [time for time, _ in frames(path)]


def evenly(rate: int) -> list[Fraction]:
    """Times at this rate."""
    return [Fraction(number, rate) for number in range(FRAMES)]


@pytest.fixture
def original(place: Path) -> list[str]:
    """The pictures as they were encoded."""
    (place / "stored" / "plain").write_bytes(clip())
    return pictures(place / "stored" / "plain")


# -- what comes out


def test_the_copy_shows_every_picture_as_it_was(place: Path, original: list[str]) -> None:
    before = stored(place).read_bytes()
    done = run_it(f"stored/{NAME}.h265", "--mp4", "--frame-rate", "20", "--ffmpeg", ffmpeg())
    copy = place / f"{NAME}.mp4"
    said = f"wrote {NAME}.mp4 ({copy.stat().st_size} bytes, 20 frames/s)\n"
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, said, b"")
    assert pictures(copy) == original
    assert times(copy) == evenly(20)
    assert codec(copy) == "hevc hvc1"
    assert left_in(place) == [copy.name]
    assert stored(place).read_bytes() == before


def test_what_plays_while_it_loads_has_its_index_in_front(place: Path) -> None:
    assert run(str(stored(place)), "--mp4").exit_code == 0
    written = (place / f"{NAME}.mp4").read_bytes()
    assert written.index(b"moov") < written.index(b"mdat")


@pytest.mark.parametrize("timed", [False, True])
def test_the_frame_rate_holds_whatever_the_stream_says(place: Path, timed: bool) -> None:
    stored(place).write_bytes(as_delivered(clip(timed)))
    assert run(str(stored(place)), "--mp4", "--frame-rate", "12.5").stdout.endswith("12.5 frames/s)\n")
    assert times(place / f"{NAME}.mp4") == [time * 2 for time in evenly(25)]


def test_a_plain_stream_is_taken_too(place: Path, original: list[str]) -> None:
    stored(place).write_bytes(clip())
    assert run(str(stored(place)), "--mp4").exit_code == 0
    assert pictures(place / f"{NAME}.mp4") == original


def test_h264_for_players_without_h265(place: Path) -> None:
    result = run(str(stored(place)), "--mp4", "--h264", "--frame-rate", "20")
    assert (result.exit_code, result.stderr) == (0, "")
    assert codec(place / f"{NAME}.mp4") == "h264 avc1"
    assert times(place / f"{NAME}.mp4") == evenly(20)


def test_pictures_out_of_order_are_not_copied_wrongly_but_encoded_again(place: Path) -> None:
    stored(place).write_bytes(as_delivered(clip(reordered=True)))
    result = run(str(stored(place)), "--mp4", "--frame-rate", "25")
    complaint = "its pictures are not stored in the order they are shown in, use --h264"
    assert (result.exit_code, result.stderr) == (1, f"Error: {stored(place)}: {complaint}\n")
    assert left_in(place) == []
    assert run(str(stored(place)), "--mp4", "--h264", "--frame-rate", "25").exit_code == 0
    assert times(place / f"{NAME}.mp4") == evenly(25)


# -- the frame rate


def test_the_frame_rate_is_what_the_camera_said(place: Path) -> None:
    stored(place).with_suffix(".json").write_text(json.dumps({"metadata": {"frame_rate": 25}}))
    result = run(str(stored(place)), "--mp4")
    assert result.stdout.endswith(" bytes, 25 frames/s)\n")
    assert result.stderr == ""
    assert times(place / f"{NAME}.mp4") == evenly(25)


def test_an_option_wins_over_what_the_camera_said(place: Path) -> None:
    stored(place).with_suffix(".json").write_text(json.dumps({"metadata": {"frame_rate": 25}}))
    assert run(str(stored(place)), "--mp4", "--frame-rate", "20").stdout.endswith(" 20 frames/s)\n")


@pytest.mark.parametrize(
    "sidecar",
    [
        None,
        "",
        "{",
        "[]",
        "{}",
        '{"metadata": null}',
        '{"metadata": {"frame_rate": null}}',
        '{"metadata": {"frame_rate": 0}}',
        '{"metadata": {"frame_rate": true}}',
        '{"metadata": {"frame_rate": "25; -i /etc/passwd"}}',
        '{"metadata": {"frame_rate": NaN}}',
        '{"metadata": {"frame_rate": 1e999}}',
        "[" * 100_000,
        " " * 300_000,
        "\udcff",
    ],
)
def test_without_a_usable_record_the_default_is_taken_and_said(place: Path, fake: Fake, sidecar: str | None) -> None:
    if sidecar is not None:
        stored(place).with_suffix(".json").write_bytes(sidecar.encode("utf-8", "surrogateescape"))
    result = run(str(stored(place)), "--mp4", "--ffmpeg", fake("cat >/dev/null"))
    assert (result.exit_code, result.stderr) == (0, ASSUMED)
    assert result.stdout.endswith(" 30 frames/s)\n")


# -- where to


def test_another_place_and_the_mode_that_new_files_have(place: Path) -> None:
    (place / "elsewhere").mkdir()
    before = os.umask(0o027)
    try:
        result = run(str(stored(place)), "--mp4", "--output", "elsewhere/video")
    finally:
        os.umask(before)
    assert result.stdout.startswith("wrote elsewhere/video (")
    assert left_in(place / "elsewhere") == ["video"]
    assert (place / "elsewhere" / "video").stat().st_mode & 0o777 == 0o640


def test_what_is_there_is_replaced_by_force_only(place: Path) -> None:
    copy = place / f"{NAME}.mp4"
    copy.write_text("mine")
    result = run(str(stored(place)), "--mp4")
    assert (result.exit_code, result.stderr) == (2, f"Error: {copy.name}: is there already, --force replaces it\n")
    assert copy.read_text() == "mine"
    assert run(str(stored(place)), "--mp4", "--force").exit_code == 0
    assert len(pictures(copy)) == FRAMES


def test_what_is_there_stays_when_its_replacement_fails(place: Path, fake: Fake) -> None:
    copy = place / f"{NAME}.mp4"
    copy.write_text("mine")
    assert run(str(stored(place)), "--mp4", "--force", "--ffmpeg", fake("exit 3")).exit_code == 1
    assert (left_in(place), copy.read_text()) == ([copy.name], "mine")


@pytest.mark.parametrize("output", ["dsm-data/x.mp4", "dsm-data/media/x.mp4", "link/x.mp4"])
def test_nothing_is_written_into_a_data_folder(place: Path, output: str) -> None:
    (place / "dsm-data" / "media").mkdir(parents=True)
    (place / "dsm-data" / "index.sqlite3").touch()
    (place / "link").symlink_to("dsm-data/media")
    result = run(str(stored(place)), "--mp4", "--force", "--output", output)
    complaint = f"Error: {output}: in the gateway's data folder {place}/dsm-data, say another --output\n"
    assert (result.exit_code, result.stderr) == (2, complaint)
    assert left_in(place / "dsm-data") == ["index.sqlite3", "media"]
    assert left_in(place / "dsm-data" / "media") == []


def test_outputs_that_cannot_be_are_one_line_and_exit_code_2(place: Path) -> None:
    video = str(stored(place))
    cases = {
        "stored": "is no file that could be replaced",
        ".": "is no file that could be replaced",
        "/dev/null": "is no file that could be replaced",
        video: "is the video itself, say another --output",
        "no/such/x.mp4": "No such file or directory",
        f"{'x' * 300}.mp4": "File name too long",
        "stored/loop/x.mp4": "Too many levels of symbolic links",
        "-": "an MP4 goes to a file only, say another --output",
    }
    (place / "stored" / "loop").symlink_to("loop")
    for output, complaint in cases.items():
        result = run(video, "--mp4", "--force", "--output", output)
        assert (result.exit_code, result.stderr) in [
            (2, f"Error: {output}: {complaint}\n"),
            (2, f"{ASSUMED}Error: {output}: {complaint}\n"),
        ]
    assert left_in(place) == []
    assert stored(place).read_bytes() == as_delivered(clip())


@pytest.mark.parametrize(
    "name", [b"-i", b"--mp4", b"a%d:|;$(touch pwned)\n\x1b[2J'\"", b"file:x", b"\xff\xfe", b"pipe:1"]
)
def test_odd_names_are_only_names(place: Path, name: bytes) -> None:
    folder = place / "odd: %d"
    folder.mkdir()
    (folder / os.fsdecode(name + b".h265")).write_bytes(as_delivered(clip()))
    os.chdir(folder)
    done = run_it("--mp4", "--frame-rate", "25", "--ffmpeg", ffmpeg(), "--", name + b".h265")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"wrote ") and done.stdout.count(b"\n") == 1 and b"\x1b" not in done.stdout
    assert sorted(os.listdir(os.fsencode(folder))) == sorted([name + b".h265", name + b".mp4"])
    assert len(pictures(folder / os.fsdecode(name + b".mp4"))) == FRAMES


# -- what cannot be


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\0\0\0\x18ftypmp42", "an MP4 already: copy it as it is"),
        (b"\xff\xd8\xff\xe0", "a picture, not a video"),
        (b"", "the file is empty"),
        (b"hello there", "no H.265 in it: begins with 68 65 6c 6c 6f 20 74 68"),
    ],
)
def test_what_is_no_such_video_is_one_line_and_exit_code_1(place: Path, content: bytes, complaint: str) -> None:
    stored(place).write_bytes(content)
    result = run(str(stored(place)), "--mp4")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"Error: {stored(place)}: {complaint}\n")
    assert left_in(place) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["no-such-file", "--mp4"], "no-such-file: No such file or directory"),
        (["stored", "--mp4"], "stored: Is a directory"),
        (["a\x1b[2Jb", "--mp4"], "a\\x1b[2Jb: No such file or directory"),
        (["x"], "Say what to make: --mp4 is what export can do."),
        (["x", "--h264"], "Say what to make: --mp4 is what export can do."),
        ([], "Missing argument 'FILE'."),
        (
            ["x", "--mp4", "--frame-rate", "0"],
            "Invalid value for '--frame-rate': 0 is not from 1 to 240 frames a second.",
        ),
        (
            ["x", "--mp4", "--frame-rate", "nan"],
            "Invalid value for '--frame-rate': nan is not from 1 to 240 frames a second.",
        ),
    ],
)
def test_a_users_error_is_one_line_and_exit_code_2(place: Path, arguments: list[str], complaint: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"Error: {complaint}\n")


def test_without_ffmpeg_it_is_said_how_to_get_it(place: Path) -> None:
    done = run_it(str(stored(place)), "--mp4")
    complaint = b"Error: ffmpeg is not installed (apt install ffmpeg), or give --ffmpeg PATH\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", complaint)
    assert left_in(place) == []


def test_ffmpeg_is_found_on_the_path(place: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(fake("while read -r line; do :; done")).rename(place / "stored" / "ffmpeg")
    monkeypatch.setenv("PATH", str(place / "stored"))
    assert CliRunner().invoke(main, ["export", str(stored(place)), "--mp4"]).exit_code == 0


def test_an_ffmpeg_that_cannot_be_run_is_one_line_and_exit_code_2(place: Path, fake: Fake) -> None:
    broken = Path(fake(""))
    for path, complaint in ((str(stored(place)), "no program that can be run"), (str(broken), "Exec format error")):
        broken.write_bytes(b"\0")
        result = run(str(stored(place)), "--mp4", "--frame-rate", "25", "--ffmpeg", path)
        assert (result.exit_code, result.stderr) == (2, f"Error: {path}: {complaint}\n")
    assert left_in(place) == []


# -- ffmpeg fails


def test_ffmpegs_last_words_are_in_the_line(place: Path) -> None:
    """The start of the video is missing, and with it all that tells how large the pictures are."""
    stored(place).write_bytes(b"\0\0\0\1" + clip()[-300:])
    result = run(str(stored(place)), "--mp4", "--frame-rate", "25")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {stored(place)}: ffmpeg failed: mp4: dimensions not set; ")
    assert result.stderr.count("\n") == 1 and "0x" not in result.stderr
    assert left_in(place) == []


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo no such option >&2; exit 8", "no such option"),
        ("exec kill -9 $$", "exit code -9"),
        # It reads nothing and says that all is well: what it has written cannot be whole.
        ("exit 0", "exit code 0"),
        ("cat >/dev/null; printf '[error] \\033[2J\\377\\n' >&2; exit 1", "\\x1b[2J\\xff"),
    ],
)
def test_whatever_way_it_fails_nothing_is_left_behind(place: Path, fake: Fake, script: str, words: str) -> None:
    stored(place).write_bytes(as_delivered(clip()) + bytes(1 << 20))
    result = run(str(stored(place)), "--mp4", "--frame-rate", "25", "--ffmpeg", fake(script))
    assert (result.exit_code, result.stderr) == (1, f"Error: {stored(place)}: ffmpeg failed: {words}\n")
    assert left_in(place) == []


def test_one_that_talks_before_it_listens_is_no_deadlock(place: Path, fake: Fake) -> None:
    stored(place).write_bytes(as_delivered(clip()) + bytes(1 << 20))
    script = "i=0; while [ $i -lt 20000 ]; do echo '[x @ 0x1] [error] ..........' >&2; i=$((i+1)); done; cat >/dev/null"
    result = run(str(stored(place)), "--mp4", "--frame-rate", "25", "--ffmpeg", fake(script))
    said = "not all of it could be read, ffmpeg says: x: ..........; x: ..........\n"
    assert (result.exit_code, result.stderr) == (0, said)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("size_bytes", [0, 1 << 20], ids=["waiting", "feeding"])
def test_stopped_in_the_middle_nothing_is_left_behind(
    place: Path, fake: Fake, number: signal.Signals, size_bytes: int
) -> None:
    stored(place).write_bytes(as_delivered(clip()) + bytes(size_bytes))
    noted = place / "stored" / "pid"
    program = fake(f"echo $$ > '{noted}.new'; mv '{noted}.new' '{noted}'; exec sleep 100")
    command = [*DSMGATEWAY, "export", str(stored(place)), "--mp4", "--frame-rate", "25", "--ffmpeg", program]
    # Whoever runs the tests may have signals ignored, which is handed down.
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as process:
        pid = int(eventually("ffmpeg runs", lambda: noted.exists() and noted.read_text()))
        assert len(left_in(place)) == 1
        process.send_signal(number)
        said, complaint = process.communicate(timeout=20)
    assert (process.returncode, said, complaint) == (128 + number, b"", b"")
    assert left_in(place) == []
    assert is_gone(pid)


def is_gone(pid: int) -> bool:
    """Whether nothing of a process runs; an orphan's entry stays until whoever took it over looks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture
def hangup() -> Iterator[None]:
    """SIGHUP ends a process, also where whoever runs the tests has it ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


#: Steps of a run on which a signal can come, and what carries them out.
STEPS = {
    "the start of ffmpeg": (subprocess, "Popen"),
    "the start of its listener": (threading.Thread, "start"),
    "its end": (os, "killpg"),
}


@pytest.mark.usefixtures("hangup")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_signal_on_any_step_leaves_nothing_behind(
    place: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    """Each step is signalled once; before that, where it is not the first one, another signal has begun the end."""
    started: list[int] = []
    owner, name = STEPS[step]
    carry_out, start = getattr(owner, name), subprocess.Popen

    def noted(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        process = start(*arguments, **options)  # type: ignore[call-overload]
        started.append(process.pid)
        return process

    def signalled(*arguments: object, **options: object) -> object:
        if not after:
            signal.raise_signal(signal.SIGTERM)
        done = (noted if owner is subprocess else carry_out)(*arguments, **options)
        if after:
            signal.raise_signal(signal.SIGTERM)
        return done

    monkeypatch.setattr(subprocess, "Popen", noted)
    monkeypatch.setattr(owner, name, signalled)
    # It ends by itself only so that a failure is no standstill.
    script = "kill -HUP $PPID; exec sleep 20" if owner is os else "exec sleep 20"
    result = run(str(stored(place)), "--mp4", "--frame-rate", "25", "--ffmpeg", fake(script))
    number = signal.SIGHUP if owner is os else signal.SIGTERM
    assert (result.exit_code, result.output) == (128 + number, "")
    assert left_in(place) == []
    assert len(started) == 1 and is_gone(started[0])


def test_signals_mean_afterwards_what_they_meant_before(place: Path) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    assert run(str(stored(place)), "--mp4", "--frame-rate", "25").exit_code == 0
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.parametrize("ending", ["kill -TERM $PPID; wait", "cat >/dev/null"], ids=["stopped", "finished"])
def test_what_a_wrapper_script_started_ends_with_it(place: Path, fake: Fake, ending: str) -> None:
    noted = place / "stored" / "pid"
    script = f"sleep 100 & echo $! > '{noted}'; {ending}"
    result = run(str(stored(place)), "--mp4", "--frame-rate", "25", "--ffmpeg", fake(script))
    assert result.exit_code == (128 + signal.SIGTERM if "TERM" in ending else 0)
    eventually("the child is gone", lambda: is_gone(int(noted.read_text())))


# -- on the way


def test_progress_is_shown_on_a_terminal_only(place: Path) -> None:
    ours, theirs = pty.openpty()
    command = [*DSMGATEWAY, "export", str(stored(place)), "--mp4", "--frame-rate", "25", "--ffmpeg", ffmpeg()]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, env=environment(TERM="xterm"), check=False)
    os.close(theirs)
    shown = os.read(ours, 65536)
    os.close(ours)
    size = f"{stored(place).stat().st_size / 1000:.1f}".encode()
    assert size + b"/" + size + b" kB" in re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", shown)
    assert done.returncode == 0 and done.stdout.startswith(b"wrote ")
