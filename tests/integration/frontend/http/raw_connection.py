"""A client that sends the bytes it is told to, and reads answers one by one."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from dataclasses import dataclass
from email.message import Message
from typing import Any


@dataclass(frozen=True)
class RawAnswer:
    """One answer as it came."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class RawConnection:
    """A connection to a front end."""

    def __init__(self, port: int, timeout_s: float = 10.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self._reader = self.socket.makefile("rb")

    def __enter__(self) -> RawConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, *pieces: bytes) -> RawConnection:
        for piece in pieces:
            self.socket.sendall(piece)
        return self

    def ask(self, *pieces: bytes) -> RawAnswer:
        """Send, and read one answer."""
        return self.send(*pieces).answer()

    def answer(self, *, has_body: bool = True) -> RawAnswer:
        """The next answer; `ConnectionError` where the other side closes before it is whole."""
        status, headers = self.head()
        if not has_body or status < 200:
            return RawAnswer(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            chunks = []
            while chunk := self.chunk():
                chunks.append(chunk)
            return RawAnswer(status, headers, b"".join(chunks))
        return RawAnswer(status, headers, self.read(int(headers["content-length"])))

    def head(self) -> tuple[int, Message]:
        """Status and headers of the next answer."""
        line = self._line().split(b" ", 2)
        assert line[0] == b"HTTP/1.1", line
        return int(line[1]), http.client.parse_headers(self._reader)

    def chunk(self) -> bytes:
        """The next chunk of an answer's body; empty behind the last."""
        size = int(self._line(), 16)
        data = self.read(size)
        assert self._line() == b"\r\n"
        return data

    def read(self, size: int) -> bytes:
        data = self._reader.read(size)
        if len(data) < size:
            raise ConnectionError(f"closed after {len(data)} of {size} bytes")
        return data

    def is_closed(self, within_s: float) -> bool:
        """Whether the other side closes it, with nothing more to say."""
        self.socket.settimeout(within_s)
        try:
            return self._reader.read(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._reader.close()
        self.socket.close()

    def _line(self) -> bytes:
        line = self._reader.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("closed where an answer was to come")
        return line


def request(
    content_type: str = "test/echo", body: bytes = b"", *, method: str = "POST", path: str = "/invocations", **headers: str
) -> bytes:
    """A request's bytes; names of headers with underscores for hyphens."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
