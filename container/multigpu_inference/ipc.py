"""Frames over Unix sockets: one message and its blobs, in both directions.

A frame is `length of the message, number of blobs`, the length of each blob, the pickled message, the blobs. Only
processes of our own hold these sockets (a socketpair passed at the start, or a socket file in a folder of mode 0700),
so a message may be unpickled; blobs are passed on unopened.

`FrameSocket` blocks and is what workers use, `FrameStream` is its asyncio twin in the engine.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
from collections.abc import Sequence
from typing import TypeAlias

from multigpu_inference.messages import Message

Blob: TypeAlias = bytes | bytearray | memoryview

MAX_MESSAGE_BYTES = 64 << 20
MAX_BLOB_BYTES = 4 << 30
MAX_BLOBS = 65_535
_HEAD = struct.Struct("!IH")


class FrameError(ConnectionError):
    """The other side sent what is no frame of ours; the connection is of no further use."""


class FrameTooLarge(ValueError):
    """More or larger blobs than a frame holds. Nothing has been sent; the connection is as good as before."""


def check_frame(blobs: Sequence[Blob]) -> list[int]:
    """The lengths of blobs, in bytes; `FrameTooLarge` where no frame can hold them."""
    sizes = [memoryview(blob).nbytes for blob in blobs]
    if len(sizes) > MAX_BLOBS or any(size > MAX_BLOB_BYTES for size in sizes):
        raise FrameTooLarge(f"{len(sizes)} blobs of up to {max(sizes)} bytes are too many or too large")
    return sizes


def _pack(message: Message, blobs: Sequence[Blob]) -> bytes:
    """Everything of a frame that stands before its blobs."""
    body = pickle.dumps(message, protocol=5)
    sizes = check_frame(blobs)
    return _HEAD.pack(len(body), len(blobs)) + struct.pack(f"!{len(blobs)}Q", *sizes) + body


def _unpack_sizes(raw: bytes | bytearray) -> tuple[int, ...]:
    sizes: tuple[int, ...] = struct.unpack(f"!{len(raw) // 8}Q", raw)
    if any(size > MAX_BLOB_BYTES for size in sizes):
        raise FrameError(f"a blob of {max(sizes)} bytes is over the limit of {MAX_BLOB_BYTES}")
    return sizes


def _unpack_head(raw: bytes | bytearray) -> tuple[int, int]:
    length, count = _HEAD.unpack(raw)
    if length > MAX_MESSAGE_BYTES:
        raise FrameError(f"a message of {length} bytes is over the limit of {MAX_MESSAGE_BYTES}")
    return length, count


class FrameSocket:
    """A blocking end of a frame connection. One thread at a time may send, one may receive."""

    def __init__(self, sock: socket.socket) -> None:
        """Take over a connected stream socket."""
        self._sock = sock

    @classmethod
    def connect(cls, path: str, timeout_s: float) -> FrameSocket:
        """Connect to a socket file; `OSError` where nothing listens there within `timeout_s`."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout_s)
            sock.connect(path)
        except OSError:
            sock.close()
            raise
        return cls(sock)

    def settimeout(self, timeout_s: float | None) -> None:
        """Seconds that each wait on the socket may take; None: for ever."""
        self._sock.settimeout(timeout_s)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._sock.fileno()

    def send(self, message: Message, blobs: Sequence[Blob] = ()) -> None:
        """Send one frame; `OSError` where the other side has gone, `FrameTooLarge` where it cannot be sent."""
        self._sock.sendall(_pack(message, blobs))
        for blob in blobs:
            self._sock.sendall(blob)

    def receive(self) -> tuple[Message, list[bytearray]]:
        """Wait for one frame; `EOFError` where the other side closed between frames, `OSError` within one.

        Blobs are byte arrays, so that a tensor made over one can be written to.
        """
        length, count = _unpack_head(self._read(_HEAD.size, at_start=True))
        sizes = _unpack_sizes(self._read(8 * count))
        message = pickle.loads(self._read(length))
        return message, [self._read(size) for size in sizes]

    def close(self) -> None:
        """Close; the other side sees the end of the stream."""
        self._sock.close()

    def _read(self, size: int, *, at_start: bool = False) -> bytearray:
        data = bytearray(size)
        rest = memoryview(data)
        while rest:
            count = self._sock.recv_into(rest)
            if count == 0:
                if at_start and len(rest) == size:
                    raise EOFError
                raise FrameError("the connection ended within a frame")
            rest = rest[count:]
        return data


class FrameStream:
    """The asyncio end of a frame connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take over a connected pair of streams."""
        self._reader = reader
        self._writer = writer

    @classmethod
    async def from_socket(cls, sock: socket.socket) -> FrameStream:
        """Take over a connected stream socket."""
        return cls(*await asyncio.open_unix_connection(sock=sock))

    async def send(self, message: Message, blobs: Sequence[Blob] = ()) -> None:
        """Send one frame; `OSError` where the other side has gone.

        All of a frame is handed to the transport before the first wait, so frames of several senders do not mix, and a
        sender that is cancelled leaves none cut short.
        """
        self._writer.write(_pack(message, blobs))
        for blob in blobs:
            self._writer.write(blob)
        await self._writer.drain()

    async def receive(self) -> tuple[Message, list[bytes]]:
        """Wait for one frame; `EOFError` where the other side has gone, between frames or within one."""
        length, count = _unpack_head(await self._reader.readexactly(_HEAD.size))
        sizes = _unpack_sizes(await self._reader.readexactly(8 * count))
        message = pickle.loads(await self._reader.readexactly(length))
        return message, [await self._reader.readexactly(size) for size in sizes]

    def close(self) -> None:
        """Close without waiting for what is still buffered to be read."""
        self._writer.close()
