"""The database of devices in the data folder: who was refused and could be approved, who is approved, who is blocked.

Two processes use it: the gateway, which writes down whom it refused and reads what was decided, and `dsmgateway
devices`, which shows and decides. Blocking, standard library only. An IMEI that nobody decided on costs one row of a
bounded number, so that invented ones cannot fill the disk. Nor can they push out the real ones: where there are too
many, the address that has the most rows loses the one longest away.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dsmgateway.admission import Roll, Sighting
from dsmgateway.errors import StoreError

FILE_NAME = "devices.sqlite3"
UNKNOWN, APPROVED, BLOCKED = "unknown", "approved", "blocked"
#: Rows of refused devices, unless told otherwise.
MAX_UNKNOWN = 10_000
_VERSION = 1
_FILE_MODE = 0o640
_BUSY_S = 5.0
_SCHEMA = (
    "CREATE TABLE devices (imei TEXT PRIMARY KEY, state TEXT NOT NULL, name TEXT NOT NULL DEFAULT '',"
    " first_seen REAL, last_seen REAL, refused INTEGER NOT NULL DEFAULT 0, address TEXT NOT NULL DEFAULT ''"
    ") WITHOUT ROWID",
    "CREATE INDEX devices_by_state ON devices (state, last_seen)",
    f"PRAGMA user_version = {_VERSION}",
)
_SEE = (
    "INSERT INTO devices (imei, state, first_seen, last_seen, refused, address) VALUES (?, 'unknown', ?, ?, ?, ?)"
    " ON CONFLICT (imei) DO UPDATE SET first_seen = coalesce(first_seen, excluded.first_seen),"
    " last_seen = excluded.last_seen, refused = refused + excluded.refused, address = excluded.address"
)
_COUNT_UNKNOWN = "SELECT count(*) FROM devices WHERE state = 'unknown'"
#: Each address keeps its latest ones: all have their first row before any has its second.
_DROP = (
    "DELETE FROM devices WHERE imei IN (SELECT imei FROM ("
    "SELECT imei, last_seen, row_number() OVER (PARTITION BY address ORDER BY last_seen DESC) AS place"
    " FROM devices WHERE state = 'unknown') ORDER BY place, last_seen DESC LIMIT -1 OFFSET ?)"
)
_DECIDE = (
    "INSERT INTO devices (imei, state, name) VALUES (?, ?, coalesce(?, ''))"
    " ON CONFLICT (imei) DO UPDATE SET state = excluded.state, name = coalesce(?, name)"
)
_ROWS = (
    "SELECT imei, state, name, first_seen, last_seen, refused, address FROM devices"
    " ORDER BY state = 'unknown' DESC, state, last_seen DESC, imei"
)


@dataclass(frozen=True, slots=True)
class Device:
    """One row: ``state`` is unknown, approved or blocked; times are seconds since 1970, None when it never came."""

    imei: str
    state: str
    name: str
    first_seen_s: float | None
    last_seen_s: float | None
    refused: int
    address: str


class Devices:
    """The database at ``path``, opened when it is needed, and again when another file is there.

    Every method may block, also for another process that writes, and raises `StoreError`.
    """

    def __init__(self, path: Path, create: bool, max_unknown: int = MAX_UNKNOWN) -> None:
        """With ``create`` it is made where it is missing, else it is then empty. Nothing is touched yet."""
        self.path = path
        self._create = create
        self._max_unknown = max_unknown
        self._database: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        #: What the database was when the roll was read last.
        self._read: object = None

    def write_down(self, sightings: Mapping[str, Sighting]) -> None:
        """Note devices that were refused, by IMEI, in one commit."""
        rows = [(imei, seen.first_s, seen.last_s, seen.count, seen.address) for imei, seen in sightings.items()]
        with self._opened() as database:
            if rows and database is not None:
                with _committed(database):
                    database.executemany(_SEE, rows)
                    if database.execute(_COUNT_UNKNOWN).fetchone()[0] > self._max_unknown:
                        database.execute(_DROP, (self._max_unknown,))

    def roll(self) -> Roll | None:
        """Return what is decided, None when nothing has changed since the last call."""
        with self._opened() as database:
            version = database and database.execute("PRAGMA data_version").fetchone()[0]
            now = (self._inode, version)
            if now == self._read:
                return None
            rows = database.execute("SELECT imei, state FROM devices WHERE state != 'unknown'") if database else ()
            decided: dict[str, list[str]] = {APPROVED: [], BLOCKED: []}
            for imei, state in rows:
                if state not in decided:
                    raise StoreError(
                        f"database of devices {self.path}: {imei} is neither approved nor blocked: {state!r}"
                    )
                decided[state].append(imei)
            self._read = now
            return Roll(frozenset(decided[APPROVED]), frozenset(decided[BLOCKED]))

    def rows(self) -> list[Device]:
        """Return all devices: those to be decided on first, of these the one that came last."""
        with self._opened() as database:
            return [Device(*row) for row in database.execute(_ROWS)] if database else []

    def decide(self, imeis: Iterable[str], state: str, name: str | None = None) -> None:
        """Approve or block devices, whether they ever came or not, and name them if ``name`` is given."""
        with self._opened() as database:
            assert database is not None, "who decides has it created"
            with _committed(database):
                database.executemany(_DECIDE, [(imei, state, name, name) for imei in imeis])

    def forget(self, imeis: Iterable[str]) -> None:
        """Take back what was decided of devices, and forget that they came."""
        with self._opened() as database:
            if database is not None:
                with _committed(database):
                    database.executemany("DELETE FROM devices WHERE imei = ?", [(imei,) for imei in imeis])

    def close(self) -> None:
        """Let go of the file; the next call opens it again."""
        database, self._database, self._inode = self._database, None, None
        self._read = None  # a version means nothing to another connection
        if database is not None:
            database.close()

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection | None]:
        """The database that is at the path now, None where there is none and none is to be made."""
        try:
            self._follow()
            yield self._database
        except OSError as error:
            self.close()
            raise StoreError(f"database of devices {self.path}: {error.strerror}") from error
        except sqlite3.Error as error:
            self.close()
            raise StoreError(f"database of devices {self.path}: {error}") from error

    def _follow(self) -> None:
        inode = _inode(self.path)
        if inode != self._inode:
            self.close()
        if self._database is not None or (inode is None and not self._create):
            return
        if inode is None:
            _make(self.path)
        self._open()

    def _open(self) -> None:
        # One thread uses it at a time, but not always the same.
        database = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        self._database, self._inode = database, _inode(self.path)
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            with _committed(database):  # another process may be just as far
                if database.execute("PRAGMA user_version").fetchone()[0] == 0:
                    for statement in _SCHEMA:
                        database.execute(statement)
        elif version != _VERSION:
            self.close()
            raise StoreError(f"database of devices {self.path}: made by another version of the gateway")


@contextmanager
def _committed(database: sqlite3.Connection) -> Iterator[None]:
    """Commit what is done within, or none of it."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _make(path: Path) -> None:
    """Make an empty file. Not by SQLite, since nobody else shall read it; but root makes it for the folder's owner.

    Nothing that is there already is given away.
    """
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, _FILE_MODE)
    except FileExistsError:
        if _inode(path) is None:  # a link to nowhere
            raise
        return  # another process was quicker
    try:
        if os.geteuid() == 0:
            folder = os.stat(path.parent)
            os.fchown(descriptor, folder.st_uid, folder.st_gid)
    finally:
        os.close(descriptor)


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
