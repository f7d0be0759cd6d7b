"""Where a run's pictures come from: a seeded set that it makes itself, a folder, or a prefix in S3.

A source has the names of all pictures at once, in its order, and reads one when its turn comes.
"""

from __future__ import annotations

import io
import mimetypes
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from bench.bench_error import BenchError
from bench.image_bucket import SCHEME, THREADS, Bucket

_GRAIN, _QUALITY = 8, 80  # pixels of a speck, and of the JPEG


class Source(Protocol):
    """Pictures by name.

    Attributes:
        where: For the journal and for people.
        names: In the source's order.
        left_out: How many files are no pictures by their names.
        threads: How many may be read at a time.
    """

    where: str
    names: list[str]
    left_out: int
    threads: int

    def read(self, name: str) -> bytes:
        """One picture's file; may raise anything."""
        ...


class SeededPictures:
    """JPEGs of coloured noise: each made from its own number, so that every run sends the same and none is kept."""

    left_out = 0
    threads = 2

    def __init__(self, count: int, size: tuple[int, int]) -> None:
        """So many pictures of a size in pixels, width and height."""
        self.where = f"{count} seeded pictures of {size[0]}x{size[1]}"
        self.names = [f"{number:06d}.jpg" for number in range(count)]
        self._size = size

    def read(self, name: str) -> bytes:
        """Make it."""
        width, height = self._size
        random = np.random.default_rng([7, int(name.partition(".")[0])])
        specks = random.integers(0, 256, (height // _GRAIN, width // _GRAIN, 3), dtype=np.uint8)
        out = io.BytesIO()
        Image.fromarray(specks).resize(self._size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=_QUALITY)
        return out.getvalue()


class Folder:
    """The pictures in a folder and the folders below it."""

    threads = 2

    def __init__(self, folder: Path, without: Iterable[Path] = ()) -> None:
        """List them, in the order of their names.

        Args:
            folder: Where they are.
            without: Folders below it that are the run's own.

        Raises:
            BenchError: There is no such folder.
        """
        if not folder.is_dir():
            raise BenchError(f"{folder}: there is no such folder")
        self.where = str(folder.resolve())
        self._folder = folder
        skipped = {path.resolve() for path in without}
        found = []
        for at, folders, files in os.walk(folder):
            folders[:] = [each for each in folders if not each.startswith(".") and Path(at, each).resolve() not in skipped]
            found += [os.path.relpath(os.path.join(at, file), folder) for file in files]
        self.names, self.left_out = pictures_of(found)

    def read(self, name: str) -> bytes:
        """Read a file."""
        return (self._folder / name).read_bytes()


class Prefix:
    """The pictures below a prefix in S3."""

    threads = THREADS

    def __init__(self, where: str, without: Iterable[str] = ()) -> None:
        """List them, in the order of their keys.

        Args:
            where: `s3://BUCKET/PREFIX`.
            without: Prefixes below it that are the run's own.

        Raises:
            BenchError: They cannot be listed.
        """
        self._bucket = Bucket(where)
        self.where = self._bucket.where
        own = tuple(f"{each.rstrip('/')}/" for each in without)
        self.names, self.left_out = pictures_of(
            name for name in self._bucket.names() if not f"{self.where}/{name}".startswith(own)
        )

    def read(self, name: str) -> bytes:
        """Get an object."""
        return self._bucket.get(name)


def pictures_of(names: Iterable[str]) -> tuple[list[str], int]:
    """Those that are pictures by their endings, sorted, and how many are not; hidden files are neither."""
    shown = sorted(name for name in names if not name.rpartition("/")[2].startswith("."))
    pictures = [name for name in shown if content_type_of(name).startswith("image/")]
    return pictures, len(shown) - len(pictures)


def content_type_of(name: str) -> str:
    """By the name's ending; "" where that says nothing."""
    # As a path and not as a URL, in which `?`, `#` and `;` would end the name.
    return mimetypes.guess_type(f"x{os.path.splitext(name)[1]}")[0] or ""


def open_source(where: str | None, count: int, size: tuple[int, int], output: str | None, state: Path) -> Source:
    """The source that was asked for.

    Args:
        where: A folder or `s3://BUCKET/PREFIX`; None: a seeded set.
        count: Pictures of that set.
        size: Their width and height in pixels.
        output: Where results go, which are no pictures to be sent.
        state: The run's own folder.

    Raises:
        BenchError: There is no picture, or results would be written among the pictures.
    """
    if where is None:
        return SeededPictures(count, size)
    if output is not None and _same(where, output):
        raise BenchError(f"--output {output} is where the pictures are: choose another, a folder below it for one")
    source: Source
    if where.startswith(SCHEME):
        source = Prefix(where, [output] if output is not None and output.startswith(SCHEME) else [])
    else:
        own = [state] if output is None or output.startswith(SCHEME) else [state, Path(output)]
        source = Folder(Path(where), own)
    if not source.names:
        raise BenchError(f"{where} has no pictures ({source.left_out} files of other kinds)")
    return source


def _same(one: str, other: str) -> bool:
    if one.startswith(SCHEME) or other.startswith(SCHEME):
        return one.rstrip("/") == other.rstrip("/")
    return Path(one).resolve() == Path(other).resolve()
