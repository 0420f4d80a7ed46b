"""A real twistd: start and stop, in the foreground and as a daemon; what goes wrong is one line and an exit code."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from certificate import write_certificate
from running import environment, eventually, free_port

#: Where twistd is; tests/test_packaging.py has these tests run with the ones that it installs.
BIN = Path(os.environ.get("TWISTD_FOLDER", Path(sys.executable).parent))


@dataclass
class Twistd:
    """Runs twistd in one folder and ends whatever is left of it."""

    folder: Path
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def command(self, *arguments: str) -> list[str]:
        return [str(BIN / "twistd"), *arguments]

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """To its end, or until it is a daemon."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=environment(**variables),
            capture_output=True,
            text=True,
            timeout=60,
        )

    def foreground(self, *arguments: str) -> subprocess.Popen[str]:
        """Until it says that the gateway has started; its lines are in `foreground.log`."""
        log = self.folder / "foreground.log"
        with log.open("w") as stream:
            command = self.command("--nodaemon", *arguments)
            process = subprocess.Popen(command, cwd=self.folder, env=environment(), stdout=stream, stderr=stream)
        self.running.append(process)  # type: ignore[arg-type]
        wait_for(lambda: "gateway.started" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        return process  # type: ignore[return-value]

    @property
    def pid(self) -> int:
        return int((self.folder / "twistd.pid").read_text())

    def stop_daemon(self) -> None:
        os.kill(self.pid, signal.SIGTERM)
        wait_for(lambda: not (self.folder / "twistd.pid").exists())

    def end(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.wait(10)
        if (self.folder / "twistd.pid").exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def wait_for(condition: Callable[[], bool], within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def json_lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def twistd(tmp_path: Path) -> Iterator[Twistd]:
    runner = Twistd(tmp_path)
    yield runner
    runner.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_the_foreground_it_serves_until_a_signal_and_exits_with_0(twistd: Twistd, number: int) -> None:
    port = free_port()
    process = twistd.foreground("dsmgateway", "--port", str(port))
    assert accepts(port)
    assert (twistd.folder / "dsm-data" / "spool").is_dir()
    began = time.monotonic()
    process.send_signal(number)
    assert process.wait(10) == 0
    assert time.monotonic() - began < 5
    assert "info gateway.stopped\n" in (twistd.folder / "foreground.log").read_text()
    assert not (twistd.folder / "twistd.pid").exists()


def test_two_signals_in_one_turn_of_the_reactor_are_one_stop(twistd: Twistd) -> None:
    process = twistd.foreground("dsmgateway", "--port", "0")
    for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
        process.send_signal(number)
    assert process.wait(10) == 0
    log = (twistd.folder / "foreground.log").read_text()
    assert log.count("gateway.stopped\n") == 1
    assert "ReactorNotRunning" not in log


def test_in_the_foreground_every_line_is_json_when_that_is_asked_for(twistd: Twistd) -> None:
    process = twistd.foreground("dsmgateway", "--port", "0", "--log-format", "json")
    process.terminate()
    assert process.wait(10) == 0
    events = [line["event"] for line in json_lines(twistd.folder / "foreground.log")]
    assert [name for name in events if name != "log"] == [
        "port.listening",
        "store.recovered",
        "gateway.started",
        "gateway.stopped",
    ]


def test_a_daemon_has_pid_file_and_json_log_serves_and_stops(twistd: Twistd) -> None:
    port = free_port()
    started = twistd.run("dsmgateway", "--port", str(port), "--log-format=json")
    assert (started.returncode, started.stdout, started.stderr) == (0, "", "")
    assert twistd.pid != os.getpid()
    assert accepts(port)
    twistd.stop_daemon()
    assert not accepts(port)
    assert json_lines(twistd.folder / "twistd.log")[-1]["message"] == "Server Shut Down."


def test_sighup_does_not_end_a_daemon(twistd: Twistd) -> None:
    port = free_port()
    assert twistd.run("dsmgateway", "--port", str(port)).returncode == 0
    os.kill(twistd.pid, signal.SIGHUP)
    assert accepts(port)
    twistd.stop_daemon()
    assert "gateway.stopped" in (twistd.folder / "twistd.log").read_text()


def test_a_gateway_whose_terminal_goes_away_stops_in_good_order(twistd: Twistd) -> None:
    log = twistd.folder / "foreground.log"
    command = twistd.command("--nodaemon", f"--logfile={log}", "dsmgateway", "--port", "0")
    terminal, side = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", *command], cwd=twistd.folder, env=environment(), stdin=side, stdout=side, stderr=side
    )
    twistd.running.append(process)  # type: ignore[arg-type]
    os.close(side)
    wait_for(lambda: log.exists() and "gateway.started" in log.read_text())
    process.send_signal(signal.SIGHUP)  # from elsewhere, while the terminal is there
    assert process.poll() is None
    os.close(terminal)
    assert process.wait(20) == 0
    assert "gateway.stopped" in log.read_text()


def test_the_log_of_a_daemon_is_rotated_on_sigusr1_and_opened_anew_after_logrotate(twistd: Twistd) -> None:
    folder = twistd.folder
    assert twistd.run("dsmgateway", "--port", "0").returncode == 0
    os.kill(twistd.pid, signal.SIGUSR1)
    wait_for((folder / "twistd.log.1").exists)
    (folder / "twistd.log").rename(folder / "moved.log")
    os.kill(twistd.pid, signal.SIGUSR1)
    wait_for((folder / "twistd.log").exists)
    twistd.stop_daemon()
    assert "gateway.started" in (folder / "twistd.log.1").read_text()
    assert "gateway.stopped" in (folder / "twistd.log").read_text()


def test_a_daemon_keeps_its_data_where_it_was_started_although_it_changes_folder(twistd: Twistd) -> None:
    (twistd.folder / "run").mkdir()
    assert twistd.run("--rundir=run", "dsmgateway", "--port", "0", "--data", "files").returncode == 0
    assert (twistd.folder / "files" / "spool").is_dir()
    twistd.stop_daemon()


@pytest.mark.parametrize(("umask", "folder", "file"), [([], 0o700, 0o600), (["--umask=027"], 0o750, 0o640)])
def test_nobody_else_can_read_what_a_daemon_stores_unless_that_is_asked_for(
    twistd: Twistd, umask: list[str], folder: int, file: int
) -> None:
    assert twistd.run(*umask, "dsmgateway", "--port", "0").returncode == 0
    data = twistd.folder / "dsm-data"
    assert [path.stat().st_mode & 0o777 for path in (data, data / "media", data / "lock")] == [folder, folder, file]
    twistd.stop_daemon()


@pytest.mark.parametrize("kind", ["tcp:0:interface=127.0.0.1", "unix:gateway.sock"])
def test_endpoints_live_on_in_the_daemon_and_end_with_it(twistd: Twistd, kind: str) -> None:
    assert twistd.run("dsmgateway", "--port", kind, "--log-format=json").returncode == 0
    (listening,) = [line for line in json_lines(twistd.folder / "twistd.log") if line["event"] == "port.listening"]
    address = str(listening["address"])
    if kind.startswith("unix"):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(twistd.folder / address))
    else:
        assert accepts(int(address.rpartition(":")[2]))
    twistd.stop_daemon()
    assert not (twistd.folder / "gateway.sock").exists()
    assert "Traceback" not in (twistd.folder / "twistd.log").read_text()


def test_a_socket_that_systemd_hands_over_is_listened_on(twistd: Twistd) -> None:
    with socket.socket() as ready, (twistd.folder / "log").open("w") as log:
        ready.bind(("127.0.0.1", 0))
        ready.listen()
        port = ready.getsockname()[1]
        # What systemd does: the socket as descriptor 3, and the process id of the service in the environment.
        script = f'exec 3<&{ready.fileno()}; LISTEN_FDS=1 LISTEN_FDNAMES=cameras LISTEN_PID=$$ exec "$@"'
        command = twistd.command("--nodaemon", "dsmgateway", "--port", "systemd:domain=INET:index=0")
        process = subprocess.Popen(
            ["bash", "-c", script, "bash", *command],
            cwd=twistd.folder,
            env=environment(),
            pass_fds=[ready.fileno()],
            stdout=log,
            stderr=log,
        )
        twistd.running.append(process)
    wait_for(lambda: "gateway.started" in (twistd.folder / "log").read_text() or process.poll() is not None)
    assert process.poll() is None, (twistd.folder / "log").read_text()
    assert accepts(port)


def test_a_tls_port_shows_its_certificate_also_as_a_daemon(twistd: Twistd) -> None:
    port = free_port()
    write_certificate(twistd.folder / "own.pem")
    started = twistd.run("dsmgateway", "--port", f"ssl:{port}:interface=127.0.0.1:privateKey=own.pem")
    assert (started.returncode, started.stderr) == (0, "")
    assert ssl.get_server_certificate(("127.0.0.1", port)) in (twistd.folder / "own.pem").read_text()
    twistd.stop_daemon()


@pytest.mark.parametrize("daemon", [False, True], ids=["foreground", "daemon"])
@pytest.mark.parametrize("endpoint", ["{}", "tcp:{}:interface=127.0.0.1"], ids=["number", "endpoint"])
def test_a_busy_port_is_one_line_and_exit_code_1(twistd: Twistd, daemon: bool, endpoint: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = endpoint.format(other.getsockname()[1])
        ended = twistd.run(*([] if daemon else ["--nodaemon"]), "dsmgateway", "--port", port)
    what = f"endpoint '{port}'" if ":" in port else f"port {port}"
    assert ended.stderr == f"twistd dsmgateway: {what}: Address already in use (option --port)\n"
    assert (ended.returncode, ended.stdout) == (1, "")
    assert list(twistd.folder.iterdir()) == []


@pytest.mark.parametrize("daemon", [False, True], ids=["foreground", "daemon"])
def test_a_data_folder_in_use_is_one_line_and_exit_code_1(twistd: Twistd, daemon: bool) -> None:
    twistd.foreground("--pidfile=first.pid", "dsmgateway", "--port", "0")
    ended = twistd.run(*([] if daemon else ["--nodaemon"]), "dsmgateway", "--port", "0")
    problem = f"data folder {twistd.folder}/dsm-data: another gateway is using it"
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"twistd dsmgateway: {problem}\n")
    assert not (twistd.folder / "twistd.pid").exists()


def test_a_store_that_fails_at_start_ends_the_process_without_a_traceback(twistd: Twistd) -> None:
    (twistd.folder / "dsm-data").mkdir()
    (twistd.folder / "dsm-data" / "spool").write_text("in the way")
    ended = twistd.run("--nodaemon", "dsmgateway", "--port", "0")
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"twistd dsmgateway: create folder {twistd.folder}/dsm-data/spool: ")
    assert ended.stderr.count("\n") == 1
    assert "Traceback" not in ended.stdout
    assert "critical gateway.not_started" in ended.stdout
    assert not (twistd.folder / "twistd.pid").exists()


def test_a_store_that_fails_after_the_fork_is_told_to_the_terminal_too(twistd: Twistd) -> None:
    (twistd.folder / "dsm-data").mkdir()
    (twistd.folder / "dsm-data" / "spool").write_text("in the way")
    ended = twistd.run("dsmgateway", "--port", "0")
    assert ended.returncode == 1
    assert "StoreError: create folder" in ended.stderr
    assert "Traceback" not in ended.stderr + (twistd.folder / "twistd.log").read_text()
    eventually("the pid file is gone", lambda: not (twistd.folder / "twistd.pid").exists())


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_one_line_and_exit_code_1(twistd: Twistd) -> None:
    folder = twistd.folder / "files"
    folder.mkdir(mode=0o500)
    as_anyone = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"] if os.geteuid() == 0 else []
    command = [*as_anyone, *twistd.command("dsmgateway", "--port=0", f"--data={folder}/data")]
    ended = subprocess.run(command, cwd=twistd.folder, env=environment(), capture_output=True, text=True, timeout=60)
    problem = f"data folder {folder}/data: {folder} is not writable (option --data)"
    assert (ended.returncode, ended.stderr) == (1, f"twistd dsmgateway: {problem}\n")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--init-timeout=soon"],
            "option --init-timeout: 'soon' is not a time: seconds, or a number with s, m, h or d",
        ),
        (["--prot=1"], "option --prot not recognized"),
        (["surplus"], "Wrong number of arguments."),
        (["--config=none.toml"], "file {}/none.toml: No such file or directory"),
        (["--config=bad.toml"], "file {}/bad.toml: unknown key 'prot' (did you mean port?)"),
        (["--data=bad.toml"], "data folder {0}/bad.toml: {0}/bad.toml is not a folder (option --data)"),
        (["--port=pigeon:1"], "endpoint 'pigeon:1': Unknown endpoint type: 'pigeon' (option --port)"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_settings_are_one_line_and_exit_code_1_before_the_daemon(
    twistd: Twistd, arguments: list[str], line: str
) -> None:
    (twistd.folder / "bad.toml").write_text("prot = 1\n")
    ended = twistd.run("dsmgateway", "--port=0", *arguments)
    assert ended.stderr.startswith(f"twistd dsmgateway: {line.format(twistd.folder)}")
    assert ended.stderr.count("\n") == 1
    assert (ended.returncode, ended.stdout) == (1, "")
    assert [path.name for path in twistd.folder.iterdir()] == ["bad.toml"]


def test_an_unknown_variable_is_one_line_and_exit_code_1(twistd: Twistd) -> None:
    ended = twistd.run("--nodaemon", "dsmgateway", DSMGATEWAY_PROT="1")
    problem = "environment: unknown variable 'DSMGATEWAY_PROT' (did you mean DSMGATEWAY_PORT?)"
    assert (ended.returncode, ended.stderr) == (1, f"twistd dsmgateway: {problem}\n")


def test_the_variable_of_a_kubernetes_service_is_refused_as_a_port(twistd: Twistd) -> None:
    ended = twistd.run("--nodaemon", "dsmgateway", DSMGATEWAY_PORT="tcp://10.0.0.1:10014")
    assert ended.returncode == 1
    assert ended.stderr.startswith("twistd dsmgateway: endpoint 'tcp://10.0.0.1:10014': ")
    assert ended.stderr.endswith(" (environment variable DSMGATEWAY_PORT)\n")


def test_the_tac_file_runs_a_gateway(twistd: Twistd) -> None:
    source = (Path(__file__).parent.parent / "etc" / "dsmgateway.tac").read_text()
    (twistd.folder / "my.tac").write_text(source.replace("10014", "0"))
    process = twistd.foreground("--python=my.tac")
    process.terminate()
    process.wait(10)
    assert "gateway.stopped" in (twistd.folder / "foreground.log").read_text()
