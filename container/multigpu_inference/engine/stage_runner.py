"""One stage of a replica at work: threads that take batches out of its queue, run them, and hand the results on.

    hand ──► queue ──► thread: stage(items) ──► hand of the stage behind it, or the caller
                  └──► thread: stage(items) ──┘

There is one thread, or as many as are asked for: they share the stage and its weights, and each has a batch of its own under
way. A batch that fails is split and tried again, down to single items, so that a bad item fails alone. One that does not fit
into memory is split too, and larger ones of its key are not tried again.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

from multigpu_inference import log
from multigpu_inference.engine.batch_queue import BatchQueue, Entry
from multigpu_inference.engine.device_error import DeviceErrorKind, device_error_kind
from multigpu_inference.engine.job import Job, Pass
from multigpu_inference.engine.stage import Stage, batch_key, batch_limit, room


class Runner(Protocol):
    """What takes items through a part of a pipeline: a stage, or the branches of one."""

    def start(self) -> None:
        """Start the threads, where they have not been."""

    def close(self) -> None:
        """Let the threads end when all that was handed in has passed. Does not wait."""

    def hand(self, jobs: Sequence[Job], /) -> None:
        """Take items."""

    def wait_for_room(self) -> None:
        """Wait until less work waits than may."""


class StageRunner:
    """Runs a stage on the CPU."""

    def __init__(
        self, stage: Stage, number: int, limit: int, max_delay_s: float, behind: Runner | None, threads: int = 1
    ) -> None:
        """Prepare; nothing runs before `start`.

        Args:
            stage: What to run.
            number: Its place among the stages, from 1.
            limit: The most items of a batch.
            max_delay_s: How long an item may wait for its batch to become full.
            behind: What takes the results; None behind the last.
            threads: How many batches it works on at a time.
        """
        self._stage = stage
        self._number = number
        self._limit = limit
        self._behind = behind
        self._queue = BatchQueue[Job](max_delay_s, threads)
        self._threads: tuple[threading.Thread, ...] = ()
        self._at_work = threads
        self._counting = threading.Lock()

    def start(self) -> None:
        """Start the threads, where they have not been; they end after `close`."""
        if self._threads:
            return
        with self._counting:
            if not self._threads:
                # Daemons: an interpreter that exits does not wait for a stage that never ends.
                threads = tuple(
                    threading.Thread(target=self._work, name=f"stage-{self._number}", daemon=True) for _ in range(self._at_work)
                )
                for thread in threads:
                    thread.start()
                self._threads = threads

    def close(self) -> None:
        """Let the threads of this stage and of those behind it end when all that was handed in has passed. Does not wait."""
        self._queue.close()

    def hand(self, jobs: Sequence[Job]) -> None:
        """Bring items in front of the stage, on the thread of whoever has them; one that cannot be brought fails alone."""
        entries = []
        for job in jobs:
            try:
                entries.append(self._entry(job))
            except BaseException as error:
                job.settle(error)
        try:
            self._queue.put(entries)
        except RuntimeError as error:  # closed
            for entry in entries:
                entry.item.settle(error)

    def wait_for_room(self) -> None:
        """Wait until less work waits than may."""
        self._queue.wait_for_room()

    def _entry(self, job: Job) -> Entry[Job]:
        self._bring(job)
        if self._limit == 1:  # nothing to group
            return Entry(job, time.monotonic())
        key = batch_key(self._stage, job.value)
        return Entry(job, time.monotonic(), key, batch_limit(self._stage, key, self._limit))

    def _work(self) -> None:
        while self._take_turn():
            pass
        with self._counting:
            self._at_work -= 1
            is_last = not self._at_work
        if is_last and self._behind is not None:
            self._behind.close()

    def _take_turn(self) -> bool:
        """Run one batch; False at the end. A function, so that nothing keeps the last batch while the thread waits."""
        self._make_room()
        if self._behind is not None:
            self._behind.wait_for_room()
        if not self._queue.wait_for_batch():
            return False
        batch: list[Entry[Job]] = []
        through: list[Job] = []
        try:
            with room(self._stage):  # only now the batch is formed, of all that came while another had the device
                batch = self._queue.take()
                wanted = [entry for entry in batch if not self._settled_as_unwanted(entry.item)]
                through = self._run(wanted) if wanted else []
        except BaseException as error:  # of the stage's own `room`: this thread must live on, and no item wait for ever
            log.exception("stage_room_failed", error, stage=self._number)
            batch = batch or self._queue.take()
            for entry in batch:
                if entry.item not in through:
                    entry.item.settle_if_open(error)
        if self._behind is not None:
            self._behind.hand(through)
        else:
            for job in through:
                job.settle()
        return True

    def _run(self, batch: Sequence[Entry[Job]]) -> list[Job]:
        """Take a batch through the stage, in parts where it fails; the jobs that got through, in order."""
        jobs = [entry.item for entry in batch]
        try:
            self._pass(jobs)
            return jobs
        except BaseException as error:  # user code may raise what is no Exception: its item gets it, the thread lives on
            kind = device_error_kind(error)
            if len(jobs) == 1 or kind is DeviceErrorKind.STICKY:
                for job in jobs:
                    job.settle(error)
                return []
        # Out here the error is gone, and with its trace all that the failed attempt had allocated.
        half = (len(jobs) + 1) // 2
        if kind is DeviceErrorKind.OUT_OF_MEMORY:
            self._lower_limit(batch[0], half)
        return self._run(batch[:half]) + self._run(batch[half:])

    def _settled_as_unwanted(self, job: Job) -> bool:
        """Settle a job that nobody waits for any more, so that it costs the device nothing; whether it was one."""
        lost = job.interest.lost(f"stage_{self._number}") if job.interest is not None else None
        if lost is not None:
            job.settle(lost)
        return lost is not None

    def _lower_limit(self, entry: Entry[Job], limit: int) -> None:
        self._queue.lower_limit(entry.key, limit)
        with contextlib.suppress(Exception):  # nothing here may end the thread: neither a key's text nor a lost device
            device, key = str(self._stage.device), str(entry.key)
            log.event("batch_ceiling", stage=self._number, device=device, key=key, max_batch_size=limit)
            self._free_memory()

    def _call(self, items: list[Any]) -> list[Any]:
        torch = sys.modules.get("torch")
        # Gradients are a thread's own setting: what the caller has switched off in its thread would be on in this one.
        with torch.no_grad() if torch is not None else contextlib.nullcontext():
            results = list(self._stage(items))
        if len(results) != len(items):
            items_text = "1 item" if len(items) == 1 else f"{len(items)} items"
            raise ValueError(f"{type(self._stage).__name__} returned {len(results)} results for {items_text}")
        return results

    # What a device adds to it:

    def _bring(self, job: Job) -> None:
        """Bring an item to the stage's device; here the stage itself moves what it needs."""

    def _make_room(self) -> None:
        """Wait until the device can take another batch: here it is done when the call returns."""

    def _free_memory(self) -> None:
        """Give back what the device's allocator keeps for later."""

    def _pass(self, jobs: list[Job]) -> None:
        """Take a batch through the stage, or leave its jobs as they are and raise."""
        for job in jobs:
            job.wait_until_ready()
        started = time.monotonic()
        results = self._call([job.value for job in jobs])
        passed = Pass(started, time.monotonic(), len(jobs))
        for job, result in zip(jobs, results, strict=True):
            job.become(result)
            job.passed(passed)
