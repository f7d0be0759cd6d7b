"""What a run has done, in a file that only grows: a line of JSON for each picture, so that it goes on where it was killed.

    {"run": {"source": …, "model": …, "output": …}}     the first line: what the journal is of
    {"began": …}                                        a session begins
    {"picture": …, "result": …, "at": …, …}             a picture is done; its result was written before
    {"picture": …, "error": …, "at": …}                 a picture failed; the next session tries it again
    {"ended": {"seconds": …, …}}                        a session ended by itself

A line is one `write`; one that was cut off by a kill is dropped. It survives the death of the process, not that of the machine.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from bench import provenance
from bench.bench_error import BenchError
from bench.image_outcome import Outcome
from bench.image_use import Use


@dataclass
class JournalContent:
    """What a journal says.

    Attributes:
        run: What it is of; None of an empty one.
        outcomes: By picture, the last word on each, in the order in which they were first told.
        sessions: Seconds of each session, to its last picture where it did not end by itself.
        uses: What sessions that ended by themselves made of the machine.
    """

    run: dict[str, Any] | None = None
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    sessions: list[float] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)

    @property
    def done(self) -> set[str]:
        """Pictures that need nothing more."""
        return {name for name, outcome in self.outcomes.items() if outcome.error is None}

    @property
    def failed(self) -> list[Outcome]:
        """Those that have no result."""
        return [outcome for outcome in self.outcomes.values() if outcome.error is not None]

    def add(self, line: Mapping[str, Any]) -> None:
        """Take a line's word."""
        if "run" in line:
            self.run = line["run"]
        elif "began" in line:
            self.sessions.append(0.0)
        elif "ended" in line:
            use = Use(**line["ended"])
            self.uses.append(use)
            self.sessions[-1] = use.seconds
        else:
            told = {name: line.get(name) for name in ("result", "error", "transformation_ms", "inference_ms")}
            self.outcomes[line["picture"]] = Outcome(line["picture"], **told)
            self.sessions[-1] = max(self.sessions[-1], line["at"])


def read_journal(lines: Iterable[bytes]) -> tuple[JournalContent, int]:
    """What a journal says, and how many of its bytes are whole lines.

    Raises:
        ValueError: A line in its middle is none of a journal.
    """
    content, length = JournalContent(), 0
    for line in lines:
        if not line.endswith(b"\n"):
            break
        try:
            content.add(json.loads(line))
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise ValueError(f"its line {line[:60]!r} is none of a journal") from error
        length += len(line)
    return content, length


class Journal:
    """A context: the journal of one run, which nobody else writes meanwhile."""

    def __init__(self, path: Path, run: Mapping[str, Any], *, restart: bool = False) -> None:
        """Nothing is opened yet.

        Args:
            path: The file.
            run: What the run is of: a journal of another is refused.
            restart: Whether to begin anew.
        """
        self.path = path
        self.content = JournalContent()
        self._run, self._restart = dict(run), restart
        self._file = -1

    def __enter__(self) -> Journal:
        """Open it, and read what was done; `BenchError` where it cannot be used."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise BenchError(f"the journal {self.path} cannot be written: {error.strerror}") from None
        try:
            self._take()
        except BaseException:
            os.close(self._file)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close it."""
        os.close(self._file)

    def begin(self) -> None:
        """A session begins."""
        self._write({"began": provenance.now()})

    def record(self, outcome: Outcome, at: float) -> None:
        """A picture is done, or has failed, so many seconds after the session began."""
        told = {name: value for name, value in dataclasses.asdict(outcome).items() if value is not None and name != "name"}
        self._write({"picture": outcome.name, **told, "at": round(at, 4)})

    def end(self, use: Use) -> None:
        """The session ended by itself."""
        self._write({"ended": dataclasses.asdict(use)})

    def _take(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchError(f"another run writes {self.path}") from None
        if self._restart:
            os.ftruncate(self._file, 0)
        with self.path.open("rb") as lines:
            try:
                self.content, length = read_journal(lines)
            except ValueError as error:
                raise BenchError(f"{self.path}: {error}; --restart begins anew") from None
        os.ftruncate(self._file, length)
        if self.content.run is None:
            self._write({"run": self._run})
        elif self.content.run != self._run:
            other = ", ".join(f"{name} {was}" for name, was in self.content.run.items() if was != self._run.get(name))
            raise BenchError(f"{self.path} is of another run ({other}): --restart begins anew, --state FOLDER keeps both")

    def _write(self, line: Mapping[str, Any]) -> None:
        try:
            data = json.dumps(line).encode() + b"\n"
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            raise BenchError(f"the journal {self.path} cannot be written any more: {error.strerror}") from None
        self.content.add(line)
