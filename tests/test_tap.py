"""Options and service as twistd uses them, without a twistd: what is refused, what is checked, where lines go."""

from __future__ import annotations

import fcntl
import os
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.application.service import Application, MultiService
from twisted.logger import ILogObserver
from twisted.plugin import IPlugin, getPlugins
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from dsmgateway import tap
from dsmgateway.errors import StoreError
from dsmgateway.kinds import FLAG
from dsmgateway.logs import LineObserver
from dsmgateway.preflight import check_folder, check_unlocked, check_writable
from dsmgateway.settings import OPTIONS
from dsmgateway.store import FileStore


class Twistd(usage.Options):
    """What twistd knows of itself, as far as the service looks at it."""

    optParameters = [["logfile"], ["logger"], ["pidfile"]]  # noqa: RUF012
    optFlags = [["nodaemon"], ["syslog"]]  # noqa: RUF012
    subCommands = [["dsmgateway", None, tap.Options, ""]]  # noqa: RUF012


class TapTests(SynchronousTestCase):
    """Each test has a folder of its own as the working folder, and no settings in its environment."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name).resolve()
        self.addCleanup(os.chdir, Path.cwd())
        os.chdir(self.folder)
        self.patch(os, "environ", {"PATH": os.environ["PATH"]})
        self.patch(sys, "excepthook", sys.excepthook)

    def options(self, *arguments: str) -> tap.Options:
        options = tap.Options()
        options.parseOptions(list(arguments))
        return options

    def under_twistd(self, twistd: str, *arguments: str) -> Twistd:
        options = Twistd()
        options.parseOptions([*twistd.split(), "dsmgateway", *arguments])
        return options

    def application(self, twistd: str, *arguments: str) -> Any:
        """An application with our service in it, as twistd makes it; its ports are closed again."""
        options = self.under_twistd(twistd, "--port=tcp:0:interface=127.0.0.1", *arguments)
        service = tap.makeService(options.subOptions)
        application = Application("dsmgateway")
        service.setServiceParent(application)
        self.addCleanup(lambda: [one.stopService() for one in service._gateway])
        return application

    def test_every_setting_is_an_option_with_help_unit_and_default(self) -> None:
        """And there are no others than these, --config, --help and --version."""
        options = self.options()
        text = " ".join(options.getUsage(width=200).split())
        for option in OPTIONS:
            self.assertIn(option.help_text, text)
            if option.kind is not FLAG:
                self.assertIn(f"--{option.name}=", text)
                self.assertIn(f"default {option.shown_default}" if option.shown_default else option.kind.unit, text)
        names = {name.rstrip("=") for name in options.longOpt}
        ours = {"no-metadata" if option.name == "metadata" else option.name for option in OPTIONS}
        self.assertEqual(names - ours, {"config", "help", "version"})

    def test_options_make_settings(self) -> None:
        """Ports may be given more than once; a relative folder counts from the working folder."""
        settings = self.options("--port", "1", "--port=unix:x", "--no-metadata", "--init-timeout=2m").loaded.settings
        self.assertEqual(settings.ports, ("1", "unix:x"))
        self.assertEqual((settings.metadata, settings.init_timeout), (False, 120.0))
        settings = self.options("--tls-port=1", "--tls-port", "2", "--tls-cert=c", "--no-metadata").loaded.settings
        self.assertEqual((settings.tls_ports, settings.tls_cert), (("1", "2"), self.folder / "c"))
        self.assertEqual((settings.ports, settings.tls_match_imei), (("10014",), False))
        options = ("--tls-port=1", "--tls-cert=c", "--tls-client-ca=a", "--tls-match-imei")
        self.assertTrue(self.options(*options).loaded.settings.tls_match_imei)
        self.assertEqual(settings.data, self.folder / "dsm-data")

    def test_environment_and_file_are_looked_at(self) -> None:
        """The file is the one that --config names."""
        (self.folder / "my.toml").write_text("backlog = 7\nresume-tries = 7\n")
        os.environ["DSMGATEWAY_RESUME_TRIES"] = "8"
        settings = self.options("--config", "my.toml").loaded.settings
        self.assertEqual((settings.backlog, settings.resume_tries), (7, 8))

    def test_what_is_wrong_is_a_usage_error(self) -> None:
        """For whoever uses the options outside twistd."""
        for wrong in (["--init-timeout=soon"], ["--nonsense"], ["--config=none.toml"], ["surplus"]):
            with self.assertRaises(usage.UsageError):
                self.options(*wrong)

    def test_under_twistd_what_is_wrong_is_one_line_and_no_help_text(self) -> None:
        """Exit code 1 comes with a SystemExit that has a text."""
        for wrong in ("--init-timeout=soon", "--nonsense", "--config=no\nne.toml", "surplus"):
            with self.assertRaises(SystemExit) as caught:
                self.under_twistd("", wrong)
            self.assertRegex(str(caught.exception.code), r"\Atwistd dsmgateway: [^\n]+\Z")

    def test_version_is_ours(self) -> None:
        """Not Twisted's."""
        with self.assertRaises(SystemExit) as caught:
            self.options("--version")
        self.assertEqual(caught.exception.code, 0)

    def test_twistd_finds_the_plugin(self) -> None:
        """Under its name."""
        self.assertIn("dsmgateway", [getattr(plugin, "tapname", "") for plugin in getPlugins(IPlugin)])

    def test_a_port_that_cannot_be_had_is_one_line_that_says_where_it_was_set(self) -> None:
        """Whether it is described wrongly or busy; before anything else is started."""
        os.environ["DSMGATEWAY_PORT"] = "carrier-pigeon:1"
        with self.assertRaises(SystemExit) as caught:
            tap.makeService(self.under_twistd("--nodaemon").subOptions)
        self.assertEqual(
            caught.exception.code,
            "twistd dsmgateway: endpoint 'carrier-pigeon:1': Unknown endpoint type: 'carrier-pigeon' "
            "(environment variable DSMGATEWAY_PORT)",
        )

    def test_folders_are_checked_before_the_daemon_and_not_made(self) -> None:
        """Data, trace and pid file; as far as can be seen from outside."""
        (self.folder / "file").write_text("")
        for twistd, arguments, problem in (
            ("", ["--data=file/data"], f"data folder {self.folder}/file/data: {self.folder}/file is not a folder"),
            ("", ["--trace=file"], f"trace folder {self.folder}/file: {self.folder}/file is not a folder"),
            ("--pidfile=/nowhere/x.pid", [], "folder of the pid file /nowhere: no such folder"),
        ):
            with self.assertRaises(SystemExit) as caught:
                self.application(f"--nodaemon {twistd}", *arguments)
            self.assertIn(problem, str(caught.exception.code))
        self.assertEqual([path.name for path in self.folder.iterdir()], ["file"])

    def test_in_the_foreground_our_lines_go_to_stdout(self) -> None:
        """The application gets the observer that twistd then takes."""
        observer = self.application("--nodaemon", "--log-format=json").getComponent(ILogObserver)
        self.assertIsInstance(observer, LineObserver)
        self.assertIs(observer._stream, sys.stdout)

    def test_a_daemon_logs_to_twistds_file_or_the_one_that_is_named(self) -> None:
        """Both in the working folder."""
        for twistd, name in (
            ("", "twistd.log"),
            ("--logfile=my.log", "my.log"),
            ("--nodaemon --logfile=n.log", "n.log"),
        ):
            stream = self.application(twistd).getComponent(ILogObserver)._stream
            self.addCleanup(stream.close)
            self.assertEqual(stream.path, str(self.folder / name))

    def test_a_log_file_that_cannot_be_had_is_one_line(self) -> None:
        """So is a daemon that shall log to a terminal it does not have."""
        for twistd, problem in (
            ("--logfile=/nowhere/x.log", "twistd dsmgateway: log file /nowhere/x.log: No such file or directory"),
            ("--logfile=-", "twistd dsmgateway: a daemon cannot log to stdout (option --logfile)"),
        ):
            with self.assertRaises(SystemExit) as caught:
                self.application(twistd)
            self.assertEqual(caught.exception.code, problem)

    def test_syslog_and_loggers_of_ones_own_are_left_alone(self) -> None:
        """They were asked for."""
        for twistd in ("--nodaemon --syslog", "--nodaemon --logger=my.logger"):
            self.assertIsNone(self.application(twistd).getComponent(ILogObserver, None))

    def test_in_another_service_nothing_is_checked_and_no_observer_is_set(self) -> None:
        """Only twistd's application makes it twistd's service."""
        hook = sys.excepthook
        service = tap.makeService(self.under_twistd("", "--data=/proc/none").subOptions)
        service.setServiceParent(MultiService())
        self.assertIs(sys.excepthook, hook)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_only_under_twistd_all_the_open_files_are_taken_that_may_be_had(self) -> None:
        """In another program, its limits are that program's."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 1, hard))
        tap.makeService(self.under_twistd("").subOptions).setServiceParent(MultiService())
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), (hard - 1, hard))
        self.application("--nodaemon")
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), (hard, hard))

    def test_a_log_file_is_rotated_and_one_that_was_moved_away_is_opened_anew(self) -> None:
        """What SIGUSR1 does."""
        stream = self.application("").getComponent(ILogObserver)._stream
        self.addCleanup(lambda: stream.close())
        stream.write("first\n")
        tap._rotate(stream)
        stream.write("second\n")
        (self.folder / "twistd.log").rename(self.folder / "moved.log")
        tap._rotate(stream)
        stream.write("third\n")
        texts = [(self.folder / name).read_text() for name in ("twistd.log.1", "moved.log", "twistd.log")]
        self.assertEqual(texts, ["first\n", "second\n", "third\n"])

    def test_a_log_file_is_rotated_at_10_mb_and_10_older_ones_are_kept(self) -> None:
        """So that a log has an end."""
        stream = self.application("").getComponent(ILogObserver)._stream
        self.addCleanup(lambda: stream.close())
        rotated = self.folder / "twistd.log.1"
        stream.write("x" * 9_999_000)
        stream.write("x" * 1000)
        self.assertFalse(rotated.exists())
        stream.write("next\n")
        self.assertEqual(rotated.stat().st_size // 1_000_000, 10)
        for _ in range(12):
            tap._rotate(stream)
        self.assertEqual(
            {path.name for path in self.folder.glob("twistd.log.*")}, {f"twistd.log.{n}" for n in range(1, 11)}
        )


class PreflightTests(SynchronousTestCase):
    """What can be seen of folders from outside."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_a_folder_that_is_there_or_can_be_made_is_good(self) -> None:
        """And is not made."""
        check_writable("data folder", self.folder)
        check_writable("data folder", self.folder / "a" / "b")
        check_folder("data folder", self.folder)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_a_folder_that_may_not_be_written_is_refused(self) -> None:
        """Whether it is the one itself or the one it would be made in."""
        self.patch(os, "access", lambda path, mode: path != self.folder)
        for folder in (self.folder, self.folder / "data"):
            with self.assertRaisesRegex(StoreError, f"^data folder {folder}: {self.folder} is not writable$"):
                check_writable("data folder", folder)

    def test_a_dangling_link_is_no_folder(self) -> None:
        """Neither can one be made in its place."""
        (self.folder / "link").symlink_to(self.folder / "none")
        with self.assertRaisesRegex(StoreError, "is not a folder"):
            check_writable("data folder", self.folder / "link" / "data")

    def test_a_locked_data_folder_is_refused_until_it_is_let_go(self) -> None:
        """Looking does not lock it."""
        check_unlocked(self.folder)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with self.assertRaisesRegex(StoreError, "another gateway is using it"):
                check_unlocked(self.folder)
        check_unlocked(self.folder)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_the_lock_that_is_looked_at_is_the_one_that_the_store_takes(self) -> None:
        """For as long as the store runs."""
        store = FileStore(self.folder)
        store.start(part_max_age_s=1)
        with self.assertRaisesRegex(StoreError, "another gateway is using it"):
            check_unlocked(self.folder)
        store.stop()
        check_unlocked(self.folder)
