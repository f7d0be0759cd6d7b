"""The branches of a stage at work on the same items at the same time, each with a queue and threads of its own.

                ┌──► matte: its queue, thread, stream ──┐
    item ──► a part for each                            ├──► {"matte": …, "faces": …}: the stage behind, or the caller
                └──► faces: its queue, processes      ──┘

A branch is run as a stage is: it forms its own batches, splits those that fail, and on a GPU only issues work. The part that
comes back last, on whatever thread, puts the item together. What one branch raises fails the item; parts of it that have not
begun are dropped, those that have are waited for, so that nothing is still being written when the item is given up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from multigpu_inference.engine.branches import Branch, Branches
from multigpu_inference.engine.job import Job
from multigpu_inference.engine.stage_runner import Runner


class BranchesRunner:
    """Runs a stage made of branches."""

    def __init__(self, stage: Branches, number: int, behind: Runner | None, make: Callable[[Branch, Runner], Runner]) -> None:
        """Prepare; nothing runs before `start`.

        Args:
            stage: What to run.
            number: Its place among the stages, from 1.
            behind: What takes the results; None behind the last stage.
            make: Makes what runs one branch, with what takes its results.
        """
        join = _Join(behind, len(stage.branches))
        self._runners = {name: make(branch, join) for name, branch in stage.branches.items()}
        self._takes_from_caller = number == 1 and str(stage.device).startswith("cuda")
        self._device = stage.device

    def start(self) -> None:
        """Start the threads of all branches, where they have not been."""
        for runner in self._runners.values():
            runner.start()

    def close(self) -> None:
        """Let the threads end when all that was handed in has passed. Does not wait."""
        for runner in self._runners.values():
            runner.close()

    def hand(self, jobs: Sequence[Job], /) -> None:
        """Give each branch its part of each item."""
        if self._takes_from_caller:
            self._note_what_made(jobs)
        items = [_Item(job, self._runners) for job in jobs]
        parts = [dict(item.parts) for item in items]  # an item lets go of them when the last has come back
        for name, runner in self._runners.items():
            runner.hand([of_item[name] for of_item in parts])

    def _note_what_made(self, jobs: Sequence[Job]) -> None:
        """Let branches on the CPU wait, too, for what the caller may still be making on a GPU."""
        import torch

        from multigpu_inference.engine.cuda_stage_runner import made_by_caller

        for job in jobs:
            job.ready = made_by_caller(job.value, torch.device(self._device))

    def wait_for_room(self) -> None:
        """Wait until each branch has less waiting than it may."""
        for runner in self._runners.values():
            runner.wait_for_room()


class _Item:
    """One item in all branches, until the last of its parts has come back."""

    def __init__(self, job: Job, names: Sequence[str] | dict[str, Any]) -> None:
        self.parts: dict[str, _Part] = {name: _Part(self, name, job) for name in names}
        self._job: Job | None = job
        self._interest = job.interest
        self._missing = len(self.parts)
        self._failure: BaseException | None = None
        self._counting = threading.Lock()

    def lost(self, before: str) -> BaseException | None:
        """Why no branch need begin with it any more."""
        with self._counting:
            if self._failure is None and self._interest is not None:
                self._failure = self._interest.lost(before)
            return self._failure

    def came_back(self, part: _Part, failure: BaseException | None) -> Job | None:
        """Note that a branch is done with its part; the item, if it is whole."""
        with self._counting:
            if failure is not None and self._failure is None:
                self._failure = _of_branch(failure, part.name)
            self._missing -= 1
            if self._missing:
                return None
        # From here on nobody else has this item. Nothing of it refers to it any more, so that it goes with its caller.
        job, parts, failure = self._job, self.parts, self._failure
        self._job, self.parts, self._failure = None, {}, None
        assert job is not None
        if failure is None:
            job.become_all(dict(parts))
            return job
        job.keep(list(parts.values()))
        try:
            job.settle(failure)
        finally:
            del failure  # its trace may hold this frame, and with it the item
        return None


class _Part(Job):
    """One branch's part of an item. Nobody waits for it alone."""

    def __init__(self, item: _Item, name: str, job: Job) -> None:
        super().__init__(job.value, item)
        self.ready = job.ready
        self.name = name
        self._item = item

    def settle(self, error: BaseException | None = None) -> None:
        """Come back without a result."""
        self._over = True
        self._item.came_back(self, error)

    def arrive(self) -> Job | None:
        """Come back with one; the item, if it is whole."""
        return self._item.came_back(self, None)


class _Join:
    """Takes the parts that a branch is done with, and hands on the items that they complete."""

    def __init__(self, behind: Runner | None, branches: int) -> None:
        self._behind = behind
        self._open = branches
        self._counting = threading.Lock()

    def start(self) -> None:
        """It has no thread: it works on those of the branches."""

    def close(self) -> None:
        """One branch has ended; the stage behind ends when all have."""
        with self._counting:
            self._open -= 1
            is_last = not self._open
        if is_last and self._behind is not None:
            self._behind.close()

    def hand(self, jobs: Sequence[Job], /) -> None:
        """Take parts; items that they complete go on together."""
        whole = [job for part in jobs if isinstance(part, _Part) and (job := part.arrive()) is not None]
        if self._behind is not None:
            self._behind.hand(whole)
            return
        for job in whole:
            job.settle()

    def wait_for_room(self) -> None:
        """Wait until the stage behind has less waiting than it may."""
        if self._behind is not None:
            self._behind.wait_for_room()


def _of_branch(error: BaseException, name: str) -> BaseException:
    """An error that says which branch raised it. It stays what it is: its class tells what may be done about it."""
    note = f"raised by the branch {name!r}"
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
    return error
