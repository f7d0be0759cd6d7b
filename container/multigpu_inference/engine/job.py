"""One item on its way through the stages of a pipeline: what it has become, what it must keep alive, how it ends.

Made by the thread that calls the pipeline, which then waits in it; in between it belongs to one stage's thread after
another.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from multigpu_inference.engine.hops import Span

if TYPE_CHECKING:
    import torch


class Wanted(Protocol):
    """Whose a job is: an `Interest`, or the item that it is a part of."""

    def lost(self, before: str) -> BaseException | None:
        """Why nobody waits any more; None while somebody does.

        Args:
            before: The stage that is not begun then.
        """


class Pass:
    """One batch's way through a stage, on a device whose work is done when the call returns."""

    def __init__(self, started: float, ended: float, batch_size: int) -> None:
        """Keep the times, in monotonic seconds."""
        self.started = started
        self.ended = ended
        self.batch_size = batch_size

    def wait(self) -> None:
        """Wait until the results are there."""

    def times(self, latest: float) -> tuple[float, float]:
        """When the stage began and ended its work, once the results are there.

        Args:
            latest: When it had ended at the latest, for who cannot know it exactly.
        """
        return self.started, self.ended


class BranchesPass(Pass):
    """One item's way through a stage made of branches, each of which had it in a batch of its own."""

    def __init__(self, passes: Sequence[Pass]) -> None:
        """Take together what the branches noted."""
        super().__init__(0.0, 0.0, max(passed.batch_size for passed in passes))
        self._passes = passes

    def wait(self) -> None:
        """Wait until the results of all branches are there."""
        for passed in self._passes:
            passed.wait()

    def times(self, latest: float) -> tuple[float, float]:
        """From the first branch's beginning to the last one's end."""
        started, ended = zip(*(passed.times(latest) for passed in self._passes), strict=True)
        return min(started), max(ended)


class Job:
    """One item, from the call to its one outcome.

    Attributes:
        value: What the next stage takes; behind the last, the result.
        interest: Whose it is for; None where it is always wanted.
        ready: What must have passed before `value` can be read; nothing where it can be read now.
        issued: What must have passed, beyond `ready`, before the memory of a job that failed can be given up.
    """

    def __init__(self, item: Any, interest: Wanted | None = None) -> None:
        """Begin with what the pipeline was called with, and with whose interest it is for."""
        self.value = item
        self.interest = interest
        self.ready: tuple[torch.cuda.Event, ...] = ()
        self.issued: list[torch.cuda.Event] = []
        # Every value is held until the last event: memory that a stream's allocator gets back earlier could be given out
        # again while another stream still reads it.
        self._held: list[Any] = []
        self._passes: list[Pass] = []
        self._error: BaseException | None = None
        self._over = self._abandoned = False
        # A lock that is held until the outcome is there: the cheapest thing to wait for once, and it cannot be let go twice.
        self._settled = threading.Lock()
        self._settled.acquire()

    def become(self, value: Any, ready: tuple[torch.cuda.Event, ...] = ()) -> None:
        """Go on with another value, and keep the one before it."""
        self._held.append(self.value)
        self.value, self.ready = value, ready

    def passed(self, passed: Pass) -> None:
        """Note a stage that it has gone through."""
        self._passes.append(passed)

    def keep(self, parts: Sequence[Job]) -> None:
        """Keep all that other jobs, made of this one's value, hold, and what must have passed before that can be given up."""
        self._held += parts
        self.issued += (event for part in parts for event in (*part.ready, *part.issued))

    def become_all(self, parts: dict[str, Job]) -> None:
        """Go on with what other jobs, made of this one's value, have come to."""
        self.keep(list(parts.values()))
        ready = tuple({event: None for part in parts.values() for event in part.ready})
        self.become({name: part.value for name, part in parts.items()}, ready)
        self.passed(BranchesPass([passed for part in parts.values() for passed in part._passes]))

    def wait_until_ready(self) -> None:
        """Wait, on the host, until the value can be read."""
        for passed in self._passes:
            passed.wait()
        for event in self.ready:
            event.synchronize()

    def settle(self, error: BaseException | None = None) -> None:
        """Tell the caller that the last stage has been passed, or why it never will be; exactly once."""
        self._error = error
        self._over = True
        self._settled.release()
        if self._abandoned:
            self._wait_for_issued()

    def settle_if_open(self, error: BaseException) -> None:
        """Tell the caller what went wrong, unless it has been told something already."""
        if not self._over:
            self.settle(error)

    def result(self) -> Any:
        """Wait for the outcome, and on the device for the last stage: the result, or the error raised. Called once."""
        try:
            self._settled.acquire()
            error, self._error = self._error, None
            try:
                if error is not None:
                    raise error
            finally:
                del error  # its trace holds this frame, and the stages' with this job: none of them may hold it as well
            self.wait_until_ready()
        except BaseException:
            self._give_up()
            raise
        return self.value

    def spans(self) -> list[Span]:
        """Each stage's own work, in the order of the stages, once the result is there."""
        spans: list[Span] = []
        latest = math.inf
        for number, passed in reversed(list(enumerate(self._passes, 1))):
            started, ended = passed.times(latest)
            spans.append(Span(f"stage_{number}_ms", started, ended, passed.batch_size))
            latest = started
        return spans[::-1]

    def _give_up(self) -> None:
        """Keep the memory until nothing uses it: now, or where the caller was interrupted, when the stages have ended."""
        self._abandoned = True
        if self._over:
            self._wait_for_issued()

    def _wait_for_issued(self) -> None:
        for event in (*self.ready, *self.issued):
            with contextlib.suppress(Exception):  # a device that is lost has nothing left that could use the memory
                event.synchronize()
