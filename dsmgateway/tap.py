"""What twistd calls: the options of ``twistd dsmgateway`` and the service made from them.

The only module that imports the reactor, and the only one that knows twistd: whatever can be wrong is found out, where
possible, before the process becomes a daemon, and is said in one line with a non-zero exit code.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, ClassVar

import txaio
from twisted.application.service import MultiService
from twisted.internet.error import ReactorNotRunning
from twisted.logger import ILogObserver
from twisted.python import usage
from twisted.python.components import Componentized
from twisted.python.logfile import LogFile

from dsmgateway import __version__, config
from dsmgateway.collector import spare_the_collector
from dsmgateway.config import Loaded
from dsmgateway.descriptors import most_connections, raise_descriptor_limit
from dsmgateway.errors import ConfigError, GatewayError
from dsmgateway.escape import one_line
from dsmgateway.events import Event, log_event
from dsmgateway.kinds import FLAG
from dsmgateway.logs import LineObserver, Stream
from dsmgateway.lookout import KnownFile
from dsmgateway.monotonic import use_monotonic_clock
from dsmgateway.preflight import check_folder, check_unlocked, check_writable
from dsmgateway.service import GatewayService, gateway_service
from dsmgateway.settings import OPTIONS, Option
from dsmgateway.turns import bound_turns
from dsmgateway.workers.supervisor import SupervisorService

txaio.use_twisted()

#: A gateway that cannot take so many cameras at a time says so.
_FEW_CAMERAS = 2000
#: The log of a daemon: bytes of a file, and how many older ones are kept.
_LOG_BYTES = 10_000_000
_OLD_LOGS = 10


def _help(option: Option) -> str:
    default = f"; default {option.shown_default}" if option.shown_default and option.kind is not FLAG else ""
    return f"{option.help_text} ({option.kind.unit}{default})"


def _parameters() -> list[list[str | None]]:
    once = [option for option in OPTIONS if option.kind is not FLAG and not option.repeatable]
    rows: list[list[str | None]] = [[option.name, None, None, _help(option)] for option in once]
    return [*rows, [config.CONFIG, None, None, "a TOML file with settings (file)"]]


def _flag(option: Option) -> str:
    return f"no-{option.name}" if option.default else option.name


class Options(usage.Options):
    """The options of ``twistd dsmgateway``: one for each setting."""

    longdesc = (
        "Receives the files of driver-facing cameras. Every option can also be given as DSMGATEWAY_NAME in the "
        "environment (DSMGATEWAY_INIT_TIMEOUT for --init-timeout) and in the TOML file that --config names; an option "
        "goes before the environment, the environment before the file. Times are seconds, or a number with s, m, h or "
        "d; sizes are bytes, or a number with KiB, MiB or GiB."
    )
    # No defaults here: an option that is not given leaves the word to the environment and the file.
    optParameters: ClassVar[list[list[str | None]]] = _parameters()
    optFlags: ClassVar[list[list[str | None]]] = [
        [_flag(option), None, f"{'do not ' if option.default else ''}{option.help_text}"]
        for option in OPTIONS
        if option.kind is FLAG
    ]
    #: The settings and where each came from, once the options are parsed.
    loaded: Loaded

    def __init__(self) -> None:
        self._repeated: dict[str, list[str]] = {}
        super().__init__()

    def opt_version(self) -> None:
        """Display the version and exit."""
        print(f"dsmgateway {__version__}")
        sys.exit(0)

    def parseOptions(self, options: Any = None) -> None:
        """Parse; under twistd, what is wrong is said in one line, without all the help before it."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            if self.parent is None:
                raise
            raise SystemExit(_one_line_error(error)) from None

    def postOptions(self) -> None:
        """Put the settings together; UsageError when one is wrong."""
        try:
            self.loaded = config.load(self._given(), os.environ, Path.cwd(), self[config.CONFIG])
        except ConfigError as error:
            raise usage.UsageError(str(error)) from None

    def _given(self) -> Mapping[str, list[str]]:
        flags = {option.name: _flag(option) for option in OPTIONS if option.kind is FLAG}
        once = [option.name for option in OPTIONS if option.name not in flags]
        given = {name: [self[name]] for name in once if self.get(name) is not None}
        given |= {name: ["false" if flag != name else "true"] for name, flag in flags.items() if self[flag]}
        return given | self._repeated


def _repeatable(option: Option) -> Callable[[Options, str], None]:
    """What Twisted calls each time that an option comes which may come more than once."""

    def take(self: Options, text: str) -> None:
        self._repeated.setdefault(option.name, []).append(text)

    take.__doc__ = _help(option)
    return take


for _option in OPTIONS:
    if _option.repeatable:
        setattr(Options, f"opt_{_option.name.replace('-', '_')}", _repeatable(_option))


def _one_line_error(error: BaseException) -> str:
    return f"twistd dsmgateway: {one_line(str(error))}"


@contextmanager
def _said_in_one_line(loaded: Loaded, setting: str) -> Iterator[None]:
    """Turn an error about ``setting`` into one line on stderr, which says where it was set, and exit code 1."""
    try:
        yield
    except GatewayError as error:
        source = loaded.sources.get(getattr(error, "setting", None) or setting)
        raise SystemExit(_one_line_error(error) + (f" ({source})" if source else "")) from None


def makeService(options: Options) -> MultiService:
    """The service for twistd; exits with one line when a port or a folder cannot be used."""
    from twisted.internet import reactor  # not earlier: twistd's --reactor decides which one this is

    use_monotonic_clock(reactor)
    loaded = options.loaded
    txaio.set_global_log_level(loaded.settings.log_level)
    with _said_in_one_line(loaded, "port"):
        several = loaded.settings.workers > 1
        gateway = SupervisorService(loaded.settings, reactor) if several else gateway_service(loaded.settings, reactor)
    return TwistdService(gateway, loaded, options.parent or {}, reactor)


class TwistdService(MultiService):
    """A gateway together with what it needs from the twistd process it runs in."""

    def __init__(
        self, gateway: GatewayService | SupervisorService, loaded: Loaded, twistd: dict[str, Any], reactor: Any
    ) -> None:
        """``twistd`` is what twistd itself was told: logfile, nodaemon, syslog, logger, pidfile."""
        super().__init__()
        self._gateway, self._loaded, self._twistd, self._reactor = gateway, loaded, twistd, reactor
        self._observers: list[LineObserver] = []
        gateway.setServiceParent(self)

    def setServiceParent(self, parent: Any) -> None:
        """Join ``parent``; when that is twistd's application, check all that can be checked before the daemon."""
        if isinstance(parent, Componentized):
            self._check()
            self._log_to(parent)
            self._take_descriptors()
            sys.excepthook = _report_start_error
        super().setServiceParent(parent)

    def startService(self) -> None:
        """Start the gateway; from then on SIGTERM and SIGINT stop it in good order, also before the reactor runs."""
        # The reactor puts its own handlers in place when it begins to run, and this is called right after that.
        self._reactor.callWhenRunning(lambda: self._take_signals((self._reactor.sigTerm, self._reactor.sigInt)))
        self._reactor.callWhenRunning(spare_the_collector)
        self._reactor.callWhenRunning(self._gather_lines)
        bound_turns(self._reactor)
        super().startService()
        self._take_signals((signal.SIG_DFL, signal.default_int_handler))
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            on_terminal = _is_terminal()
            signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._hang_up, on_terminal))

    def _check(self) -> None:
        settings = self._loaded.settings
        if self._twistd.get("pidfile"):
            with _said_in_one_line(self._loaded, "pidfile"):
                check_folder("folder of the pid file", Path(self._twistd["pidfile"]).parent)
        with _said_in_one_line(self._loaded, "data"):
            check_writable("data folder", settings.data)
            check_unlocked(settings.data)
        with _said_in_one_line(self._loaded, "known-devices"):
            if settings.known_devices is not None:
                KnownFile(settings.known_devices).read()
        with _said_in_one_line(self._loaded, "trace"):
            if settings.trace is not None:
                check_writable("trace folder", settings.trace)
        with _said_in_one_line(self._loaded, "port"):
            self._gateway.bind()

    def _take_descriptors(self) -> None:
        """Take as many open files as may be had: a camera that sends has a socket and a part file."""
        limit = raise_descriptor_limit()
        cameras = most_connections(limit) * self._loaded.settings.workers
        if cameras < _FEW_CAMERAS:
            log_event(txaio.make_logger(), Event.LIMIT_LOW, limit=limit, cameras=cameras)

    def _log_to(self, application: Componentized) -> None:
        """Have our lines where twistd (or twist) would log, unless something else was asked for."""
        if "fileLogObserverFactory" in self._twistd:
            self._twistd["fileLogObserverFactory"] = self._observer
        elif "nodaemon" in self._twistd and not (self._twistd["logger"] or self._twistd["syslog"]):
            stream = self._log_stream(self._twistd["logfile"], bool(self._twistd["nodaemon"]))
            application.setComponent(ILogObserver, self._observer(stream))

    def _observer(self, stream: Stream) -> LineObserver:
        settings = self._loaded.settings
        self._observers.append(LineObserver(stream, settings.log_format, settings.log_level))
        return self._observers[-1]

    def _gather_lines(self) -> None:
        for observer in self._observers:
            observer.gather(self._reactor)

    def _log_stream(self, name: str | None, foreground: bool) -> Stream:
        if name == "-" and not foreground:
            raise SystemExit("twistd dsmgateway: a daemon cannot log to stdout (option --logfile)")
        if name == "-" or (foreground and not name):
            return sys.stdout
        try:
            log_file: LogFile = LogFile.fromFullPath(
                name or "twistd.log", rotateLength=_LOG_BYTES, maxRotatedFiles=_OLD_LOGS
            )
        except OSError as error:
            raise SystemExit(f"twistd dsmgateway: log file {error.filename}: {error.strerror}") from None
        if not signal.getsignal(signal.SIGUSR1):
            signal.signal(signal.SIGUSR1, lambda *_: self._reactor.callFromThread(self._begin_new_log, log_file))
        return log_file

    def _begin_new_log(self, log_file: LogFile) -> None:
        for observer in self._observers:
            observer.flush()
        _rotate(log_file)

    def _take_signals(self, instead_of: tuple[Any, ...]) -> None:
        """Exit with code 0 on a stop that was asked for: twistd would let the process die of the signal.

        A handler that is none of ``instead_of`` is somebody's wish: ignored in the background, a debugger.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) in instead_of:
                signal.signal(number, self._signalled)

    def _hang_up(self, was_on_terminal: bool) -> None:
        """Read anew what can be, as SIGHUP asks for; but stop when it says that the terminal has gone."""
        if was_on_terminal and not _is_terminal():
            self._stop()
        else:
            self._gateway.reload()

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._stop)

    def _stop(self) -> None:
        with suppress(ReactorNotRunning):  # a second signal may come before the first has stopped it
            self._reactor.stop()


def _is_terminal() -> bool:
    """Whether our input is a terminal that is still there."""
    try:
        return os.isatty(0)
    except OSError:
        return False


def _rotate(log_file: LogFile) -> None:
    """Begin a new log file; one that logrotate has moved away already is only opened anew."""
    if os.path.exists(log_file.path):
        log_file.rotate()
    else:
        log_file.reopen()


def _report_start_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say in one line why the start failed after all; twistd removes its pid file and exits with code 1."""
    if not issubclass(kind, GatewayError):
        sys.__excepthook__(kind, error, trace)
        return
    log_event(txaio.make_logger(), Event.GATEWAY_NOT_STARTED, reason=str(error))
    if sys.__stderr__ is not None:
        sys.__stderr__.write(_one_line_error(error) + "\n")
