"""Asks multi-model-server's own `/ping`, over one connection that is kept: it answers that by itself, so silence is a hang.

The connection is made while there is room. What fills the listener's queue, or takes the last descriptor, is in its way no more
than in that of other clients that are there already; and where it is lost, a new one is tried.
"""

from __future__ import annotations

import asyncio
import contextlib

_LIMIT_S = 3.0
_LONGEST_ANSWER = 1 << 16


class FrontEndPing:
    """Asks the server of a port of this machine."""

    def __init__(self, port: int, limit_s: float = _LIMIT_S) -> None:
        """Ask nothing yet.

        Args:
            port: Where it listens.
            limit_s: How long an answer may take.
        """
        self._port = port
        self._limit_s = limit_s
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def answers(self) -> bool:
        """Ask once; whether there was an answer in time, whatever it says. Where there was none, the connection is given up."""
        try:
            async with asyncio.timeout(self._limit_s):
                if self._streams is None:
                    self._streams = await asyncio.open_connection("127.0.0.1", self._port)
                await self._ask(*self._streams)
            return True
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):  # `TimeoutError` is an `OSError`
            self.close()
            return False

    def close(self) -> None:
        """Give the connection up."""
        if self._streams is not None:
            with contextlib.suppress(OSError):
                self._streams[1].transport.abort()
        self._streams = None

    @staticmethod
    async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line.split(b":", 1)[1] for line in head.lower().splitlines() if line.startswith(b"content-length:")]
        length = int(lengths[0]) if lengths else 0
        if not head.startswith(b"HTTP/1.1 ") or not 0 <= length <= _LONGEST_ANSWER:
            raise ValueError
        await reader.readexactly(length)
