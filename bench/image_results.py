"""Where a run's results go: a folder, a prefix in S3, or nowhere. Each is there as a whole or not at all.

A result is named as its picture, with the answer's own ending behind it: `a.jpg` and `a.png` become `a.jpg.png` and
`a.png.png`, so that no two meet.
"""

from __future__ import annotations

import errno
import itertools
import mimetypes
import os
from pathlib import Path
from typing import Protocol

from bench.bench_error import BenchError
from bench.image_bucket import SCHEME, THREADS, Bucket
from bench.image_outcome import Answered, PictureError

# What comes of a picture's name; everything else would meet the next picture, too.
_OF_THE_NAME = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ)
_LONGEST_KEY = 1024  # bytes
_UNFINISHED = ".unfinished-"


class Results(Protocol):
    """Takes answers.

    Attributes:
        where: For the journal and for people.
        threads: How many may be written at a time.
    """

    where: str
    threads: int

    def check(self) -> None:
        """`BenchError` where nothing can be written."""
        ...

    def write(self, answered: Answered) -> str | None:
        """Write one; its name, None where it is dropped.

        Raises:
            PictureError: Its name cannot be used.
            BenchError: Nothing can be written any more.
        """
        ...


class FolderResults:
    """Files below a folder."""

    threads = 2

    def __init__(self, folder: Path) -> None:
        """Nothing is made yet."""
        self.where = str(folder.resolve())
        self._folder = folder
        self._numbers = itertools.count()

    def check(self) -> None:
        """Make the folder, write to it, and remove what a run that was killed has left unfinished."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for left in self._folder.glob(f"{_UNFINISHED}*"):
                if not Path("/proc", left.name.split("-")[1]).exists():
                    left.unlink()
            probe = self._unfinished()
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise BenchError(f"--output {self._folder} cannot be written: {error.strerror}") from None

    def write(self, answered: Answered) -> str:
        """Write a file under another name, then give it its own."""
        name = file_name(result_name(answered))
        path = self._folder / name
        unfinished = self._unfinished()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(answered.body)
            os.replace(unfinished, path)
        except (OSError, ValueError) as error:
            unfinished.unlink(missing_ok=True)
            if isinstance(error, ValueError):
                raise PictureError(f"no file can have its name: {error}") from None
            if error.errno in _OF_THE_NAME:
                raise PictureError(f"no file can have its name: {error.strerror}") from None
            raise BenchError(f"--output {self._folder} cannot be written any more: {error.strerror}") from None
        return name

    def _unfinished(self) -> Path:
        return self._folder / f"{_UNFINISHED}{os.getpid()}-{next(self._numbers)}"


class PrefixResults:
    """Objects below a prefix."""

    threads = THREADS

    def __init__(self, where: str) -> None:
        """Nothing is asked of S3 yet."""
        self._bucket = Bucket(where)
        self.where = self._bucket.where

    def check(self) -> None:
        """Write a small object."""
        self._bucket.check_writable()

    def write(self, answered: Answered) -> str:
        """Put an object."""
        name = result_name(answered)
        try:
            if len(name.encode()) > _LONGEST_KEY:
                raise PictureError(f"no object can have its name: {_LONGEST_KEY} bytes at most")
        except UnicodeEncodeError:
            raise PictureError("no object can have its name: it is not UTF-8") from None
        self._bucket.put(name, answered.body, answered.content_type)
        return name


class NoResults:
    """Drops them."""

    where = "nowhere"
    threads = 1

    def check(self) -> None:
        """There is nothing to write."""

    def write(self, answered: Answered) -> None:
        """Drop it."""


def result_name(answered: Answered) -> str:
    """The picture's name with the ending of the answer's type behind it."""
    media_type = answered.content_type.partition(";")[0].strip()
    return answered.name + (mimetypes.guess_extension(media_type) or ".bin")


def file_name(name: str) -> str:
    """A path that stays below its folder and is different for each name: keys in S3 may be `../a.jpg` or `a//b.jpg`."""
    parts = []
    for part in name.split("/"):
        part = part.replace("%", "%25")
        parts.append({"": "%", ".": "%2E", "..": "%2E%2E"}.get(part, part))
    return "/".join(parts)


def open_results(where: str | None) -> Results:
    """What was asked for: a folder, `s3://BUCKET/PREFIX`, or None for nowhere."""
    if where is None:
        return NoResults()
    return PrefixResults(where) if where.startswith(SCHEME) else FolderResults(Path(where))
