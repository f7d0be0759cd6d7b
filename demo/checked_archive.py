"""Looks through a `model.tar.gz` of somebody else before anything of it is unpacked; whoever unpacks one comes through here.

Nothing is left to Python's own filter for tar archives, which differs between versions and has had holes:

    bytes ──► no more than so many times what they are packed ──► headers that say how long they are ──► names and kinds

What the format allows beyond files and folders has no place in a model: links, devices, pipes, sparse files, which are as long
as their header likes without a byte behind it.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from demo_error import DemoError

# How much may come out of an archive: so many bytes, and beside them so many times its own. Weights hardly compress.
_UNPACKED_BYTES, _UNPACKED_TIMES = 256 << 20, 100
_MOST_MEMBERS = 50_000
# Of a long name, or of what else stands in front of a member; tarfile reads all of it into memory.
_HEADER_BYTES = 64 << 10
_NAME_BYTES, _PATH_BYTES = 255, 1024  # what Linux takes, and less than it takes
_STEP_BYTES = 1 << 20

_SPARSE = "a sparse file is in it"
_IN_FRONT = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_FILES_AND_FOLDERS = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE)


class UnsafeArchive(DemoError):
    """An archive is not to be unpacked; the text says why."""


@contextmanager
def checked_archive(path: Path) -> Iterator[tuple[tarfile.TarFile, list[tarfile.TarInfo]]]:
    """Open an archive whose size and headers are within bounds.

    Args:
        path: A tar.gz.

    Yields:
        It, and its members. Their names and kinds are `unsafe_members`' to judge.

    Raises:
        UnsafeArchive: It has more in it than it may.
        tarfile.TarError, EOFError, OSError: It is damaged, or none.
    """
    with path.open("rb") as packed, gzip.GzipFile(fileobj=packed) as unpacked:
        bounded = _Bounded(unpacked, _UNPACKED_BYTES + _UNPACKED_TIMES * path.stat().st_size)
        with _damage():
            tar = _opened(bounded)  # reads the first header
        with tar:
            yield tar, _members(tar, bounded)


def unsafe_members(members: Iterable[tarfile.TarInfo]) -> list[str]:
    """What is wrong with the names and kinds of an archive's members, in words. Pure."""
    wrong = []
    kinds = dict[PurePosixPath, bool]()  # whether it is a folder
    for member in members:
        path, name = PurePosixPath(member.name), member.name if member.name.isprintable() else ascii(member.name)
        if not member.name or not _can_be_a_name(member.name):
            wrong.append(f"{name[:80]} is no name for a file")
        elif path.is_absolute() or ".." in path.parts:
            wrong.append(f"{name} leads out of the model folder")
        elif member.type not in _FILES_AND_FOLDERS or member.issparse():
            wrong.append(f"{name} is neither a file nor a folder")
        elif path in kinds and not (kinds[path] and member.isdir()):
            wrong.append(f"{name} is there twice")
        elif member.isfile() and not path.parts:
            wrong.append("the model folder itself is a file")
        kinds[path] = member.isdir()
    for path in kinds:
        inside = next((parent for parent in path.parents if kinds.get(parent) is False), None)
        if inside is not None:
            wrong.append(f"{inside} is a file and a folder")
    return wrong


def _opened(bounded: _Bounded) -> tarfile.TarFile:
    return tarfile.open(fileobj=bounded, mode="r:", tarinfo=_Header)  # type: ignore[call-overload,no-any-return]


def _members(tar: tarfile.TarFile, bounded: _Bounded) -> list[tarfile.TarInfo]:
    members = []
    with _damage():
        for member in tar:
            members.append(member)
            if len(members) > _MOST_MEMBERS:
                raise UnsafeArchive(f"it has more than {_MOST_MEMBERS} members")
            if member.size < 0:  # what comes next would stand before it, and there would be no end
                raise UnsafeArchive("a header in it says that it has less than no bytes")
    # tarfile takes a header that it cannot read for the end. Others read on, and would find what nobody has looked at.
    bounded.seek(tar.offset)
    if bounded.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise UnsafeArchive("it is damaged")
    if not members:
        raise UnsafeArchive("there is nothing in it")
    return members


@contextmanager
def _damage() -> Iterator[None]:
    """Say in words what tarfile raises at some headers."""
    try:
        yield
    except (zlib.error, ValueError, OverflowError, MemoryError, RecursionError) as error:
        raise UnsafeArchive(f"it is damaged ({type(error).__name__})") from error


def _can_be_a_name(name: str) -> bool:
    """Whether all of a path's parts are names that a file may have and a terminal may show."""
    try:
        raw = name.encode()
    except UnicodeEncodeError:  # no UTF-8: tarfile has put surrogates there
        return False
    parts = name.split("/")
    return name.isprintable() and len(raw) <= _PATH_BYTES and all(len(part.encode()) <= _NAME_BYTES for part in parts)


class _Header(tarfile.TarInfo):
    """A member's header, looked at before what it announces is read."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _IN_FRONT and header.size > _HEADER_BYTES:
            raise UnsafeArchive(f"a header in it says that it has {header.size} bytes")
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise UnsafeArchive(_SPARSE)
        return header

    # Of its newer forms, which stand in front of a member, tarfile would read as long a list of numbers as there is.
    def _proc_gnusparse_00(self, *_: object) -> None:
        raise UnsafeArchive(_SPARSE)

    _proc_gnusparse_01 = _proc_gnusparse_10 = _proc_gnusparse_00


class _Bounded:
    """What comes out of an archive, up to a limit; unpacked step by step, so that nothing is unpacked beyond it."""

    def __init__(self, unpacked: gzip.GzipFile, most_bytes: int) -> None:
        self._unpacked: BinaryIO = unpacked  # type: ignore[assignment]
        self._most_bytes = most_bytes

    def read(self, size: int) -> bytes:
        data = self._unpacked.read(min(size, self._most_bytes + 1))
        self._look()
        return data

    def seek(self, position: int) -> int:
        while (at := self._unpacked.tell()) < position:
            if not self._unpacked.read(min(_STEP_BYTES, position - at)):
                return at
            self._look()
        return self._unpacked.seek(position)

    def tell(self) -> int:
        return self._unpacked.tell()

    def _look(self) -> None:
        if self._unpacked.tell() > self._most_bytes:
            raise UnsafeArchive(f"more than {self._most_bytes >> 20} MiB are packed in it, which is too much for its size")
