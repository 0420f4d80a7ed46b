"""The index of stored files: an SQLite database that only repeats what the tree says, so that it can be asked.

WAL and synchronous=FULL, because with NORMAL a power cut takes recent commits; a batch is one transaction. One
connection writes and another one reads, each behind a lock of its own: what is read is committed, and nobody waits for
the commit of another thread to ask. Several processes may have it open; they commit one after the other. It can be
deleted at any time: it is rebuilt from the sidecars.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from dsmgateway.errors import StoreError
from dsmgateway.store.files import Disk
from dsmgateway.store.values import Record

#: One of another version is made anew; 2 brought the qualifier.
_VERSION = 2
_SCHEMA = (
    "DROP TABLE IF EXISTS stored",
    "CREATE TABLE stored (path TEXT PRIMARY KEY, imei TEXT NOT NULL, device_path BLOB NOT NULL, size INTEGER NOT NULL,"
    " sha256 TEXT NOT NULL, crc16 INTEGER, qualifier TEXT) WITHOUT ROWID",
    "CREATE INDEX stored_by_offer ON stored (imei, device_path, size)",
)
#: What the schema of ours says of itself; a damaged one passes the check and then refuses every query.
_CREATED = [(statement,) for statement in _SCHEMA[1:]]
_COLUMNS = "path, imei, device_path, size, sha256, crc16, qualifier"
_INSERT = f"INSERT OR REPLACE INTO stored ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
#: Offers that are looked for in one go: far from as many variables as a statement may have.
_MOST_OFFERS = 128

#: How SQLite comes to its files. Several processes have part of the database in a file that is mapped into memory, and
#: where the disk goes away an access to that may end the process (SIGBUS); one alone keeps it in memory of its own.
_ALONE, _SHARED = "unix-excl", "unix"
#: Seconds to wait for the commits of other processes: less than store-timeout, more than a slow disk takes for many.
_BUSY_S = 60.0

_Values = Sequence[str | bytes | int | None]
_T = TypeVar("_T")


class _Garbled(sqlite3.DatabaseError):
    """What SQLite said is no text."""

    sqlite_errorname = "SQLITE_CORRUPT"


class Index:
    """The database at ``path``. Every method may block and raises `StoreError`."""

    def __init__(self, path: Path, disk: Disk, *, alone: bool = True) -> None:
        """``alone``: no other process uses it meanwhile."""
        self.path = path
        self._address = f"{path.absolute().as_uri()}?vfs={_ALONE if alone else _SHARED}"
        self._disk = disk
        self._writing = threading.Lock()
        self._reading = threading.Lock()
        self._is_open = False
        self._connection: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None

    def open(self) -> bool:
        """Open the database; False means that it has to be rebuilt. A corrupt one is kept as ``*.corrupt``."""
        if self._disk.size(self.path) is not None:
            with suppress(sqlite3.DatabaseError):
                return self._open_sound()
            self.close()
            self._move_away()
        self._connect_both()
        return False

    def join(self) -> None:
        """Open a database that another process has opened, and found sound."""
        self._connect_both()

    def rebuild(self, records: Iterable[Record]) -> int:
        """Replace the whole content in one transaction and return how many records there are."""
        steps = [(statement, None) for statement in _SCHEMA]
        self._transaction([*steps, (_INSERT, map(_values, records)), (f"PRAGMA user_version = {_VERSION}", None)])
        return int(self._read("SELECT count(*) FROM stored")[0][0])

    def add(self, records: Sequence[Record]) -> None:
        """Commit these records together; when this returns they are durable."""
        self._transaction([(_INSERT, map(_values, records))])

    def probe(self) -> None:
        """Commit a transaction that changes nothing, to see whether one can be committed."""
        self._transaction([(f"PRAGMA user_version = {_VERSION}", None)])

    def remove(self, path: str) -> None:
        """Forget the file at this path."""
        self._transaction([("DELETE FROM stored WHERE path = ?", [(path,)])])

    def find(self, imei: str, device_path: bytes, size_bytes: int) -> list[Record]:
        """Return the stored files of this device that have this path and size, in order of their paths."""
        return self.find_all([(imei, device_path, size_bytes)]).get((imei, device_path, size_bytes), [])

    def find_all(self, offers: Sequence[tuple[str, bytes, int]]) -> dict[tuple[str, bytes, int], list[Record]]:
        """Do as `find` does for many (device, path, size) at once; where nothing is stored, there is nothing."""
        found: dict[tuple[str, bytes, int], list[Record]] = {}
        for first in range(0, len(offers), _MOST_OFFERS):
            some = offers[first : first + _MOST_OFFERS]
            for row in self._read(_select(len(some)), tuple(chain.from_iterable(some))):
                record = Record(*row)
                found.setdefault((record.imei, record.device_path, record.size_bytes), []).append(record)
        return found

    def has(self, path: str) -> bool:
        """Say whether the file at this path has been committed."""
        return bool(self._read("SELECT 1 FROM stored WHERE path = ?", (path,)))

    def close(self) -> None:
        """Close the database, if it is open."""
        with self._reading, self._writing:
            self._is_open = False
            reader, self._reader = self._reader, None
            writer, self._connection = self._connection, None
        try:
            self._close(reader)
        finally:
            self._close(writer)

    def _open_sound(self) -> bool:
        """Open a database that exists; raises `sqlite3.DatabaseError` if it is corrupt."""
        try:
            self._connect_both()
            # The quick one, at a third of the time, does not see what is wrong with the index of offers.
            if self._read("PRAGMA integrity_check(1)") != [("ok",)]:
                raise sqlite3.DatabaseError("integrity_check")
            if self._read("PRAGMA user_version") != [(_VERSION,)]:
                return False
            if self._read("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name") != _CREATED:
                raise sqlite3.DatabaseError("schema")
            return True
        except StoreError as error:
            if _is_corruption(error.__cause__):
                raise sqlite3.DatabaseError(str(error)) from error
            raise

    def _connect_both(self) -> None:
        with self._reading, self._writing:
            self._connection = self._connect()
            self._reader = self._connect()
            self._is_open = True

    def _connect(self) -> sqlite3.Connection:
        connection = self._disk.run(
            "open",
            self.path,
            sqlite3.connect,
            self._address,
            uri=True,
            timeout=_BUSY_S,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.text_factory = _text
        try:
            self._execute(connection, "PRAGMA journal_mode = WAL")
            self._execute(connection, "PRAGMA synchronous = FULL")
        except StoreError:
            with suppress(StoreError):
                self._close(connection)
            raise
        return connection

    def _close(self, connection: sqlite3.Connection | None) -> None:
        if connection is not None:
            self._disk.run("close", self.path, connection.close)

    def _move_away(self) -> None:
        self._disk.rename(self.path, self.path.with_name(self.path.name + ".corrupt"))
        for suffix in ("-wal", "-shm"):
            self._disk.unlink(self.path.with_name(self.path.name + suffix))

    def _read(self, statement: str, values: _Values = ()) -> list[tuple[Any, ...]]:
        with self._reading:
            if self._reader is None:
                raise self._not_open()
            return self._execute(self._reader, statement, values)

    def _execute(self, connection: sqlite3.Connection, statement: str, values: _Values = ()) -> list[tuple[Any, ...]]:
        return self._run("query", _fetched, connection, statement, values)

    def _transaction(self, statements: Sequence[tuple[str, Iterable[_Values] | None]]) -> None:
        """Run each statement, once or for every row, in one transaction."""
        with self._writing:
            connection = self._writer()
            try:
                self._run("begin in", connection.execute, "BEGIN IMMEDIATE")
                for statement, rows in statements:
                    if rows is None:
                        self._run("write to", connection.execute, statement)
                    else:
                        self._run("write to", connection.executemany, statement, rows)
                self._run("commit to", connection.execute, "COMMIT")
            except StoreError:
                self._roll_back(connection)
                raise

    def _run(self, operation: str, call: Callable[..., _T], *arguments: object) -> _T:
        """Make a call of SQLite; where the database proves to be damaged, the error says what helps."""
        try:
            return self._disk.run(operation, self.path, call, *arguments)
        except StoreError as error:
            if not _is_corruption(error.__cause__):
                raise
            hint = "damaged: it is built anew when the gateway is restarted"
            raise StoreError(f"{error} ({hint})") from error.__cause__

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        """Undo a transaction; where that fails, close the connection, which undoes it too."""
        if not connection.in_transaction:
            return
        try:
            self._disk.run("roll back", self.path, connection.execute, "ROLLBACK")
        except StoreError:
            self._connection = None
            with suppress(StoreError):
                self._close(connection)

    def _writer(self) -> sqlite3.Connection:
        """Return the connection that writes, anew if the last one had to be closed."""
        if not self._is_open:
            raise self._not_open()
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _not_open(self) -> StoreError:
        return StoreError(f"query {self.path}: the index is not open")


def _select(offers: int) -> str:
    """Return the statement that finds the files of so many offers; each is looked up in the index of offers."""
    values = ", ".join(["(?, ?, ?)"] * offers)
    return (
        f"WITH offered (by_imei, by_path, by_size) AS (VALUES {values}) SELECT {_COLUMNS} FROM offered"
        " CROSS JOIN stored ON imei = by_imei AND device_path = by_path AND size = by_size ORDER BY path"
    )


def _fetched(connection: sqlite3.Connection, statement: str, values: _Values) -> list[tuple[Any, ...]]:
    """Run a statement; of a damaged schema SQLite speaks in bytes that Python cannot read, in an error of its own."""
    try:
        return connection.execute(statement, values).fetchall()
    except UnicodeDecodeError as error:
        raise _Garbled(str(error)) from error


def _text(raw: bytes) -> str:
    """Read a text; a damaged one agrees with nothing, where an error would refuse its file for ever."""
    return raw.decode("utf-8", "replace")


def _values(record: Record) -> _Values:
    what = (record.path, record.imei, record.device_path, record.size_bytes)
    return (*what, record.sha256, record.crc16, record.qualifier)


def _is_corruption(error: BaseException | None) -> bool:
    """Tell a damaged file from a disk that fails: only the former is put away and rebuilt."""
    name = getattr(error, "sqlite_errorname", "")
    return name.startswith("SQLITE_CORRUPT") or name == "SQLITE_NOTADB"
