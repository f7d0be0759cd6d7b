"""An HTTP answer from a stranger's server, read within bounds. Runs in the fetch process.

What the server may cost beside its body is bounded as well: heads without an end, floods of `100 Continue`, chunks of a byte.
"""

from __future__ import annotations

import io
import socket
from http.client import HTTPException, HTTPResponse
from typing import TYPE_CHECKING

from multigpu_inference.url_fetch.guard import UrlRefused

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_MAX_OVERHEAD_BYTES = 1 << 16  # all that is no body: heads, and the frames of chunks
_MAX_OVERHEAD_PART = 8  # of a body, one part in so many more
_CHUNK_BYTES = 1 << 16


class _Counted(io.RawIOBase):
    """What a socket receives, counted, until there is more than is allowed."""

    def __init__(self, opened: socket.socket) -> None:
        self._opened = opened
        self._left = _MAX_OVERHEAD_BYTES

    def readable(self) -> bool:
        return True

    def allow(self, count: int) -> None:
        self._left += count

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        if self._left < 0:
            raise HTTPException("more than a head may have, or frames that are larger than what is in them")
        count = self._opened.recv_into(buffer)
        self._left -= count
        return count


class Response:
    """The answer to one GET.

    Attributes:
        status: HTTP's.
        location: Where a redirect leads; None where it is none.
        announced: Bytes that the body will have; None where the server does not say.
    """

    def __init__(self, opened: socket.socket) -> None:
        """Read the head.

        Raises:
            UrlRefused: it says things that were not asked for.
            HTTPException, OSError: it is no HTTP, or does not come.
        """
        self._wire = _Counted(opened)
        self._answer = HTTPResponse(_Socket(io.BufferedReader(self._wire)), method="GET")  # type: ignore[arg-type]
        self._answer.begin()
        self.status = self._answer.status
        self.location = self._location() if self.status in (301, 302, 303, 307, 308) else None
        # Identity alone was asked for, so that nothing can be inflated here or by whoever reads the body.
        if self.status == 200:
            for name, allowed in (("Content-Encoding", "identity"), ("Transfer-Encoding", "chunked")):
                if any(value.strip().lower() not in ("", allowed) for value in self._answer.headers.get_all(name, [])):
                    raise UrlRefused(f"a {name} that was not asked for")
        self.announced = None if self._answer.chunked else self._answer.length
        self._taken = 0

    def read(self) -> bytes:
        """What has come of the body, as soon as there is some; b"" at its end.

        Raises:
            HTTPException, OSError: it breaks off.
        """
        # Counted here: `read1` of some versions of Python goes on after the announced end.
        left = None if self.announced is None else self.announced - self._taken
        if left == 0:
            return b""
        came = self._answer.read1(_CHUNK_BYTES if left is None else min(_CHUNK_BYTES, left))
        if not came and left:
            raise HTTPException(f"{left} bytes are missing")
        self._taken += len(came)
        self._wire.allow(len(came) + len(came) // _MAX_OVERHEAD_PART)
        return came

    def _location(self) -> str | None:
        """The Location header as text: what is not ASCII in it was sent as UTF-8 and read as Latin-1."""
        location = self._answer.headers.get("Location")
        try:
            return location.strip().encode("latin-1").decode() if location else None
        except UnicodeError:
            raise UrlRefused("a redirect to what is no text") from None


class _Socket:
    """As much of a socket as `HTTPResponse` asks for."""

    def __init__(self, reader: io.BufferedReader) -> None:
        self._reader = reader

    def makefile(self, _mode: str) -> io.BufferedReader:
        return self._reader
