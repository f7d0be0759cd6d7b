"""Frames over Unix sockets: one message and its blobs in one packet, in both directions.

A packet is a pickled `(message, blobs)`; sockets are of the kind that keeps packets apart (`SOCK_SEQPACKET`), so a frame is
sent and received by one system call, whole or not at all. A blob is bytes, or a `Slice` of the arena that the message
names: large bytes are not sent at all (`arena`). What is too large for a packet and has no arena goes through a memory file
made for it. Only processes of our own hold these sockets (a socketpair passed at the start, or a socket file in a folder of
mode 0700). In some of them user code runs, which may write what it likes into its socket: a frame is unpickled into plain
data and the classes of `messages`, and into nothing else.

`FrameSocket` blocks and is what workers use, `FrameStream` is its asyncio twin in the engine and the supervisor.
"""

from __future__ import annotations

import array
import asyncio
import io
import mmap
import os
import pickle
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from multigpu_inference.messages import Message, maker, makers

# More than this in one packet goes through a memory file. A socket takes at least 200 KB under Linux's default limits.
MAX_PACKET_BYTES = 128 << 10
_FLUSH_LOOK_S = 0.005
_FRAME, _SPILLED = b"f", b"s"
# Plain numbers: an enumeration's operators cost a microsecond each.
_BYTES_CUT_OFF, _DESCRIPTORS_CUT_OFF = int(socket.MSG_TRUNC), int(socket.MSG_CTRUNC)
_CLOSE_ON_EXEC = int(socket.MSG_CMSG_CLOEXEC)
_DESCRIPTORS_BYTES = socket.CMSG_SPACE(4)  # one descriptor


class Slice(NamedTuple):
    """Bytes in the arena of the request, by where they stand."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        """Where the next bytes may stand."""
        return self.offset + self.length

    def __reduce__(self) -> tuple[Any, ...]:
        """As a message is pickled: by a call, not by the class itself (`messages.maker`)."""
        return Slice, (self.offset, self.length)


makers[Slice.__module__, Slice.__name__] = maker(Slice)

Buffer: TypeAlias = bytes | bytearray | memoryview
Blob: TypeAlias = Buffer | Slice


def size_of(blob: Blob) -> int:
    """The length of a blob in bytes."""
    return blob.length if isinstance(blob, Slice) else memoryview(blob).nbytes


class FrameError(ConnectionError):
    """The other side sent what is no frame of ours; the connection is of no further use."""


class Descriptor:
    """A file descriptor that came with a frame; closed with this object unless it is taken."""

    def __init__(self, number: int) -> None:
        """Own a descriptor."""
        self._number = number

    def take(self) -> int:
        """The descriptor, which is the caller's to close from now on."""
        number, self._number = self._number, -1
        return number

    def __del__(self) -> None:
        """Close it if nobody took it."""
        if self._number >= 0:
            os.close(self._number)


class Packet(NamedTuple):
    """What one system call sends: bytes, and perhaps a descriptor."""

    data: bytes
    descriptor: int | None
    spilled: bool  # the descriptor is a memory file of ours, to be closed when it has been sent

    def send(self, sock: socket.socket) -> None:
        """Send it whole; `OSError` where that is not possible now or at all."""
        if self.descriptor is None:
            sock.send(self.data)
            return
        rights = array.array("i", [self.descriptor])
        sock.sendmsg([self.data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

    def close(self) -> None:
        """Give back what was made for sending it."""
        if self.spilled and self.descriptor is not None:
            os.close(self.descriptor)


def pack(message: Message, blobs: Sequence[Blob] = (), descriptor: int | None = None) -> Packet:
    """Make a frame's packet. Byte arrays arrive as such, so that a tensor made over one can be written to."""
    parts = [blob if isinstance(blob, Slice | bytearray) else bytearray(blob) for blob in blobs]
    data = pickle.dumps((message, parts), protocol=5)
    if len(data) < MAX_PACKET_BYTES:
        return Packet(_FRAME + data, descriptor, spilled=False)
    if descriptor is not None:
        raise ValueError("a frame with a descriptor must fit a packet")
    memory = os.memfd_create("multigpu-frame")
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(data)
    except BaseException:
        os.close(memory)
        raise
    return Packet(_SPILLED, memory, spilled=True)


def _unpack(data: memoryview, ancillary: Sequence[tuple[int, int, bytes]], flags: int) -> tuple[Message, list[Any]]:
    """A frame out of a packet; a descriptor that came with it is its last blob.

    Where this process has none left for it, the frame comes without: what it says, and the connection, are as good as ever.
    """
    descriptors = [Descriptor(number) for _, _, raw in ancillary for number in array.array("i", raw[: len(raw) // 4 * 4])]
    if flags & _BYTES_CUT_OFF or (flags & _DESCRIPTORS_CUT_OFF and descriptors):
        raise FrameError("a packet was cut off")
    try:
        if data[:1] == _SPILLED:
            return _read_spilled(descriptors.pop())
        if data[:1] != _FRAME:
            raise ValueError("no frame")
        message, blobs = _Unpickler(io.BytesIO(data[1:])).load()
    except Exception as error:
        raise FrameError(f"what came is no frame of ours ({type(error).__name__})") from error
    return message, [*blobs, *descriptors]


def _read_spilled(descriptor: Descriptor) -> tuple[Message, list[Any]]:
    number = descriptor.take()
    try:
        with mmap.mmap(number, 0, prot=mmap.PROT_READ) as memory:
            message, blobs = _Unpickler(memory).load()
            return message, blobs
    finally:
        os.close(number)


class _Unpickler(pickle.Unpickler):
    """Makes messages and plain data, whatever a pickle asks for."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return makers[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is no message") from None


class _Receiver:
    """Receives packets into a buffer of its own: one made for each would be memory faulted in anew each time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = memoryview(bytearray(MAX_PACKET_BYTES + 1))

    def receive(self) -> tuple[Message, list[Any]]:
        """The next frame; `EOFError` where the other side has closed, `OSError` as the socket's."""
        try:
            length, ancillary, flags, _ = self._take()
        except ConnectionResetError:
            # It closed with something of ours unread there. Linux says so once, before what it had sent is read.
            length, ancillary, flags, _ = self._take()
        if length == 0:
            raise EOFError
        return _unpack(self._buffer[:length], ancillary, flags)

    def _take(self) -> Any:
        return self._sock.recvmsg_into([self._buffer], _DESCRIPTORS_BYTES, _CLOSE_ON_EXEC)


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class FrameSocket:
    """A blocking end of a frame connection. One thread at a time may send, one may receive."""

    def __init__(self, sock: socket.socket) -> None:
        """Take over a connected socket."""
        self._sock = sock
        self._receiver = _Receiver(sock)

    @classmethod
    def connect(cls, path: str, timeout_s: float) -> FrameSocket:
        """Connect to a socket file; `OSError` where nothing listens there within `timeout_s`."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
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

    def send(self, message: Message, blobs: Sequence[Blob] = (), descriptor: int | None = None) -> None:
        """Send one frame; `OSError` where the other side has gone."""
        packet = pack(message, blobs, descriptor)
        try:
            packet.send(self._sock)
        finally:
            packet.close()

    def receive(self) -> tuple[Message, list[Any]]:
        """Wait for one frame; `EOFError` where the other side has closed, `OSError` where that failed."""
        return self._receiver.receive()

    def close(self) -> None:
        """Close; the other side sees the end of the stream."""
        self._sock.close()


class FrameStream:
    """The asyncio end of a frame connection. Made within a running loop."""

    def __init__(self, sock: socket.socket) -> None:
        """Take over a connected socket."""
        sock.setblocking(False)
        self._sock = sock
        self._receiver = _Receiver(sock)
        self._loop = asyncio.get_running_loop()
        self._frames = deque[tuple[Message, list[Any]]]()
        self._deliver: Callable[[Message, list[Any]], None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._ended: Exception | None = None
        self._unsent = deque[Packet]()
        self._loop.add_reader(sock, self._on_readable)

    def send(self, message: Message, blobs: Sequence[Blob] = (), descriptor: int | None = None) -> None:
        """Send one frame, at once or as soon as the other side has room; `OSError` where it has gone.

        What is not sent at once waits here, bounded by what a protocol lets be in flight.
        """
        if self._sock.fileno() < 0:
            raise BrokenPipeError("the connection is closed")
        packet = pack(message, blobs, descriptor)
        if self._unsent or not self._try_to_send(packet):
            if packet.descriptor is not None and not packet.spilled:
                packet = Packet(packet.data, os.dup(packet.descriptor), spilled=True)  # who gave it may close it meanwhile
            self._unsent.append(packet)
            self._loop.add_writer(self._sock, self._on_writable)

    async def receive(self) -> tuple[Message, list[Any]]:
        """Wait for one frame; `EOFError` where the other side has gone or this one was closed, `OSError` where that failed."""
        while not self._frames:
            if self._ended is not None:
                raise self._ended
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._frames.popleft()

    async def deliver(self, take: Callable[[Message, list[Any]], None]) -> None:
        """Hand every frame to `take` as it comes, and wait for the end, which is raised as `receive` does.

        Cheaper than a loop of `receive`, which wakes a task for each frame. An error of `take` is the end, too.
        """
        while self._frames:
            take(*self._frames.popleft())
        self._deliver = take
        try:
            await self.receive()
        finally:
            self._deliver = None

    async def flush(self) -> None:
        """Wait until everything has been sent, or the other side has gone."""
        while self._unsent and self._ended is None:
            await asyncio.sleep(_FLUSH_LOOK_S)

    def close(self) -> None:
        """Close at once; what is unsent stays so. Whoever waits for a frame gets `EOFError`."""
        if self._sock.fileno() < 0:
            return
        self._stop_reading(EOFError())
        self._loop.remove_writer(self._sock)
        for packet in self._unsent:
            packet.close()
        self._unsent.clear()
        self._sock.close()

    def _on_readable(self) -> None:
        try:
            frame = self._receiver.receive()
            if self._deliver is not None:
                self._deliver(*frame)
                return
            self._frames.append(frame)
        except (BlockingIOError, InterruptedError):
            return
        except Exception as error:
            self._stop_reading(error)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _stop_reading(self, error: Exception) -> None:
        self._ended = self._ended or error
        self._loop.remove_reader(self._sock)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _try_to_send(self, packet: Packet) -> bool:
        try:
            packet.send(self._sock)
        except (BlockingIOError, InterruptedError):
            return False
        except BaseException:
            packet.close()
            raise
        packet.close()
        return True

    def _on_writable(self) -> None:
        try:
            while self._unsent and self._try_to_send(self._unsent[0]):
                self._unsent.popleft()
        except OSError as error:  # it has gone, or it cannot be reached any more
            self._unsent.popleft()
            for packet in self._unsent:
                packet.close()
            self._unsent.clear()
            self._stop_reading(error)
        if not self._unsent:
            self._loop.remove_writer(self._sock)
