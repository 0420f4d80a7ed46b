"""Who may import whom: the rooms of the house, held by reading the source."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dsmgateway"
#: The pure core, lowest room first; a module imports only from rooms below its own.
CORE = (
    {"errors", "crc", "packets"},
    {"commands"},
    {"families"},
    {"frames"},
    {"framing", "metadata_layouts", "metadata_json"},
    {"metadata"},
    {"asked", "patience", "transfer"},
    {"states", "events"},
    {"effects"},
    {"reception"},
    {"session"},
)
#: Modules of ours that the store stands on.
BELOW_STORE = {"errors", "crc", "packets", "families"}
#: Pure by themselves: they import nothing of ours and no Twisted.
ALONE = {"registry", "trace"}
#: Who may come in: pure too, each with what it may stand on.
ADMISSION = {
    "addresses": set(),
    "known_devices": {"errors", "escape"},
    "admission": {"imei"},
    "crowd": {"addresses"},
    "quiet": {"crowd"},
    "flapping": set(),
    "quota": {"crowd"},
    "timing": {"states"},
}
#: What makes copies of stored files, in a process of its own: no module of the gateway may come to need it.
EXPORT = {"h265", "ffmpeg", "export_command"}
#: The daemon's wiring, and command lines: who else names the reactor cannot be tested without it.
REACTOR = {"tap", "cli", "workers.child", "simulator.command", "simulator.demo"}


def sources() -> dict[str, ast.Module]:
    """Every module of the package, by its name below dsmgateway."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


def imported(tree: ast.Module) -> Iterator[str]:
    """Every name that is imported anywhere, in functions too: ``a.b`` and ``a.b.c`` for ``from a.b import c``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


SOURCES = sources()


def ours(name: str) -> set[str]:
    """The modules of ours that a module imports, by their names below dsmgateway."""
    below = {full.removeprefix("dsmgateway.") for full in imported(SOURCES[name]) if full.startswith("dsmgateway.")}
    return below & SOURCES.keys()


def roots(name: str) -> set[str]:
    """The packages that a module imports from."""
    return {full.partition(".")[0] for full in imported(SOURCES[name])}


@pytest.mark.parametrize("name", sorted(set().union(*CORE)))
def test_core_imports_run_one_way(name: str) -> None:
    """A module of the core imports only what is below it."""
    room = next(number for number, names in enumerate(CORE) if name in names)
    assert ours(name) <= set().union(*CORE[:room])


@pytest.mark.parametrize("name", sorted(ALONE))
def test_modules_that_stand_alone(name: str) -> None:
    """They know nothing of the rest."""
    assert ours(name) == set()


@pytest.mark.parametrize("name", sorted(name for name in SOURCES if name.partition(".")[0] == "store"))
def test_store_stands_on_little(name: str) -> None:
    """The store imports itself and the lowest rooms, nothing of wire or session."""
    assert {below for below in ours(name) if below.partition(".")[0] != "store"} <= BELOW_STORE


@pytest.mark.parametrize("name", sorted(ADMISSION))
def test_who_may_come_in_is_decided_without_a_clock(name: str) -> None:
    """The parts of the door stand on little, and on no Twisted, clock, socket or disk: the time is passed in."""
    assert ours(name) <= ADMISSION[name]
    assert roots(name) <= {*sys.stdlib_module_names, "dsmgateway"}
    outside = {"asyncio", "socket", "threading", "time", "datetime", "pathlib", "sqlite3", "random"}
    assert not roots(name) & outside


def test_the_database_of_devices_stands_on_little() -> None:
    """The command line uses it without a gateway."""
    assert ours("devices") <= {"admission", "errors"}
    assert roots("devices") <= {*sys.stdlib_module_names, "dsmgateway"}


@pytest.mark.parametrize(
    "name", sorted({*set().union(*CORE), *ALONE, *(name for name in SOURCES if name.partition(".")[0] == "store")})
)
def test_no_twisted_in_the_core_and_the_store(name: str) -> None:
    """What decides and what writes can be used, and tested, without Twisted; only the CRC comes from outside."""
    allowed = {*sys.stdlib_module_names, "dsmgateway"} | ({"fastcrc"} if name == "crc" else set())
    assert roots(name) <= allowed


@pytest.mark.parametrize("name", sorted(set().union(*CORE) | ALONE))
def test_core_has_no_clock_socket_or_thread(name: str) -> None:
    """The core owns nothing that would have to be waited for; only the trace names its file by the time.

    Metadata writes a time as a date, and never asks what time it is.
    """
    outside = {"asyncio", "socket", "ssl", "threading", "time", "datetime", "os", "pathlib", "subprocess", "random"}
    allowed = {"trace": {"time", "pathlib"}, "metadata": {"datetime"}}
    assert roots(name) & outside <= allowed.get(name, set())


def test_metadata_does_not_ask_what_time_it_is() -> None:
    """Of dates the metadata uses the arithmetic only."""
    used = {node.attr for node in ast.walk(SOURCES["metadata"]) if isinstance(node, ast.Attribute)}
    assert not used & {"now", "utcnow", "today"}


def test_only_the_command_exports() -> None:
    """Whatever the export costs, or hangs on, it is never in the gateway's process."""
    assert {name for name in SOURCES if ours(name) & EXPORT} == {"cli", "export_command"}


def test_what_reads_a_video_is_pure() -> None:
    """It takes bytes and gives bytes, and has nothing to do with where they are."""
    assert ours("h265") == {"errors"}
    assert roots("h265") <= {"__future__", "collections", "dsmgateway", "itertools", "re"}


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_reactor_is_imported_at_the_edge_only(name: str) -> None:
    """No module but the daemon's wiring and command lines imports the reactor, not inside a function either."""
    assert name in REACTOR or "twisted.internet.reactor" not in set(imported(SOURCES[name]))


@pytest.mark.parametrize("name", sorted(REACTOR & SOURCES.keys()))
def test_reactor_is_imported_late(name: str) -> None:
    """Where the reactor is imported, it is inside a function: which one it is has been decided by then."""
    top = ast.Module([node for node in SOURCES[name].body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    assert "twisted.internet.reactor" not in set(imported(top))


@pytest.mark.parametrize(
    "source",
    [
        "from twisted.internet import reactor",
        "import twisted.internet.reactor",
        "from twisted.internet.reactor import callLater",
        "def f():\n    from twisted.internet import defer, reactor as r",
        "if True:\n    try:\n        import twisted.internet.reactor as r\n    except ImportError:\n        pass",
    ],
)
def test_the_rule_sees_every_way_to_import(source: str) -> None:
    """However the reactor is imported, the rule sees it."""
    assert "twisted.internet.reactor" in set(imported(ast.parse(source)))


def test_what_reads_a_proxy_header_is_pure() -> None:
    """It takes bytes and says whose connection it is, and has nothing to do with who sends them."""
    assert ours("proxy_header") == {"errors"}
    assert roots("proxy_header") <= {"__future__", "dataclasses", "dsmgateway", "ipaddress", "re"}


def test_the_gateway_brings_no_export() -> None:
    """What the rules say of the source holds of the running daemon."""
    program = (
        "import sys, dsmgateway.tap, dsmgateway.service\n"
        "print(*sorted(name.removeprefix('dsmgateway.') for name in sys.modules if name.startswith('dsmgateway.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert {"tap", "service", "protocol"} <= loaded
    assert not loaded & EXPORT


def test_session_and_store_bring_no_twisted() -> None:
    """What the rules say of the source holds of the running program."""
    program = (
        "import sys, dsmgateway.session, dsmgateway.store, dsmgateway.registry, dsmgateway.trace\n"
        "print(sorted({'twisted', 'txaio', 'zope'} & {name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
