"""etc/dsmgateway.service under a real systemd: it works, all of it, and can do nothing else."""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificate import Authority
from conftest import IMEI, OTHER_IMEI, content, init
from hand_camera import HandCamera, Picture
from machine import ROOT, UNIT, USER, Machine, needs_systemd
from running import DSMGATEWAY, environment, eventually

from dsmgateway import commands as c
from dsmgateway.store.check import State, check

PAGE = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8").partition("\n## 9. Under systemd\n")[2]
(SECURITY,), COMMANDS = (text.splitlines() for text in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S))
KEY, LOW_PORT, ELSEWHERE, UNIX, WITHOUT_TLS = re.findall(r"^```ini\n(.*?)^```$", PAGE, re.M | re.S)
PICTURE = Picture(content(60_000))
SETTINGS = 'port = ["tcp:10014:interface=127.0.0.1"]\nlog-format = "json"\n'
DATA = "lib/dsmgateway/data"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine with the gateway installed as the unit says, and not started."""
    machine = Machine(tmp_path)
    machine.write("dsmgateway.toml", SETTINGS)
    with machine:
        yield machine


def start(machine: Machine) -> None:
    """Start it for the first time."""
    machine.inside("systemctl", "start", "dsmgateway")
    machine.says('"gateway.started"')


def stop(machine: Machine, errors: int = 0) -> None:
    """Stop it; it ends by itself, with exit code 0, and has logged so many errors and no bug."""
    machine.inside("systemctl", "stop", "dsmgateway")
    assert machine.property("Result") == "success" and machine.property("ExecMainStatus") == "0"
    log = machine.log()
    assert len(re.findall(r'"level": "(?:error|critical)"|"traceback"|code=killed', log)) == errors, log


def deliver(machine: Machine, picture: Picture = PICTURE, port: int = 10014, tls: ssl.SSLContext | None = None) -> None:
    """Deliver a file."""
    with machine.network(), HandCamera(port, picture, tls) as camera:
        camera.deliver()


def test_the_figure_of_the_page_is_that_of_systemd() -> None:
    needs_systemd()
    version = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=True).stdout
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (figure,) = re.findall(r"exposure level for dsmgateway.service: ([\d.]+)", done.stdout)
    ((of_version, said),) = re.findall(r"systemd (\d+) rates what is left at ([\d.]+) of 10", PAGE)
    assert float(figure) < 2
    # Others count other things.
    if version.split()[1] == of_version:
        assert figure == said


def test_the_unit_receives_and_stores_without_any_privilege(machine: Machine) -> None:
    start(machine)
    process = machine.process()
    assert {process[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")} == {"0000000000000000"}
    assert set(process["Uid"].split()) == set(process["Gid"].split()) == {process["Groups"]} == {str(USER)}
    assert (process["NoNewPrivs"], process["Seccomp"], process["Umask"]) == ("1", "2", "0027")
    deliver(machine)
    machine.inside("systemctl", "reload", "dsmgateway")
    deliver(machine, Picture(content(9_000, 2), imei=OTHER_IMEI))
    stop(machine)
    assert [row.state for row in check(machine.var / DATA)] == [State.OK] * 2
    modes = {path.stat().st_mode & 0o7777 for path in (machine.var / DATA / "media").rglob("*.jpg")}
    assert modes == {0o640} and (machine.var / DATA).parent.stat().st_mode & 0o7777 == 0o750


def test_the_unit_runs_several_processes(machine: Machine) -> None:
    """With nothing allowed besides; and one stop ends all of them in good order."""
    machine.write("dsmgateway.toml", SETTINGS + "workers = 2\n")
    start(machine)
    for number in range(8):
        deliver(machine, Picture(content(9_000, number), imei=IMEI + number))
    machine.inside("systemctl", "reload", "dsmgateway")
    stop(machine)
    rows = [json.loads(line) for line in machine.log().splitlines() if line.startswith("{")]
    assert {row["worker"] for row in rows if row["event"] == "file.stored"} == {0, 1}
    assert [row["event"] for row in rows if row["event"].startswith("worker.")] == ["worker.started"] * 2
    assert [row.state for row in check(machine.var / DATA)] == [State.OK] * 8


#: What somebody would try who has taken the gateway over; each line is one attempt, by its name.
_ATTEMPTS = """
import ctypes, json, mmap, os, resource, socket, subprocess
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    if getattr(libc, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)

def script():
    with open("tool", "w") as stream:
        stream.write("#!/bin/sh")
    os.chmod("tool", 0o700)
    subprocess.run(["./tool"])

def port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 443))

attempts = {
    "state": lambda: open("/var/lib/dsmgateway/mine", "w"),
    "tmp": lambda: open("/tmp/mine", "w"),
    "proc": lambda: open("/proc/self/status"),
    "raise": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (10**6, 10**6)),
    "etc": lambda: open("/etc/mine", "w"),
    "program": lambda: open("/opt/source/mine", "w"),
    "var": lambda: open("/var/mine", "w"),
    "settings": lambda: open("/etc/secret"),
    "home": lambda: os.listdir("/root"),
    "other process": lambda: os.stat("/proc/1"),
    "kernel": lambda: open("/proc/sys/kernel/hostname"),
    "log of the kernel": lambda: call("klogctl", 3, None, 0),
    "disk": lambda: os.mknod("disk", 0o60600, os.makedev(8, 0)),
    "device": lambda: os.stat("/dev/kmsg"),
    "control group": lambda: os.mkdir("/sys/fs/cgroup/mine"),
    "code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
    "script": script,
    "setuid": lambda: os.open("another", os.O_CREAT | os.O_WRONLY, 0o4755),
    "owner": lambda: os.chown("mine", 0, 0),
    "root": lambda: os.setuid(0),
    "mount": lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "namespace": lambda: call("unshare", 0x10000000),
    "trace": lambda: call("ptrace", 0, 0, None, None),
    "personality": lambda: call("personality", 8),
    "nice": lambda: os.setpriority(os.PRIO_PROCESS, 0, 5),
    "real time": lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1)),
    "clock": lambda: __import__("time").clock_settime(0, 0),
    "packets": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "routes": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "port": port,
}
answers = {}
for name, attempt in attempts.items():
    try:
        attempt()
        answers[name] = ""
    except OSError as error:
        answers[name] = error.strerror
    except ValueError as error:
        answers[name] = str(error)
print("answers", json.dumps(answers), flush=True)
"""


def test_whoever_takes_the_gateway_over_can_do_nothing_else(machine: Machine) -> None:
    """In the place of the gateway there is a program that tries: what it needs works, all the rest fails."""
    machine.write("secret", "of root", mode=0o600)
    (machine.opt / "attempts.py").write_text(_ATTEMPTS)
    machine.drop_in("attempts", "[Service]\nExecStart=\nExecStart=/opt/dsmgateway/bin/python /opt/attempts.py\n")
    machine.inside("systemctl", "start", "dsmgateway")
    answers = json.loads(machine.says("answers ").partition(" ")[2])
    assert {name for name, answer in answers.items() if not answer} == {"state", "tmp", "proc", "code"}, answers


LIVE = "letsencrypt/live/cameras.example"


def put_certificates(machine: Machine, folder: Path, group: int, mode: int, name: str = "gateway") -> Authority:
    """Have a certificate and its key where certbot has them, of root and this group; and the authority of cameras."""
    fleet = Authority()
    both = fleet.issue(folder / f"{name}.pem", name).read_text()
    for file in ("fullchain", "privkey"):
        machine.write(f"{LIVE}/{file}.pem", both, mode, group)
    machine.write("fleet.pem", fleet.write(folder / "fleet.pem").read_text())
    fleet.issue(folder / "camera.pem", str(IMEI))
    return fleet


def camera_side(folder: Path, certificate: bool = True) -> ssl.SSLContext:
    """A camera's side of TLS, with its certificate or without."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(folder / "fleet.pem")
    if certificate:
        context.load_cert_chain(folder / "camera.pem")
    return context


@pytest.mark.slow
def test_a_key_of_root_alone_is_handed_over_as_the_page_says(machine: Machine, tmp_path: Path) -> None:
    """Also where cameras need certificates, for which OpenSSL calls back into Python."""
    put_certificates(machine, tmp_path, 0, 0o600)
    machine.drop_in("key", KEY)
    machine.drop_in("fleet", "[Service]\nEnvironment=DSMGATEWAY_TLS_CLIENT_CA=/etc/fleet.pem\n")
    start(machine)
    deliver(machine, port=10015, tls=camera_side(tmp_path))
    with (
        machine.network(),
        pytest.raises((ssl.SSLError, ConnectionError)),
        HandCamera(10015, PICTURE, camera_side(tmp_path, certificate=False)) as camera,
    ):
        camera.offer()
    machine.says("peer did not return a certificate")
    stop(machine)


@pytest.mark.slow
def test_a_port_below_1024_is_had_as_the_page_says(machine: Machine) -> None:
    machine.drop_in("port", LOW_PORT)
    start(machine)
    assert {machine.process()[name] for name in ("CapEff", "CapBnd")} == {f"{1 << 10:016x}"}
    deliver(machine, port=443)
    stop(machine)


@pytest.mark.slow
def test_the_data_folder_is_elsewhere_as_the_page_says(machine: Machine) -> None:
    (machine.srv / "cameras").mkdir()
    os.chown(machine.srv / "cameras", USER, USER)
    machine.drop_in("elsewhere", ELSEWHERE)
    start(machine)
    deliver(machine)
    stop(machine)
    assert [row.state for row in check(machine.srv / "cameras" / "data")] == [State.OK]
    assert not (machine.var / DATA).exists()


@pytest.mark.slow
def test_a_unix_socket_is_had_as_the_page_says(machine: Machine) -> None:
    machine.drop_in("unix", UNIX)
    start(machine)
    assert machine.inside("stat", "--format=%U %a %F", "/run/dsmgateway/cameras.sock") == "dsmgateway 660 socket\n"
    stop(machine)


@pytest.mark.slow
def test_no_code_has_to_be_made_without_tls_as_the_page_says(machine: Machine) -> None:
    machine.drop_in("without", WITHOUT_TLS)
    start(machine)
    deliver(machine)
    stop(machine)


@pytest.mark.slow
def test_the_commands_of_the_page_work(machine: Machine) -> None:
    machine.write("pam.d/runuser", "auth sufficient pam_rootok.so\nsession required pam_permit.so\n")
    start(machine)
    deliver(machine)
    for command in COMMANDS:
        said = machine.inside("sh", "-c", command)
        assert said or "reload" in command, command
    assert re.search("exposure level for dsmgateway.service: [01]", machine.inside("sh", "-c", SECURITY))
    stop(machine)


@pytest.mark.slow
def test_a_whole_day_makes_no_system_call_that_is_refused(machine: Machine, tmp_path: Path) -> None:
    """The same filter, but who makes a call that is not in it is killed: starts, files, reloads, refusals, stops."""
    put_certificates(machine, tmp_path, USER, 0o640)
    machine.write("devices", f"{OTHER_IMEI} Bus 13\n")
    tls = f"""tls-port = ["10015"]
tls-cert = "/etc/{LIVE}/fullchain.pem"
tls-key = "/etc/{LIVE}/privkey.pem"
tls-client-ca = "/etc/fleet.pem"
tls-match-imei = true
known-devices = "/etc/devices"
trace = "traces"
"""
    machine.write("dsmgateway.toml", SETTINGS + tls)
    machine.drop_in("killed", "[Service]\nSystemCallErrorNumber=\nLimitCORE=0\n")
    start(machine)
    with machine.network():
        command = [*DSMGATEWAY, "simulate", "--to=127.0.0.1:10014", "--mix", "--cameras=12", "--files=2"]
        command += ["--corrupt=0.02", "--cut-every=40", "--size=5k-40k"]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    deliver(machine, port=10015, tls=camera_side(tmp_path))

    put_certificates(machine, tmp_path, USER, 0o640, "renewed")
    machine.write("devices", f"{OTHER_IMEI} Bus 13\n{IMEI} Bus 12\n")
    machine.inside("systemctl", "reload", "dsmgateway")
    machine.says("renewed")
    machine.says('"devices": 2')
    (machine.etc / LIVE / "privkey.pem").chmod(0o644)
    machine.inside("systemctl", "reload", "dsmgateway")
    assert "world-readable" in machine.says("reload.failed")
    deliver(machine, Picture(content(20_000, 3)), 10015, camera_side(tmp_path))
    (machine.etc / LIVE / "privkey.pem").chmod(0o640)

    half, packets = Picture(content(70_000, 4), path=b"dsm/picture/251102/081602.jpg"), 30
    with machine.network(), HandCamera(10014, half) as camera:
        camera.begin()
        camera.say(*half.frames()[:packets])
        machine.write("dsmgateway.toml", SETTINGS + tls + 'admission = "approve"\n')
        eventually("it is read", lambda: any(machine.var.glob(f"{DATA}/spool/{half.key}.part")))
        machine.inside("systemctl", "restart", "dsmgateway")
    machine.says('"gateway.started"', 2)
    with machine.network(), HandCamera(10014, half) as camera:
        assert 0 < camera.deliver() <= packets * 1024
    stranger = Picture(content(9_000, 5), imei=356917000000047)
    with machine.network(), HandCamera(10014, stranger) as camera:
        camera.say(init(imei=stranger.imei))
        camera.hear(c.Close)
    as_gateway = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "dsmgateway"]
    machine.inside(*as_gateway, "devices", f"/var/{DATA}", "--approve", str(stranger.imei))
    machine.says("devices.decided")
    deliver(machine, stranger)
    stop(machine, errors=1)
    assert machine.property("NRestarts") == "0" and list((machine.var / "lib/dsmgateway/traces").glob("*.trace"))
    states = [row.state for row in check(machine.var / DATA)]
    assert len(states) == 24 + 4 and set(states) == {State.OK}
