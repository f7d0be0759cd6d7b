"""A front-end worker's connection to the engine: one request at a time.

Stands between `handler_service` and the engine's socket and runs in every front-end worker. The connection is made with the
first request, so after the fork; one made in the parent would be shared by all workers.
"""

from __future__ import annotations

import time

from multigpu_inference.errors import DeadlineExceeded, Unavailable
from multigpu_inference.ipc import Blob, FrameError, FrameSocket
from multigpu_inference.messages import Answer, Invocation

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

    def invoke(self, invocation: Invocation, body: Blob) -> tuple[Answer, bytes | bytearray]:
        """Hand over one request and wait for its answer, of whatever status.

        Raises:
            DeadlineExceeded: No answer in time. The connection is dropped: its late answer must not meet the next request.
            Unavailable: Nothing listens, or two connections ended without an answer.
        """
        for _ in range(_ATTEMPTS):
            connection = self._connect(invocation)
            try:
                return self._exchange(connection, invocation, body)
            except TimeoutError:
                self.close()
                raise DeadlineExceeded from None
            except (EOFError, OSError):
                self.close()
            except BaseException:
                self.close()  # whatever it was, half a frame may be left in it
                raise
        raise Unavailable

    def close(self) -> None:
        """Drop the connection; the next request makes a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self, invocation: Invocation) -> FrameSocket:
        if self._connection is None:
            try:
                self._connection = FrameSocket.connect(self._path, self._time_left(invocation))
            except TimeoutError:
                raise DeadlineExceeded from None
            except OSError:
                raise Unavailable from None
        return self._connection

    def _exchange(self, connection: FrameSocket, invocation: Invocation, body: Blob) -> tuple[Answer, bytes | bytearray]:
        connection.settimeout(self._time_left(invocation))
        connection.send(invocation, [body])
        connection.settimeout(self._time_left(invocation))
        answer, blobs = connection.receive()
        if not isinstance(answer, Answer) or answer.request_id != invocation.request_id or len(blobs) != 1:
            raise FrameError("the engine answered something else")
        return answer, blobs[0]

    def _time_left(self, invocation: Invocation) -> float:
        """Seconds to wait at most. Never 0, which would make the socket a non-blocking one."""
        return max(0.001, invocation.deadline + self._grace_s - time.monotonic())
