"""What is going on, for the one who waits: phases with the time they took, a state that changes, lines of the container's log.

On a terminal the state is one line that is rewritten; elsewhere a line for each change. All of it goes to standard error:
standard output is for results, and for `--json`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.status import Status


class DeployProgress:
    """Tells of a deployment's phases."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is shown yet."""
        self._console = console or Console(stderr=True, soft_wrap=True, highlight=False)
        self._clock = clock
        self._began = clock()
        self._status: Status | None = None
        self._state = ""

    @contextmanager
    def phase(self, text: str) -> Iterator[None]:
        """A phase: its beginning, and how long it took."""
        began = self._clock()
        self._state = ""
        with self._console.status(escape(text)) as status:
            self._status = status if self._console.is_terminal else None
            try:
                yield
            except BaseException:
                self._line(f"[red]✗[/red] {escape(text)} ({self._clock() - began:.0f} s)")
                raise
            finally:
                self._status = None
        self._line(f"[green]✓[/green] {escape(text)} ({self._clock() - began:.0f} s)")

    def state(self, text: str) -> None:
        """What is waited for is in another state, or still in the same."""
        elapsed = self._clock() - self._began
        if self._status is not None:
            self._status.update(f"{escape(text)} · {elapsed:.0f} s")
        elif text != self._state:
            self._line(f"  {escape(text)}")
        self._state = text

    def say(self, text: str) -> None:
        """Something happened."""
        self._line(f"  {escape(text)}")

    def log(self, line: str) -> None:
        """The container logged a line."""
        self._line(f"  [dim]│ {escape(line)}[/dim]")

    def _line(self, markup: str) -> None:
        self._console.print(f"[dim]{self._clock() - self._began:6.0f} s[/dim] {markup}")
