"""How far a run is: a bar on a terminal, elsewhere a line for each tenth. All of it on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.progress import say

_LINES = 10


class ImageProgress:
    """A context: counts pictures of one run."""

    def __init__(
        self,
        title: str,
        total: int,
        done: int,
        console: Console | None = None,
        tell: Callable[[str], None] = say,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is shown yet.

        Args:
            title: What runs.
            total: Pictures in all.
            done: Those that were done before.
            console: Where the bar is drawn.
            tell: Prints a line where there is no terminal.
            clock: Monotonic seconds.
        """
        self._title, self._total, self._done, self._before = title, total, done, done
        self._tell, self._clock = tell, clock
        self._failed = 0
        console = console or Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=total, completed=done, rate="")

    def __enter__(self) -> ImageProgress:
        """Begin to show it."""
        self._began = self._clock()
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Leave the bar as it is."""
        self._bar.stop()

    def one(self, failed: bool) -> None:
        """One more picture is done, or has failed."""
        tenth = self._done * _LINES // self._total
        self._done += 1
        self._failed += failed
        rate = (self._done - self._before) / max(1e-3, self._clock() - self._began)
        text = f"{rate:.1f}/s" + (f", {self._failed} failed" if self._failed else "")
        self._bar.update(self._task, completed=self._done, rate=text)
        if self._bar.disable and self._done * _LINES // self._total > tenth:
            self._tell(f"{self._title}: {self._done} of {self._total}, {text}")
