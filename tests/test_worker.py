"""The store worker: order, held bytes, groups, checkpoints, errors, the end; lanes are run by hand but for one test."""

from __future__ import annotations

import errno
import gc
import queue
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from store_faults import FaultyDisk
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from dsmgateway.crc import crc16
from dsmgateway.errors import StoreError
from dsmgateway.interfaces import IFileWorker
from dsmgateway.lanes import Pace
from dsmgateway.store import Differs, Dropped, FileStore, NoRoom, Offered, Stored, Upload, VolumeFailing
from dsmgateway.worker import StoreWorker

IMEI = "352093081429150"
PEER = "198.51.100.7"
PACKET = bytes(range(256)) * 4


def _offered(number: int = 0, packets: int = 4, imei: str = IMEI, crc: int = 0) -> Offered:
    return Offered(imei, b"dsm/picture/%d.jpg" % number, packets * 1024, crc)


class ByHand:
    """A thread that does not run; the test makes the steps of its lane."""

    def __init__(self, *, target: Callable[[], object], name: str, daemon: bool) -> None:
        assert daemon

    def start(self) -> None:
        pass

    def join(self) -> None:
        pass


class HandRun(SynchronousTestCase):
    """A worker whose one lane is run by the test, on a clock of the test, in front of a disk that counts."""

    pace = Pace(finish_gap_s=0.0)
    threads = 1

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.disk = FaultyDisk(errno=errno.EIO)
        self.clock = Clock()
        self.batches: list[int] = []
        self.store = FileStore(self.folder / "data", disk=self.disk)
        self.worker = StoreWorker(
            self.store,
            call_in_reactor=self.call,
            threads=self.threads,
            pace=self.pace,
            clock=self.clock.seconds,
            thread=ByHand,
        )
        self.worker.start()
        self.addCleanup(self.store.stop)
        self.disk.calls.clear()

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        self.batches.append(len(arguments[0]) if isinstance(arguments[0], list) else -1)
        function(*arguments)

    def step(self) -> None:
        """Let the lane do what is waiting, without waiting for more."""
        for lane in self.worker.lanes:
            if not lane._jobs:
                lane._jobs.append(_nothing())
            lane.step()

    def opened(self, offered: Offered, **options: bool) -> Upload:
        deferred = self.worker.open(offered, PEER, **options)
        self.step()
        return self.successResultOf(deferred)

    def send(self, upload: Upload, packets: int = 4) -> list[Deferred[None]]:
        start = upload.offset_bytes
        return [self.append(upload, start + 1024 * number, PACKET) for number in range(packets)]

    def append(self, upload: Upload, offset_bytes: int, data: bytes) -> Deferred[None]:
        """Append, and return what is told of it as a Deferred."""
        deferred: Deferred[None] = Deferred()

        def done(failure: Failure | None) -> None:
            if failure is None:
                deferred.callback(None)
            else:
                deferred.errback(failure)

        self.worker.append(upload, offset_bytes, data, done)
        return deferred

    def ran(self, *operations: str) -> list[str]:
        """Return the system calls of these kinds since the last time."""
        calls = [call for call in self.disk.calls if call.startswith(operations)]
        self.disk.calls.clear()
        return calls


def _nothing() -> Any:
    """Something in the queue that is no job: it only wakes the lane."""
    return object()


class OrderTests(HandRun):
    def test_it_is_what_the_interface_says(self) -> None:
        """The worker provides IFileWorker, signatures included."""
        verifyObject(IFileWorker, self.worker)

    def test_a_file_from_open_to_stored(self) -> None:
        """The bytes that arrive are the bytes of the file, and its sidecar has what the caller said."""
        upload = self.opened(_offered())
        self.assertEqual(upload.offset_bytes, 0)
        appended = self.send(upload)
        stored = self.worker.finish(upload, {"said": "by the caller"})
        self.step()
        answer = self.successResultOf(stored)
        assert isinstance(answer, Stored)
        path = self.folder / "data" / answer.path
        self.assertEqual(path.read_bytes(), PACKET * 4)
        self.assertIn('"said": "by the caller"', path.with_suffix(".json").read_text())
        self.assertEqual([self.successResultOf(deferred) for deferred in appended], [None] * 4)

    def test_results_come_in_the_order_of_the_calls(self) -> None:
        """Appends are answered before the finish that follows them, all in one call of the reactor."""
        upload = self.opened(_offered())
        self.batches.clear()
        order: list[str] = []
        for deferred in self.send(upload):
            deferred.addCallback(lambda _: order.append("append"))
        self.worker.finish(upload, {}).addCallback(lambda _: order.append("finish"))
        self.step()
        self.assertEqual(order, ["append"] * 4 + ["finish"])
        self.assertEqual(self.batches, [5])

    def test_an_open_sees_what_was_finished_and_appended_before_it(self) -> None:
        """A second connection of the same device finds the file of the first stored, and its other part parked."""
        crc = crc16(PACKET * 4)
        first, other = self.opened(_offered(crc=crc)), self.opened(_offered(1))
        self.send(first)
        self.worker.finish(first, {})
        self.send(other, 2)
        again, part = self.worker.open(_offered(crc=crc), PEER), self.worker.open(_offered(1), PEER)
        self.step()
        self.assertTrue(self.successResultOf(again).comparing)
        self.assertEqual(self.successResultOf(part).offset_bytes, 2048)

    def test_a_comparison_that_differs_is_an_answer_and_no_error(self) -> None:
        """Differs arrives as a result."""
        crc = crc16(PACKET * 4)
        upload = self.opened(_offered(crc=crc))
        self.send(upload)
        self.worker.finish(upload, {})
        again = self.opened(_offered(crc=crc))
        self.append(again, 3072, bytes(1024))
        finished = self.worker.finish(again, {})
        self.step()
        self.assertEqual(self.successResultOf(finished), Differs())
        self.assertFalse(self.opened(_offered(crc=crc), compare=False).comparing)

    def test_a_park_after_a_finish_in_one_batch_comes_after_it(self) -> None:
        """The finish is committed first, and parking what is finished does nothing."""
        upload = self.opened(_offered())
        self.send(upload)
        finished, parked = self.worker.finish(upload, {}), self.worker.park(upload)
        self.step()
        self.assertIsInstance(self.successResultOf(finished), Stored)
        self.assertIsNone(self.successResultOf(parked))

    def test_a_parked_file_goes_on_where_it_was(self) -> None:
        """Held bytes are written and durable when the park is answered."""
        upload = self.opened(_offered())
        self.send(upload, 3)
        parked = self.worker.park(upload)
        self.step()
        self.assertIsNone(self.successResultOf(parked))
        self.assertEqual(self.opened(_offered()).offset_bytes, 3072)


class HoldTests(HandRun):
    def test_packets_are_held_back_for_a_second_and_written_at_once(self) -> None:
        """Three packets, one write; the worker counts what is not written yet."""
        upload = self.opened(_offered())
        self.ran()
        appended = self.send(upload, 3)
        self.step()
        self.assertEqual(self.ran("write"), [])
        self.assertEqual(self.worker.backlog_bytes, 3072)
        self.assertNoResult(appended[0])
        self.clock.advance(1)
        self.step()
        self.assertEqual(len(self.ran("write")), 1)
        self.assertEqual([self.successResultOf(deferred) for deferred in appended], [None] * 3)
        self.assertEqual(self.worker.backlog_bytes, 0)

    def test_16_kib_are_written_without_waiting(self) -> None:
        """A fast sender's bytes go out in writes of 16 KiB."""
        upload = self.opened(_offered(packets=40))
        self.ran()
        self.send(upload, 40)
        self.step()
        self.assertEqual(len(self.ran("write")), 2)
        self.assertEqual(self.worker.backlog_bytes, 8 * 1024)

    def test_a_large_piece_is_written_at_once_with_what_waits_beside_it(self) -> None:
        """One write for each upload, and none left for later; a small piece after it is held back again."""
        uploads = [self.opened(_offered(number, packets=100)) for number in range(2)]
        self.ran()
        for place in range(0, 40, 10):
            for upload in uploads:
                self.append(upload, place * 1024, PACKET * 10)
        self.step()
        self.assertEqual(len(self.ran("write")), 2)
        self.assertEqual([upload.position_bytes for upload in uploads], [40 * 1024] * 2)
        self.append(uploads[0], 40 * 1024, PACKET)
        self.step()
        self.assertEqual(self.ran("write"), [])
        self.append(uploads[0], 41 * 1024, PACKET * 10)
        self.step()
        self.assertEqual(len(self.ran("write")), 1)
        self.assertEqual(self.worker.backlog_bytes, 0)

    def test_large_pieces_are_joined_up_to_256_kib(self) -> None:
        """Half a mebibyte that waits is two writes."""
        upload = self.opened(_offered(packets=600))
        self.ran()
        for place in range(0, 512, 16):
            self.append(upload, place * 1024, PACKET * 16)
        self.step()
        self.assertEqual(len(self.ran("write")), 2)

    def test_many_tiny_pieces_are_written_before_they_become_a_burden(self) -> None:
        """One byte at a time costs a write every 64."""
        upload = self.opened(_offered())
        for place in range(130):
            self.append(upload, place, PACKET[place : place + 1])
        self.ran()
        self.step()
        self.assertEqual(len(self.ran("write")), 2)
        self.assertEqual(self.worker.backlog_bytes, 2)

    def test_a_rewind_is_written_after_what_came_before_it(self) -> None:
        """Bytes at a lower offset overwrite, whatever is held back."""
        upload = self.opened(_offered(packets=2))
        for offset, data in ((0, b"x" * 1024), (1024, b"y" * 1024), (0, PACKET), (1024, PACKET)):
            self.append(upload, offset, data)
        finished = self.worker.finish(upload, {})
        self.step()
        answer = self.successResultOf(finished)
        assert isinstance(answer, Stored)
        self.assertEqual((self.folder / "data" / answer.path).read_bytes(), PACKET * 2)

    def test_a_lane_knows_when_it_is_due(self) -> None:
        """Never without work; in a second with held bytes; at the next checkpoint after that; at once when late."""
        lane = self.worker.lanes[0]._lane
        upload = self.opened(_offered())
        self.assertIsNone(lane.due_in_s())
        self.send(upload, 1)
        self.step()
        self.assertEqual(lane.due_in_s(), 1)
        self.clock.advance(1)
        self.step()
        self.assertEqual(lane.due_in_s(), 5)
        self.clock.advance(7)
        self.assertEqual(lane.due_in_s(), 0)


class GroupTests(HandRun):
    pace = Pace(finish_group=4, finish_gap_s=0.0)

    def test_finishes_that_wait_together_are_committed_together(self) -> None:
        """Six files, groups of four at most, two commits."""
        uploads = [self.opened(_offered(number)) for number in range(6)]
        finished = []
        for upload in uploads:
            self.send(upload)
            finished.append(self.worker.finish(upload, {}))
        self.ran()
        self.step()
        self.assertEqual(len(self.ran("commit")), 2)
        for deferred in finished:
            self.assertIsInstance(self.successResultOf(deferred), Stored)

    def test_one_failure_in_a_group_is_not_that_of_the_others(self) -> None:
        """The file whose sync fails gets its StoreError, the next one is stored."""
        uploads = [self.opened(_offered(number)) for number in range(2)]
        finished = []
        for upload in uploads:
            self.send(upload)
            finished.append(self.worker.finish(upload, {}))
        self.ran()
        self.disk.only, self.disk.fail_at = "fsync ", 1
        self.step()
        self.assertIn("Input/output error", str(self.failureResultOf(finished[0], StoreError).value))
        self.assertIsInstance(self.successResultOf(finished[1]), Stored)

    def test_a_bug_in_a_finish_reaches_every_caller_of_the_group(self) -> None:
        """An exception that is no StoreError is passed on as it is, and the uploads are closed."""
        uploads = [self.opened(_offered(number)) for number in range(2)]
        for upload in uploads:
            self.send(upload)
        finished = [self.worker.finish(upload, about) for upload, about in zip(uploads, ({}, None), strict=True)]  # type: ignore[arg-type]
        self.step()
        for deferred, upload in zip(finished, uploads, strict=True):
            self.failureResultOf(deferred, AttributeError)
            self.assertFalse(upload.is_open)


class GapTests(HandRun):
    pace = Pace(finish_group=4, finish_gap_s=0.02)

    def test_a_file_after_quiet_is_stored_at_once_and_those_right_after_it_together(self) -> None:
        """A group begins 20 ms after the one before it; the lane is due then."""
        finished = self._finished(0)
        self.step()
        self.assertIsInstance(self.successResultOf(finished), Stored)
        first, second = self._finished(1), self._finished(2, imei="356307042441013")
        self.step()
        self.assertNoResult(first)
        self.assertAlmostEqual(self.worker.lanes[0]._lane.due_in_s() or 0.0, 0.02)
        self.clock.advance(0.02)
        self.ran()
        self.step()
        self.assertEqual(len(self.ran("commit")), 1)
        for deferred in (first, second):
            self.assertIsInstance(self.successResultOf(deferred), Stored)

    def test_a_whole_group_does_not_wait(self) -> None:
        """Four are as many as are stored together."""
        self._finished(0)
        self.step()
        finished = [self._finished(number, imei=f"35630704244{number:04d}") for number in range(1, 5)]
        self.step()
        for deferred in finished:
            self.assertIsInstance(self.successResultOf(deferred), Stored)

    def test_what_waits_is_stored_before_its_device_offers_anything(self) -> None:
        """The same file again is a duplicate, whatever the gap."""
        self._finished(0)
        self.step()
        finished = self._finished(1)
        opened = self.worker.open(_offered(2), PEER)
        self.step()
        self.assertIsInstance(self.successResultOf(finished), Stored)
        self.successResultOf(opened)

    def test_a_stop_stores_what_waits(self) -> None:
        """And answers it."""
        self._finished(0)
        self.step()
        finished = self._finished(1)
        self.step()
        self.assertNoResult(finished)
        stopped = self.worker.stop()
        self.step()
        self.assertIsInstance(self.successResultOf(finished), Stored)
        self.assertIsNone(self.successResultOf(stopped))

    def test_a_bug_fails_what_waits_too(self) -> None:
        """Nobody is left without an answer."""
        self._finished(0)
        self.step()
        finished = self._finished(1)
        self.step()
        self.assertNoResult(finished)
        self.patch(self.worker.lanes[0]._lane, "_tend", lambda: 1 // 0)
        expired = self.worker.expire()
        self.step()
        self.failureResultOf(finished, ZeroDivisionError)
        self.assertEqual(self.successResultOf(expired), ())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        del self.worker.lanes[0]._lane._tend

    def _finished(self, number: int, **options: str) -> Deferred[Stored | Differs]:
        upload = self.opened(_offered(number, **options))
        self.send(upload)
        return self.worker.finish(upload, {})


class CheckpointTests(HandRun):
    pace = Pace(checkpoints_at_once=2, finish_gap_s=0.0, checkpoint_bytes=256 * 1024)

    def test_a_checkpoint_is_made_every_256_kib(self) -> None:
        """One after 256 packets, none before."""
        upload = self.opened(_offered(packets=400))
        self.ran()
        self.send(upload, 400)
        self.step()
        self.assertEqual(len([call for call in self.ran("fdatasync") if call.endswith(".part")]), 1)
        self.assertEqual(upload.dirty_bytes, (400 - 256 - 16) * 1024 + 16 * 1024)

    def test_a_checkpoint_is_made_after_five_seconds_but_not_without_need(self) -> None:
        """The clock starts with the first write after the last checkpoint; nothing is synced for it."""
        upload = self.opened(_offered())
        self.send(upload, 2)
        self.step()
        self.clock.advance(1)
        self.step()
        self.ran()
        self.clock.advance(4.9)
        self.step()
        self.assertEqual(self.ran("write", "fdatasync"), [])
        self.clock.advance(0.1)
        self.step()
        self.assertEqual(self.ran("write", "fdatasync", "fsync"), [f"write {upload.offered.key}.journal"])
        self.clock.advance(60)
        self.step()
        self.assertEqual(self.ran("write", "fdatasync"), [])
        parked = self.worker.park(upload)
        self.step()
        self.assertIsNone(self.successResultOf(parked))
        self.assertEqual(len(self.ran("fdatasync")), 2)

    def test_bytes_that_only_the_process_has_a_checkpoint_of_count_until_they_are_synced(self) -> None:
        """So a power cut never costs more than that, however many checkpoints were made by their time."""
        upload = self.opened(_offered(packets=400))
        for number in range(0, 256, 32):
            for packet in range(number, number + 32):
                self.append(upload, 1024 * packet, PACKET)
            self.step()
            self.assertEqual(len(self.ran("fdatasync")), 2 if number == 224 else 0)
            self.clock.advance(5)
            self.step()
        self.assertEqual(upload.unsynced_bytes, 0)

    def test_what_a_crash_left_counts_as_not_synced(self) -> None:
        """The journal does not tell which checkpoints are durable, so crashes do not add up to more than that."""
        offered = _offered(packets=2048)
        for begin in (0, 128):
            upload = self.opened(offered)
            self.assertEqual(upload.offset_bytes, 1024 * begin)
            self.append(upload, upload.offset_bytes, 128 * PACKET)
            self.step()
            self.clock.advance(5)
            self.step()
            self.assertEqual(len(self.ran("fdatasync")), 2 if begin else 0)
            upload.abandon()

    def test_many_checkpoints_are_made_a_few_at_a_time(self) -> None:
        """Finishes do not wait behind all of them; the lane is due at once as long as some are left."""
        self._three_that_are_due()
        for made, due in ((2, 0), (1, None)):
            self.step()
            self.assertEqual(len(self.ran("write")), made)
            self.assertEqual(self.worker.lanes[0]._lane.due_in_s(), due)

    def test_checkpoints_that_are_due_by_time_have_a_twentieth_of_the_lanes_time(self) -> None:
        """On a disk that takes 50 ms for each, the third comes 1.9 s after the first two."""
        self._three_that_are_due()
        write = self.disk.write

        def slowly(*arguments: Any) -> None:
            self.clock.advance(0.05)
            write(*arguments)

        self.patch(self.disk, "write", slowly)
        self.step()
        self.assertEqual(len(self.ran("write")), 2)
        due_s = self.worker.lanes[0]._lane.due_in_s()
        assert due_s is not None
        self.assertAlmostEqual(due_s, 1.9)
        self.clock.advance(1.8)
        self.step()
        self.assertEqual(self.ran("write"), [])
        self.clock.advance(0.11)
        self.step()
        self.assertEqual(len(self.ran("write")), 1)

    def _three_that_are_due(self) -> None:
        for number in range(3):
            self.send(self.opened(_offered(number)), 2)
        self.step()
        self.clock.advance(1)
        self.step()
        self.ran()
        self.clock.advance(5)

    def test_a_checkpoint_that_fails_ends_the_upload_at_its_next_call(self) -> None:
        """Nobody waits for a checkpoint; the next append hears of it."""
        upload = self.opened(_offered(packets=400))
        self.send(upload, 240)
        self.step()
        self.ran()
        self.disk.only, self.disk.fail_at = "fdatasync", 1
        for packet in range(240, 256):
            self.append(upload, packet * 1024, PACKET)
        self.step()
        appended = self.append(upload, 256 * 1024, PACKET)
        finished = self.worker.finish(upload, {})
        self.step()
        for deferred in (appended, finished):
            self.assertIn("fdatasync", str(self.failureResultOf(deferred, StoreError).value))
        self.store.probe()
        self.assertEqual(self.opened(_offered(packets=400)).offset_bytes, 0)

    def test_an_upload_that_was_taken_over_needs_no_checkpoint(self) -> None:
        """The newer open has parked it."""
        upload = self.opened(_offered())
        self.send(upload, 1)
        self.step()
        self.clock.advance(1)
        self.step()
        self.opened(_offered())
        self.ran()
        self.clock.advance(5)
        self.step()
        self.assertEqual(self.ran("fdatasync"), [])
        appended = self.append(upload, 1024, PACKET)
        self.step()
        self.failureResultOf(appended, StoreError)


class ErrorTests(HandRun):
    def test_a_failed_write_fails_what_was_written_with_it_and_all_that_comes_after(self) -> None:
        """The same StoreError, and nothing more is tried on the disk."""
        upload = self.opened(_offered())
        appended = self.send(upload, 2)
        self.ran()
        self.disk.only, self.disk.fail_at = "write /", 1
        self.clock.advance(1)
        self.step()
        self.clock.advance(1)
        self.step()
        later = [self.append(upload, 2048, PACKET), self.worker.finish(upload, {}), self.worker.park(upload)]
        self.step()
        errors = {str(self.failureResultOf(deferred, StoreError).value) for deferred in (*appended, *later)}
        self.assertEqual(len(errors), 1)
        self.assertEqual(len(self.ran("write")), 1)

    def _parked(self, upload: Upload) -> Deferred[None]:
        parked = self.worker.park(upload)
        self.step()
        return parked

    def test_a_hole_closes_the_upload_and_keeps_the_part(self) -> None:
        """The store refuses, the worker gives up on this upload, the next one goes on where it was."""
        upload = self.opened(_offered())
        self.send(upload, 2)
        hole = self.append(upload, 3072, PACKET)
        self.step()
        self.clock.advance(1)
        self.step()
        self.failureResultOf(hole, StoreError)
        self.assertFalse(upload.is_open)

    def test_a_bug_in_a_write_closes_the_upload_with_a_store_error(self) -> None:
        """The caller gets the exception itself, later calls a StoreError that names it."""
        upload = self.opened(_offered())
        wrong: Any = "text"
        first = self.append(upload, 0, wrong)
        second = self.append(upload, 4, PACKET)
        self.step()
        self.clock.advance(1)
        self.step()
        self.failureResultOf(first, TypeError)
        self.failureResultOf(second, TypeError)
        third = self.worker.finish(upload, {})
        self.step()
        self.assertIn("TypeError", str(self.failureResultOf(third, StoreError).value))

    def test_an_open_that_fails_is_an_error_of_its_caller_only(self) -> None:
        """The next open succeeds."""
        self.disk.only, self.disk.fail_at, self.disk.errno = "create", 1, errno.EMFILE
        opened = self.worker.open(_offered(), PEER)
        self.step()
        self.failureResultOf(opened, StoreError)
        self.opened(_offered())

    def test_a_bug_in_a_lane_fails_its_jobs_is_logged_and_the_lane_lives_on(self) -> None:
        """Neither what was held back nor the batch hangs, and other devices are served."""
        upload = self.opened(_offered())
        held = self.append(upload, 0, PACKET)
        self.step()
        self.patch(self.worker.lanes[0]._lane, "_commit", lambda: 1 // 0)
        finished = self.worker.finish(upload, {})
        more = self.worker.open(_offered(1, imei="356307042441013"), PEER)
        self.step()
        self.successResultOf(held)
        self.failureResultOf(finished, ZeroDivisionError)
        self.successResultOf(more)
        self.assertFalse(upload.is_open)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        del self.worker.lanes[0]._lane._commit
        again = self.opened(_offered())
        self.assertEqual(again.offset_bytes, 0)

    def test_an_open_that_was_cancelled_before_its_turn_costs_nothing(self) -> None:
        opened = self.worker.open(_offered(), PEER)
        opened.cancel()
        self.failureResultOf(opened, CancelledError)
        self.step()
        self.assertEqual((self.store._open, self.disk.calls), ({}, []))

    def test_an_upload_whose_open_was_cancelled_is_parked(self) -> None:
        """Nobody will ever call it, so the worker closes it itself."""
        real_open = self.store.open

        def cancelled_meanwhile(*arguments: Any, **options: Any) -> Upload:
            opened.cancel()
            return real_open(*arguments, **options)

        self.patch(self.store, "open", cancelled_meanwhile)
        opened = self.worker.open(_offered(), PEER)
        self.step()
        self.failureResultOf(opened, CancelledError)
        self.assertEqual(len(self.store._open), 1)
        self.step()
        self.assertEqual(self.store._open, {})

    def test_a_park_that_fails_of_an_open_that_was_cancelled_is_said(self) -> None:
        """In a line, as for any other; nobody waits for that one."""
        events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        real_open = self.store.open

        def cancelled_meanwhile(*arguments: Any, **options: Any) -> Upload:
            opened.cancel()
            upload = real_open(*arguments, **options)
            self.disk.calls.clear()
            self.disk.only, self.disk.fail_at, self.disk.errno = "delete", 1, errno.EROFS
            return upload

        self.patch(self.store, "open", cancelled_meanwhile)
        opened = self.worker.open(_offered(), PEER)
        self.step()
        self.failureResultOf(opened, CancelledError)
        self.step()
        gc.collect()
        told = [event["fields"] for event in events if event.get("event") == "store.failed"]
        self.assertEqual([fields["imei"] for fields in told], [_offered().imei])
        self.assertIn("Read-only file system", told[0]["reason"])

    def test_why_an_open_failed_that_was_cancelled_is_said(self) -> None:
        """But not that the file was to be refused."""
        events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        errors = [NoRoom("no room"), StoreError("a bad disk"), KeyError("bug")]

        def cancelled_meanwhile(*arguments: Any, **options: Any) -> Upload:
            opened.cancel()
            raise errors.pop()

        self.patch(self.store, "open", cancelled_meanwhile)
        while errors:
            opened = self.worker.open(_offered(), PEER)
            self.step()
            self.failureResultOf(opened, CancelledError)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        told = [event["fields"] for event in events if event.get("event") == "store.failed"]
        self.assertEqual(told, [{"imei": _offered().imei, "reason": "a bad disk"}])


class VolumeTests(HandRun):
    def setUp(self) -> None:
        super().setUp()
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def logged(self) -> list[tuple[str, dict[str, object]]]:
        return [(event["event"], event["fields"]) for event in self.events if "event" in event]

    def fail(self) -> None:  # type: ignore[override]
        """Have a checkpoint fail with EIO."""
        upload = self.opened(_offered(9))
        self.send(upload, 1)
        self.ran()
        self.disk.only, self.disk.fail_at = "fdatasync", 1
        parked = self.worker.park(upload)
        self.step()
        self.failureResultOf(parked, StoreError)
        self.disk.only, self.disk.fail_at = "", 0

    def refused(self, kind: type[StoreError]) -> None:
        opened = self.worker.open(_offered(), PEER)
        self.step()
        self.failureResultOf(opened, kind)

    def test_a_failing_disk_is_said_once_refuses_and_heals_by_a_probe(self) -> None:
        """One line when it begins, one when it ends; nothing is tried meanwhile but the probe."""
        self.fail()
        self.ran()
        for _ in range(20):
            self.refused(VolumeFailing)
        self.assertEqual(self.ran(), [])
        probed, again = self.worker.probe(), self.worker.probe()
        self.assertFalse(self.successResultOf(again), "one probe at a time")
        self.step()
        self.assertTrue(self.successResultOf(probed))
        (failing, reason), healed = self.logged()
        self.assertEqual(failing, "store.failing")
        self.assertIn("fdatasync", str(reason["reason"]))
        self.assertEqual(healed, ("store.healed", {"after": 0.0, "refused": 20}))
        self.opened(_offered())

    def test_a_probe_that_fails_leaves_it_failing_and_says_nothing(self) -> None:
        """The next one may succeed."""
        self.fail()
        self.disk.calls.clear()
        self.disk.only, self.disk.fail_at = "fsync", 1
        for healed in (False, True):
            probed = self.worker.probe()
            self.step()
            self.assertEqual(self.successResultOf(probed), healed)
        self.assertEqual([event for event, _ in self.logged()], ["store.failing", "store.healed"])

    def test_a_sound_disk_is_not_probed(self) -> None:
        """No job, no call."""
        self.assertTrue(self.successResultOf(self.worker.probe()))
        self.assertFalse(self.worker.lanes[0]._jobs)

    def test_a_worker_that_does_not_run_takes_no_files(self) -> None:
        """Nor does it try the disk."""
        worker = StoreWorker(FileStore(self.folder / "never"), call_in_reactor=self.call)
        self.assertFalse(self.successResultOf(worker.probe()))

    def test_a_bug_in_a_probe_is_told_and_does_not_keep_the_next_from_being_made(self) -> None:
        """What goes wrong in a lane ends at its caller's Deferred."""
        self.fail()
        self.patch(self.store, "_try_to_write", lambda: 1 // 0)
        probed = self.worker.probe()
        self.step()
        self.failureResultOf(probed, ZeroDivisionError)
        del self.store._try_to_write  # type: ignore[attr-defined]
        probed = self.worker.probe()
        self.step()
        self.assertTrue(self.successResultOf(probed))

    def test_lack_of_room_is_told_apart(self) -> None:
        """And is no reason to probe."""
        self.patch(self.disk, "free_bytes", lambda path: 0)
        self.refused(NoRoom)
        self.assertFalse(self.store.volume.is_failing)
        self.assertEqual(self.logged(), [])


class EndTests(HandRun):
    threads = 2

    def test_a_stop_finishes_writes_parks_and_gives_the_folder_back(self) -> None:
        """What was asked for before the stop is done, what is held back written, what is open parked."""
        done, left = self.opened(_offered()), self.opened(_offered(1, imei="356307042441013"))
        self.send(done)
        finished = self.worker.finish(done, {})
        appended = self.send(left, 3)
        stopped = [self.worker.stop(), self.worker.stop()]
        self.failureResultOf(self.worker.open(_offered(2), PEER), StoreError)
        self.failureResultOf(self.append(left, 3072, PACKET), StoreError)
        self.assertNoResult(stopped[0])
        self.step()
        self.assertIsInstance(self.successResultOf(finished), Stored)
        self.assertIsNone(self.successResultOf(appended[-1]))
        self.assertEqual([self.successResultOf(deferred) for deferred in stopped], [None, None])
        self.assertEqual(self.worker.backlog_bytes, 0)
        again = FileStore(self.folder / "data")
        again.start(86400)
        self.assertEqual(again.open(left.offered, PEER).offset_bytes, 3072)
        again.stop()

    def test_a_stop_that_fails_says_why(self) -> None:
        """The lock or the index may not close."""
        self.disk.only, self.disk.fail_at, self.disk.calls = "close", 1, []
        stopped = self.worker.stop()
        self.step()
        self.failureResultOf(stopped, StoreError)

    def test_a_worker_that_never_started_stops_and_refuses(self) -> None:
        """No thread, no folder, no wait."""
        worker = StoreWorker(FileStore(self.folder / "never"), call_in_reactor=self.call)
        self.failureResultOf(worker.open(_offered(), PEER), StoreError)
        self.assertIsNone(self.successResultOf(worker.stop()))
        self.assertFalse((self.folder / "never").exists())

    def test_a_batch_is_bounded(self) -> None:
        """A queue that never gets empty does not keep the first results from their callers."""
        upload = self.opened(_offered(packets=1500))
        appended = self.send(upload, 1100)
        self.step()
        self.assertNoResult(appended[1030])
        self.step()
        self.successResultOf(appended[1030])


class DroppedTests(HandRun):
    def setUp(self) -> None:
        """Hear what is logged."""
        super().setUp()
        self.log: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.log.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.log.append)

    def test_what_is_dropped_has_a_line_a_minute_for_each_reason(self) -> None:
        """Where whole fleets lose short parts, each line says how many there were."""
        for wait_s in (0, 1, 2, 60):
            self.clock.advance(wait_s)
            for reason in ("one", "another"):
                self.store.dropped(Dropped("a.part", 2048, reason))
        said = [event["fields"] for event in self.log if event.get("event") == "part.dropped"]
        line = {"name": "a.part", "size_bytes": 2048}
        counts = [(reason, suppressed) for suppressed in (0, 2) for reason in ("one", "another")]
        self.assertEqual(said, [{**line, "reason": reason, "suppressed": count} for reason, count in counts])

    def test_a_short_part_above_the_bound_is_dropped_when_its_connection_ends(self) -> None:
        """The device is not told: it comes again and begins at 0."""
        self.store._spool._max_parts = 0
        upload = self.opened(_offered())
        self.send(upload, 2)
        parked = self.worker.park(upload)
        self.step()
        self.assertIsNone(self.successResultOf(parked))
        (said,) = [event["fields"] for event in self.log if event.get("event") == "part.dropped"]
        self.assertEqual((said["name"], said["size_bytes"]), (f"{upload.offered.key}.part", 2048))
        self.assertEqual(self.opened(_offered()).offset_bytes, 0)


class ThreadTests(SynchronousTestCase):
    def test_many_devices_at_once_in_real_threads(self) -> None:
        """Eight devices with six files each, in four lanes: every file is stored, whole, once."""
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        calls: queue.Queue[tuple[Callable[..., object], tuple[Any, ...]]] = queue.Queue()
        worker = StoreWorker(
            FileStore(folder), call_in_reactor=lambda function, *arguments: calls.put((function, arguments)), threads=4
        )
        worker.start()
        stored: list[Stored | Differs] = []

        def opened(upload: Upload) -> Deferred[Any]:
            for number in range(4):
                worker.append(upload, 1024 * number, PACKET, self.assertIsNone)
            return worker.finish(upload, {}).addCallback(stored.append)

        offers = [_offered(file, imei=f"35209308142{device:04d}") for device in range(8) for file in range(6)]
        for offered in offers:
            worker.open(offered, PEER).addCallback(opened)
        while len(stored) < len(offers):
            function, arguments = calls.get(timeout=30)
            function(*arguments)
        stopped = worker.stop()
        while not stopped.called:
            function, arguments = calls.get(timeout=30)
            function(*arguments)
        self.successResultOf(stopped)
        self.assertEqual([thread.name for thread in threading.enumerate() if thread.name.startswith("store-")], [])
        paths = {answer.path for answer in stored if isinstance(answer, Stored)}
        self.assertEqual(len(paths), len(offers))
        for path in paths:
            self.assertEqual((folder / path).read_bytes(), PACKET * 4)
