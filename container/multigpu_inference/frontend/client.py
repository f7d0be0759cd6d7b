"""A front-end worker's connection to the engine, and the arena of its requests: one request at a time.

Stands between `handler_service` and the engine's socket and runs in every front-end worker. The connection is made with the
first request, so after the fork; one made in the parent would be shared by all workers. So is the arena: it is made anew when
the engine says that something may still write to it, and with a new connection, whose other side knows nothing of it.
"""

from __future__ import annotations

import itertools
import time

from multigpu_inference.arena import INLINE_BYTES, Arena
from multigpu_inference.errors import DeadlineExceeded, Exhausted, Unavailable
from multigpu_inference.ipc import Blob, Buffer, FrameError, FrameSocket, Slice
from multigpu_inference.messages import Answer, ArenaOpened, Invocation

# A connection that ends without an answer is replaced once: inference can be repeated, and an engine that was replaced
# between two requests shows itself only when the next one is sent.
_ATTEMPTS = 2


class EngineClient:
    """Asks the engine and waits for its answer.

    Args:
        path: The engine's socket file.
        grace_s: How long after the deadline an answer is still waited for, so that the engine's own 504 comes first.
    """

    def __init__(self, path: str, grace_s: float) -> None:
        """Remember the path; nothing is connected yet."""
        self._path = path
        self._grace_s = grace_s
        self._connection: FrameSocket | None = None
        self._own_arena: Arena | None = None
        self._received: memoryview | None = None  # a body that was received right into the arena
        self._numbers = itertools.count()
        self._number = -1  # by which this connection's engine knows the arena; -1 where it does not

    def body_buffer(self, length: int) -> memoryview | bytearray:
        """Where to receive a body of this length: the first large one of a request, handed to `invoke`, is not copied again."""
        if length <= INLINE_BYTES or self._received is not None:
            return bytearray(length)
        try:
            self._received = self._arena.buffer(0, length)
        except OSError:  # no memory or descriptor for it: the body must be taken in all the same, and `invoke` says so
            return bytearray(length)
        return self._received

    def invoke(self, invocation: Invocation, body: Buffer) -> tuple[Answer, bytes | bytearray]:
        """Hand over one request and wait for its answer, of whatever status.

        Raises:
            DeadlineExceeded: No answer in time. The connection is dropped: its late answer must not meet the next request.
            Unavailable: Nothing listens, or two connections ended without an answer.
            Exhausted: There is no memory for the body.
        """
        for _ in range(_ATTEMPTS):
            connection = self._connect(invocation)
            try:
                return self._exchange(connection, invocation, body)
            except TimeoutError:
                self.close()
                raise DeadlineExceeded from None
            except (EOFError, OSError):
                body = bytes(body)  # what served the last connection may still use its arena
                self.close()
            except BaseException:
                self.close()  # whatever it was, an answer may be left in it
                raise
        raise Unavailable

    def forget_body(self) -> None:
        """The request is over: the next one's body may be received where this one's was."""
        self._received = None

    def close(self) -> None:
        """Drop the connection, and the arena with it; the next request makes new ones."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._renew_arena()

    def _connect(self, invocation: Invocation) -> FrameSocket:
        if self._connection is None:
            try:
                self._connection = FrameSocket.connect(self._path, self._time_left(invocation))
            except TimeoutError:
                raise DeadlineExceeded from None
            except OSError:
                raise Unavailable from None
        return self._connection

    def _exchange(self, connection: FrameSocket, invocation: Invocation, body: Buffer) -> tuple[Answer, bytes | bytearray]:
        connection.settimeout(self._time_left(invocation))
        blob = self._place(body)
        if self._number < 0:
            self._number = next(self._numbers)
            connection.send(ArenaOpened(self._number), descriptor=self._arena.fileno())
        invocation.arena = self._number
        connection.send(invocation, [blob])
        connection.settimeout(self._time_left(invocation))
        answer, blobs = connection.receive()
        if not isinstance(answer, Answer) or answer.request_id != invocation.request_id or len(blobs) != 1:
            raise FrameError("the engine answered something else")
        answer_body = blobs[0] if isinstance(blobs[0], bytearray) else self._arena.read(blobs[0])
        if answer.arena_is_free:
            self._arena.release(answer.arena_used)
        else:
            self._renew_arena()
        return answer, answer_body

    def _place(self, body: Buffer) -> Blob:
        """What stands for a body in a frame; one that was received into the arena is there already."""
        if body is self._received:
            return Slice(0, len(body))
        try:
            return self._arena.write([body], 0)[0]
        except OSError:
            raise Exhausted from None

    @property
    def _arena(self) -> Arena:
        if self._own_arena is None:
            self._own_arena = Arena.create()
        return self._own_arena

    def _renew_arena(self) -> None:
        self._own_arena = None
        self._received = None
        self._number = -1

    def _time_left(self, invocation: Invocation) -> float:
        """Seconds to wait at most. Never 0, which would make the socket a non-blocking one."""
        return max(0.001, invocation.deadline + self._grace_s - time.monotonic())
